"""The fault matrix: a run without faults, then one more for every write, every watch event and everything that can go
wrong there.

    python -m rebalancer.sim.matrix                       # all points of all worlds
    python -m rebalancer.sim.matrix --points 5000         # so many of them, evenly spread
    python -m rebalancer.sim.matrix hot 0 write 12 'crash before'    # one of them again, and what it came to

Every run is judged by the checkers, and must end as well as the run without faults: every VM up, nothing under way,
no node hotter and no more rules broken, and no hot loop of requests meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from rebalancer import daemon
from rebalancer.control.backoff import BackoffParams
from rebalancer.control.cycle import CycleParams
from rebalancer.control.loop import LoopParams
from rebalancer.control.offload import inline
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.reflector import CacheParams
from rebalancer.kube.transport import Api, Endpoint, unix_socket
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits
from rebalancer.policy.load import PolicyParams
from rebalancer.sim.api import ApiParams
from rebalancer.sim.checkers import Checkers
from rebalancer.sim.life import unfinished
from rebalancer.sim.objects import phase
from rebalancer.sim.perturb import EVENT, KINDS, STALE, VICTIM, WRITE, Perturbation, Point
from rebalancer.sim.plane import NodePlaneParams
from rebalancer.sim.resources import VMIS
from rebalancer.sim.simulate import bounds_of
from rebalancer.sim.small_worlds import WORLDS
from rebalancer.sim.verdict import Ledger, whats_left
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World, WorldParams

SEEDS = (0, 1, 2)
"""Every world is run with each of these."""
TICK_SECONDS = 2.0
TAIL_SECONDS = 6.0
"""So long must all be quiet for a run to be over: longer than the daemon's interval."""
LIMIT_SECONDS = 900.0
"""A run that is not over by then has not ended well."""
RESTART_SECONDS = 2.0
REQUESTS_A_SECOND = 10.0
REQUESTS_AT_START = 60

PARAMS = daemon.DaemonParams(
    cycle=CycleParams(
        mode=daemon.ACTIVE,
        planning=PlanningParams(policy=PolicyParams(hold_seconds=2.0), seconds=0.0, per_source=1, per_cluster=2),
        limits=Limits(per_cluster=2, per_source=1, per_hour=4, cooldown_seconds=600.0),
        backoff=BackoffParams(vm_seconds=20.0, node_seconds=10.0),
    ),
    loop=LoopParams(interval_seconds=5.0, debounce_seconds=0.5),
    cache=CacheParams(watch_seconds=(20.0, 30.0)),
)
"""A daemon in a hurry, which takes its first plan, with budgets as tight as they can be while the work gets done."""

