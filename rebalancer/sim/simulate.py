"""Runs a scenario: the daemon against a simulated cluster over HTTP, in virtual time, watched by the checkers."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rebalancer import daemon
from rebalancer.control.offload import inline
from rebalancer.domain.report import Report
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.transport import Api, Endpoint, unix_socket
from rebalancer.sim.api import ApiParams
from rebalancer.sim.checkers import Bounds, Checkers
from rebalancer.sim.faults import Entry, EventFault, Fault, Faults, Reset, Trouble, Watch
from rebalancer.sim.life import Life, unfinished
from rebalancer.sim.objects import Obj
from rebalancer.sim.scenarios import BY_NAME, MOVES, NONE, Scenario
from rebalancer.sim.store import Change
from rebalancer.sim.verdict import Ledger, Said, Verdict, whats_left
from rebalancer.sim.virtualtime import VirtualLoop, run_virtual
from rebalancer.sim.world import World, WorldParams

TICK_SECONDS = 10.0
RESTART_SECONDS = 5.0
CUT_SECONDS = 90.0


class _Network(Faults):
    """The scenario's faults, and users whose packets no longer arrive."""

    def __init__(self, inner: Faults | None) -> None:
        self._inner = inner or Faults()
        self.cut: set[str] = set()

    def request(self, entry: Entry) -> Fault | None:
        return Reset() if entry.user in self.cut else self._inner.request(entry)

    def answer(self, entry: Entry) -> Fault | None:
        return self._inner.answer(entry)

    def event(self, watch: Watch, change: Change) -> EventFault | None:
        return Trouble.CUT if watch.entry.user in self.cut else self._inner.event(watch, change)


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of a scenario. `users` are the replicas' names, each its own bearer token and name in the lease."""

    scenario: Scenario
    seed: int
    items: list[Obj]
    params: daemon.DaemonParams
    network: _Network
    socket: str
    users: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)

    def report(self, report: Report) -> None:
        """What the leader says, or a replica that is alone; a sentence is kept when it is new."""
        heard = report.leader or self.scenario.replicas == 1
        if heard and (not self.said or self.said[-1].text != report.sentence.text):
            moment = asyncio.get_running_loop().time()
            self.said.append(Said(time=moment, kind=report.sentence.kind, text=report.sentence.text))


