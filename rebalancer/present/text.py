"""A plan as text for people: why now, each node before and after, the moves in waves, what is left, how good it is."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rebalancer.domain.plan import NodeLoad, Plan, State, Wave
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.verdict import Trigger
from rebalancer.present.words import count, moment, percent, resource, size, some

MAX_ROWS = 40
"""Nodes up to which all are shown; of more, only those that the plan is about."""
MAX_VMS_NAMED = 5

STAYS, LEAVES, ARRIVES, EMPTY, MARK = "█", "░", "▓", "·", "│"
LEGEND = f"{STAYS} reserved  {LEAVES} moves away  {ARRIVES} moves here  {MARK} threshold"


def text(plan: Plan, *, width: int = 100, colour: bool = False) -> str:
    """The plan, no line longer than `width` columns (60 at least), with terminal colours only where asked for."""
    return rendered([plan_view(plan, max(width, 60))], width=max(width, 60), colour=colour)


def rendered(views: Iterable[RenderableType], *, width: int, colour: bool) -> str:
    """Renderables as text, without trailing blanks."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    for view in views:
        console.print(view)
    output = console.file
    assert isinstance(output, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


def plan_view(plan: Plan, width: int) -> Group:
    """The whole plan as one renderable."""
    vmis = sum(load.vmis for load in plan.before.nodes.values())
    title = f"Plan {plan.id} for {count(len(plan.before.nodes), 'node')} and {count(vmis, 'VM')}"
    views: list[RenderableType] = [Text(title, style="bold"), Text(f"made {moment(plan.created)}", style="dim")]
    if plan.triggers:
        views += [_heading("Why now"), *why_now(plan.triggers)]
    views += [_heading("Nodes"), nodes_view(plan.before, plan.after, width=width), Text("  " + LEGEND, style="dim")]
    for number, wave in enumerate(plan.waves, start=1):
        views += [_heading(wave_title(number, len(plan.waves), wave)), moves_view(wave)]
    if plan.left:
        views += [_heading("What is left, and why"), *_left(plan)]
    if plan.warnings:
        views += [_heading("Warnings"), *(Text("  " + warning, style="yellow") for warning in plan.warnings)]
    return Group(*views, Text(), Text(bound_sentence(plan)), Text(summary(plan), style="bold"))


def why_now(triggers: Sequence[Trigger]) -> Iterator[RenderableType]:
    """Hotspots one by one; broken rules grouped by rule, because forty VMs may break the same one."""
    broken: dict[tuple[str, str], list[str]] = defaultdict(list)
    for trigger in triggers:
        if trigger.hotspot is not None:
            spot = trigger.hotspot
            amount = f"{percent(spot.percent)} of its {resource(spot.resource)}, above {percent(spot.high)}"
            yield _line(f"{spot.node} reserves {amount}")
        elif trigger.violation is not None:
            broken[trigger.violation.kind, trigger.violation.rule].append(trigger.violation.vmi)
    for (kind, rule), vmis in broken.items():
        verb = "breaks" if len(vmis) == 1 else "break"
        yield _line(f"{count(len(vmis), 'VM')} {verb} {kind} ({rule}): {some(vmis, MAX_VMS_NAMED)}")


def nodes_view(before: State, after: State | None = None, *, width: int = 100) -> RenderableType:
    """Nodes with their reservations as bars; with `after`, what the plan takes away and adds."""
    after = after or before
    names = [name for name in before.nodes if name in after.nodes]
    shown = names if len(names) <= MAX_ROWS else _that_matter(names, before, after)[:MAX_ROWS]
    hot = {(spot.node, spot.resource) for spot in after.hotspots}
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("  node", no_wrap=True, max_width=max(12, width // 4))
    table.add_column("CPU reserved", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("VMs", justify="right", no_wrap=True)
    cells = min(40, max(10, width - max(12, min(width // 4, max(map(len, shown), default=0) + 2)) - 46))
    for name in shown:
        old, new = before.nodes[name], after.nodes[name]
        table.add_row(
            f"  {name}",
            bar(old, new, cells),
            _change(old.cpu, new.cpu, (name, CPU) in hot),
            _change(old.memory, new.memory, (name, MEMORY) in hot),
            str(old.vmis) if old.vmis == new.vmis else f"{old.vmis} → {new.vmis}",
        )
    rest = len(names) - len(shown)
    return Group(table, _line(f"and {count(rest, 'node')} more that the plan leaves as they are")) if rest else table


def bar(old: NodeLoad, new: NodeLoad, cells: int) -> Text:
    """CPU from 0 to 100 % of allocatable: what stays, what goes or comes, and the threshold as a mark."""
    stays, ends = (min(cells, round(value * cells / 100)) for value in sorted((old.cpu, new.cpu)))
    filling = LEAVES if old.cpu > new.cpu else ARRIVES
    drawn = list(STAYS * stays + filling * (ends - stays) + EMPTY * (cells - ends))
    mark = min(cells - 1, round(new.cpu_high * cells / 100))
    drawn[mark] = MARK
    picture = Text("".join(drawn))
    picture.stylize("red" if new.cpu > new.cpu_high else "green", 0, stays)
    picture.stylize("yellow" if filling == LEAVES else "cyan", stays, ends)
    picture.stylize("dim", ends, cells)
    picture.stylize("bold white", mark, mark + 1)
    return picture


def wave_title(number: int, waves: int, wave: Wave) -> str:
    """`Wave 1 of 3: 6 moves, 24 GiB to copy`."""
    memory = sum(move.memory_bytes for move in wave.moves)
    copied = f", {size(memory)} to copy" if memory else ""
    return f"Wave {number} of {waves}: {count(len(wave.moves), 'move')}{copied}"


def moves_view(wave: Wave) -> RenderableType:
    """The moves of a wave with their reasons."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    for move in wave.moves:
        reasons = "; ".join(move.reasons) + (" (a stop on the way)" if move.hop else "")
        memory = size(move.memory_bytes) if move.memory_bytes else ""
        table.add_row(f"  {move.vmi}", f"{move.source} → {move.target}", memory, reasons)
    return table


def bound_sentence(plan: Plan) -> str:
    """How far the plan is from the best that can be: the proven bound and the gap to it."""
    moves, cost = len(plan.moves), sum(move.cost for move in plan.moves)
    if not moves:
        return "Bound: no plan is better than no move." if plan.bound.proven else "Bound: none was found."
    found = f"{count(moves, 'move')} at a cost of {cost}"
    if plan.bound.proven:
        return f"Bound: {found}; proven: no plan that cures as much costs less."
    least = f"at least {count(plan.bound.moves, 'move')} and a cost of {plan.bound.cost}"
    return f"Bound: {found}; a plan that cures as much needs {least} (gap {percent(plan.bound.gap * 100)})."


def summary(plan: Plan) -> str:
    """The plan in one sentence."""
    left = f"{count(len(plan.left), 'thing')} cannot be cured" if plan.left else ""
    if plan.is_noop():
        if left:
            return f"Nothing to do: {left}, and no move would make it better."
        return "Nothing to do: no node is above its threshold and no rule is broken."
    cured = [
        count(number, thing)
        for number, thing in (
            (len(plan.before.hotspots) - len(plan.after.hotspots), "hotspot"),
            (len(plan.before.violations) - len(plan.after.violations), "broken rule"),
        )
        if number > 0
    ]
    todo = f"{count(len(plan.moves), 'move')} in {count(len(plan.waves), 'wave')}"
    what = f"cure {' and '.join(cured)}" if cured else "lower what is above its threshold"
    verb = what.replace("cure", "cures", 1).replace("lower", "lowers", 1) if len(plan.moves) == 1 else what
    return f"{todo} {verb}; {left or 'nothing is left'}."


def _left(plan: Plan) -> Iterator[RenderableType]:
    """What stays as it is; triggers that stay for the same reasons are told together."""
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for left in plan.left:
        together[left.why].append(told(left.trigger))
    for why, triggers in together.items():
        for line in triggers:
            yield _line(line)
        for reason in why:
            yield _line(reason, indent=4, style="dim")


def told(trigger: Trigger) -> str:
    """A trigger in its own words, or in ours where it has none."""
    if trigger.message:
        return trigger.message
    if trigger.hotspot is not None:
        spot = trigger.hotspot
        return f"{spot.node} reserves {percent(spot.percent)} of its {resource(spot.resource)}"
    assert trigger.violation is not None, "a trigger is a hotspot or a violation"
    violation = trigger.violation
    return violation.message or f"{violation.vmi} on {violation.node} breaks {violation.kind} ({violation.rule})"


def _that_matter(names: Sequence[str], before: State, after: State) -> list[str]:
    hot = {spot.node for state in (before, after) for spot in state.hotspots}
    return [name for name in names if name in hot or before.nodes[name] != after.nodes[name]]


def _change(old: float, new: float, above: bool) -> Text:
    shown = percent(new) if percent(old) == percent(new) else f"{percent(old)[:-2]} → {percent(new)}"
    return Text(shown, style="red" if above else "")


def _heading(words: str) -> RenderableType:
    return Padding(Text(words, style="bold"), (1, 0, 0, 0))


def _line(words: str, *, indent: int = 2, style: str = "") -> RenderableType:
    return Padding(Text(words, style=style), (0, 0, 0, indent))