NODES = NodePlaneParams(
    pod_start=(0.2, 0.6), pod_stop=(0.2, 0.6), vm_boot=(0.5, 1.0), prepare=(0.2, 0.5), source_exit=(0.3, 2.0)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: a world, its seed, and the point at which something goes wrong; None for nowhere."""

    world: str
    seed: int
    point: Point | None = None

    def command(self) -> str:
        """How to run it again."""
        point = self.point
        where = f" {point.at} {point.index} '{point.kind}'" if point is not None else ""
        return f"python -m rebalancer.sim.matrix {self.world} {self.seed}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to. `wrong`: broken promises, and what is not as in the run without faults; in sentences."""

    case: Case
    wrong: tuple[str, ...]
    left: tuple[str, ...]
    writes: int
    events: int
    migrations: int
    virtual_seconds: float
    cpu_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run under way. `identities`: the API user of each process, and its name in the lease."""

    case: Case
    faults: Perturbation
    socket: str
    identities: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


def play(case: Case) -> Result:
    """Run one case in virtual time. Raises what kills a daemon or a part of the cluster."""
    run = _Run(case=case, faults=Perturbation(point=case.point), socket=str(Path(_folder().name) / str(next(_NUMBERS))))
    begun = time.process_time()
    result = run_virtual(lambda: _play(run), case.seed)
    return replace(result, cpu_seconds=time.process_time() - begun)


_NUMBERS = itertools.count()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process has its sockets, one for each run."""
    return tempfile.TemporaryDirectory()


async def _play(run: _Run) -> Result:
    case, faults, ledger = run.case, run.faults, Ledger()
    params = WorldParams(seed=case.seed, nodes=NODES, api=ApiParams(tokens=run.tokens))
    world = World(WORLDS[case.world](case.seed), params, faults=faults)
    bounds = replace(bounds_of(PARAMS, active=True), identities=run.identities)
    async with world:
        checkers = Checkers(world.store, bounds)
        world.store.subscribe(checkers.change)
        world.store.subscribe(ledger.change)
        world.api.listeners.append(checkers.request)
        await world.api.start(unix=run.socket)
        faults.crash = lambda: _crash(run, world)
        faults.rival = lambda: _start(run, world, "replica-1")
        _start(run, world, VICTIM)
        try:
            while not _over(run, world, ledger) or whats_left(world.store, bounds):
                if asyncio.get_running_loop().time() > LIMIT_SECONDS:
                    break
                await asyncio.sleep(TICK_SECONDS)
                _check_alive(run, world)
        finally:
            await _end(run)
        wrong = [broken.sentence() for broken in checkers.broken] + list(_wrong(run, world))
        left = tuple(whats_left(world.store, bounds))
    return Result(
        case=case,
        wrong=tuple(wrong),
        left=left,
        writes=faults.writes,
        events=faults.events,
        migrations=ledger.ours,
        virtual_seconds=asyncio.get_running_loop().time(),
    )


def _over(run: _Run, world: World, ledger: Ledger) -> bool:
    since = max(ledger.last_move - world.params.epoch, run.faults.over)
    return (
        ledger.ours > 0
        and not run.faults.active
        and world.clock.monotonic() - since > TAIL_SECONDS
        and not unfinished(world)
    )


def _wrong(run: _Run, world: World) -> Iterator[str]:
    """What no run may end with."""
    if run.case.point is not None and not run.faults.met:
        yield "the point was never reached"
    if unfinished(world):
        yield f"{unfinished(world)} migrations have not ended"
    for vmi in world.store.items(VMIS):
        if phase(vmi) != "Running":
            yield f"{vmi['metadata']['name']} is {phase(vmi)}"
    most = REQUESTS_AT_START * len(run.tokens) + REQUESTS_A_SECOND * world.clock.monotonic()
    if len(world.api.log) > most:
        yield f"{len(world.api.log)} requests in {world.clock.monotonic():.0f} s"


# Processes


def _start(run: _Run, world: World, user: str, identity: str = "") -> None:
    run.tokens[user], run.identities[user] = user, identity or user
    params = replace(PARAMS, lease=LeaseParams(identity=run.identities[user]))
    if run.case.point is not None and run.case.point.kind == STALE and user != VICTIM:
        params = replace(params, cache=replace(PARAMS.cache, watch_list=False))  # only lists can be stale
    runtime = daemon.Runtime(clock=world.clock, offload=inline, random=random.Random(f"{run.case.seed} {user}").random)
    run.tasks[user] = asyncio.create_task(daemon.run(params, Api(_endpoint(run.socket, user)), runtime), name=user)


def _endpoint(socket: str, user: str) -> Endpoint:
    async def credentials(_: bool) -> str:
        return f"Bearer {user}"

    return replace(unix_socket(socket), credentials=credentials)


def _crash(run: _Run, world: World) -> None:
    """The process dies, unable to say a word, and comes back with the same name in the lease."""
    run.tasks[VICTIM].cancel()
    loop = asyncio.get_running_loop()
    loop.call_later(RESTART_SECONDS, _start, run, world, f"{VICTIM}-again", VICTIM)
    run.faults.over = loop.time() + RESTART_SECONDS


def _check_alive(run: _Run, world: World) -> None:
    world.check()
    for user, task in run.tasks.items():
        if task.done() and user not in run.faults.dead:
            task.result()
            raise RuntimeError("a daemon has ended by itself")


async def _end(run: _Run) -> None:
    run.faults.dead.update(run.tokens)
    for task in run.tasks.values():
        task.cancel()
    await asyncio.gather(*run.tasks.values(), return_exceptions=True)


# The matrix


@cache
def reference(world: str, seed: int) -> Result:
    """The run without faults."""
    return play(Case(world=world, seed=seed))


def cases(worlds: Iterable[str] = tuple(WORLDS), seeds: Iterable[int] = SEEDS) -> list[Case]:
    """Every point of these worlds."""
    found = []
    for world in worlds:
        for seed in seeds:
            clean = reference(world, seed)
            for at, count in ((WRITE, clean.writes), (EVENT, clean.events)):
                points = (Point(at=at, index=index, kind=kind) for index in range(count) for kind in KINDS[at])
                found += [Case(world=world, seed=seed, point=point) for point in points]
    return found


def judge(case: Case) -> Result:
    """Run a case and compare its end with that of the run without faults; whatever was raised is wrong, too."""
    clean = reference(case.world, case.seed)
    try:
        result = play(case)
    except Exception as error:  # the edge: a run that cannot be finished is a finding like others
        return replace(clean, case=case, wrong=(f"{type(error).__name__}: {error}",))
    worse = tuple(f"left at the end: {text}" for text in result.left if text not in clean.left)
    return replace(result, wrong=result.wrong + worse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All results, and the seconds that they took by the clock on the wall."""

    results: tuple[Result, ...]
    seconds: float

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.wrong)

    def text(self) -> str:
        """A table of points and violations by kind; and each failure with the command that repeats it."""
        points = [result.case.point for result in self.results if result.case.point is not None]
        tried = Counter((point.kind, point.at) for point in points)
        wrong = Counter(result.case.point.kind for result in self.failures if result.case.point is not None)
        lines = ["| what goes wrong | at a write | at an event | violations |", "|---|---:|---:|---:|"]
        for kind in dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds):
            lines.append(f"| {kind} | {tried[kind, WRITE]} | {tried[kind, EVENT]} | {wrong[kind]} |")
        total = [sum(point.at == at for point in points) for at in (WRITE, EVENT)]
        lines.append(f"| all {len(points)} points | {total[0]} | {total[1]} | {len(self.failures)} |")
        cpu = sum(result.cpu_seconds for result in self.results)
        each = cpu / max(len(points), 1) * 1000
        lines += ["", f"{cpu:.0f} s of CPU, {each:.0f} ms a point; {self.seconds:.0f} s by the clock"]
        for result in self.failures:
            lines += [f"FAILED {result.case.command()}", *(f"  {text}" for text in result.wrong[:5])]
        return "\n".join(lines) + "\n"


def spread(all_cases: list[Case], points: int) -> list[Case]:
    """So many of them, evenly spread; all where there are no more."""
    count = len(all_cases)
    return all_cases if points >= count else [all_cases[number * count // points] for number in range(points)]


def run_matrix(chosen: list[Case], processes: int = 2) -> Matrix:
    """Run them all, in so many processes."""
    begun = time.monotonic()
    if processes == 1:
        return Matrix(results=tuple(map(judge, chosen)), seconds=time.monotonic() - begun)
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_calm_collector) as pool:
        results = tuple(pool.map(judge, chosen, chunksize=20))
    return Matrix(results=results, seconds=time.monotonic() - begun)


def _calm_collector() -> None:
    """What was imported is not looked through for garbage again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 where anything was found wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m rebalancer.sim.matrix", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--points", type=int, default=sys.maxsize, help="so many points, evenly spread; default all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("world", nargs="?", choices=tuple(WORLDS))
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("at", nargs="?", choices=(WRITE, EVENT))
    parser.add_argument("index", nargs="?", type=int)
    parser.add_argument("kind", nargs="?")
    chosen = parser.parse_args(arguments)
    worlds = (chosen.world,) if chosen.world else tuple(WORLDS)
    seeds = (chosen.seed,) if chosen.seed is not None else SEEDS
    if chosen.kind:
        point = Point(at=chosen.at, index=chosen.index, kind=chosen.kind)
        result = judge(Case(world=chosen.world, seed=chosen.seed, point=point))
        print(result)
        return int(bool(result.wrong))
    matrix = run_matrix(spread(cases(worlds, seeds), chosen.points), chosen.processes)
    print(matrix.text(), end="")
    return int(bool(matrix.failures))


if __name__ == "__main__":
    sys.exit(main())