def simulate(
    name: str,
    seed: int = 0,
    *,
    params: daemon.DaemonParams | None = None,
    faults: Faults | None = None,
    seconds: float | None = None,
) -> Verdict:
    """Run a scenario by its name. `params` are the daemon's; mode and lease identity are the scenario's.

    Raises KeyError for an unknown name, and whatever kills the daemon or a part of the cluster.
    """
    scenario = BY_NAME[name] if seconds is None else replace(BY_NAME[name], seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(
            scenario=scenario,
            seed=seed,
            items=scenario.items(seed),
            params=params or daemon.DaemonParams(),
            network=_Network(faults),
            socket=str(Path(folder) / "api"),
        )
        return run_virtual(lambda: _simulate(run), seed)


def bounds_of(params: daemon.DaemonParams, *, active: bool) -> Bounds:
    """What the checkers hold the daemon to: its own limits, and the cluster's."""
    limits, thresholds = params.cycle.limits, params.cycle.planning.policy.thresholds
    return Bounds(
        high={name: thresholds.percent(name, "high") for name in thresholds.resources},
        per_cluster=limits.per_cluster,
        per_source=limits.per_source,
        per_target=limits.per_target,
        per_hour=limits.per_hour,
        per_vm_day=limits.per_vm_day,
        dry_run=not active,
    )


async def _simulate(run: _Run) -> Verdict:
    loop, scenario = asyncio.get_running_loop(), run.scenario
    assert isinstance(loop, VirtualLoop)
    began, ledger = loop.real_time(), Ledger()
    world = World(
        run.items,
        WorldParams(seed=run.seed, nodes=scenario.nodes, api=ApiParams(tokens=run.users)),
        mishaps=scenario.mishaps(run.seed),
        faults=run.network,
    )
    bounds = bounds_of(run.params, active=scenario.active)
    async with world:
        checkers = Checkers(world.store, replace(bounds, identities=run.users))
        world.store.subscribe(checkers.change)
        world.store.subscribe(ledger.change)
        world.api.listeners.append(checkers.request)
        await world.api.start(unix=run.socket)
        async with _living(world, scenario) as life:
            await _drive(run, world, ledger)
        left = tuple(whats_left(world.store, bounds))
    return Verdict(
        scenario=scenario.name,
        seed=run.seed,
        broken=tuple(checkers.broken),
        unmet=tuple(_unmet(scenario, ledger, left)),
        migrations=ledger.ours,
        failed=ledger.failed,
        others=ledger.others,
        moved=dict(ledger.moved),
        left=left,
        said=tuple(run.said),
        requests=len(world.api.log),
        virtual_seconds=loop.time(),
        real_seconds=loop.real_time() - began,
        digest=world.digest.hexdigest(),
        life=tuple(life.events) if life is not None else (),
    )


def _unmet(scenario: Scenario, ledger: Ledger, left: tuple[str, ...]) -> list[str]:
    found = []
    if scenario.migrations == NONE and ledger.ours:
        found.append(f"{ledger.ours} migrations where nothing was to move")
    if scenario.migrations == MOVES and not ledger.ours:
        found.append("no migration at all")
    if scenario.cures and left:
        found.append(f"{len(left)} things are still wrong")
    return found


@asynccontextmanager
async def _living(world: World, scenario: Scenario) -> AsyncIterator[Life | None]:
    if scenario.life is None:
        yield None
        return
    life = Life(world, scenario.life)
    task = asyncio.create_task(life.run())
    try:
        yield life
    finally:
        await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


# Driving


async def _drive(run: _Run, world: World, ledger: Ledger) -> None:
    """Keep the replicas running, let happen what is to happen, until the time is up or all is calm."""
    loop, scenario = asyncio.get_running_loop(), run.scenario
    plans = [(moment, "crash", "") for moment in scenario.crash_at]
    plans += [(moment, "drain", node) for node, moment in scenario.drain_at.items()]
    for number in range(scenario.replicas):
        _start(run, world, f"replica-{number}")
    try:
        for moment, what, node in sorted(plans):
            await asyncio.sleep(moment - loop.time())
            if what == "drain":
                world.drain(node)
            else:
                await _crash(run, world)
        while loop.time() < scenario.seconds:
            await asyncio.sleep(min(TICK_SECONDS, scenario.seconds - loop.time()))
            _check_alive(run, world)
            if scenario.until_calm and _calm(run, world, ledger):
                return
    finally:
        for task in run.tasks.values():
            await _end(task)


def _calm(run: _Run, world: World, ledger: Ledger) -> bool:
    """Nothing has moved for long, and nobody waits for a budget or a back-off to begin again."""
    quiet = world.clock.now() - max(ledger.last_move, world.params.epoch)
    waits = run.said[-1].kind in ("Held", "Paused", "Unsettled", "Broken", "Planned") if run.said else True
    return quiet > run.scenario.calm_seconds and not waits and not unfinished(world)


def _check_alive(run: _Run, world: World) -> None:
    world.check()
    for task in run.tasks.values():
        if task.done() and not task.cancelled():
            task.result()
            raise RuntimeError("a daemon has ended by itself")


def _start(run: _Run, world: World, name: str) -> None:
    run.users[name] = name
    cycle = replace(run.params.cycle, mode=daemon.ACTIVE if run.scenario.active else daemon.DRY_RUN)
    params = replace(run.params, cycle=cycle, lease=replace(run.params.lease or LeaseParams(), identity=name))
    chance = random.Random(f"{run.seed} {name}")
    runtime = daemon.Runtime(clock=world.clock, offload=inline, random=chance.random)
    coroutine = daemon.run(params, Api(_endpoint(run.socket, name)), runtime, on_report=run.report)
    run.tasks[name] = asyncio.create_task(coroutine, name=name)


def _endpoint(socket: str, name: str) -> Endpoint:
    async def credentials(_: bool) -> str:
        return f"Bearer {name}"

    return replace(unix_socket(socket), credentials=credentials)


async def _crash(run: _Run, world: World) -> None:
    """The leader is gone without a word. A single replica is killed and started anew; of several it is cut off."""
    leases = world.store.items("leases")
    name = leases[0]["spec"].get("holderIdentity") if leases else ""
    if name not in run.tasks:
        return
    run.network.cut.add(name)
    if run.scenario.replicas == 1:
        await _end(run.tasks.pop(name))
        await asyncio.sleep(RESTART_SECONDS)
        _start(run, world, f"{name}x")
    else:
        await asyncio.sleep(CUT_SECONDS)
        run.network.cut.discard(name)
