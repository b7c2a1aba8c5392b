"""Explanations in kube-scheduler's words, on small clusters and on the recorded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import cluster, node, spread, vmi

from rebalancer.domain.node import HOSTNAME, Condition, Node
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Survey, receiver_problem, survey
from rebalancer.policy.nearest import nearest
from rebalancer.policy.target import target_guard, target_pod

RECORDED = Path(__file__).parents[1] / "data" / "kubevirt-12x130.json.gz"


@pytest.fixture(scope="module")
def recorded() -> Snapshot:
    return read_dump(RECORDED)


def explained(snapshot: Snapshot, name: str) -> tuple[Survey, str]:
    """All verdicts on a VM's target pod, and what would help."""
    state = ClusterState.of(snapshot)
    one = snapshot.vmis[name]
    source = state.active_pods[name]
    assert snapshot.kubevirt is not None
    pod = target_pod(one, source, snapshot.nodes[one.node], snapshot.kubevirt)
    guard = target_guard(one, snapshot.nodes[one.node])
    found = survey(state, pod, guard)
    return found, nearest(state, pod, found, guard)


@pytest.mark.parametrize(
    ("name", "feasible", "why_not"),
    [
        (
            "bank/db-0-1",
            ("w-06", "w-07", "w-08", "w-09", "w-10"),
            "1 node(s) were unschedulable, 4 node(s) had untolerated taint(s), 5 Insufficient cpu",
        ),
        (
            "hr/vm-031",
            ("w-02", "w-05", "w-06", "w-07", "w-08", "w-09", "w-10"),
            "1 node(s) were unschedulable, 3 Insufficient cpu, 4 node(s) had untolerated taint(s)",
        ),
    ],
)
def test_on_the_recorded_cluster(recorded: Snapshot, name: str, feasible: tuple[str, ...], why_not: str) -> None:
    found, hint = explained(recorded, name)
    assert found.feasible == feasible
    assert found.counted() == why_not
    assert found.message() == hint == "", "the scheduler has nothing to say where a node fits"


def test_every_recorded_vm_is_refused_where_it_runs(recorded: Snapshot) -> None:
    """By the anti-affinity to its own source pod at the latest."""
    state = ClusterState.of(recorded)
    assert recorded.kubevirt is not None
    for name, one in recorded.vmis.items():
        pod = target_pod(one, state.active_pods[name], recorded.nodes[one.node], recorded.kubevirt)
        assert one.node not in survey(state, pod).feasible, name


def test_message_counts_each_reason_and_sorts_them_as_text() -> None:
    nodes = [node(f"n{number:02}", cpu=1) for number in range(11)]
    found, _ = explained(
        cluster(*nodes, node("home"), node("w", cordoned=True), vmi("db", on="home", cpu=2)), "default/db"
    )
    assert found.message() == (
        "0/13 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 1 node(s) were unschedulable, "
        "11 Insufficient cpu."
    )


HOME = node("home", cpu=8)


@pytest.mark.parametrize(
    ("others", "fields", "hint"),
    [
        ((), {}, ""),
        ((node("n", cpu=1),), {}, "Nearest is n: it would do if it had 1000m CPU more."),
        (
            (node("n", cpu=3, memory=2), vmi("guest", on="n", cpu=2, memory=1.5)),
            {},
            "Nearest is n: it would do if 1000m CPU more were free there and 512 MiB of memory more were free there.",
        ),
        ((node("n", cordoned=True),), {}, "Nearest is n: it would do if it were uncordoned."),
        (
            (node("n", taints=("reserved=gpu:NoSchedule", "old:NoExecute")),),
            {},
            "Nearest is n: it would do if its taint reserved=gpu:NoSchedule were tolerated "
            "and its taint old:NoExecute were tolerated.",
        ),
        ((node("n"),), {"select": {"tier": "gold"}}, "Nearest is n: it would do if it had the label tier=gold."),
        (
            (node("n"), vmi("twin", on="n", labels={"app": "db"})),
            {"apart_from": {"app": "db"}},
            "Nearest is n: it would do if default/twin left it.",
        ),
        (
            (node("n"), vmi("twin", on="n", apart_from={"app": "db"})),
            {"labels": {"app": "db"}},
            "Nearest is n: it would do if default/twin left it.",
        ),
        (
            (node("n", ready=False),),
            {},
            'Nearest is n: it would do if this did not hold of it: "node(s) were not ready".',
        ),
        (
            (node("a", labels={"tier": "gold"}, cpu=1), node("b", labels={"tier": "gold"}, cordoned=True), node("c")),
            {"select": {"tier": "gold"}},
            "Nearest is b: it would do if it were uncordoned.",
        ),
        (
            (
                node("n", zone="a"),
                vmi("twin", on="n", labels={"app": "db"}),
                vmi("triplet", on="n", labels={"app": "db"}),
            ),
            {"labels": {"app": "db"}, "spread_by": (spread({"app": "db"}),)},
            "Nearest is n: it would do if its topology domain held fewer VMs of the group.",
        ),
    ],
    ids=[
        "nowhere to go",
        "too small",
        "no room",
        "cordoned",
        "tainted",
        "label",
        "apart",
        "kept away",
        "not ready",
        "nearest",
        "spread",
    ],
)
def test_what_would_have_to_change(others: tuple[Any, ...], fields: dict[str, Any], hint: str) -> None:
    home = node("home", zone="b") if "spread_by" in fields else HOME
    found, said = explained(cluster(home, *others, vmi("db", on="home", cpu=2, **fields)), "default/db")
    assert not found.feasible
    assert said == hint


UNNAMED = "node(s) had no label kubernetes.io/hostname by which to send a VM there"


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (node("n"), None),
        (node("n", ready=False), "node(s) were not ready"),
        (node("n", cordoned=True), "node(s) were cordoned"),
        (node("n", deleting=True), "node(s) were being deleted"),
        (node("n", capacity_known=False), "node(s) had an unreadable capacity"),
        *((node("n", labels={HOSTNAME: name}), UNNAMED) for name in ("", "n" * 64, "a b")),
    ],
)
def test_receivers(one: Node, problem: str | None) -> None:
    assert receiver_problem(one) == problem


@pytest.mark.parametrize("kind", ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"])
def test_a_node_under_pressure_receives_nothing(kind: str) -> None:
    well = node("n")
    conditions = type(well.conditions)({**well.conditions, kind: Condition(status="True")})
    assert receiver_problem(Node(name="n", conditions=conditions)) == f"node(s) had {kind}"
    assert receiver_problem(Node(name="n")) == "node(s) were not ready"
