"""The working picture: what counts, and that moving pods about gives what a fresh picture would give."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from builders import NOW, cluster, launcher, migration, node, pod, resources, vmi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy import hostile

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import decode
from rebalancer.kube.snapshot import build_snapshot
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Survey, feasible_nodes, survey
from rebalancer.policy.pod_counts import FEW_PODS

FIELDS = {
    "nodes": "Node",
    "pods": "Pod",
    "namespaces": "Namespace",
    "persistentVolumes": "PersistentVolume",
    "persistentVolumeClaims": "PersistentVolumeClaim",
    "csiNodes": "CSINode",
}


def read(kind: str, raw: dict[str, Any]) -> Any:
    return decode(kind, json.dumps(raw).encode()).value


def snapshot_of(case: dict[str, Any]) -> Snapshot:
    return build_snapshot({kind: [read(kind, raw) for raw in case[field]] for field, kind in FIELDS.items()})


def placed(snapshot: Snapshot, pods: list[Pod]) -> ClusterState:
    """A fresh state with exactly these pods."""
    return ClusterState.of(replace(snapshot, pods=FrozenMap({one.key: one for one in pods})))


def picture(state: ClusterState, candidates: list[Pod]) -> tuple[list[Any], list[Survey]]:
    """All that can be asked of a state."""
    nodes = [
        (
            state.requested(name),
            sorted(there.key for there in state.pods_on(name)),
            dict(state.attached_volumes(name)),
        )
        for name in state.nodes
    ]
    surveys = [survey(state, candidate) for candidate in candidates]
    assert [feasible_nodes(state, candidate) for candidate in candidates] == [found.feasible for found in surveys]
    return nodes, surveys


@settings(suppress_health_check=list(HealthCheck), max_examples=60)
@given(st.randoms(use_true_random=False))
def test_a_state_that_was_changed_equals_one_made_anew(random: Random) -> None:
    case = hostile.cluster(random)
    snapshot = snapshot_of(case)
    candidates = [read("Pod", raw) for raw in case["candidates"]]
    state = ClusterState.of(snapshot)
    names = list(state.nodes)
    picture(state, candidates)  # from here on there are counts to keep up
    there = [one for name in names for one in state.pods_on(name)]
    spare = [one.on(random.choice(names)) for one in candidates]
    for _ in range(random.randint(1, 12)):
        before = picture(state, candidates) if random.random() < 0.2 else None
        twin = state.copy()
        index = random.randrange(len(there)) if there else 0
        action = random.choice(("add", "remove", "move")) if there else "add"
        if action != "add":
            gone = there.pop(index)
            twin.remove(gone)
            if action == "move":
                there.append(gone.on(random.choice(names)))
                twin.add(there[-1])
        elif spare:
            there.append(spare.pop())
            twin.add(there[-1])
        if before is not None:
            assert picture(state, candidates) == before, "changing a copy changes the copy alone"
        state = twin
    assert picture(state, candidates) == picture(placed(snapshot, there), candidates)


def test_large_groups_are_counted_like_small_ones() -> None:
    """Above FEW_PODS a group's counts are kept, below they are made when asked for."""
    nodes = [node(f"n{number}") for number in range(FEW_PODS + 4)]
    vms = [vmi(f"db-{number}", on=f"n{number}", labels={"app": "db"}) for number in range(FEW_PODS + 2)]
    state = ClusterState.of(cluster(*nodes, *vms))
    incoming = launcher(vmi("db-x", on="", labels={"app": "db"}, apart_from={"app": "db"}))
    for number in reversed(range(FEW_PODS + 2)):
        assert feasible_nodes(state, incoming) == tuple(name for name in state.nodes if not state.pods_on(name))
        state.remove(state.active_pods[f"default/db-{number}"])
    assert len(feasible_nodes(state, incoming)) == len(nodes)


def test_pods_that_have_ended_are_unbound_or_stand_on_no_known_node_do_not_count() -> None:
    state = ClusterState.of(
        cluster(
            node("n1"),
            pod("done", on="n1", cpu=1, phase="Succeeded"),
            pod("failed", on="n1", cpu=1, phase="Failed"),
            pod("waiting", cpu=1, phase="Pending"),
            pod("lost", on="nowhere", cpu=1),
            pod("starting", on="n1", cpu=2, phase="Pending"),
        )
    )
    assert [one.name for one in state.pods_on("n1")] == ["starting"]
    assert state.requested("n1") == resources(2)
    assert list(state.pods_on("nowhere")) == []


@pytest.mark.parametrize("settled", [False, True])
def test_a_migration_in_flight_holds_both_nodes_until_it_has_settled(settled: bool) -> None:
    vm = vmi("db", on="n1", cpu=2)
    moving = migration(vm, "n2")
    arriving = launcher(
        vm,
        on="n2",
        suffix="-target",
        created=NOW,
        labels=FrozenMap({**launcher(vm).labels, "kubevirt.io/migrationJobUID": moving.uid}),
    )
    state = ClusterState.of(cluster(node("n1"), node("n2"), vm, launcher(vm), arriving, moving), settled=settled)
    assert state.requested("n2") == resources(2, 1)
    assert state.requested("n1") == (resources(0) if settled else resources(2, 1))
    assert state.active_pods["default/db"].node == ("n2" if settled else "n1")


def test_the_source_of_a_migration_that_is_over_counts_until_it_has_ended() -> None:
    """virt-handler has moved the VMI to the target; the source's pod is still there."""
    vm = vmi("db", on="n2", cpu=2)
    moved = migration(vm, "n2", phase="Succeeded")
    snapshot = cluster(
        node("n1"), node("n2"), vm, launcher(vm, on="n1"), launcher(vm, suffix="-target", created=NOW), moved
    )
    assert ClusterState.of(snapshot).requested("n1") == resources(2, 1)
    assert ClusterState.of(snapshot).active_pods["default/db"].node == "n2"
    assert ClusterState.of(snapshot, settled=True).requested("n1") == resources(0)


def test_an_unbound_target_has_not_decided_where_the_vm_lands() -> None:
    vm = vmi("db", on="n1", cpu=2)
    arriving = launcher(vm, on="", suffix="-target", created=NOW, phase="Pending")
    state = ClusterState.of(cluster(node("n1"), vm, launcher(vm), arriving, migration(vm, "n2")), settled=True)
    assert state.active_pods["default/db"].node == "n1"


def test_move_replaces_the_vms_pod() -> None:
    vm = vmi("db", on="n1", cpu=2, labels={"app": "db"})
    state = ClusterState.of(cluster(node("n1"), node("n2"), vm))
    before = state.copy()
    state.move("default/db", launcher(vm, on="", suffix="-target"), "n2")
    assert state.requested("n1") == resources(0)
    assert state.requested("n2") == resources(2, 1)
    assert state.active_pods["default/db"].node == "n2"
    assert before.requested("n1") == resources(2, 1)
    assert before.active_pods["default/db"].node == "n1"
