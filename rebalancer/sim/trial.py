"""One run of a small world with one thing going wrong in it, or nothing; watched by the checkers, and looked over."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from rebalancer import daemon
from rebalancer.control.backoff import BackoffParams
from rebalancer.control.cycle import CycleParams
from rebalancer.control.executor import ExecutorParams
from rebalancer.control.flight import DeadlineParams
from rebalancer.control.loop import LoopParams
from rebalancer.control.offload import inline
from rebalancer.domain.report import Report
from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.decode import decode_list
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.reflector import key_of
from rebalancer.kube.transport import Api, Endpoint, unix_socket
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits
from rebalancer.policy.load import PolicyParams
from rebalancer.sim import perturb
from rebalancer.sim.api import ApiParams
from rebalancer.sim.check_conduct import is_ours, vmi_of
from rebalancer.sim.checkers import Checkers
from rebalancer.sim.life import unfinished
from rebalancer.sim.listing import list_body
from rebalancer.sim.objects import TERMINAL, encode, phase
from rebalancer.sim.perturb import EVENT, STALE, VICTIM, WRITE, Mark, Perturbation, Point
from rebalancer.sim.resources import MIGRATIONS, VMIS, parse_path
from rebalancer.sim.simulate import bounds_of
from rebalancer.sim.small_worlds import WORLDS, Incident, Small
from rebalancer.sim.store import Change, Store
from rebalancer.sim.verdict import Ledger, whats_left
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World, WorldParams

TICK_SECONDS = 2.0
TAIL_SECONDS = 6.0
"""So long must all be quiet for a run to be over: longer than the daemon's interval."""
LIMIT_SECONDS = 900.0
"""A run that is not over by then has not ended well."""
RESTART_SECONDS = 2.0
STANDBY_SECONDS = 1.0
"""A second replica is so much younger than the first, which therefore leads."""
REQUESTS_A_SECOND = 10.0
REQUESTS_AT_START = 60
BLINK_SECONDS, GLANCE_SECONDS = 2.5, 1.0
"""Without faults we know what others did within half a cycle, and what a VM says of itself by reading it."""
BLIND_SECONDS = 5.0
"""virt-api's check for a migration in flight overlooks younger ones: our own names must keep a VM at one."""

TAKES_SECONDS: Mapping[str, float] = {
    perturb.CRASH_BEFORE: RESTART_SECONDS + 5.0,
    perturb.CRASH_AFTER: RESTART_SECONDS + 5.0,
    perturb.DROPPED: 40.0,
    perturb.DELAYED: perturb.LATE_SECONDS,
    perturb.SLOW: perturb.LATE_SECONDS,
    perturb.STALE: RESTART_SECONDS + perturb.STALE_SECONDS,
    perturb.LEADER: perturb.CRAWL_SECONDS + perturb.CRAWLING_SECONDS,
    perturb.REFUSED: 5.0,
    perturb.ERROR: 5.0,
    perturb.RESET: 5.0,
    perturb.LOST: 5.0,
    perturb.EXPIRED: 40.0,
}
"""For how long a fault may keep us from knowing what others did, or from doing what they want of us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: a world, its seed, and the point at which something goes wrong; None for nowhere. `plant` names a fault
    in the daemon itself."""

    world: str
    seed: int
    point: Point | None = None
    plant: str = ""

    def command(self) -> str:
        """How to run it again."""
        point = self.point
        where = f" {point.at} {point.index} {point.kind}" if point is not None else ""
        planted = f" --planted '{self.plant}'" if self.plant else ""
        return f"python -m rebalancer.sim.matrix --only '{self.world} {self.seed}{where}'{planted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to. `wrong`: broken promises and whatever else no run may end with, in sentences; `left`: what is
    wrong with the cluster at its end; `places`: where each VM is then; `marks`: what the run without faults did."""

    case: Case
    wrong: tuple[str, ...]
    left: tuple[str, ...]
    places: Mapping[str, str]
    migrations: int
    virtual_seconds: float
    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    cpu_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run under way. `identities`: the API user of each process, and its name in the lease."""

    case: Case
    small: Small
    faults: Perturbation
    makers: daemon.Makers
    socket: str
    identities: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    caches: dict[str, Cache] = field(default_factory=dict)
    false: dict[str, None] = field(default_factory=dict)
    awaited: list[Incident] = field(default_factory=list)
    to_come: int = 0


