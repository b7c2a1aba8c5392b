"""A large cluster in which nothing is to be done: what looking at it again costs when a little has changed."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, replace

from bench.planner import synthetic
from bench.planner.instances import at
from bench.planner.synthetic import Shape
from bench.planner.table import progress
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.overview import Overview
from rebalancer.policy.triggers import TriggerMemory, triggers

ROUNDS = 10
CHANGED = 1_000
"""Pods that have changed since the last look, in ways that do not matter: a second of a busy cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Seconds of looking again, the median and the longest, and of looking for the first time."""

    nodes: int
    vms: int
    median: float
    longest: float
    first: float

    def told(self) -> tuple[str, bool]:
        """In words, and whether it is quick enough."""
        text = (
            f"{self.median:.3f} s, at most {self.longest:.3f} s, with {CHANGED:,} pods changed; {self.first:.1f} s cold"
        )
        return text, self.longest <= 0.2


def measure_steady() -> Steady:
    """Look, change some pods, look again."""
    progress("nothing to do: reading")
    snapshot = synthetic.cluster(Shape(nodes=5_000, mean=0.67, spread=0.086, broken=0.0, immovable=0.0), 1)
    policy = at(100)
    gc.collect()
    gc.freeze()
    begun = time.perf_counter()
    overview = Overview.of(snapshot, policy)
    overview.told()
    first = time.perf_counter() - begun
    times = []
    for number in range(ROUNDS):
        progress(f"nothing to do: look {number + 1} of {ROUNDS}")
        snapshot = _changed(snapshot, number)
        begun = time.perf_counter()
        overview = overview.advance(snapshot)
        overview.told()
        found, _ = triggers(overview, TriggerMemory(), snapshot.taken)
        times.append(time.perf_counter() - begun)
        assert not found, found[0].message
    return Steady(
        nodes=len(snapshot.nodes),
        vms=len(snapshot.vmis),
        median=statistics.median(times),
        longest=max(times),
        first=first,
    )


def _changed(snapshot: Snapshot, number: int) -> Snapshot:
    """Some pods are other objects than before, as after an update of their status."""
    keys = list(snapshot.pods)[number::ROUNDS][:CHANGED]
    others = {key: replace(snapshot.pods[key], created=float(number + 1)) for key in keys}
    return replace(snapshot, pods=FrozenMap({**snapshot.pods, **others}), resource_version=str(number + 2))
