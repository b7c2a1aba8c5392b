"""What is known of a snapshot goes over to the next one, always the same as if it were looked at for the first time.

A small world changes step by step, and after every step the overview that has followed is held against one made from
nothing.
"""

from __future__ import annotations

from hypothesis import given, settings
from policy.living import Story, World, stories

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.snapshot import Snapshot
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
    assert list(followed.state.active_pods.items()) == list(state.active_pods.items())
    assert followed.state.launchers == state.launchers
    assert followed.state.in_flight == state.in_flight
    assert on_nodes(followed.state) == on_nodes(state)
    assert written(followed.book) == written(fresh.book)
    assert followed.told() == fresh.told() == state_of(state, snapshot, PARAMS)
    assert followed.violations == violations(state, snapshot)
    assert followed.over == fresh.over
    assert followed.conflicts == find_conflicts(state, snapshot)
    assert judged(followed.state.copy(), snapshot) == judged(state, snapshot)
    real = ClusterState.of(snapshot)
    assert list(followed.real.active_pods.items()) == list(real.active_pods.items())
    assert on_nodes(followed.real) == on_nodes(real)
    assert judged(followed.real.copy(), snapshot) == judged(real, snapshot)


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
