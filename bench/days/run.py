"""One contestant's month in one world: the figures of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.days.agenda import DAY, Agenda
from bench.days.cluster import Mishaps, build
from bench.days.contestants import DAEMON, PARAMS, Diary, contestant, end
from bench.days.meters import Meters, process
from bench.days.player import Player
from bench.days.trouble import Troubles
from bench.results import commit
from rebalancer import daemon
from rebalancer.sim.api import ApiParams
from rebalancer.sim.checkers import Broken, Checkers
from rebalancer.sim.plane import NodePlaneParams
from rebalancer.sim.resources import VMIS
from rebalancer.sim.simulate import bounds_of
from rebalancer.sim.store import HISTORY
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World, WorldParams

BLINK_SECONDS = 60.0
"""What others did within this time we need not know: answers and news are late, and a wave begins at once."""
MONDAY = 1_795_392_000.0
"""2026-11-23T00:00:00Z."""
NODES = NodePlaneParams(heartbeat=(0.0, 0.0))
"""No heartbeats of virt-handler: 200 of them every minute and a half change nothing that anybody here reads."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """One month in the making."""

    agenda: Agenda
    name: str
    params: daemon.DaemonParams
    each_day: Callable[[dict[str, Any]], None]
    socket: str
    commit: str
    world: World
    troubles: Troubles | None
    diary: Diary = field(default_factory=Diary)
    broken: list[Broken] = field(default_factory=list)
    requests: int = 0

    def figures(self, meters: Meters) -> dict[str, Any]:
        """Everything until now, for JSON."""
        about = {
            "contestant": self.name,
            "seed": self.agenda.seed,
            "commit": self.commit,
            "nodes": self.agenda.params.nodes,
            "broken": [one.sentence() for one in self.broken],
            "requests": self.requests,
            "faults": self.troubles.count if self.troubles is not None else 0,
            "digest": self.world.digest.hexdigest(),
        }
        return about | meters.figures() | self.diary.figures()


def live(  # noqa: PLR0913 - the bench is told nothing, tests are in a hurry
    agenda: Agenda,
    name: str,
    *,
    params: daemon.DaemonParams = PARAMS,
    faults: bool = True,
    bookmark_seconds: float = 60.0,
    history: int = HISTORY,
    each_day: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """The month of one contestant; `each_day` is given the figures until then.

    Raises what kills the contestant, the agenda or a part of the cluster.
    """

    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "api")

        async def main() -> dict[str, Any]:
            loop = asyncio.get_running_loop()
            troubles = Troubles(agenda.seed, agenda.params.days, loop.time) if faults else None
            api = ApiParams(bookmark_seconds=bookmark_seconds)
            how = WorldParams(seed=agenda.seed, epoch=MONDAY, nodes=NODES, api=api, history=history)
            world = World(build(agenda), how, mishaps=Mishaps(agenda), faults=troubles)
            async with world:
                return await _live(
                    _Run(
                        agenda=agenda,
                        name=name,
                        params=params,
                        each_day=each_day,
                        socket=socket,
                        commit=commit(),
                        world=world,
                        troubles=troubles,
                    )
                )

        return run_virtual(main, agenda.seed)


async def _live(run: _Run) -> dict[str, Any]:
    world, agenda = run.world, run.agenda
    meters, player = Meters(world.store, began=MONDAY), Player(world, agenda)
    meters.begin()
    for listener in (meters.change, player.change):
        world.store.subscribe(listener)
    if run.name == DAEMON:
        checkers = Checkers(world.store, replace(bounds_of(run.params, active=True), blink_seconds=BLINK_SECONDS))
        world.store.subscribe(checkers.change)
        world.api.listeners.append(checkers.request)
        run.broken = checkers.broken
    await world.api.start(unix=run.socket)
    playing = asyncio.create_task(player.run())
    forever = [
        asyncio.ensure_future(contestant(run.name, world, run.socket, run.diary, run.params)()),
        asyncio.create_task(player.drain()),
    ]
    try:
        for day in range(1, agenda.params.days + 1):
            await _day(run, meters, day)
            for task in forever:
                if task.done():
                    task.result()
                    raise RuntimeError(f"{task} has ended by itself")
            if playing.done():
                playing.result()
            run.each_day(run.figures(meters))
    finally:
        for task in (*forever, playing):
            await end(task)
    return run.figures(meters)


async def _day(run: _Run, meters: Meters, day: int) -> None:
    """One day to its end."""
    world, loop = run.world, asyncio.get_running_loop()
    begun, version = time.process_time(), world.store.version
    await asyncio.sleep(day * DAY - loop.time())
    world.check()
    run.requests += len(world.api.log)
    world.api.log.clear()
    meters.turn(
        len(world.store.items(VMIS)),
        cpu_seconds=round(time.process_time() - begun, 2),
        writes=world.store.version - version,
        tasks=len(asyncio.all_tasks()),
        broken=len(run.broken),
        issued=dict(meters.issued),
        **process(),
    )
