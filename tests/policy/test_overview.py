"""What is known of a snapshot goes over to the next one, always the same as if it were looked at for the first time.

A small world changes step by step, and after every step the overview that has followed is held against one made from
nothing.
"""

from __future__ import annotations

from types import FunctionType, ModuleType

import numpy as np
import pytest
from builders import launcher, spread, vmi
from hypothesis import given, settings
from policy.living import NODES, Story, World, stories

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.assembly import Assembly
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import find as find_conflicts
from rebalancer.policy.feasibility import feasible_nodes
from rebalancer.policy.load import PolicyParams, Thresholds, state_of
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.overview import Overview
from rebalancer.policy.rule_book import RuleBook, Spread
from rebalancer.policy.rules import violations
from rebalancer.policy.target import target_guard, target_pod
from rebalancer.policy.triggers import TriggerMemory, find, triggers

PARAMS = PolicyParams(thresholds=Thresholds(resources=("cpu", "memory")), hold_seconds=20.0)


def on_nodes(state: ClusterState) -> object:
    return {name: ({p.key: p for p in state.pods_on(name)}, state.requested(name)) for name in state.nodes}


def judged(state: ClusterState, snapshot: Snapshot) -> object:
    """What the filters and `movable` make of a state."""
    found: dict[str, object] = {}
    for key, source in state.active_pods.items():
        one, home = snapshot.vmis[key], state.nodes[source.node]
        target = target_pod(one, source, home, snapshot.kubevirt or KubeVirt())
        found[key] = (feasible_nodes(state, target, target_guard(one, home)), why_immovable(one, snapshot, state))
    return found


def written(book: RuleBook) -> list[object]:
    """A book's rules, in their order."""
    return [
        (rule.text, rule.holders, [p.key for p in rule.fixed], rule.targets if isinstance(rule, Spread) else {})
        for rule in book.rules
    ]


def same(followed: Overview, snapshot: Snapshot) -> None:
    """An overview that has followed changes is that of the snapshot."""
    fresh = Overview.of(snapshot, PARAMS)
    state = ClusterState.of(snapshot, settled=True)
    assert followed.snapshot is snapshot
    assert followed.state.active_pods == state.active_pods
    assert {uid: pods for uid, pods in followed.state.launchers.items() if pods} == state.launchers
    assert followed.state.in_flight == state.in_flight
    assert on_nodes(followed.state) == on_nodes(state)
    assert written(followed.book) == written(fresh.book)
    assert followed.told() == fresh.told() == state_of(state, snapshot, PARAMS)
    assert followed.violations == violations(state, snapshot)
    assert followed.over == fresh.over
    assert followed.conflicts == find_conflicts(state, snapshot)
    assert judged(followed.state.copy(), snapshot) == judged(state, snapshot)
    real = ClusterState.of(snapshot)
    assert followed.real.active_pods == real.active_pods
    assert on_nodes(followed.real) == on_nodes(real)
    assert judged(followed.real.copy(), snapshot) == judged(real, snapshot)


@pytest.mark.slow
@given(stories)
@settings(max_examples=40)
def test_following_is_the_same_as_looking_for_the_first_time(story: Story) -> None:
    world = World.begun()
    earlier = [Overview.of(world.snapshot(), PARAMS)]
    memory = again = TriggerMemory()
    for now, happenings in enumerate(story):
        for happening in happenings:
            world.happen(*happening)
        snapshot = world.snapshot()
        followed = earlier[-1].advance(snapshot)
        same(followed, snapshot)
        found, memory = triggers(followed, memory, 10.0 * now)
        expected, again = find(snapshot, PARAMS, again, 10.0 * now)
        assert (found, memory) == (expected, again)
        earlier.append(followed)
    for overview in earlier:  # whoever still holds one finds it as it was
        same(overview, overview.snapshot)


@given(stories)
@settings(max_examples=10)
def test_the_plan_is_the_same_whoever_has_followed(story: Story) -> None:
    """A leader that has long been at it decides as one that has just begun."""
    world, params = World.begun(), PlanningParams(policy=PARAMS, seconds=0.2)
    followed = Overview.of(world.snapshot(), PARAMS)
    for happenings in story:
        for happening in happenings:
            world.happen(*happening)
        followed = followed.advance(world.snapshot())
    found, _ = triggers(followed, TriggerMemory(), 0.0)
    plan = decide(followed.snapshot, found, params, now=0.0, overview=followed)
    assert plan == decide(followed.snapshot, found, params, now=0.0)


def held(found: object, seen: set[int]) -> int:
    """How many entries all maps and other collections hold that an object is made of."""
    if id(found) in seen or isinstance(found, str | bytes | int | float | bool | type | ModuleType | FunctionType):
        return 0
    seen.add(id(found))
    if isinstance(found, dict):
        return len(found) + sum(held(part, seen) for pair in found.items() for part in pair)
    if isinstance(found, list | tuple | set | frozenset):
        return len(found) + sum(held(part, seen) for part in found)
    if isinstance(found, np.ndarray):
        return found.size
    slots = (name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ()))
    parts = [getattr(found, name, None) for name in slots] + list(getattr(found, "__dict__", {}).values())
    return sum(held(part, seen) for part in parts)


def test_nothing_grows_while_vms_come_and_go() -> None:
    """Thousands of VMs, each under rules and labels of its own, that are all gone again."""
    world = World.begun()
    assembly = Assembly.of(world.stored(), ())
    overview = Overview.of(assembly.snapshot, PARAMS)
    sizes = []
    for number in range(3_000):
        label = {"app": f"app-{number}"}
        fresh = vmi(f"fresh-{number}", on=NODES[number % 4], cpu=0.1, labels=label, apart_from=label,
                    spread_by=(spread(label),), select={"tier": "gold"})  # fmt: skip
        pod = launcher(fresh)
        world.put(fresh, pod)
        for _ in range(2):
            assembly = assembly.advance(world.stored(), ())
            overview = overview.advance(assembly.snapshot)
            world.vmis.pop(fresh.key, None)
            world.pods.pop(pod.key, None)
        if number % 100 == 99:
            sizes.append(held((assembly, overview), set()))
    assert max(sizes[10:]) < 1.2 * max(sizes[:10]), sizes
