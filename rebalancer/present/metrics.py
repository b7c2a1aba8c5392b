"""All metrics in one file: a collector that renders the last Report, and counters of what the Reports have told.

Gauges are rendered when they are asked for, so none can outlive the node or plan that it was about.
Labels are bounded: nodes, resources, rule kinds, sentences, results and reasons, never a VM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rebalancer import __version__
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import SENTENCES, Report
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.verdict import KINDS
from rebalancer.policy import budget, windows
from rebalancer.present.endings import OTHER, REASONS, reason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "rebalancer_"

ENDINGS = tuple((result, why) for result, reasons in REASONS.items() for why in reasons)
"""All of them are there from the start at 0: a rate that begins with the first failure would miss it."""

HELD = (
    *(budget.MIGRATING, budget.COOLDOWN, budget.PER_DAY, budget.PER_HOUR),
    *(budget.PER_CLUSTER, budget.PER_SOURCE, budget.PER_TARGET, budget.PER_NAMESPACE),
    *(windows.OUTSIDE_WINDOWS, windows.BLACKOUT),
    *("Throttled", "TargetBackoff", "NotLeader", "Unreadable", "ClearingUp", OTHER),
)
"""What a move can wait for."""

Requests = Mapping[tuple[str, str], int]
"""How many requests were answered, by method (or WATCH) and code; "none" where no answer came."""


class Metrics(Collector):
    """`observe` every Report in order; `exposition` is what /metrics answers.

    `lag` gives how late the event loop was at worst within the last minute, in seconds, `requests`
    what was asked of the API server so far.
    """

    def __init__(self, *, lag: Callable[[], float] = lambda: 0.0, requests: Callable[[], Requests] = dict) -> None:
        self._lag = lag
        self._requests = requests
        self._report: Report | None = None
        self._sentences: Counter[str] = Counter()
        self._endings: Counter[tuple[str, str]] = Counter()
        self._started = 0
        self._plans = 0
        self._counted: set[tuple[str, str, str]] = set()
        self._plan_id = ""
        self._seconds = 0.0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, report: Report) -> None:
        """Take over a cycle's report: it replaces the last one, and what ended or began in it is counted."""
        self._sentences[report.sentence.kind] += 1
        self._seconds += report.seconds
        self._started += len(report.started)
        plan_id = report.plan.id if report.plan else ""
        if plan_id and plan_id != self._plan_id:
            self._plan_id = plan_id
            self._plans += 1
        # A move that was refused has no migration: the VM tells those apart.
        ended = {(done.migration or done.move.vmi, done.result, reason(done)) for done in report.done}
        self._endings.update((result, why) for _, result, why in ended - self._counted)
        # Outcomes are listed for as long as their plan is in force; then they can be forgotten.
        self._counted = ended
        self._report = report

    def exposition(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "Always 1; the version is a label.", ("version",), [((__version__,), 1)])
        late = [((), self._lag())]
        yield _gauge("event_loop_lag_seconds", "How late the event loop was at worst in a minute.", (), late)
        yield from self._counters()
        if self._report is not None:
            yield from _gauges(self._report)

    def _counters(self) -> Iterator[Metric]:
        cycles = [((kind,), float(self._sentences[kind])) for kind in SENTENCES]
        yield _counter("cycles", "Cycles by what they ended in.", ("sentence",), cycles)
        yield _counter("cycle_seconds", "Seconds that cycles took.", (), [((), self._seconds)])
        yield _counter("plans", "Plans made.", (), [((), self._plans)])
        yield _counter("migrations_started", "Migrations created.", (), [((), self._started)])
        endings = [(ending, float(self._endings[ending])) for ending in ENDINGS]
        yield _counter("migrations_ended", "Moves of ours that ended, and why.", ("result", "reason"), endings)
        requests = [(asked, float(number)) for asked, number in sorted(self._requests().items())]
        yield _counter("api_requests", "Requests to the API server by answer.", ("method", "code"), requests)


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauges(report: Report) -> Iterator[Metric]:
    yield _gauge("leader", "1 where this replica holds the lease.", (), [((), report.leader)])
    yield _gauge("synced", "1 once every watched kind has been listed.", (), [((), report.synced)])
    yield _gauge("mode", "1 for the mode in force.", ("mode",), [((report.mode,), 1)])
    yield _gauge("cache_age_seconds", "Since the watches last told anything.", (), [((), report.cache_age_seconds)])
    yield _gauge("last_cycle_timestamp_seconds", "When the last cycle ended.", (), [((), report.time)])
    last = [((kind,), float(kind == report.sentence.kind)) for kind in SENTENCES]
    yield _gauge("cycle_sentence", "1 for what the last cycle ended in.", ("sentence",), last)
    yield _gauge("last_cycle_seconds", "What the last cycle took.", (), [((), report.seconds)])
    yield from _state(report)
    counted = Counter("ours" if running.ours else "others" for running in report.running)
    owners = [((owner,), float(counted[owner])) for owner in ("ours", "others")]
    yield _gauge("migrations_running", "Migrations in flight, by whose they are.", ("owner",), owners)
    held = Counter(held.reason if held.reason in HELD else OTHER for held in report.held)
    yield _gauge("held_moves", "Moves that wait, by reason.", ("reason",), _by_label(held))
    yield _gauge("cooling_vms", "VMs that may not move again yet.", (), [((), len(report.cooldowns))])
    aside = Counter(aside.kind for aside in report.set_aside)
    yield _gauge("objects_set_aside", "Objects that could not be read, by kind.", ("kind",), _by_label(aside))
    if report.plan is not None:
        yield from _plan(report, report.plan)


