"""`rebalancer demo`, which `make run` starts: a simulated cluster with some life in it, and the daemon on it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rebalancer import daemon
from rebalancer.cli.serve import daemon_params
from rebalancer.control.offload import inline
from rebalancer.kube.transport import Api, unix_socket
from rebalancer.settings import Given, load
from rebalancer.sim.display import shown
from rebalancer.sim.life import Life, LifeParams
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.virtualtime import ScaledLoop
from rebalancer.sim.world import World, WorldParams

LIFE = LifeParams(start=90.0, stop=90.0, cordon=900.0, cordon_lasts=300.0)
"""More than a real cluster of this size sees, so that there is something to watch within minutes."""

UNLESS_GIVEN = {"mode": "active", "limits.per_hour": "120"}
"""Settings that differ here: it acts, and does not rest for most of an hour after its first thirty migrations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """`speed` times faster than the wall clock, for `seconds` of its own time (0: until interrupted).

    `port` is where its API server listens on 127.0.0.1 for kubectl, 0 for any free one.
    """

    speed: float
    seed: int
    seconds: float
    port: int


def run(demo: Demo, given: Given) -> None:
    """Until interrupted, or for the demo's time. Raises SettingsError."""
    settings = load({**_unless_set(), **given})
    # The lease has nobody to compete with, and would be lost on a machine that cannot keep up with the speed.
    params = replace(daemon_params(settings, settings.lease_params("demo"), http=False), lease=None)
    with asyncio.Runner(loop_factory=lambda: ScaledLoop(demo.speed)) as runner:
        runner.run(_play(demo, params))


def _unless_set() -> dict[str, str]:
    here = {name.upper() for name in os.environ}
    return {
        name: value
        for name, value in UNLESS_GIVEN.items()
        if f"REBALANCER_{name.replace('.', '__')}".upper() not in here
    }


async def _play(demo: Demo, params: daemon.DaemonParams) -> None:
    async with World.from_dump(RECORDING, WorldParams(seed=demo.seed)) as world:
        with tempfile.TemporaryDirectory() as folder:
            socket = str(Path(folder) / "api")
            await world.api.start(unix=socket, port=demo.port)
            title = f"A simulated cluster, {demo.speed:g} times faster than the clock; kubectl -s http://127.0.0.1:{world.api.port}"
            with shown(title, sys.stdout) as show:
                runtime = daemon.Runtime(clock=world.clock, offload=inline)
                tasks = [
                    asyncio.create_task(daemon.run(params, Api(unix_socket(socket)), runtime, on_report=show)),
                    asyncio.create_task(Life(world, LIFE).run()),
                ]
                try:
                    done, _ = await asyncio.wait(
                        tasks, timeout=demo.seconds or None, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        task.result()
                    world.check()
                finally:
                    for task in tasks:
                        task.cancel()
                    for task in tasks:
                        with suppress(asyncio.CancelledError):
                            await task
