"""The daemon: where cache, lease, cycle, executor and faces are put together.

    api = Api(unix_socket(path))                 # or: await connect(Access(), monotonic=clock.monotonic)
    params = DaemonParams(cycle=CycleParams(mode=ACTIVE, planning=PlanningParams(...), limits=Limits(...)))
    await run(params, api, Runtime(clock=clock, offload=inline), on_report=show)

It runs until `stop` is set, a signal comes (with `signals=True`), or it is cancelled; each way nothing is started any
more, the lease is given back, and migrations under way go on for the next leader to adopt. SIGUSR1 pauses and resumes,
SIGHUP reads the settings again, which happens by itself too. What can only be set at the start stays as it is until a
restart, and a warning says so: lease, Events, HTTP, the way to the cluster.
"""

from __future__ import annotations

import random as chance
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import anyio

from rebalancer.control.clock import Clock, SystemClock
from rebalancer.control.cycle import ACTIVE, DRY_RUN, Cycle, CycleParams, Ports
from rebalancer.control.executor import EXECUTOR_DEFAULTS, Executor, ExecutorParams
from rebalancer.control.heap import Heap
from rebalancer.control.keep import keep
from rebalancer.control.lag import LagMeter
from rebalancer.control.loop import LOOP_DEFAULTS, Loop, LoopParams
from rebalancer.control.offload import Offload, in_thread
from rebalancer.control.recorder import EventParams, Recorder
from rebalancer.control.server import HttpParams, serving
from rebalancer.control.site import Board, Site
from rebalancer.control.switch import Switch
from rebalancer.domain.history import Chapter, remember
from rebalancer.domain.report import Report
from rebalancer.domain.snapshot import SetAside
from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CACHE_DEFAULTS, CacheParams
from rebalancer.kube.lease import Alone, Elector, Leadership, LeaseParams
from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api
from rebalancer.present.answers import DOCUMENTS, STREAM, note
from rebalancer.present.events import events
from rebalancer.present.metrics import CONTENT_TYPE, Metrics
from rebalancer.present.picture import Picture

