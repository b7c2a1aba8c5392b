"""What virt-controller writes into a migration's status, from what it sees: the table of phases as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rebalancer.sim.migration_case import ABORT, QUOTA, RUNNING_PHASES, Case
from rebalancer.sim.objects import (
    MIGRATION_FINALIZER,
    TERMINAL,
    Obj,
    annotations_of,
    condition,
    copy,
    deleting,
    is_true,
    phase,
    ready,
    stamp,
    status,
    terminal,
)

FAILED = "FailedMigration"
HANDED_OFF_PHASES = ("PreparingTarget", "TargetReady", "Running")
READY_MARK = "kubevirt.io/migration-target-ready-timestamp"
HOLDS_BACK = ("HotMemoryChange", "MigrationRequired")
"""VMI conditions that withhold success although the guest has moved, while they are True; HotVCPUChange always does."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The new status and finalizers, events to record as (reason, message), and a time to note on the target pod."""

    status: Obj
    finalizers: list[str]
    events: list[tuple[str, str]] = field(default_factory=list)
    mark_pod: str | None = None

    def fail(self, message: str) -> None:
        self.status["phase"] = "Failed"
        self.events.append((FAILED, message))


def decide(case: Case, now: float) -> Verdict:
    """The next status of a migration that still has its finalizer."""
    verdict = Verdict(status=copy(status(case.item)), finalizers=list(case.item["metadata"].get("finalizers") or ()))
    if phase(case.item) in TERMINAL:
        _finish(case, verdict)
        return verdict
    trouble = _trouble(case)
    if trouble:
        verdict.fail(trouble)
        if deleting(case.item) and not case.handed_off:
            _add_condition(verdict, ABORT, now)
    elif deleting(case.item) and not condition(case.item, ABORT):
        _add_condition(verdict, ABORT, now)
    else:
        _progress(case, verdict, now)
    _note_phase(case, verdict, now)
    return verdict


def _finish(case: Case, verdict: Verdict) -> None:
    """The VMI's own record is kept with the migration, and the migration may go."""
    if case.handed_off:
        if not case.state.get("endTimestamp"):
            return  # the VMI is told first that it failed
        verdict.status["migrationState"] = copy(case.state)
    verdict.finalizers = [name for name in verdict.finalizers if name != MIGRATION_FINALIZER]


def _trouble(case: Case) -> str:
    """Why the migration has failed, "" if it has not; the original's checks in its order and words."""
    now, pod = phase(case.item), case.pod
    if phase(case.vmi) in TERMINAL:
        return "Migration failed vmi shutdown during migration."
    if deleting(case.item) and not case.handed_off:
        return "Migration failed due to being canceled"
    if pod is not None and terminal(pod):
        return "Migration failed because target pod shutdown during migration"
    if now in RUNNING_PHASES and pod is None:
        return "Migration target pod was removed during active migration."
    if now in HANDED_OFF_PHASES and not case.state:
        return "VMI's migration state was cleared during the active migration."
    if now in HANDED_OFF_PHASES and not case.handed_off:
        return "VMI's migration state was taken over by another migration job during active migration."
    if case.handed_off and case.state.get("failed"):
        return "source node reported migration failed"
    return ""


def _unset(case: Case, verdict: Verdict, _: float) -> str:
    if case.blocked:
        verdict.fail("VMI is not eligible for migration because another migration job is in progress.")
        return ""
    return "Pending"


def _pending(case: Case, verdict: Verdict, now: float) -> str:
    if case.pod is not None:
        return "" if case.hotplugged() else "Scheduling"
    if case.quota_exceeded:
        _add_condition(verdict, QUOTA, now)
    return ""


def _scheduling(case: Case, verdict: Verdict, _: float) -> str:
    if condition(case.item, QUOTA):
        verdict.status["conditions"] = [entry for entry in verdict.status["conditions"] if entry["type"] != QUOTA]
    return "Scheduled" if case.pod is not None and ready(case.pod) else ""


def _scheduled(case: Case, _: Verdict, __: float) -> str:
    return "PreparingTarget" if case.handed_off and case.state.get("targetNode") else ""


def _preparing(case: Case, _: Verdict, __: float) -> str:
    return "TargetReady" if case.state.get("targetNodeAddress") else ""


def _target_ready(case: Case, _: Verdict, __: float) -> str:
    return "Running" if case.state.get("startTimestamp") else ""


def _running(case: Case, verdict: Verdict, _: float) -> str:
    arrived = case.state.get("targetNodeDomainReadyTimestamp")
    if arrived and case.pod is not None and READY_MARK not in annotations_of(case.pod):
        verdict.mark_pod = arrived.replace("T", " ").replace("Z", " +0000 UTC")  # as Go prints a time
    held = condition(case.vmi, "HotVCPUChange") or any(is_true(case.vmi, kind) for kind in HOLDS_BACK)
    if held or not case.state.get("completed"):
        return ""
    verdict.events.append(("SuccessfulMigration", "Source node reported migration succeeded"))
    return "Succeeded"


PROGRESS: dict[str, Callable[[Case, Verdict, float], str]] = {
    "": _unset,
    "Pending": _pending,
    "Scheduling": _scheduling,
    "Scheduled": _scheduled,
    "PreparingTarget": _preparing,
    "TargetReady": _target_ready,
    "Running": _running,
}
"""What each phase waits for; each answers the next phase, "" to stay."""


def _progress(case: Case, verdict: Verdict, now: float) -> None:
    reached = PROGRESS[phase(case.item)](case, verdict, now)
    if reached:
        verdict.status["phase"] = reached


def _add_condition(verdict: Verdict, kind: str, now: float) -> None:
    old = verdict.status.get("conditions") or []
    if all(entry["type"] != kind for entry in old):
        entry = {"type": kind, "status": "True", "lastProbeTime": stamp(now), "lastTransitionTime": None}
        verdict.status["conditions"] = [*old, entry]


def _note_phase(case: Case, verdict: Verdict, now: float) -> None:
    """Each phase's first moment; and, once Pending, which pod is the source."""
    reached = verdict.status.get("phase")
    times = verdict.status.get("phaseTransitionTimestamps") or []
    if reached != phase(case.item) and all(entry["phase"] != reached for entry in times):
        moment = {"phase": reached, "phaseTransitionTimestamp": stamp(now)}
        verdict.status["phaseTransitionTimestamps"] = [*times, moment]
    if reached == "Pending" and case.source_pod and not verdict.status.get("migrationState"):
        verdict.status["migrationState"] = {"sourcePod": case.source_pod}
