"""A simulated cluster and the daemon with its page, alive in a thread: time runs faster than the wall's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rebalancer import daemon
from rebalancer.control.offload import in_thread
from rebalancer.control.server import HttpParams
from rebalancer.domain.report import Report
from rebalancer.kube.transport import Api, unix_socket
from rebalancer.sim.objects import Obj
from rebalancer.sim.virtualtime import ScaledLoop
from rebalancer.sim.world import World, WorldParams

T = TypeVar("T")

SECONDS = 60.0
"""How long anything here may take, in real time."""


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def threaded(work: Callable[[], T], /) -> T:
    """In a thread, as in production; the loop's clock is unknown there, so searches are bounded by counted work."""
    return await in_thread(work)


@dataclass(slots=True, kw_only=True)
class Living:
    """What is alive: its page's address, its world, and every report so far. `call` runs something in its loop."""

    url: str
    world: World
    loop: asyncio.AbstractEventLoop
    done: asyncio.Event
    reports: list[Report] = field(default_factory=list)

    def call(self, work: Callable[[], object]) -> None:
        """Runs `work` in the cluster's own thread and waits for it."""
        ended = threading.Event()

        def do() -> None:
            work()
            ended.set()

        self.loop.call_soon_threadsafe(do)
        assert ended.wait(SECONDS)


@contextlib.contextmanager
def living(items: list[Obj], params: daemon.DaemonParams, *, speed: float = 1.0) -> Iterator[Living]:
    """Runs cluster and daemon until the block ends; whatever killed them is raised."""
    port = free_port()
    params = replace(params, http=HttpParams(host="127.0.0.1", port=port))
    alive: list[Living] = []
    ready = threading.Event()
    failures: list[BaseException] = []

    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with World(items, WorldParams()) as world:
                path = str(Path(folder) / "api")
                await world.api.start(unix=path)
                here = Living(
                    url=f"http://127.0.0.1:{port}",
                    world=world,
                    loop=asyncio.get_running_loop(),
                    done=asyncio.Event(),
                )
                alive.append(here)

                def observe(report: Report) -> None:
                    here.reports.append(report)
                    ready.set()

                runtime = daemon.Runtime(clock=world.clock, offload=threaded)
                task = asyncio.create_task(
                    daemon.run(params, Api(unix_socket(path)), runtime, on_report=observe, stop=None)
                )
                await asyncio.wait([task, asyncio.create_task(here.done.wait())], return_when=asyncio.FIRST_COMPLETED)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: ScaledLoop(speed)) as runner:
                runner.run(live())
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        if not failures:
            yield alive[0]
    finally:
        if alive:
            with contextlib.suppress(RuntimeError):
                alive[0].loop.call_soon_threadsafe(alive[0].done.set)
        thread.join(SECONDS)
    if failures:
        raise failures[0]
