"""All Kubernetes Events in one file: what is worth telling on a VM, a node or our own Deployment, in which words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rebalancer.domain.plan import Move
from rebalancer.domain.report import Held, Outcome, Report
from rebalancer.domain.resources import CPU
from rebalancer.domain.verdict import Hotspot
from rebalancer.present.text import summary
from rebalancer.present.words import percent, resource, some

VMI, NODE, DEPLOYMENT = "VirtualMachineInstance", "Node", "Deployment"
NORMAL, WARNING = "Normal", "Warning"
MAX_NOTE = 1024
"""The longest note that the API server accepts (events.k8s.io/v1)."""
STATES = ("Broken", "Stuck", "Paused", "Unfit", "Unsettled")
"""Kinds of sentences that last, and that somebody should learn of when they begin."""
BLIND_SECONDS = 60.0
"""After which what keeps us from seeing the cluster is more than a start or a short break."""
QUIET_RESULTS = ("Succeeded", "Withdrawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Event about an object of kind VMI, NODE or DEPLOYMENT: our own, whose name is the writer's to fill in.

    `reason` is a word of a fixed set, so that equal Events aggregate; `note` is at most MAX_NOTE characters.
    """

    kind: str
    type: str
    reason: str
    note: str
    namespace: str = ""
    name: str = ""


def events(report: Report, before: Report | None = None) -> tuple[Event, ...]:
    """What this cycle adds to what the one before it has said already; nothing while nothing changes."""
    return tuple(_events(report, before))


def _events(report: Report, before: Report | None) -> Iterator[Event]:
    known = {_spot(spot) for spot in before.state.hotspots} if before else set()
    for spot in report.state.hotspots:
        if _spot(spot) not in known:
            yield _hotspot(spot)
    if report.plan is not None and (before is None or before.plan is None or before.plan.id != report.plan.id):
        verb = "Plan" if report.mode == "active" else "Dry run: plan"
        yield _ours("Planned", f"{verb} {report.plan.id}: {summary(report.plan)}")
    for move in report.started:
        yield _started(move, report.plan.id if report.plan else "")
    told = {_outcome_key(outcome) for outcome in before.done} if before else set()
    for outcome in report.done:
        if _outcome_key(outcome) not in told:
            yield _ended(outcome)
    waiting = {(held.vmi, held.reason) for held in before.held} if before else set()
    for held in report.held:
        if (held.vmi, held.reason) not in waiting:
            yield _held(held)
    if report.sentence.kind in STATES and (before is None or before.sentence.kind != report.sentence.kind):
        yield _ours(report.sentence.kind, report.sentence.text, WARNING)
    if _blind(report) and not (before and _blind(before)):
        yield _ours(report.sentence.kind, report.sentence.text, WARNING)
    yield from _set_aside(report, before)


def _set_aside(report: Report, before: Report | None) -> Iterator[Event]:
    known = set(before.set_aside) if before else set()
    news = [aside for aside in report.set_aside if aside not in known]
    for aside in news:
        if aside.kind == "Settings":
            yield _ours("SettingsNotApplied", aside.sentence(), WARNING)
    if objects := [aside.sentence() for aside in news if aside.kind != "Settings"]:
        # One for all of them: a cluster can have thousands.
        yield _ours("ObjectsSetAside", some(objects, 1), WARNING)


def _blind(report: Report) -> bool:
    return report.sentence.kind == "NotSynced" and report.cache_age_seconds >= BLIND_SECONDS


def _hotspot(spot: Hotspot) -> Event:
    note = f"Reserves {percent(spot.percent)} of its {resource(spot.resource)}, above {percent(spot.high)}"
    reason = "ReservedCPUAboveThreshold" if spot.resource == CPU else "ReservedMemoryAboveThreshold"
    return Event(kind=NODE, name=spot.node, type=WARNING, reason=reason, note=note)


def _started(move: Move, plan: str) -> Event:
    note = f"Migrating from {move.source} to {move.target} (plan {plan}): {'; '.join(move.reasons)}"
    return _on_vmi(move.vmi, "RebalancingStarted", note)


def _ended(outcome: Outcome) -> Event:
    move = outcome.move
    where = f"migration {outcome.migration} from {move.source} to {move.target}"
    landed = f", it landed on {outcome.landed_on}" if outcome.landed_on not in ("", move.target) else ""
    why = f": {outcome.message}" if outcome.message else ""
    note = f"{outcome.result}: {where}{landed}{why}"
    kind = NORMAL if outcome.result in QUIET_RESULTS else WARNING
    return _on_vmi(move.vmi, f"Rebalancing{outcome.result}", note, type_=kind)


def _held(held: Held) -> Event:
    return _on_vmi(held.vmi, "RebalancingHeld", f"The planned move waits ({held.reason}): {held.sentence()}")


def _ours(reason: str, note: str, type_: str = NORMAL) -> Event:
    return Event(kind=DEPLOYMENT, type=type_, reason=reason, note=_short(note))


def _on_vmi(key: str, reason: str, note: str, *, type_: str = NORMAL) -> Event:
    namespace, _, name = key.partition("/")
    return Event(kind=VMI, namespace=namespace, name=name, type=type_, reason=reason, note=_short(note))


def _short(note: str) -> str:
    return note if len(note) <= MAX_NOTE else note[: MAX_NOTE - 1] + "…"


def _spot(spot: Hotspot) -> tuple[str, str]:
    return (spot.node, spot.resource)


def _outcome_key(outcome: Outcome) -> tuple[str, str]:
    return (outcome.migration, outcome.result)
