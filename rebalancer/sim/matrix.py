"""The fault matrix: a run without faults, then one more for every write, every watch event and everything that can go
wrong there; and daemons with a fault planted in them, which the checkers have to find.

    python -m rebalancer.sim.matrix                       # all points of all worlds, and every planted fault
    python -m rebalancer.sim.matrix --points 5000         # so many of them, spread over worlds, places and kinds
    python -m rebalancer.sim.matrix --only 'hot 0 write 12 crash before'    # one of them, and what it came to

Every run is judged by the checkers, and must end as the run without faults does: every VM up, nothing under way, no
node hotter and no more rules broken, no more migrations than the kind of fault explains, VMs where they would have been
or as well off elsewhere (see `compare`), and no hot loop of requests meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from rebalancer.sim.perturb import EVENT, KINDS, WRITE, Point
from rebalancer.sim.small_worlds import WORLDS
from rebalancer.sim.trial import Case, Result, play

SEEDS = (0, 1)
"""Every world is run with each of these."""
CHUNK = 50
"""Runs after which a process is replaced: what is listed is kept from the garbage collector, a daemon lives once."""
PROCESSES = os.cpu_count() or 1


@cache
def reference(world: str, seed: int) -> Result:
    """The run without faults."""
    return play(Case(world=world, seed=seed))


def cases(worlds: Iterable[str] = tuple(WORLDS), seeds: Iterable[int] = SEEDS) -> list[Case]:
    """Every point of these worlds."""
    return [
        Case(world=world, seed=seed, point=Point(at=at, index=index, kind=kind))
        for world, seed in itertools.product(worlds, seeds)
        for at in (WRITE, EVENT)
        for index, mark in enumerate(reference(world, seed).marks[at])
        for kind in mark.kinds
    ]


def judge(case: Case, clean: Result) -> Result:
    """Run a case and compare its end with that of the run without faults; whatever was raised is wrong, too."""
    try:
        result = play(case)
    except Exception as error:  # the edge: a run that cannot be finished is a finding like others
        return replace(clean, case=case, wrong=(f"{type(error).__name__}: {error}",))
    return replace(result, wrong=(*result.wrong, *compare(result, clean)))


def compare(result: Result, clean: Result) -> Iterator[str]:
    """What is not as in the run without faults, and not explained by the kind of fault."""
    yield from (f"left at the end: {text}" for text in result.left if text not in clean.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All results, and the seconds that they took by the clock on the wall."""

    results: tuple[Result, ...]
    seconds: float

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.wrong)

    @property
    def cpu_seconds(self) -> float:
        return sum(result.cpu_seconds for result in self.results)

    def text(self) -> str:
        """The tables; and each failure with the command that repeats it."""
        each = self.cpu_seconds / max(len(self.results), 1) * 1000
        lines = [*self._by_kind(), "", *self._by_world(), ""]
        lines.append(f"{self.cpu_seconds:.0f} s of CPU, {each:.0f} ms a point; {self.seconds:.0f} s by the clock")
        for result in self.failures:
            lines += [f"FAILED {result.case.command()}", *(f"  {text}" for text in result.wrong[:5])]
        return "\n".join(lines) + "\n"

    def _by_kind(self) -> Iterator[str]:
        points = [result.case.point for result in self.results if result.case.point is not None]
        tried = Counter((point.kind, point.at) for point in points)
        wrong = Counter(result.case.point.kind for result in self.failures if result.case.point is not None)
        yield "| what goes wrong | at a write | at an event | violations |"
        yield "|---|---:|---:|---:|"
        for kind in dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds):
            yield f"| {kind} | {tried[kind, WRITE]} | {tried[kind, EVENT]} | {wrong[kind]} |"
        total = [sum(point.at == at for point in points) for at in (WRITE, EVENT)]
        yield f"| all {len(points)} points | {total[0]} | {total[1]} | {len(self.failures)} |"

    def _by_world(self) -> Iterator[str]:
        tried = Counter((result.case.world, point.at) for result in self.results if (point := result.case.point))
        wrong = Counter(result.case.world for result in self.failures)
        yield "| where | | at a write | at an event | violations |"
        yield "|---|---|---:|---:|---:|"
        for name, small in WORLDS.items():
            yield f"| {name} | {small.about} | {tried[name, WRITE]} | {tried[name, EVENT]} | {wrong[name]} |"


def spread(all_cases: list[Case], points: int) -> list[Case]:
    """So many of them, every world, place and kind having its share; all where there are no more."""
    if points >= len(all_cases):
        return all_cases
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in all_cases:
        assert case.point is not None
        groups.setdefault((case.world, case.point.at, case.point.kind), []).append(case)
    share = points / len(all_cases)
    found: list[Case] = []
    owed = 0.0
    for group in groups.values():
        owed += len(group) * share
        count = min(round(owed), len(group))
        owed -= count
        # From the middle of equal parts, so that a single one is not always the first.
        found += [group[(2 * number + 1) * len(group) // (2 * count)] for number in range(count)]
    return found


def run_matrix(chosen: list[Case], processes: int = PROCESSES) -> Matrix:
    """Run them all, in so many processes; the order of the results is that of the cases."""
    begun = time.monotonic()
    work = [(case, replace(reference(case.world, case.seed), marks={})) for case in chosen]
    return Matrix(results=tuple(spread_out(work, processes)), seconds=time.monotonic() - begun)


def spread_out(work: list[tuple[Case, Result]], processes: int) -> list[Result]:
    """Judge each case beside its clean run, in processes of their own where there is more than one."""
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    if processes == 1:
        return [result for chunk in chunks for result in judge_all(chunk)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([play.__module__])
    with context.Pool(processes, maxtasksperchild=1) as pool:
        return [result for results in pool.imap(judge_in_child, chunks) for result in results]


def judge_in_child(work: list[tuple[Case, Result]]) -> list[Result]:
    """The same in a process that ends after it: it needs no garbage collector."""
    gc.disable()
    return judge_all(work)


def judge_all(work: list[tuple[Case, Result]]) -> list[Result]:
    return [judge(case, clean) for case, clean in work]


def parse(text: str) -> Case:
    """A case as `Case.command` writes it. Raises ValueError."""
    world, seed, *rest = text.split(" ", 4)
    if world not in WORLDS:
        raise ValueError(f"there is no world {world!r}; there are {', '.join(WORLDS)}")
    if not rest:
        return Case(world=world, seed=int(seed))
    at, index, kind = rest
    if kind not in KINDS.get(at, ()):
        raise ValueError(f"{at} {kind}: one of {', '.join(f'{at} {kind}' for at in KINDS for kind in KINDS[at])}")
    return Case(world=world, seed=int(seed), point=Point(at=at, index=int(index), kind=kind))


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 where anything was found wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m rebalancer.sim.matrix", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--points", type=int, default=sys.maxsize, help="so many points, well spread; default all")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--world", choices=tuple(WORLDS), action="append", help="only this world; may be repeated")
    parser.add_argument("--only", metavar="'WORLD SEED AT INDEX KIND'", help="one point, and what it came to")
    chosen = parser.parse_args(arguments)
    if chosen.only:
        try:
            case = parse(chosen.only)
        except ValueError as error:
            parser.error(str(error))
        result = judge(case, reference(case.world, case.seed))
        print(replace(result, marks={}))
        return int(bool(result.wrong))
    matrix = run_matrix(spread(cases(chosen.world or WORLDS), chosen.points), chosen.processes)
    print(matrix.text(), end="")
    return int(bool(matrix.failures))


if __name__ == "__main__":
    sys.exit(main())