def params_of(small: Small) -> daemon.DaemonParams:
    """A daemon in a hurry, which takes its first plan, with budgets as tight as they can be while the work is done."""
    return daemon.DaemonParams(
        cycle=CycleParams(
            mode=daemon.ACTIVE,
            planning=PlanningParams(
                policy=PolicyParams(hold_seconds=small.hold_seconds),
                seconds=small.search_seconds,
                per_source=1,
                per_cluster=2,
            ),
            limits=Limits(
                per_cluster=2,
                per_source=1,
                per_hour=small.per_hour,
                cooldown_seconds=small.cooldown_seconds,
            ),
            backoff=BackoffParams(vm_seconds=20.0, node_seconds=10.0),
        ),
        executor=ExecutorParams(deadline=DeadlineParams(setup_seconds=20.0, slack=1.0)),
        loop=LoopParams(interval_seconds=5.0, debounce_seconds=0.5),
        cache=CacheParams(watch_seconds=(20.0, 30.0)),
    )


def play(case: Case, makers: daemon.Makers = daemon.Makers()) -> Result:  # noqa: B008 - a value
    """Run one case in virtual time. Raises what kills a daemon or a part of the cluster."""
    run = _Run(
        case=case,
        small=WORLDS[case.world],
        faults=Perturbation(point=case.point),
        makers=makers,
        socket=str(Path(_folder().name) / str(next(_NUMBERS))),
    )
    begun = time.process_time()
    result = run_virtual(lambda: _play(run), case.seed)
    return replace(result, cpu_seconds=time.process_time() - begun)


