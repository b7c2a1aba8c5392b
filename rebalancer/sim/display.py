"""What `make run` shows: nodes as bars against their thresholds, the plan, its waves going out, each cycle's sentence.

On a terminal the picture stays in place; elsewhere every new sentence is a line.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Report
from rebalancer.present import log
from rebalancer.present.text import LEGEND, moves_view, nodes_view, rendered, summary, wave_title
from rebalancer.present.words import count, duration, moment, some

SENTENCES_SHOWN = 7
RUNNING_SHOWN = 6
EVENTS_SHOWN = 4
REFRESHES_PER_SECOND = 4
COLOURS = {
    "Started": "cyan",
    "Finished": "green",
    "Balanced": "green",
    "Failed": "red",
    "Stuck": "red",
    "Broken": "red",
}


Unread = Callable[[], None]
"""Called once nobody reads any more what is shown."""

Happened = Callable[[], Sequence[tuple[float, str]]]
"""What has happened in the cluster, as (seconds since it began, words), newest last."""


class Picture:
    """The last Report, the sentences up to it, and what has happened in the cluster, as one renderable."""

    def __init__(self, title: str, happened: Happened) -> None:
        self._title = title
        self._happened = happened
        self._news: list[str] = []
        self._report: Report | None = None
        self._begun = 0.0
        self._said: deque[tuple[float, str, str]] = deque(maxlen=SENTENCES_SHOWN)

    def observe(self, report: Report) -> bool:
        """Takes over a cycle's report; whether its sentence is new."""
        news = log.worth_saying(report, self._report)
        self._begun = self._begun or report.time
        self._report = report
        # Here and not in `view`, which is called from another thread.
        self._news = [text for _, text in self._happened()][-EVENTS_SHOWN:]
        if news:
            self._said.append((report.time, report.sentence.kind, report.sentence.text))
        return news

    def view(self, width: int) -> RenderableType:
        """The picture for a terminal of so many columns."""
        report = self._report
        if report is None:
            return Text(f"{self._title}: the cluster is being listed …")
        passed = f"{duration(report.time - self._begun)} of its time"
        ahead = report.plan.after if report.plan and not report.plan.is_noop() else None
        views: list[RenderableType] = [
            Text(self._title, style="bold"),
            Text(f"{report.mode} · {moment(report.time)} · {passed}"),
            Text(),
            nodes_view(report.state, ahead, width=width),
            Text(f"  {LEGEND}", style="dim"),
            Text(),
            Text(_standing(report), style="bold"),
        ]
        if report.running:
            views.append(_running(report))
        if report.held:
            waiting = some(sorted({held.reason for held in report.held}))
            views.append(Text(f"  {count(len(report.held), 'move')} held: {waiting}", style="yellow"))
        views += [Text(), *self._sentences()]
        if self._news:
            views += [Text(), Text(f"In the cluster: {'; '.join(self._news)}", style="dim")]
        if report.plan is not None and report.plan.waves and report.mode != "active":
            first = report.plan.waves[0]
            views += [Text(), Text(wave_title(1, len(report.plan.waves), first)), moves_view(first)]
        return Group(*views)

    def _sentences(self) -> Iterator[RenderableType]:
        for time, kind, text in self._said:
            line = Text(f"{moment(time)[11:-1]} ", style="dim", no_wrap=True, overflow="ellipsis")
            yield line.append(f"{kind:9} ", style=COLOURS.get(kind, "")).append(text)


def _standing(report: Report) -> str:
    """Where the plan in force stands."""
    plan = report.plan
    if plan is None:
        return "No plan in force."
    if plan.is_noop() or report.mode != "active":
        return f"Plan {plan.id}: {summary(plan)}"
    return f"Plan {plan.id}: wave {max(1, report.wave)} of {len(plan.waves)}, {_done(report, plan)}"


def _done(report: Report, plan: Plan) -> str:
    planned = {(move.vmi, move.source, move.target) for move in plan.moves}
    ended = {
        (outcome.move.vmi, outcome.move.source, outcome.move.target)
        for outcome in report.done
        if outcome.result == "Succeeded"
    }
    return f"{len(planned & ended)} of {count(len(planned), 'move')} done"


def _running(report: Report) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    for running in report.running[:RUNNING_SHOWN]:
        whose = "" if running.ours else "not ours"
        since = duration(report.time - running.started) if running.started else ""
        table.add_row(
            f"  {running.vmi}", f"{running.source or '?'} → {running.target or '?'}", running.phase, since, whose
        )
    more = len(report.running) - RUNNING_SHOWN
    return Group(table, Text(f"  and {more} more")) if more > 0 else table


@contextmanager
def shown(
    title: str, stream: TextIO, happened: Happened = tuple, *, unread: Unread = lambda: None
) -> Iterator[Callable[[Report], None]]:
    """Shows the Reports that the given function is called with, for as long as it is entered.

    Where `stream` is no terminal the title goes to standard error, so that the lines are the daemon's alone.
    """
    picture = Picture(title, happened)
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        print(title, file=sys.stderr, flush=True)
        yield _as_lines(picture, stream, unread)
        return
    with Live(
        console=console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=lambda: picture.view(console.width)
    ):
        yield lambda report: (picture.observe(report), None)[1]


def _as_lines(picture: Picture, stream: TextIO, unread: Unread) -> Callable[[Report], None]:
    """Sentences as lines, and each new plan before the sentence that announces it."""
    plans: list[str] = []

    def observe(report: Report) -> None:
        news = picture.observe(report)
        if report.plan is not None and report.plan.id not in plans:
            plans.append(report.plan.id)
            print(rendered([nodes_view(report.plan.before, report.plan.after)], width=100, colour=False), file=stream)
        if news:
            print(log.line(report), file=stream, flush=True)

    def observe_while_read(report: Report) -> None:
        try:
            observe(report)
        except BrokenPipeError:
            unread()

    return observe_while_read
