"""What became of each plan, told report by report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import move, wave

from rebalancer.domain.history import KEPT, Chapter, remember
from rebalancer.domain.plan import Bound, Plan, Solver, State
from rebalancer.domain.report import Outcome, Report, Running, Sentence
from rebalancer.domain.verdict import Hotspot

HOT = State(hotspots=(Hotspot(node="w-0", resource="cpu", percent=90.0, high=80.0, low=75.0),))
FIRST, SECOND = move("bank/a", "w-0", "w-1"), move("bank/b", "w-0", "w-2")


def plan(identity: str = "p-1") -> Plan:
    return Plan(
        id=identity,
        created=0.0,
        resource_version="1",
        triggers=(),
        waves=(wave(FIRST, SECOND),),
        before=HOT,
        after=State(),
        left=(),
        bound=Bound(moves=2, cost=2, gap=0.0, proven=True),
        solver=Solver(status="OPTIMAL", seconds=0.0),
    )


def report(time: float, kind: str, made: Plan | None = None, **fields: Any) -> Report:
    base = Report(
        cycle=1, time=time, mode="active", sentence=Sentence(kind=kind, text=f"it is {kind}"), leader=True, plan=made
    )
    return replace(base, **fields)


def told(*reports: Report) -> tuple[Chapter, ...]:
    history: tuple[Chapter, ...] = ()
    for each in reports:
        history = remember(history, each)
    return history


def outcome(result: str = "Succeeded", at: float = 50.0) -> Outcome:
    return Outcome(move=FIRST, migration="rb-a", result=result, finished=at, landed_on="w-1")


def test_planned_beside_actual() -> None:
    flying = Running(vmi="bank/a", migration="rb-a", phase="Running", source="w-0", target="w-1", started=20.0)
    (chapter,) = told(
        report(10, "Planned", plan()),
        report(20, "Started", plan(), running=(flying,), state=HOT),
        report(50, "Running", plan(), done=(outcome(),)),
        report(90, "Finished", plan(), done=(outcome(),), state=State()),
        report(100, "Balanced"),
    )
    assert (chapter.standing, chapter.begun, chapter.ended) == ("Finished", 10.0, 90.0)
    (landing,) = chapter.landings
    assert (landing.outcome.landed_on, landing.seconds) == ("w-1", 30.0)
    assert (len(chapter.plan.before.hotspots), chapter.reached) == (1, State())


@pytest.mark.parametrize(
    ("last", "standing", "why"),
    [
        (report(30, "Dropped", plan()), "Dropped", "it is Dropped"),
        (report(30, "Balanced"), "Replaced", ""),
        (report(30, "Planned", plan("p-2")), "Replaced", ""),
        (report(30, "Standby", leader=False), "HandedOver", "it is Standby"),
    ],
    ids=["dropped", "nothing left to do", "another plan", "another leader"],
)
def test_how_a_plan_ends_before_its_end(last: Report, standing: str, why: str) -> None:
    first = told(report(10, "Planned", plan()), last)[0]
    assert (first.standing, first.why, first.ended) == (standing, why, 30.0)


def test_a_dry_run_proposes_once() -> None:
    said = [report(time, "DryRun", plan(), mode="dry-run") for time in (10, 25, 40)]
    (chapter,) = told(*said)
    assert (chapter.standing, chapter.begun, chapter.open) == ("Proposed", 10.0, True)
    history = told(*said)
    assert remember(history, said[-1]) is history


def test_plans_without_moves_are_no_history() -> None:
    assert told(report(10, "Stuck", replace(plan(), waves=()))) == ()


def test_a_cycle_that_shows_an_ended_plan_once_more_adds_nothing() -> None:
    ended = told(report(10, "Planned", plan()), report(90, "Finished", plan()))
    assert remember(ended, report(91, "Running", plan())) == ended


def test_only_so_many_are_kept() -> None:
    history = told(*(report(number, "Planned", plan(f"p-{number}")) for number in range(KEPT + 5)))
    assert [chapter.plan.id for chapter in history] == [f"p-{number}" for number in range(5, KEPT + 5)]
