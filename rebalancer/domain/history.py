"""What became of each plan: what was planned beside what came of it. Pure; lost with the process that holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Plan, State
from rebalancer.domain.report import Outcome, Report

PROPOSED, RUNNING, FINISHED, DROPPED, REPLACED, HANDED_OVER = (
    "Proposed",
    "Running",
    "Finished",
    "Dropped",
    "Replaced",
    "HandedOver",
)
STANDINGS = (PROPOSED, RUNNING, FINISHED, DROPPED, REPLACED, HANDED_OVER)
"""Proposed: a dry run said it. Replaced: what it was made for changed before it was carried out to its end.
HandedOver: another replica leads now and knows the rest."""

KEPT = 50
"""How many plans are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """One move that has ended. `seconds` from its start to its end, 0.0 where the start was not seen."""

    outcome: Outcome
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One plan's story. `reached` is the cluster's state when it ended, None while it has not.

    `begun` and `ended` are in seconds since 1970, 0.0 for not yet. `starts` maps migrations to when they began.
    """

    plan: Plan
    standing: str
    begun: float
    ended: float = 0.0
    why: str = ""
    landings: tuple[Landing, ...] = ()
    reached: State | None = None
    starts: FrozenMap[str, float] = FrozenMap()

    @property
    def open(self) -> bool:
        return self.ended == 0.0


def remember(history: tuple[Chapter, ...], report: Report) -> tuple[Chapter, ...]:
    """The history after one more report, newest last. The same object where the report adds nothing."""
    last = history[-1] if history else None
    plan = report.plan if report.plan is not None and not report.plan.is_noop() else None
    if last is not None and last.open and (plan is None or plan.id != last.plan.id):
        standing, why = (REPLACED, "") if report.leader else (HANDED_OVER, report.sentence.text)
        last = replace(last, standing=standing, ended=report.time, why=why, reached=report.state)
        history = (*history[:-1], last)
    if plan is None:
        return history
    if last is None or not last.open or plan.id != last.plan.id:
        if last is not None and plan.id == last.plan.id:
            return history  # a cycle may show the plan once more that the cycle before it has ended
        standing = RUNNING if report.mode == "active" else PROPOSED
        last = Chapter(plan=plan, standing=standing, begun=report.time)
        history = (*history, last)[-KEPT:]
    told = _told(last, report)
    return history if told == last else (*history[:-1], told)


def _told(chapter: Chapter, report: Report) -> Chapter:
    """An open chapter with what the report says about its plan."""
    starts = {entry.migration: entry.started for entry in report.running if entry.ours}
    starts = {**chapter.starts, **starts}
    planned = set(chapter.plan.moves)
    landings = tuple(
        Landing(outcome=done, seconds=max(0.0, done.finished - starts.get(done.migration, done.finished)))
        for done in report.done
        if done.move in planned
    )
    kind = report.sentence.kind
    ended = kind in (FINISHED, DROPPED)
    return replace(
        chapter,
        landings=landings,
        starts=FrozenMap({name: at for name, at in starts.items() if name}),
        standing=kind if ended else chapter.standing,
        why=report.sentence.text if kind == DROPPED else chapter.why,
        ended=report.time if ended else 0.0,
        reached=report.state if ended else None,
    )
