"""How fast a plan goes: waves within every budget, and among equal plans the one that is quiet sooner."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from builders import GIB, cluster, node, vmi
from hypothesis import given, settings
from hypothesis import strategies as st
from planning.plans import planned
from planning.test_decide import random_cluster

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits, admit


def evacuation(count: int, kubevirt: KubeVirt | None = None, namespace: str = "default") -> Snapshot:
    """Two nodes with so many VMs in all that must leave them, and as many nodes that would take them."""
    return cluster(
        *(node(f"out-{number}", cpu=100, taints=("gone=yes:NoSchedule",)) for number in range(2)),
        *(node(f"in-{number}", cpu=10) for number in range(count)),
        *(vmi(f"{namespace}/v{number}", on=f"out-{number % 2}", cpu=6) for number in range(count)),
        kubevirt=kubevirt,
    )


def limits(**fields: int) -> Limits:
    """What the executor asks; how much may begin in an hour is no business of a plan's."""
    return Limits(per_hour=1000, **fields)


def held(plan: Plan, snapshot: Snapshot, allowed: Limits) -> list[str]:
    """What the executor would hold of any wave, were its moves all that goes on."""
    waiting = [admit(wave.moves, snapshot, allowed, snapshot.taken).held for wave in plan.waves]
    return [one.message for wave in waiting for one in wave]


@pytest.mark.parametrize(
    ("fields", "kubevirt", "sizes"),
    [
        pytest.param({}, KubeVirt(), [4, 4, 4], id="KubeVirt's limit of 5 less the reserve, 2 off a node"),
        pytest.param({"drain_reserve": 0}, KubeVirt(), [4, 4, 4], id="2 off each of two nodes"),
        pytest.param({"drain_reserve": 3}, KubeVirt(), [2] * 6, id="a larger reserve"),
        pytest.param({"drain_reserve": 9}, KubeVirt(), [1] * 12, id="a reserve of all leaves one"),
        pytest.param({"per_cluster": 3}, KubeVirt(), [3] * 4, id="our own limit"),
        pytest.param({"per_source": 1}, KubeVirt(), [2] * 6, id="one off a node"),
        pytest.param(
            {"per_source": 9, "per_cluster": 9},
            KubeVirt(parallel_outbound_migrations_per_node=3, parallel_migrations_per_cluster=20),
            [6, 6],
            id="KubeVirt's outbound limit",
        ),
        pytest.param({"per_namespace": 1}, KubeVirt(), [1] * 12, id="one of a namespace"),
    ],
)
def test_a_wave_is_no_larger_than_may_run_together(
    fields: dict[str, Any], kubevirt: KubeVirt, sizes: list[int]
) -> None:
    snapshot = evacuation(12, kubevirt)
    plan = planned(snapshot, **fields)
    assert [len(wave.moves) for wave in plan.waves] == sizes
    assert held(plan, snapshot, limits(**fields)) == []


def test_a_target_takes_in_no_more_than_it_may() -> None:
    snapshot = cluster(
        node("out", cpu=100, taints=("gone=yes:NoSchedule",)),
        node("in", cpu=100),
        *(vmi(f"v{number}", on="out", cpu=6) for number in range(4)),
    )
    assert [len(wave.moves) for wave in planned(snapshot).waves] == [1] * 4
    assert [len(wave.moves) for wave in planned(snapshot, per_target=2).waves] == [2, 2]


def test_a_cluster_that_allows_no_migrations_has_a_plan_to_show() -> None:
    plan = planned(evacuation(2, KubeVirt(parallel_migrations_per_cluster=0, parallel_outbound_migrations_per_node=0)))
    assert [len(wave.moves) for wave in plan.waves] == [1, 1]


@given(
    st.integers(0, 2**32),
    st.fixed_dictionaries(
        {
            "per_cluster": st.integers(1, 6),
            "per_source": st.integers(1, 3),
            "per_target": st.integers(1, 3),
            "per_namespace": st.integers(0, 2),
            "drain_reserve": st.integers(0, 6),
        }
    ),
)
@settings(max_examples=60)
def test_the_executor_holds_nothing_of_any_wave(seed: int, fields: dict[str, Any]) -> None:
    snapshot = random_cluster(seed)
    assert held(planned(snapshot, **fields), snapshot, limits(**fields)) == []


def test_a_migration_takes_what_its_memory_takes_at_the_bandwidth_there_is() -> None:
    snapshot = evacuation(1)
    plan = planned(snapshot, bandwidth_mib=64, overhead_seconds=10)
    assert plan.moves[0].seconds == pytest.approx(1024 / 64 + 10)
    slow = evacuation(1, KubeVirt(bandwidth_per_migration_bytes=32 * 2**20))
    plan = planned(slow, bandwidth_mib=64, overhead_seconds=10)
    assert plan.moves[0].seconds == pytest.approx(1024 / 32 + 10), "the KubeVirt CR allows less than the links give"


def test_the_time_to_quiet_is_that_of_the_longest_of_each_wave() -> None:
    plan = planned(evacuation(12))
    assert plan.quiet_seconds == pytest.approx(sum(max(move.seconds for move in wave.moves) for wave in plan.waves))
    assert planned(cluster(node("n1"))).quiet_seconds == 0


LONG, SHORT = 64, 1
"""Memory in GiB."""


def mixed(memories: tuple[int, ...], targets: int) -> Snapshot:
    """One VM on each of so many nodes, which must leave it, for fewer nodes."""
    return cluster(
        *(node(f"out-{number}", cpu=10, taints=("gone=yes:NoSchedule",)) for number in range(len(memories))),
        *(node(f"in-{number}", cpu=5 * len(memories), memory=1000) for number in range(targets)),
        *(vmi(f"v{number}", on=f"out-{number}", cpu=2, memory=memory) for number, memory in enumerate(memories)),
    )


def test_long_migrations_run_beside_long_ones_and_first() -> None:
    plan = planned(mixed((SHORT, LONG) * 4, targets=8))
    assert [{move.memory_bytes // GIB for move in wave.moves} for wave in plan.waves] == [{LONG}, {SHORT}]


@pytest.mark.parametrize("memories", sorted(set(permutations((LONG, LONG, SHORT, SHORT)))))
def test_targets_share_the_long_migrations(memories: tuple[int, ...]) -> None:
    """Whoever is given the long ones: two nodes that take in two each, one at a time, take in one long one each."""
    plan = planned(mixed(memories, targets=2))
    assert [{move.memory_bytes // GIB for move in wave.moves} for wave in plan.waves] == [{LONG}, {SHORT}]


def test_a_node_with_much_to_send_begins_at_once() -> None:
    """Four short ones off one node, one at a time, take longer than a long one elsewhere."""
    snapshot = cluster(
        *(node(f"out-{number}", cpu=10, taints=("gone=yes:NoSchedule",)) for number in range(4)),
        *(node(f"in-{number}", cpu=10) for number in range(8)),
        *(vmi(f"many-{number}", on="out-0", cpu=2) for number in range(4)),
        *(vmi(f"one-{number}", on=f"out-{number}", cpu=2, memory=2) for number in range(1, 4)),
    )
    plan = planned(snapshot, per_source=1, per_cluster=2)
    assert len(plan.waves) == 4
    assert all(any(move.source == "out-0" for move in wave.moves) for wave in plan.waves)


@pytest.mark.parametrize("name", ["per_source", "per_target", "per_cluster", "per_namespace", "drain_reserve"])
def test_limits_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} = -1: must be at least"):
        PlanningParams(**{name: -1})  # type: ignore[arg-type]
