"""The rows of the page's tables: what is in them, in which order, and how many are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rebalancer.domain.plan import Move, NodeLoad, Plan
from rebalancer.domain.report import Outcome, Report, Running
from rebalancer.domain.verdict import Hotspot, Violation
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import node_loads
from rebalancer.present.api import READY, standing
from rebalancer.present.picture import Picture
from rebalancer.present.words import some

T = TypeVar("T")

NODES_SHOWN = 200
CHANGED_SHOWN = 60
FINDINGS_SHOWN = 100
MOVES_SHOWN = 500
VERDICTS_SHOWN = 200

PHASES = ("Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running")
"""A migration's phases in KubeVirt's order; memory is copied in the last one."""


@dataclass(frozen=True, slots=True)
class Bounded(Generic[T]):
    """The first rows of a table, and how many there are in all."""

    shown: tuple[T, ...]
    total: int

    @property
    def more(self) -> int:
        return self.total - len(self.shown)


NONE: Bounded[Any] = Bounded((), 0)


def bounded(rows: Iterable[T], most: int) -> Bounded[T]:
    """The first `most` of some rows."""
    found = tuple(rows)
    return Bounded(found[:most], len(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node now, and after the plan where that changes it."""

    name: str
    now: NodeLoad
    after: NodeLoad | None = None
    state: str = READY


def nodes(picture: Picture) -> Bounded[NodeRow]:
    """Nodes, those that are nearest to their threshold or farthest above it first."""
    report, plan = picture.report, picture.plan
    loads: Mapping[str, NodeLoad] = report.state.nodes if report is not None else {}
    if not loads and picture.snapshot.nodes:
        # A replica that stands by judges nothing, but what it watches can be shown all the same.
        loads = node_loads(ClusterState.of(picture.snapshot, settled=True), picture.policy.thresholds)
    after: Mapping[str, NodeLoad] = plan.after.nodes if plan is not None else {}
    known = picture.snapshot.nodes
    found = (
        NodeRow(
            name=name,
            now=load,
            after=after.get(name) if after.get(name) != load else None,
            state=standing(known[name]) if name in known else READY,
        )
        for name, load in loads.items()
    )
    return bounded(sorted(found, key=_fullness), NODES_SHOWN)


def changed(plan: Plan) -> Bounded[NodeRow]:
    """The nodes that a plan changes, fullest first."""
    found = (
        NodeRow(name=name, now=load, after=plan.after.nodes[name])
        for name, load in plan.before.nodes.items()
        if name in plan.after.nodes and plan.after.nodes[name] != load
    )
    return bounded(sorted(found, key=_fullness), CHANGED_SHOWN)


