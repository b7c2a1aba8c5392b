"""Why now: nodes that have been too full for a while, and broken rules."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.resources import CPU
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Hotspot, Trigger
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, hotspot, limit
from rebalancer.policy.overview import Overview

GIB = 2**30

Load = tuple[str, str]
"""A node and one of its resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerMemory:
    """What hysteresis has to remember from one cycle to the next. A new leader starts without: it holds once more.

    `above`: since when a load has been above `high` without a break, in the caller's seconds.
    `hot`: loads that have been so for the hold time and have not come down to `low` since.
    """

    above: FrozenMap[Load, float] = FrozenMap()
    hot: frozenset[Load] = frozenset()


def find(
    snapshot: Snapshot,
    params: PolicyParams,
    memory: TriggerMemory,
    now: float,
    *,
    state: ClusterState | None = None,
) -> tuple[tuple[Trigger, ...], TriggerMemory]:
    """`triggers` of a snapshot that nothing is known of yet, but perhaps its settled state."""
    return triggers(Overview.of(snapshot, params, state), memory, now)


def triggers(overview: Overview, memory: TriggerMemory, now: float) -> tuple[tuple[Trigger, ...], TriggerMemory]:
    """The triggers of a snapshot, hotspots first, and what to remember for the next cycle.

    `now` are seconds on any clock that does not go backwards. The overview is of the settled state: what already
    migrates has landed. A load is a trigger when it has been above `high` for the hold time, and stays one until it is
    at `low` or below. Rules that are broken need not be held: nothing but a move mends them.
    """
    state, thresholds = overview.state, overview.params.thresholds
    now_above = ((spot.node, spot.resource) for spot in overview.hotspots)
    since = {load: min(memory.above.get(load, now), now) for load in now_above}
    held = {load for load, start in since.items() if now - start >= overview.params.hold_seconds}
    lingering = {
        (name, resource)
        for name, resource in memory.hot
        if overview.hosts(name)
        and resource in thresholds.resources
        and state.requested(name).get(resource) > limit(state.nodes[name], resource, "low", thresholds)
    }
    hot = frozenset(held | lingering)
    spots = (hotspot(state, name, resource, thresholds) for name, resource in sorted(hot))
    found = [Trigger(hotspot=spot, message=hotspot_message(spot, state)) for spot in spots]
    found += [Trigger(violation=violation, message=violation.message) for violation in overview.violations]
    return tuple(found), TriggerMemory(above=FrozenMap(since), hot=hot)


def hotspot_message(spot: Hotspot, state: ClusterState) -> str:
    """The hotspot in a sentence, with the amounts behind the percentage: "w-00 has 62.3 of 63.5 CPU reserved ..."."""
    requested = state.requested(spot.node).get(spot.resource)
    capacity = state.nodes[spot.node].allocatable.get(spot.resource)
    if spot.resource == CPU:
        amounts = f"{requested / 1000:g} of {capacity / 1000:g} CPU"
    else:
        amounts = f"{requested / GIB:.1f} of {capacity / GIB:.1f} GiB of memory"
    if spot.percent > spot.high:
        compared = f"above the threshold of {spot.high:g} %"
    else:
        compared = f"no longer above {spot.high:g} %, but not yet down to {spot.low:g} %"
    return f"{spot.node} has {amounts} reserved ({spot.percent:.1f} %), {compared}"
