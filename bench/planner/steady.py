"""A large cluster in which nothing is to be done: what a cycle of the daemon costs then, by `bench.cycle`."""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass

import anyio

from bench import cycle
from bench.planner.table import progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Seconds of CPU of a cycle: the median and the longest of all from a warm cache, and the first one's."""

    median: float
    longest: float
    first: float

    def told(self) -> tuple[str, bool]:
        """In words, and whether it is quick enough."""
        warm = f"{self.median:.3f} s of CPU, at most {self.longest:.3f} s"
        return f"{warm}; {self.first:.1f} s from nothing", self.longest <= 0.2


def measure_steady() -> Steady:
    """Cycles without and with changes, of the whole daemon but for what reads from the network."""
    progress("nothing to do: cycles on 5,000 nodes")
    snapshot = cycle.calm(5_000)
    gc.collect()
    gc.freeze()
    rows, _ = anyio.run(cycle.measure, snapshot)
    first, *warm = [[milliseconds / 1000 for milliseconds in taken] for _, taken in rows]
    times = [seconds for taken in warm for seconds in taken]
    return Steady(median=statistics.median(times), longest=max(times), first=max(first))
