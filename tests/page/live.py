"""A simulated cluster and the daemon with its page, alive in a thread: time runs faster than the wall's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rebalancer import daemon
from rebalancer.control.offload import in_thread
from rebalancer.control.server import HttpParams
from rebalancer.domain.report import Report
from rebalancer.kube.transport import Api, plain_tcp
from rebalancer.sim.faults import Faults
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import Mishaps
from rebalancer.sim.virtualtime import ScaledLoop
from rebalancer.sim.world import EPOCH, World, WorldParams

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
    """What is alive: the cluster's address, its page's if it has a daemon, its world, and every report so far."""

    api: str
    world: World
    loop: asyncio.AbstractEventLoop
    url: str = ""
    reports: list[Report] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def call(self, work: Callable[[], object]) -> None:
        """Runs `work` in the cluster's own thread and waits for it."""
        ended = threading.Event()

        def do() -> None:
            work()
            ended.set()

        self.loop.call_soon_threadsafe(do)
        assert ended.wait(SECONDS)

    def until(self, reached: Callable[[Report], bool]) -> None:
        """Waits until the last report is so."""
        for _ in range(int(SECONDS / 0.05)):
            if reached(self.reports[-1]):
                return
            time.sleep(0.05)
        raise AssertionError(f"it has not come to that: {self.reports[-1].sentence.text}")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """The same for a coroutine."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)


Work = Callable[[Living], Awaitable[None]]


@contextlib.contextmanager
def simulated(items: list[Obj], *, speed: float = 1.0) -> Iterator[Living]:
    """Runs a cluster alone until the block ends."""

    async def wait(here: Living) -> None:
        here.ready.set()
        await here.done.wait()

    with _alive(lambda: World(items), wait, speed) as here:
        yield here


@contextlib.contextmanager
def living(
    items: list[Obj],
    params: daemon.DaemonParams,
    *,
    speed: float = 1.0,
    epoch: float = EPOCH,
    faults: Faults | None = None,
    mishaps: Mishaps | None = None,
) -> Iterator[Living]:
    """Runs cluster and daemon until the block ends; it begins with the daemon's first report.

    Whatever killed them is raised. `epoch` is the wall time at which their time begins.
    """
    port = free_port()
    params = replace(params, http=HttpParams(host="127.0.0.1", port=port))

    async def serve(here: Living) -> None:
        def observe(report: Report) -> None:
            here.reports.append(report)
            here.ready.set()

        here.url = f"http://127.0.0.1:{port}"
        runtime = daemon.Runtime(clock=here.world.clock, offload=threaded)
        await daemon.run(params, Api(plain_tcp(here.api)), runtime, on_report=observe)

    def world() -> World:
        # The loop's own clock does not begin at zero.
        return World(
            items, WorldParams(epoch=epoch - asyncio.get_running_loop().time()), faults=faults, mishaps=mishaps
        )

    with _alive(world, serve, speed) as here:
        yield here


@contextlib.contextmanager
def _alive(make: Callable[[], World], work: Work, speed: float) -> Iterator[Living]:
    """A world in a thread of its own, and something that works in its loop until the block ends."""
    alive: list[Living] = []
    failures: list[BaseException] = []
    begun = threading.Event()

    async def live() -> None:
        async with make() as world:
            await world.api.start(port=0)
            url = f"http://127.0.0.1:{world.api.port}"
            here = Living(api=url, world=world, loop=asyncio.get_running_loop())
            alive.append(here)
            begun.set()
            task = asyncio.ensure_future(work(here))
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
            begun.set()
            for here in alive:
                here.ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(SECONDS)
        if not failures:
            assert alive[0].ready.wait(SECONDS)
        if not failures:
            yield alive[0]
    finally:
        for here in alive:
            with contextlib.suppress(RuntimeError):
                here.loop.call_soon_threadsafe(here.done.set)
        thread.join(SECONDS)
    if failures:
        raise failures[0]