__all__ = ["ACTIVE", "DRY_RUN", "DaemonParams", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParams:
    """Everything that can be set about a daemon.

    `lease` None runs without leader election: nobody else may act then. `events` None writes no Events, `http` None
    serves nothing. `settings` are the rows of `rebalancer settings -o json`, for people to see. `access` is how the
    cluster was reached, to be compared only.
    """

    cycle: CycleParams = CycleParams()
    executor: ExecutorParams = EXECUTOR_DEFAULTS
    loop: LoopParams = LOOP_DEFAULTS
    cache: CacheParams = CACHE_DEFAULTS
    lease: LeaseParams | None = LeaseParams()
    events: EventParams | None = EventParams()
    http: HttpParams | None = None
    settings: tuple[Mapping[str, str], ...] = ()
    access: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """Who makes the parts that see, lead and act: another's may stand in, such as one with a fault planted in it."""

    cache: Callable[..., Cache] = Cache
    elector: Callable[..., Elector] = Elector
    executor: Callable[..., Executor] = Executor
    cycle: Callable[..., Cycle] = Cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a daemon stands on: time, threads, chance, signals. In virtual time: the loop's clock, `inline`, a seed.

    `random` is in [0, 1) and only spreads timers: no plan depends on it. `signals`: SIGTERM and SIGINT stop the daemon,
    SIGUSR1 and SIGHUP are for people. `reload` reads the settings again, off the event loop, every `reload_seconds`;
    ValueError where they cannot be used.
    """

    clock: Clock = SystemClock()
    offload: Offload = in_thread
    random: Callable[[], float] = chance.random
    signals: bool = False
    reload: Callable[[], DaemonParams] | None = None
    reload_seconds: float = 30.0
    makers: Makers = Makers()


RUNTIME_DEFAULTS = Runtime()


async def run(
    params: DaemonParams,
    api: Api,
    runtime: Runtime = RUNTIME_DEFAULTS,
    *,
    on_report: Callable[[Report], None] = lambda _: None,
    stop: anyio.Event | None = None,
) -> None:
    """Runs the daemon against the cluster behind `api`, which it enters and leaves.

    `on_report` is called on the event loop with every cycle's report and must not block. Raises nothing that a cluster
    can cause: what goes wrong becomes a sentence and is tried again. ServerError where `params.http` cannot be had.
    """
    stop = stop or anyio.Event()
    heap = Heap()

    def reported(report: Report) -> None:
        on_report(report)
        heap.tidy(settled=report.synced and bool(report.state.nodes))

    async with api, AsyncExitStack() as held:
        if runtime.offload is in_thread:
            held.enter_context(heap)
        parts = _assemble(params, api, runtime, reported)
        async with _serving(params.http, parts, runtime.offload), anyio.create_task_group() as tasks:
            if runtime.signals:
                tasks.start_soon(_on_signals, stop, parts)
            for name, part in parts.running.items():
                tasks.start_soon(keep, name, part, parts.around)
            async with anyio.create_task_group() as acting:
                acting.start_soon(keep, "loop", parts.loop.run, parts.around)
                await stop.wait()
                acting.cancel_scope.cancel()
            # Not before what it had begun to write has been answered does the lease go back.
            tasks.cancel_scope.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The daemon's parts; `running` are those that run until cancelled, beside the loop, which acts."""

    around: Surroundings
    cache: Cache
    loop: Loop
    metrics: Metrics
    showcase: _Showcase
    switch: Switch
    settings: _Settings
    running: Mapping[str, Callable[[], Awaitable[None]]]


class _Showcase:
    """What page and API show. A picture is put together when somebody looks, and no sooner."""

    def __init__(self, cache: Cache, cycle: Cycle, params: DaemonParams, since: float) -> None:
        self._cache = cache
        self._cycle = cycle
        self.params = params
        self._since = since
        self._report: Report | None = None
        self._history: tuple[Chapter, ...] = ()
        self.board = Board(f"{since:.0f}")

    def observe(self, report: Report) -> None:
        """Takes over a cycle's report and tells whoever listens."""
        self._report = report
        self._history = remember(self._history, report)
        self.board.put(note(report))

    def look(self) -> Picture:
        """What there is to show: on a replica that stands by, the cluster that it watches all the same."""
        watched = self._cycle.watched
        return Picture(
            report=self._report,
            snapshot=watched if watched.nodes else self._cache.snapshot(),
            policy=self.params.cycle.planning.policy,
            history=self._history,
            settings=self.params.settings,
            since=self._since,
        )


FIXED = ("lease", "events", "http", "cache", "access")
"""Parts of DaemonParams that are read once, at the start."""


class _Settings:
    """The settings in force, and how others take their place. What cannot be used changes nothing and is a warning."""

    def __init__(
        self, params: DaemonParams, runtime: Runtime, adopt: Callable[[DaemonParams], None], cycle: Cycle
    ) -> None:
        self._params = params
        self._runtime = runtime
        self._adopt = adopt
        self._cycle = cycle

    async def run(self) -> None:
        """Looks after them every now and then."""
        while True:
            await anyio.sleep(self._runtime.reload_seconds)
            await self.reload()

    async def reload(self) -> None:
        """Reads them again and goes on by them where they are others."""
        if self._runtime.reload is None:
            return
        try:
            found = await self._runtime.offload(self._runtime.reload)
        except ValueError as error:
            self._warn(f"{'; '.join(str(error).splitlines())}; the settings from before stay in force")
            return
        late = [name for name in FIXED if getattr(found, name) != getattr(self._params, name)]
        self._warn(f"what has changed of {', '.join(late)} takes effect after a restart" if late else "")
        found = replace(found, **{name: getattr(self._params, name) for name in FIXED})
        if found != self._params:
            self._params = found
            self._adopt(found)

    def _warn(self, reason: str) -> None:
        self._cycle.warnings = (SetAside(kind="Settings", name="(reload)", reason=reason),) if reason else ()


def _assemble(params: DaemonParams, api: Api, runtime: Runtime, on_report: Callable[[Report], None]) -> _Parts:
    clock, makers = runtime.clock, runtime.makers
    around = Surroundings(monotonic=clock.monotonic, now=clock.now, random=runtime.random)
    cache = makers.cache(api, around, params.cache)
    elector = makers.elector(api, params.lease, around, changed=cache.wake) if params.lease is not None else None
    leadership: Leadership = elector or Alone()
    executor = makers.executor(api, leadership, clock, params.executor)
    switch = Switch(clock.now, cache.wake)
    ports = Ports(
        cache=cache,
        leadership=leadership,
        executor=executor,
        clock=clock,
        offload=runtime.offload,
        stopwatch=clock.monotonic if runtime.offload is in_thread else None,
        switch=switch,
    )
    recorder = Recorder(api, leadership, clock, params.events, partial(_uid, cache)) if params.events else None
    lag = LagMeter(clock.monotonic)
    metrics = Metrics(lag=lambda: lag.longest_seconds, requests=lambda: api.answers)
    last: list[Report] = []

    def publish(report: Report) -> None:
        metrics.observe(report)
        if recorder is not None and report.leader:
            recorder.tell(events(report, last[0] if last else None))
        last[:] = [report]
        showcase.observe(report)
        on_report(report)

    cycle = makers.cycle(ports, params.cycle)
    showcase = _Showcase(cache, cycle, params, clock.now())
    loop = Loop(cycle, cache, clock, params.loop, publish)

    def adopt(found: DaemonParams) -> None:
        executor.params, loop.params, showcase.params = found.executor, found.loop, found
        cycle.adopt(found.cycle)
        cache.wake()

    settings = _Settings(params, runtime, adopt, cycle)
    optional = {"elector": elector, "recorder": recorder, "settings": settings if runtime.reload is not None else None}
    running = {"cache": cache.run}
    if runtime.offload is in_thread:
        running["lag meter"] = lag.run  # where time is virtual nothing is ever late
    running |= {name: part.run for name, part in optional.items() if part is not None}
    return _Parts(
        around=around,
        cache=cache,
        loop=loop,
        metrics=metrics,
        showcase=showcase,
        switch=switch,
        settings=settings,
        running=running,
    )


def _uid(cache: Cache, kind: str, namespace: str, name: str) -> str:
    """The UID of what an Event is about: without it `kubectl describe` does not find the Event."""
    snapshot = cache.latest
    if kind == "Node":
        node = snapshot.nodes.get(name)
        return node.uid if node is not None else ""
    vmi = snapshot.vmis.get(f"{namespace}/{name}") if kind == "VirtualMachineInstance" else None
    return vmi.uid if vmi is not None else ""


@asynccontextmanager
async def _serving(params: HttpParams | None, parts: _Parts, offload: Offload) -> AsyncIterator[None]:
    if params is None:
        yield
        return
    pages = {"/metrics": lambda: (CONTENT_TYPE, parts.metrics.exposition())}

    def healthy() -> str:
        return "" if parts.loop.alive() else "no cycle has come round for too long"

    def ready() -> str:
        return "" if parts.cache.synced else "not everything has been listed yet"

    site = Site(parts.showcase.board, parts.showcase.look, DOCUMENTS, offload)
    async with serving(params, pages, healthy=healthy, ready=ready, routes=site.routes(STREAM)):
        yield


async def _on_signals(stop: anyio.Event, parts: _Parts) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as received:
        async for number in received:
            if number == signal.SIGUSR1:
                parts.switch.toggle()
            elif number == signal.SIGHUP:
                await parts.settings.reload()
            else:
                stop.set()
                return
