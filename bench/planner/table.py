"""The planner's table: instances, what is measured, and a line for each."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from bench.planner import btrplace, bytedance, synthetic
from bench.planner.synthetic import Shape
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.triggers import TriggerMemory, find

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
DUMP = ROOT / "tests" / "data" / "kubevirt-12x130.json.gz"

AT_80 = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=80, cpu_low=80))
AT_100 = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=100, cpu_low=100))
DEFAULTS = PolicyParams(hold_seconds=0)
FULL = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=98, cpu_low=98))

Instance = tuple[str, Callable[[], Snapshot], PolicyParams]

COLUMNS = (
    "instance", "nodes", "VMs", "hot", "broken", "moves", "bound", "cost", "cost bound", "gap %", "hot left",
    "broken left", "waves", "read s", "triggers s", "decide s", "CPU s", "MB", "equal",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, in the order of COLUMNS."""

    cells: tuple[str, ...]


def instances() -> Iterator[Instance]:
    """All instances whose data is there; what is missing is told."""
    yield "real dump 12x130", partial(read_dump, DUMP), DEFAULTS
    for nodes in (12, 100, 1_000, 5_000):
        for kind, shape in (("loose", Shape.loose(nodes)), ("tight", Shape.tight(nodes))):
            yield f"{kind} {nodes}", partial(synthetic.cluster, shape, 1), AT_80
    for file in ("li3", "li4", "li5", "li6", "nr3", "nr4"):
        path = DATA / "btrplace" / f"{file}.gz"
        if not path.exists():
            print(f"{path} is missing: BtrPlace's {file} is left out", file=sys.stderr)
            continue
        for rules in (False, True):
            label = f"BtrPlace {file}{' with rules' if rules else ''}"
            yield label, partial(_btrplace, path, rules=rules), AT_100
    path = DATA / "bytedance" / "clear2.json.gz"
    if not path.exists():
        print(f"{path} is missing: ByteDance's clusters are left out", file=sys.stderr)
        return
    for number in (0, 1):
        yield f"ByteDance {number + 1}", partial(_bytedance, path, number), FULL


def _btrplace(path: Path, *, rules: bool) -> Snapshot:
    return btrplace.cluster(btrplace.read(path), rules=rules)


def _bytedance(path: Path, number: int) -> Snapshot:
    return bytedance.clusters(path)[number]


def measure(instance: Instance, runs: int, seconds: float) -> Row:
    """Read, find triggers, decide; and decide again to see whether the plan is the same."""
    label, read, policy = instance
    started = time.perf_counter()
    snapshot = read()
    gc.collect()
    gc.freeze()  # the instance itself is no garbage, and looking through it again and again is not the planner's time
    reading = time.perf_counter() - started
    started = time.perf_counter()
    triggers, _ = find(snapshot, policy, TriggerMemory(), snapshot.taken)
    finding = time.perf_counter() - started
    params = PlanningParams(policy=policy, seconds=seconds)
    plans: list[Plan] = []
    times: list[tuple[float, float]] = []
    for _ in range(runs):
        started, used = time.perf_counter(), time.process_time()
        plans.append(decide(snapshot, triggers, params, now=snapshot.taken, clock=time.perf_counter))
        times.append((time.perf_counter() - started, time.process_time() - used))
    plan = plans[0]
    took = min(times)
    cost = sum(move.cost for move in plan.moves)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    cells = (
        label, len(snapshot.nodes), len(snapshot.vmis), len(plan.before.hotspots), len(plan.before.violations),
        len(plan.moves), plan.bound.moves, cost, plan.bound.cost,
        "proven" if plan.bound.proven else f"{100 * plan.bound.gap:.3f}", len(plan.after.hotspots),
        len(plan.after.violations), len(plan.waves), f"{reading:.2f}", f"{finding:.2f}", f"{took[0]:.2f}",
        f"{took[1]:.2f}", memory, f"{len({p.id for p in plans}) == 1} ({runs})",
    )  # fmt: skip
    return Row(cells=tuple(str(cell) for cell in cells))


def measured(position: int, runs: int, seconds: float, results: SimpleQueue[Row]) -> None:
    """`measure` in a process of its own."""
    results.put(measure(list(instances())[position], runs, seconds))
