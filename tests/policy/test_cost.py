"""What a question costs grows with what it is about, not with the cluster: counted in calls, and not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec

import pytest
from builders import ZONE, cluster, node, spread, term, vmi

from rebalancer.domain.pod import Affinity, Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import feasible_nodes
from rebalancer.policy.target import TargetGuard, target_guard, target_pod

P = ParamSpec("P")
DB = {"app": "db"}
RULES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "label": {"select": {"tier": "gold"}},
    "apart": {"apart_from": DB, "labels": DB},
    "zone": {"affinity": Affinity(pod_required=(term(DB, ZONE),)), "labels": DB},
    "spread": {"spread_by": (spread(DB),), "labels": DB},
}


def of_size(nodes: int, vms: int, **rules: Any) -> Snapshot:
    """One VM with these rules, among many without and twelve others of its group."""
    there = [node(f"n{number}", zone=f"z{number % 3}", labels={"tier": "gold"}) for number in range(nodes)]
    others = [vmi(f"vm-{number}", on=f"n{number % nodes}", cpu=0.1) for number in range(vms)]
    mates = [vmi(f"mate-{number}", on=f"n{number}", cpu=0.1, **rules) for number in range(12)]
    return cluster(*there, *others, *mates, vmi("db", on="n0", **rules))


def calls(work: Callable[P, object], *given: P.args, **named: P.kwargs) -> int:
    """How many functions are entered, of Python and of C."""
    entered = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal entered
        entered += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work(*given, **named)
    finally:
        sys.setprofile(None)
    return entered


def question(state: ClusterState, snapshot: Snapshot) -> tuple[Pod, TargetGuard]:
    one: VMI = snapshot.vmis["default/db"]
    assert snapshot.kubevirt is not None
    pod = target_pod(one, state.active_pods[one.key], snapshot.nodes[one.node], snapshot.kubevirt)
    return pod, target_guard(one, snapshot.nodes[one.node])


@pytest.mark.parametrize("rules", RULES)
def test_asking_again_costs_the_same_in_a_cluster_ten_times_as_large(rules: str) -> None:
    """Nodes are walked by array operations alone; only the answer's own names are taken one by one."""
    costs = []
    for nodes, vms in ((20, 50), (200, 500)):
        snapshot = of_size(nodes, vms, **RULES[rules])
        state = ClusterState.of(snapshot)
        pod, guard = question(state, snapshot)
        first = feasible_nodes(state, pod, guard)  # also makes what is remembered
        costs.append(calls(feasible_nodes, state, pod, guard) - len(first))
    assert costs[1] <= costs[0] * 1.05, costs


@pytest.mark.parametrize("rules", RULES)
def test_a_move_costs_the_same_in_a_cluster_ten_times_as_large(rules: str) -> None:
    costs = []
    for nodes, vms in ((20, 50), (200, 500)):
        snapshot = of_size(nodes, vms, **RULES[rules])
        state = ClusterState.of(snapshot)
        pod, guard = question(state, snapshot)
        feasible_nodes(state, pod, guard)  # from here on there are counts to keep up
        costs.append(calls(state.move, "default/db", pod, "n13"))
    assert costs[1] <= costs[0] * 1.05, costs