_NUMBERS = itertools.count()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process has its sockets, one for each run."""
    return tempfile.TemporaryDirectory()


async def _play(run: _Run) -> Result:
    case, faults, ledger, small = run.case, run.faults, Ledger(), run.small
    api = ApiParams(tokens=run.tokens, blind_seconds=BLIND_SECONDS)
    params = WorldParams(seed=case.seed, nodes=small.nodes, api=api)
    world = World(small.items(case.seed), params, faults=faults, mishaps=small.mishaps())
    takes = TAKES_SECONDS.get(case.point.kind, 0.0) if case.point is not None else 0.0
    hindered = case.point is not None and (case.point.at == WRITE or case.point.kind == perturb.LEADER)
    deadline = params_of(small).executor.deadline
    bounds = replace(
        bounds_of(params_of(small), active=True),
        identities=run.identities,
        cooldown_seconds=small.cooldown_seconds,
        deadline_seconds=deadline.setup_seconds + params_of(small).loop.interval_seconds,
        deadline_seconds_per_gib=deadline.slack * 2**30 / deadline.bandwidth_bytes,
        blink_seconds=BLINK_SECONDS + takes,
        glance_seconds=GLANCE_SECONDS + (takes if hindered else 0.0),
    )
    async with world:
        world.store.compact()  # nothing is older than the cluster itself
        checkers = Checkers(world.store, bounds)
        for listener in (checkers.change, ledger.change, _incidents(run, world)):
            world.store.subscribe(listener)
        world.api.listeners.append(checkers.request)
        await world.api.start(unix=run.socket)
        faults.store = world.store
        faults.crash = lambda: _crash(run, world)
        faults.rival = lambda: _start(run, world, "replica-1")
        _start(run, world, VICTIM)
        if small.replicas > 1:
            asyncio.get_running_loop().call_later(STANDBY_SECONDS, _start, run, world, "replica-1")
        try:
            while not _over(run, world, ledger) or whats_left(world.store, bounds):
                if asyncio.get_running_loop().time() > LIMIT_SECONDS:
                    break
                await asyncio.sleep(TICK_SECONDS)
                _check_alive(run, world)
            wrong = [broken.sentence() for broken in checkers.broken] + list(_wrong(run, world))
        finally:
            await _end(run)
        return Result(
            case=case,
            wrong=tuple(wrong),
            left=tuple(whats_left(world.store, bounds)),
            places=world.places(),
            migrations=ledger.ours,
            virtual_seconds=asyncio.get_running_loop().time(),
            marks={} if case.point is not None else {at: faults.marks(at) for at in (WRITE, EVENT)},
        )


def _incidents(run: _Run, world: World) -> Callable[[Change], None]:
    """Lets happen what is to happen, each thing once."""
    run.awaited = list(run.small.incidents)
    run.to_come = len(run.awaited)

    def happen(incident: Incident, change: Change) -> None:
        incident.what(world, change)
        run.to_come -= 1

    def hear(change: Change) -> None:
        for incident in [incident for incident in run.awaited if incident.when(change)]:
            run.awaited.remove(incident)
            asyncio.get_running_loop().call_later(incident.after, happen, incident, change)

    return hear


def _over(run: _Run, world: World, ledger: Ledger) -> bool:
    since = max(ledger.last_move - world.params.epoch, run.faults.over)
    return (
        ledger.ours > 0
        and not run.to_come
        and not run.faults.active
        and world.clock.monotonic() - since > TAIL_SECONDS
        and not unfinished(world)
    )


def _wrong(run: _Run, world: World) -> Iterator[str]:
    """What no run may end with."""
    if run.case.point is not None and not run.faults.injected:
        owed = f": no {', no '.join(sorted(run.faults.owed))}" if run.faults.reached else ", its point was not reached"
        yield f"the fault did not happen{owed}"
    if run.to_come:
        yield "what was to happen in the cluster did not"
    if unfinished(world):
        yield f"{unfinished(world)} migrations have not ended"
    for vmi in world.store.items(VMIS):
        if phase(vmi) != "Running":
            yield f"{vmi['metadata']['name']} is {phase(vmi)}"
    most = REQUESTS_AT_START * len(run.tokens) + REQUESTS_A_SECOND * world.clock.monotonic()
    if len(world.api.log) > most:
        yield f"{len(world.api.log)} requests in {world.clock.monotonic():.0f} s"
    yield from run.false
    for user, known in run.caches.items():
        if user not in run.faults.dead:
            yield from (f"{user} {text}" for text in _misbelieved(known, world.store))


def _misbelieved(known: Cache, store: Store) -> Iterator[str]:
    """Where what a process knows of the cluster is not what there is."""
    for reflector in known.reflectors:
        target = parse_path(reflector.kind.path)
        assert target is not None
        page = decode_list(reflector.kind.kind, encode(list_body(store, target, {})))
        there = {key_of(reflector.kind, item): item for item in page.items}
        if reflector.items != there:
            keys = [key for key in {**reflector.items, **there} if reflector.items.get(key) != there.get(key)]
            yield f"has not seen what became of {reflector.kind.plural} {', '.join(sorted(keys))}"


# Processes


def _start(run: _Run, world: World, user: str, identity: str = "") -> None:
    if user in run.tokens:
        return  # it runs already
    run.tokens[user], run.identities[user] = user, identity or user
    params = replace(params_of(run.small), lease=LeaseParams(identity=run.identities[user]))
    if run.case.point is not None and run.case.point.kind == STALE and user != VICTIM:
        params = replace(params, cache=replace(params.cache, watch_list=False))  # only lists can be stale

    def cache_of(*arguments: object) -> Cache:
        run.caches[user] = run.makers.cache(*arguments)
        return run.caches[user]

    runtime = daemon.Runtime(
        clock=world.clock,
        offload=inline,
        random=random.Random(f"{run.case.seed} {user}").random,
        makers=replace(run.makers, cache=cache_of),
    )
    coroutine = daemon.run(
        params, Api(_endpoint(run.socket, user)), runtime, on_report=lambda report: _heard(run, world, report)
    )
    run.tasks[user] = asyncio.create_task(coroutine, name=user)


def _heard(run: _Run, world: World, report: Report) -> None:
    """What a process says must be so: a move that was refused is not under way."""
    for outcome in report.done:
        if outcome.result == "Refused":
            for item in world.store.items(MIGRATIONS):
                if is_ours(item) and vmi_of(item) == outcome.move.vmi and phase(item) not in TERMINAL:
                    run.false[f"it says that the API server refused to move {outcome.move.vmi}, which is moving"] = None


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
