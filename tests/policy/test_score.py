"""The objective, stage by stage, in numbers that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import GIB, cluster, launcher, move, node, node_term, vmi
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.plan import Move
from rebalancer.domain.pod import Affinity
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.score import Score, migration_cost, score
from rebalancer.policy.target import target_pod

PARAMS = PolicyParams()


def after(snapshot: Snapshot, *moves: Move, params: PolicyParams = PARAMS) -> Score:
    """The score once these moves have landed."""
    state = ClusterState.of(snapshot, settled=True)
    for one in moves:
        source = state.active_pods[one.vmi]
        target = target_pod(snapshot.vmis[one.vmi], source, snapshot.nodes[source.node], KubeVirt())
        state.move(one.vmi, target, one.target)
    return score(state, snapshot, moves, params)


def test_overload_is_counted_in_permille_rounded_up_per_node() -> None:
    snapshot = cluster(
        node("n1", cpu=7), vmi("a", on="n1", cpu=6), node("n2", cpu=7), vmi("b", on="n2", cpu=5.5), node("n3", cpu=7)
    )
    # n1: 400 m above 5,600 m and 750 m above 5,250 m of 7,000 m. n2 is between both and was never to be cured.
    assert after(snapshot) == Score(over_high=58, over_low=108, evenness=85**2 + 78**2)
    assert after(snapshot, move("a", "n1", "n3")).over_high == 58


def test_a_hot_node_counts_down_to_low_and_a_new_one_only_above_high() -> None:
    snapshot = cluster(node("n1", cpu=10), vmi("a", on="n1", cpu=1), vmi("b", on="n1", cpu=7.7), node("n2", cpu=10))
    assert (after(snapshot).over_high, after(snapshot).over_low) == (70, 120)
    assert after(snapshot, move("a", "n1", "n2")).over_low == 20
    assert after(snapshot, move("b", "n1", "n2")).over_low == 0  # n2 is at 77 %, but was not hot


def test_memory_counts_like_cpu_where_it_counts() -> None:
    snapshot = cluster(node("n1", cpu=10, memory=10), vmi("a", on="n1", cpu=1, memory=9.5))
    both = PolicyParams(thresholds=Thresholds(resources=(CPU, MEMORY)))
    assert after(snapshot) == Score(evenness=100)
    assert after(snapshot, params=both) == Score(over_high=50, over_low=100, evenness=10**2 + 95**2)


def test_violations_are_the_sum_of_degrees_of_the_kinds_that_count() -> None:
    trio = [vmi(name, on="n1", cpu=0, labels={"app": "db"}, apart_from={"app": "db"}) for name in "abc"]
    snapshot = cluster(node("n1"), node("n2"), *trio)
    assert after(snapshot).violations == 6
    assert after(snapshot, move("a", "n1", "n2")).violations == 2
    assert after(snapshot, params=PolicyParams(kinds=())).violations == 0


def test_preferred_is_what_is_lost_from_the_first_node_to_the_last() -> None:
    likes = Affinity(node_preferred=((10, node_term("ssd=yes")), (3, node_term("rack=r1"))))
    snapshot = cluster(
        node("n1", labels={"ssd": "yes"}),
        node("n2", labels={"rack": "r1"}),
        node("n3"),
        vmi("a", on="n1", affinity=likes),
    )
    assert after(snapshot, move("a", "n1", "n2")).preferred == 7
    assert after(snapshot, move("a", "n1", "n3")).preferred == 10
    assert after(snapshot, move("a", "n1", "n2", hop=True), move("a", "n2", "n3")).preferred == 10
    back = cluster(node("n1", labels={"ssd": "yes"}), node("n3"), vmi("a", on="n3", affinity=likes))
    assert after(back, move("a", "n3", "n1")).preferred == -10


@pytest.mark.parametrize(("memory", "cost"), [(0, 1000), (1, 1001), (1.01, 1002), (64, 1064)])
def test_a_migration_costs_a_constant_and_its_memory(memory: float, cost: int) -> None:
    vm = vmi("a", on="n1", memory=memory)
    assert migration_cost(vm, launcher(vm), PARAMS) == cost


def test_without_guest_memory_the_pods_request_is_what_is_copied() -> None:
    vm = vmi("a", on="n1", memory=0)
    pod = launcher(vmi("a", on="n1", memory=3))
    assert pod.spec.requests.memory_bytes == 3 * GIB
    assert migration_cost(vm, pod, PolicyParams(move_cost=1, gib_cost=2)) == 7


def test_stages_are_compared_in_their_order() -> None:
    best = Score()
    stages = ("violations", "over_high", "over_low", "cost", "preferred", "evenness")
    worse = [replace(best, **{stage: 1}) for stage in stages]
    assert sorted([*worse, best]) == [best, *reversed(worse)]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0, 6)), max_size=6), st.sampled_from("xyz"))
def test_a_score_is_never_negative_without_preferences(placed: list[tuple[str, float]], to: str) -> None:
    vms = [vmi(f"v{i}", on=at, cpu=cpu, apart_from={}) for i, (at, cpu) in enumerate(placed)]
    snapshot = cluster(*(node(name, cpu=8) for name in "xyz"), *vms)
    moves = [move(vm.name, vm.node, to) for vm in vms if vm.node != to][:2]
    before, later = after(snapshot), after(snapshot, *moves)
    assert min(before.violations, before.over_high, before.over_low, before.evenness) >= 0
    assert min(later.violations, later.over_high, later.over_low, later.evenness) >= 0
    assert (before.cost, later.cost) == (0, 1001 * len(moves))
