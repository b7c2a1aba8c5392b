"""What is measured of one instance, and the line that it makes in the table."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bench.planner.instances import Instance
from rebalancer.control.heap import Heap
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.overview import Overview
from rebalancer.policy.triggers import TriggerMemory, triggers

T = TypeVar("T")

COLUMNS = (
    "instance", "nodes", "VMs", "hot", "broken", "moves", "bound", "cost", "cost bound", "gap %", "hot left",
    "broken left", "waves", "quiet min", "read s", "triggers s", "first plan s", "end s", "CPU s", "MB", "equal",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One instance's figures. Seconds are by the wall clock but for `cpu`; `hops` are moves that only stop over.

    `read`: until there is a snapshot; `find`: what is known of it, and the triggers; `first`: a decision without
    search; `end` and `cpu`: the quickest whole decision. `equal`: how many of `runs` plans were the first one's.
    """

    name: str
    nodes: int
    vms: int
    hot: int
    broken: int
    moves: int
    moves_bound: int
    hops: int
    cost: int
    cost_bound: int
    gap: float
    proven: bool
    hot_left: int
    broken_left: int
    waves: int
    quiet: float
    read: float
    find: float
    first: float
    end: float
    cpu: float
    megabytes: int
    runs: int
    equal: int

    def line(self) -> str:
        """The row, as markdown."""
        gap = "proven" if self.proven else f"{100 * self.gap:.3f}"
        moves = f"{self.moves} ({self.hops} stops)" if self.hops else f"{self.moves}"
        cells = (
            self.name, f"{self.nodes:,}", f"{self.vms:,}", self.hot, self.broken, moves, self.moves_bound, self.cost,
            self.cost_bound, gap, self.hot_left, self.broken_left, self.waves, f"{self.quiet / 60:.0f}",
            f"{self.read:.2f}", f"{self.find:.2f}", f"{self.first:.2f}", f"{self.end:.2f}", f"{self.cpu:.2f}",
            self.megabytes, f"{self.equal} of {self.runs}",
        )  # fmt: skip
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


def heading() -> list[str]:
    """The table's first two lines."""
    return ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]


def progress(text: str) -> None:
    """Show what goes on, on a terminal only, in the place of what was shown before."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What work gives, and its seconds by the wall clock and of CPU."""
    begun, used = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - begun, time.process_time() - used


def measure(instance: Instance, runs: int, seconds: float) -> Measured:
    """Read, look, decide without search and with it; and decide again to see whether the plan is the same."""
    progress(f"{instance.name}: reading")
    snapshot, reading, _ = timed(instance.read)
    with Heap() as heap:  # as in the daemon: what the cluster is made of is no garbage
        heap.tidy(settled=True)
        return _measure(instance, snapshot, reading, runs, seconds)


def _measure(instance: Instance, snapshot: Snapshot, reading: float, runs: int, seconds: float) -> Measured:
    progress(f"{instance.name}: looking for triggers")

    def look() -> Overview:
        overview = Overview.of(snapshot, instance.policy)
        overview.told()
        return overview

    overview, looking, _ = timed(look)
    (found, _), finding, _ = timed(lambda: triggers(overview, TriggerMemory(), snapshot.taken))

    def plan(limit: float) -> Plan:
        params = PlanningParams(policy=instance.policy, seconds=limit)
        return decide(snapshot, found, params, now=snapshot.taken, clock=time.perf_counter, overview=overview)

    progress(f"{instance.name}: first plan")
    _, first, _ = timed(lambda: plan(0.0))
    results = []
    for number in range(runs):
        progress(f"{instance.name}: plan {number + 1} of {runs}")
        results.append(timed(lambda: plan(seconds)))
    best = results[0][0]
    cost = sum(move.cost for move in best.moves)
    return Measured(
        name=instance.name,
        nodes=len(snapshot.nodes),
        vms=len(snapshot.vmis),
        hot=len(best.before.hotspots),
        broken=len(best.before.violations),
        moves=len(best.moves),
        moves_bound=best.bound.moves,
        hops=sum(move.hop for move in best.moves),
        cost=cost,
        cost_bound=best.bound.cost,
        gap=best.bound.gap,
        proven=best.bound.proven,
        hot_left=len(best.after.hotspots),
        broken_left=len(best.after.violations),
        waves=len(best.waves),
        quiet=best.quiet_seconds,
        read=reading,
        find=looking + finding,
        first=first,
        end=min(wall for _, wall, _ in results),
        cpu=min(cpu for _, _, cpu in results),
        megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        runs=runs,
        equal=sum(result.id == best.id for result, _, _ in results),
    )