def _fullness(row: NodeRow) -> tuple[float, str]:
    return -max(row.now.cpu / row.now.cpu_high, row.now.memory / row.now.memory_high), row.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: a hotspot, or a rule with all VMs that break it."""

    hotspot: Hotspot | None = None
    kind: str = ""
    rule: str = ""
    vmis: str = ""
    number: int = 1
    left: tuple[str, ...] = ()


def findings(report: Report) -> Bounded[Finding]:
    """Hotspots, fullest first, then broken rules, those that most VMs break first; with why they stay, if they do."""
    left = {_identity(entry.trigger.hotspot or entry.trigger.violation): entry.why for entry in _left(report)}
    spots = sorted(report.state.hotspots, key=lambda spot: (-spot.percent, spot.node))
    rules: dict[tuple[str, str], list[Violation]] = {}
    for violation in report.state.violations:
        rules.setdefault((violation.kind, violation.rule), []).append(violation)
    found = [Finding(hotspot=spot, left=left.get(_identity(spot), ())) for spot in spots]
    for (kind, rule), broken in sorted(rules.items(), key=lambda item: (-len(item[1]), item[0])):
        reasons = dict.fromkeys(why for violation in broken for why in left.get(_identity(violation), ()))
        names = some([violation.vmi for violation in broken], 6)
        found.append(Finding(kind=kind, rule=rule, vmis=names, number=len(broken), left=tuple(reasons)[:3]))
    return bounded(found, FINDINGS_SHOWN)


def _left(report: Report) -> Iterable[Any]:
    return report.plan.left if report.plan is not None else ()


def _identity(found: Hotspot | Violation | None) -> tuple[str, str]:
    if isinstance(found, Hotspot):
        return found.node, found.resource
    return (found.vmi, found.rule) if found is not None else ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRow:
    """One move of a plan and what has become of it: waiting, running, held, or its result."""

    move: Move
    standing: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveRow:
    """One wave; `memory_bytes` and `seconds` are those of the whole wave."""

    number: int
    moves: tuple[MoveRow, ...]
    total: int
    memory_bytes: int
    seconds: float
    standing: str


def waves(report: Report, plan: Plan) -> tuple[WaveRow, ...]:
    """The plan's waves, until MOVES_SHOWN moves are shown; the rest are waves without rows."""
    ended = {(done.move.vmi, done.move.target): done for done in report.done}
    flying = {entry.vmi for entry in report.running if entry.ours}
    held = {entry.vmi: entry.message for entry in report.held}
    found, room = [], MOVES_SHOWN
    for number, wave in enumerate(plan.waves, start=1):
        moves = tuple(
            _move(move, ended.get((move.vmi, move.target)), flying if number == report.wave else set(), held)
            for move in wave.moves[:room]
        )
        room -= len(moves)
        over = all((move.vmi, move.target) in ended for move in wave.moves)
        found.append(
            WaveRow(
                number=number,
                moves=moves,
                total=len(wave.moves),
                memory_bytes=sum(move.memory_bytes for move in wave.moves),
                seconds=max((move.seconds for move in wave.moves), default=0.0),
                standing="done" if over else "under way" if number == report.wave else "",
            )
        )
    return tuple(found)


def _move(move: Move, outcome: Outcome | None, flying: set[str], held: Mapping[str, str]) -> MoveRow:
    if outcome is not None:
        return MoveRow(move=move, standing=outcome.result, note=outcome.message)
    if move.vmi in flying:
        return MoveRow(move=move, standing="Running")
    if move.vmi in held:
        return MoveRow(move=move, standing="Held", note=held[move.vmi])
    return MoveRow(move=move, standing="Planned")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRow:
    """A migration under way. `expected` seconds in all, 0.0 where unknown; `step` counts PHASES from 1."""

    entry: Running
    elapsed: float
    expected: float
    step: int


def running(report: Report) -> tuple[RunningRow, ...]:
    """Migrations in flight, ours and others', oldest first."""
    moves = report.plan.moves if report.plan is not None else ()
    expected = {(move.vmi, move.target): move.seconds for move in moves}
    return tuple(
        RunningRow(
            entry=entry,
            elapsed=max(0.0, report.time - entry.started),
            expected=expected.get((entry.vmi, entry.target), 0.0),
            step=PHASES.index(entry.phase) + 1 if entry.phase in PHASES else 1,
        )
        for entry in report.running
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One node's answer to a VM: `fits` is here, yes, almost (only we, not the scheduler, speak against it) or no."""

    node: str
    fits: str
    why: str
    cpu: float


def verdicts(answer: Mapping[str, Any], node: str = "") -> Bounded[Verdict]:
    """Every node of an explanation document, or the one; the best places first."""
    found = [
        Verdict(
            node=name,
            fits=_fits(told, here=name == answer["node"]),
            why=_why(told),
            cpu=told["cpuWithIt"],
        )
        for name, told in answer["nodes"].items()
        if node in ("", name)
    ]
    order = {"here": 0, "yes": 1, "almost": 2, "no": 3}
    return bounded(sorted(found, key=lambda one: (order[one.fits], one.cpu, one.node)), VERDICTS_SHOWN)


def _fits(told: Mapping[str, Any], *, here: bool) -> str:
    if here:
        return "here"
    if told["fits"]:
        return "yes"
    return "no" if told["plugin"] else "almost"


def _why(told: Mapping[str, Any]) -> str:
    if told["threshold"]:
        return str(told["threshold"])
    if told["leftLately"] and not told["plugin"]:
        return "was taken away from there less than a day ago"
    return "; ".join([told["plugin"], *told["reasons"]]).replace("; ", ": ", 1)
