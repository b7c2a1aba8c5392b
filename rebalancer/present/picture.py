"""What there is to show to people and programs: one value that the page and the API are rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rebalancer.domain.history import Chapter
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Report
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.load import PolicyParams

PRIVATE_SETTINGS = ("REBALANCER_KUBECONFIG", "REBALANCER_CONTEXT")
"""Settings that say more about somebody's own machine than about what the daemon does."""

PORT_FORWARD = "kubectl -n NAMESPACE port-forward pod/{} 8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The last report, None before the first cycle; the cluster that it is about; what became of earlier plans.

    `settings` are rows as `rebalancer settings -o json` has them; `since` is when this process began to look.
    """

    report: Report | None = None
    snapshot: Snapshot = Snapshot()
    policy: PolicyParams = PolicyParams()
    history: tuple[Chapter, ...] = ()
    settings: tuple[Mapping[str, str], ...] = ()
    since: float = 0.0

    @property
    def plan(self) -> Plan | None:
        """The plan in force, or what a dry run would do."""
        return self.report.plan if self.report is not None else None

    def public_settings(self) -> tuple[Mapping[str, str], ...]:
        """The settings that others may see."""
        return tuple(row for row in self.settings if row.get("name") not in PRIVATE_SETTINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why there is less to see or less done than one would expect, and what to do about it."""

    what: str
    todo: str


def problem(report: Report | None) -> Problem | None:
    """What is the matter, if anything is."""
    if report is None:
        return Problem(
            what="The first look at the cluster is not over yet.",
            todo="Wait a few seconds; this page fills by itself.",
        )
    text = report.sentence.text
    match report.sentence.kind:
        case "NotSynced":
            todo = (
                "A large cluster takes a minute to list. If this stays, check that the API server answers and that "
                "our ServiceAccount may list and watch what is named above (kubectl auth can-i list nodes --as ...)."
            )
        case "Standby" if report.holder:
            command = PORT_FORWARD.format(report.holder)
            todo = (
                "The plan, what is held and the history are on the leader's page: "
                f"{command}, with our own namespace for NAMESPACE."
            )
        case "Standby":
            todo = "Wait half a minute. If nobody leads then, check that our ServiceAccount may update our Lease."
        case "Paused" | "Unfit" | "Unsettled":
            todo = "What is in the way is named above; we go on by ourselves as soon as it is taken away."
        case "Broken":
            todo = "Look at the failed migrations under History, mend their cause, then wait, or resume as told above."
        case "Failed":
            todo = "It is tried again by itself. If this stays, the daemon's log has the details."
        case "DryRun":
            todo = (
                "Nothing, as long as you only want to see what would happen. Once the plans convince you, "
                "REBALANCER_MODE=active lets it act; the chart's settings.mode also grants the right to."
            )
        case "Stuck":
            todo = (
                "Under Findings each of them says why it stays. Add room, let more VMs migrate, or correct the rule; "
                "kubevirt-rebalancer.io/policy=ignore leaves a VM or a namespace alone on purpose."
            )
        case "Held":
            todo = "Nothing: what each move waits for, and until when, is under Running and held."
        case _:
            return None
    return Problem(what=text, todo=todo)