def _state(report: Report) -> Iterator[Metric]:
    nodes = sorted(report.state.nodes.items())
    reserved = [
        ((name, kind), value / 100) for name, load in nodes for kind, value in ((CPU, load.cpu), (MEMORY, load.memory))
    ]
    limits = [
        ((name, kind), value / 100)
        for name, load in nodes
        for kind, value in ((CPU, load.cpu_high), (MEMORY, load.memory_high))
    ]
    yield _gauge("node_reserved_ratio", "Requests over allocatable.", ("node", "resource"), reserved)
    yield _gauge("node_threshold_ratio", "Above it a node is a hotspot.", ("node", "resource"), limits)
    vms = [((name,), float(load.vmis)) for name, load in nodes]
    yield _gauge("node_vms", "VMs that run on a node.", ("node",), vms)
    hotspots = Counter(spot.resource for spot in report.state.hotspots)
    hot = [((kind,), float(hotspots[kind])) for kind in (CPU, MEMORY)]
    yield _gauge("hotspots", "Nodes above their threshold.", ("resource",), hot)
    broken = Counter(violation.kind for violation in report.state.violations)
    rules = [((kind,), float(broken[kind])) for kind in KINDS]
    yield _gauge("rule_violations", "Required rules that running VMs break.", ("kind",), rules)


def _plan(report: Report, plan: Plan) -> Iterator[Metric]:
    done, running = len(report.done), sum(running.ours for running in report.running)
    states = {"done": done, "running": running, "waiting": max(0, len(plan.moves) - done - running)}
    yield _gauge("plan_moves", "Moves of the plan in force, by state.", ("state",), _by_label(states))
    yield _gauge("plan_created_timestamp_seconds", "When the plan in force was made.", (), [((), plan.created)])
    yield _gauge("plan_expected_seconds", "Until its last move has landed, unhindered.", (), [((), plan.quiet_seconds)])
    yield _gauge("plan_left", "Triggers that the plan cannot cure.", (), [((), len(plan.left))])
    yield _gauge("plan_bound_moves", "Proven least number of moves.", (), [((), plan.bound.moves)])
    yield _gauge("plan_gap_ratio", "Cost above the proven bound, over cost.", (), [((), plan.bound.gap)])
    stages = {stage.name: stage.seconds for stage in plan.solver.stages}
    yield _gauge("solver_stage_seconds", "Solver time of this plan by stage.", ("stage",), _by_label(stages))
    yield _gauge("solver_seconds", "Solver time of this plan.", (), [((), plan.solver.seconds)])


def _by_label(values: dict[str, int] | dict[str, float] | Counter[str]) -> Samples:
    return [((label,), float(value)) for label, value in sorted(values.items())]


def _gauge(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _counter(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(PREFIX + name, meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family
