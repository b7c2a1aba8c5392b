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
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.pool import Pool

from rebalancer.daemon import Makers
from rebalancer.sim.objects import key_of
from rebalancer.sim.perturb import CRASH_AFTER, CRASH_BEFORE, EVENT, KINDS, LEADER, RESET, STALE, WRITE, Point
from rebalancer.sim.planted import PLANTED
from rebalancer.sim.small_worlds import WORLDS
from rebalancer.sim.trial import TAKES_SECONDS, Case, Result, play

SEEDS = (0,)
"""Every world is run with each of these, unless the command line names more."""
PLAN_IS_LOST = (CRASH_BEFORE, CRASH_AFTER, STALE, LEADER)
"""Faults after which another process makes a plan of its own."""
MENDING_SECONDS = 60.0
"""So much longer than its fault a run may last: back-offs, hold times, a deadline that is counted anew."""
TRIES = 60
"""So many points, at most, are tried to find a planted fault."""
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
        result = play(case, PLANTED[case.plant].makers if case.plant else Makers())
    except Exception as error:  # the edge: a run that cannot be finished is a finding like others
        return replace(clean, case=case, wrong=(f"{type(error).__name__}: {error}",))
    return replace(result, wrong=(*result.wrong, *compare(result, clean)))


def compare(result: Result, clean: Result) -> Iterator[str]:
    """What is not as in the run without faults, and not explained by the kind of fault.

    What was begun is found again, whatever became of the answer, so there is no migration more, with two exceptions: a
    POST that has come to nothing leaves its VM alone for a while, and two smaller ones may have to go in its place;
    and a process that is shown an old picture may see a node hot that is mended.

    Every VM ends where it would have ended. Where the plan is lost with its process, the one that is made half way
    moves the same VMs, but maybe to other nodes that are as good. And where others act in a world, or migrations fail,
    the moment of the fault decides what of ours is under way then, and so which VM goes.
    """
    yield from (f"left at the end: {text}" for text in result.left if text not in clean.left)
    point = result.case.point
    at, kind = (point.at, point.kind) if point is not None else ("", "")
    came_to_nothing = (at, kind) == (WRITE, RESET)
    more = int(came_to_nothing or kind == STALE)
    if result.migrations > clean.migrations + more:
        yield f"{result.migrations} migrations instead of {clean.migrations}"
    began = _began(result.case.world, result.case.seed)
    moved, expected = ({vm for vm, node in began.items() if r.places.get(vm) != node} for r in (result, clean))
    if len(moved) > len(expected) + more:
        yield f"{len(moved)} VMs are not where they were, {len(expected)} without the fault"
    if WORLDS[result.case.world].calm and not came_to_nothing:
        same = moved == expected if kind in PLAN_IS_LOST else result.places == clean.places
        if not same:
            yield f"elsewhere than without the fault: {', '.join(sorted(moved))}"
    late = result.virtual_seconds - clean.virtual_seconds
    if late > TAKES_SECONDS.get(kind, 0.0) + MENDING_SECONDS:
        yield f"it took {late:.0f} s longer than without the fault"


@cache
def _began(world: str, seed: int) -> Mapping[str, str]:
    """Where each VM is before anything has moved."""
    vmis = (item for item in WORLDS[world].items(seed) if item["kind"] == "VirtualMachineInstance")
    return {key_of(vmi): vmi["status"]["nodeName"] for vmi in vmis}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """What the search for a planted fault came to: runs tried, and the one that tells of it, None for none."""

    plant: str
    tried: int
    found: Result | None
    by: str = ""

    def line(self) -> str:
        """A row of the table."""
        where = f"`{self.found.case.command().partition('--only ')[2].partition(' --')[0]}`" if self.found else ""
        return f"| {self.plant} | {self.tried} | {self.by or 'NOT FOUND'} | {where} |"


def hunt(name: str, tries: int = TRIES) -> Hunt:
    """Look for a planted fault: in the worlds where it matters without any other fault, then at the points where it
    can show, evenly spread, so many at most."""
    plant, chosen = PLANTED[name], list[Case]()
    for world in plant.worlds:
        marks = reference(world, SEEDS[0]).marks
        chosen += [
            case
            for case in cases((world,), SEEDS[:1])
            if (point := case.point)
            and (point.at, point.kind) in plant.kinds
            and marks[point.at][point.index].what.startswith(plant.what)
        ]
    tried = [Case(world=world, seed=SEEDS[0]) for world in plant.worlds] + spread(chosen, tries)
    for number, case in enumerate(tried, 1):
        result = judge(replace(case, plant=name), reference(case.world, case.seed))
        by = next((text for text in result.wrong if plant.found_by in text), "")
        if by:
            return Hunt(plant=name, tried=number, found=result, by=by)
    return Hunt(plant=name, tried=len(tried), found=None)


def hunts(processes: int = PROCESSES) -> tuple[Hunt, ...]:
    """Look for every planted fault."""
    if processes == 1:
        return tuple(map(hunt, PLANTED))
    with _pool(processes) as pool:
        return tuple(pool.imap(hunt, PLANTED))


def hunted(found: Iterable[Hunt]) -> str:
    """The hunts as a table."""
    lines = ["| planted in the daemon | runs | found by | at |", "|---|---:|---|---|", *(one.line() for one in found)]
    return "\n".join(lines) + "\n"


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
    """So many of them, every place and kind having its share, evenly over worlds; all where there are no more."""
    if points >= len(all_cases):
        return all_cases
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in all_cases:
        assert case.point is not None
        groups.setdefault((case.point.at, case.point.kind), []).append(case)
    share, owed = points / len(all_cases), 0.0
    found: list[Case] = []
    for number, group in enumerate(groups.values()):
        owed += len(group) * share
        count = min(round(owed), len(group))
        owed -= count
        # Each kind begins elsewhere within its equal parts, so that they do not all meet the same points.
        at = (2 * number + 1) / (2 * len(groups))
        found += [group[int((part + at) * len(group) / count)] for part in range(count)]
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
    with _pool(processes) as pool:
        return [result for results in pool.imap(judge_all, chunks) for result in results]


def _pool(processes: int) -> Pool:
    """Processes that end after each piece of work, and need no garbage collector."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([play.__module__])
    return context.Pool(processes, initializer=_calm_down, maxtasksperchild=1)


def _calm_down() -> None:
    """What daemons log about the faults that are made for them is of no interest in thousands of runs."""
    gc.disable()
    logging.disable(logging.CRITICAL)


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
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--world", choices=tuple(WORLDS), action="append", help="only this world; may be repeated")
    parser.add_argument("--planted", choices=tuple(PLANTED), default="", help="a daemon with this fault in it")
    parser.add_argument("--only", metavar="'WORLD SEED AT INDEX KIND'", help="one point, and what it came to")
    chosen = parser.parse_args(arguments)
    if chosen.only:
        try:
            case = parse(chosen.only)
        except ValueError as error:
            parser.error(str(error))
        result = judge(replace(case, plant=chosen.planted), reference(case.world, case.seed))
        print(replace(result, marks={}))
        return int(bool(result.wrong))
    if chosen.planted:
        (found,) = [hunt(chosen.planted)]
        print(hunted([found]), end="")
        return int(found.found is None)
    matrix = run_matrix(spread(cases(chosen.world or WORLDS, chosen.seeds), chosen.points), chosen.processes)
    print(matrix.text(), flush=True)
    found_all = hunts(chosen.processes)
    print(hunted(found_all), end="")
    return int(bool(matrix.failures) or any(one.found is None for one in found_all))


if __name__ == "__main__":
    sys.exit(main())
