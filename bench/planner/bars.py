"""What the planner is to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.planner.steady import Steady
from bench.planner.table import Measured

Check = Callable[[Measured], tuple[str, bool]]
"""What was measured, in words, and whether that is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar, about one instance."""

    instance: str
    wanted: str
    check: Check


def proven(seconds: float) -> Check:
    """The optimum, proven in time."""

    def check(row: Measured) -> tuple[str, bool]:
        known = "proven" if row.proven else f"gap {100 * row.gap:.3f} %"
        return f"{known}, {row.end:.2f} s", row.proven and row.end <= seconds

    return check


def near(gap: float, seconds: float, megabytes: int = 1_024) -> Check:
    """A plan that is so near to the bound, in time and memory, looking for triggers included."""

    def check(row: Measured) -> tuple[str, bool]:
        known = "proven" if row.proven else f"gap {100 * row.gap:.3f} %"
        took = row.find + row.end
        good = (row.proven or row.gap <= gap) and took <= seconds and row.megabytes <= megabytes
        return f"{known}, {took:.1f} s with the triggers, {row.megabytes:,} MB", good

    return check


def fewest(moves: int, seconds: float) -> Check:
    """So many moves, which is the bound, in time, and nothing left."""

    def check(row: Measured) -> tuple[str, bool]:
        left = row.hot_left + row.broken_left
        good = row.moves == row.moves_bound == moves and not left and row.end <= seconds
        return f"{row.moves} moves, bound {row.moves_bound}, {left} left, {row.end:.2f} s", good

    return check


def nothing_left(row: Measured) -> tuple[str, bool]:
    """Everything is cured."""
    left = row.hot_left + row.broken_left
    return f"{row.moves:,} moves, {left} left, {row.end:.1f} s", not left


BARS = (
    Bar(instance="loose 100x2,000", wanted="optimum proven, at most 1 s", check=proven(1)),
    Bar(instance="loose 1,000x20,000", wanted="optimum proven or gap at most 0.1 %, 3 s", check=near(0.001, 3)),
    Bar(instance="tight 1,000x20,000", wanted="within 1 % of the bound, 10 s", check=near(0.01, 10)),
    Bar(instance="loose 5,000x100,000", wanted="gap at most 0.1 %, 10 s, 1 GB", check=near(0.001, 10)),
    Bar(instance="tight 5,000x100,000", wanted="gap at most 1 %, 20 s, 1 GB", check=near(0.01, 20)),
    Bar(instance="BtrPlace li6 with rules", wanted="590 moves, the bound, 2 s, nothing left", check=fewest(590, 2)),
    Bar(instance="BtrPlace nr3 with rules", wanted="all nodes emptied, nothing left", check=nothing_left),
    Bar(instance="BtrPlace nr4 with rules", wanted="all nodes emptied, nothing left", check=nothing_left),
    Bar(instance="recorded 12x130", wanted="optimum proven, 0.3 s in the planner", check=proven(0.3)),
)


def bars(rows: Iterable[Measured], steady: Steady | None) -> list[str]:
    """The table of bars, as lines of markdown."""
    known = {row.name: row for row in rows}
    lines = ["| bar | wanted | measured | |", "|---|---|---|---|"]
    for bar in BARS:
        row = known.get(bar.instance)
        text, met = bar.check(row) if row is not None else ("not measured", False)
        lines.append(_line(bar.instance, bar.wanted, text, met))
    text, met = steady.told() if steady is not None else ("not measured", False)
    lines.append(
        _line("nothing to do, 5,000x100,000", "triggers found and cycle done from a warm cache, 0.2 s", text, met)
    )
    circles = [row for row in known.values() if row.name.startswith(("swaps", "ring", "20 rings"))]
    stuck = [row.name for row in circles if row.hot_left or row.broken_left]
    text = f"{len(circles) - len(stuck)} of {len(circles)}"
    lines.append(_line("swaps and rings", "every plan runs and cures all", text, bool(circles) and not stuck))
    unequal = [row.name for row in known.values() if row.equal != row.runs]
    text = f"other plans: {', '.join(unequal)}" if unequal else f"{len(known)} instances"
    lines.append(_line("all", "the same plan in every run", text, bool(known) and not unequal))
    return lines


def _line(name: str, wanted: str, text: str, met: bool) -> str:
    return f"| {name} | {wanted} | {text} | {'met' if met else 'missed'} |"
