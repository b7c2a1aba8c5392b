"""When a full node or a broken rule becomes a reason to act, and when it no longer is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from builders import cluster, launcher, migration, node, vmi
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, NODE_AFFINITY
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.triggers import TriggerMemory, find

PARAMS = PolicyParams(hold_seconds=60)
AT_ONCE = PolicyParams(hold_seconds=0)


def loaded(percent: float) -> Snapshot:
    """One node at this load, and an empty one."""
    return cluster(node("n1", cpu=10), node("n2", cpu=10), vmi("a", on="n1", cpu=percent / 10))


def story(params: PolicyParams, *steps: tuple[float, float]) -> list[bool]:
    """Whether the node is a trigger after each (seconds, percent)."""
    memory = TriggerMemory()
    told = []
    for now, percent in steps:
        triggers, memory = find(loaded(percent), params, memory, now)
        told.append(bool(triggers))
    return told


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 90), (59, 90), (60, 90)], [False, False, True]),
        ([(0, 90), (30, 79), (60, 90), (119, 90), (120, 90)], [False, False, False, False, True]),
        ([(0, 90), (60, 90), (70, 78), (80, 75.1), (90, 75), (100, 79)], [False, True, True, True, False, False]),
        ([(0, 90), (60, 90), (61, 75), (62, 90), (122, 90)], [False, True, False, False, True]),
        ([(0, 79), (100, 80), (200, 76)], [False, False, False]),
        ([(100, 90), (40, 90), (99, 90), (100, 90)], [False, False, False, True]),  # a clock that went back
    ],
    ids=["held", "held without a break", "cured at low, not before", "again from the start", "never above", "clock"],
)
def test_hold_and_hysteresis(steps: list[tuple[float, float]], expected: list[bool]) -> None:
    assert story(PARAMS, *steps) == expected


def test_without_a_gap_between_high_and_low_there_is_no_hysteresis() -> None:
    params = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=80, cpu_low=80))
    assert story(params, (0, 81), (1, 80)) == [True, False]


def test_a_node_that_is_gone_or_empty_is_forgotten() -> None:
    memory = TriggerMemory(above=FrozenMap({("n1", CPU): 0.0}), hot=frozenset({("n1", CPU), ("n9", CPU)}))
    assert find(cluster(node("n1", cpu=10)), AT_ONCE, memory, 1.0) == ((), TriggerMemory())


def test_what_migrates_already_has_landed() -> None:
    moving = vmi("a", on="n1", cpu=5)
    running = migration(moving, "n2")
    target = launcher(moving, on="n2", suffix="-2", labels=FrozenMap({"kubevirt.io/migrationJobUID": running.uid}))
    full = [node("n1", cpu=10), node("n2", cpu=10), moving, launcher(moving), vmi("b", on="n1", cpu=4)]
    assert len(find(cluster(*full), AT_ONCE, TriggerMemory(), 0)[0]) == 1
    assert find(cluster(*full, target, running), AT_ONCE, TriggerMemory(), 0)[0] == ()


def test_messages_are_in_plain_english_with_numbers() -> None:
    busy = vmi("a", on="n1", cpu=9.5, memory=15, select={"tier": "gold"})
    both = Thresholds(resources=(CPU, MEMORY))
    triggers, memory = find(
        cluster(node("n1", cpu=10, memory=16), busy), replace(AT_ONCE, thresholds=both), TriggerMemory(), 0
    )
    assert [trigger.message for trigger in triggers] == [
        "n1 has 9.5 of 10 CPU reserved (95.0 %), above the threshold of 80 %",
        "n1 has 15.0 of 16.0 GiB of memory reserved (93.8 %), above the threshold of 90 %",
        "default/a on n1 is outside its node selector tier=gold",
    ]
    (lingering,), _ = find(loaded(76), AT_ONCE, memory, 1)
    assert lingering.message == "n1 has 7.6 of 10 CPU reserved (76.0 %), no longer above 80 %, but not yet down to 75 %"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_rule_can_be_switched_off_as_a_reason(kind: str) -> None:
    snapshot = cluster(node("n1"), vmi("a", on="n1", select={"tier": "gold"}))
    others = tuple(other for other in KINDS if other != kind)
    triggers, _ = find(snapshot, PolicyParams(kinds=others), TriggerMemory(), 0)
    assert len(triggers) == (0 if kind == NODE_AFFINITY else 1)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(60, 100)), max_size=25))
def test_no_trigger_without_a_hold_and_none_below_low(steps: list[tuple[int, int]]) -> None:
    times = [sum(seconds for seconds, _ in steps[: i + 1]) for i in range(len(steps))]
    loads = [percent for _, percent in steps]
    told = story(PARAMS, *zip(times, loads, strict=True))
    assert not any(hot and percent <= 75 for hot, percent in zip(told, loads, strict=True))
    for (was, before), (is_hot, now) in pairwise(zip(told, range(len(told)), strict=True)):
        if is_hot and not was:
            since = max((i for i in range(before + 1) if loads[i] <= 80), default=-1) + 1
            assert times[now] - times[since] >= 60
