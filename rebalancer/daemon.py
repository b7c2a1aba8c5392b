"""The daemon: where cache, lease, cycle, executor and faces are put together.

    api = Api(unix_socket(path))                 # or: await connect(Access(), monotonic=clock.monotonic)
    params = DaemonParams(cycle=CycleParams(mode=ACTIVE, planning=PlanningParams(...), limits=Limits(...)))
    await run(params, api, Runtime(clock=clock, offload=inline), on_report=show)

It runs until `stop` is set, a signal comes (with `signals=True`), or it is cancelled; each way nothing is started any
more, the lease is given back, and migrations under way go on for the next leader to adopt.
"""

from __future__ import annotations

import random as chance
import signal
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from rebalancer.control.clock import Clock, SystemClock
from rebalancer.control.cycle import ACTIVE, DRY_RUN, Cycle, CycleParams, Ports
from rebalancer.control.executor import EXECUTOR_DEFAULTS, Executor, ExecutorParams
from rebalancer.control.loop import LOOP_DEFAULTS, Loop, LoopParams
from rebalancer.control.offload import Offload, in_thread
from rebalancer.domain.report import Report
from rebalancer.kube.cache import Cache
from rebalancer.kube.lease import Alone, Elector, Leadership, LeaseParams
from rebalancer.kube.reflector import CACHE_DEFAULTS, CacheParams
from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api

__all__ = ["ACTIVE", "DRY_RUN", "DaemonParams", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParams:
    """Everything that can be set about a daemon. `lease` None runs without leader election: nobody else may act."""

    cycle: CycleParams = CycleParams()
    executor: ExecutorParams = EXECUTOR_DEFAULTS
    loop: LoopParams = LOOP_DEFAULTS
    cache: CacheParams = CACHE_DEFAULTS
    lease: LeaseParams | None = LeaseParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a daemon stands on: time, threads, chance, signals. In virtual time: the loop's clock, `inline`, a seed.

    `random` is in [0, 1) and only spreads timers: no plan depends on it. `signals`: SIGTERM and SIGINT stop the daemon.
    """

    clock: Clock = SystemClock()
    offload: Offload = in_thread
    random: Callable[[], float] = chance.random
    signals: bool = False


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
    can cause: what goes wrong becomes a sentence and is tried again.
    """
    clock = runtime.clock
    around = Surroundings(monotonic=clock.monotonic, now=clock.now, random=runtime.random)
    stop = stop or anyio.Event()
    async with api:
        cache = Cache(api, around, params.cache)
        elector = Elector(api, params.lease, around, changed=cache.wake) if params.lease is not None else None
        leadership: Leadership = elector or Alone()
        executor = Executor(api, leadership, clock, params.executor)
        cycle = Cycle(
            Ports(cache=cache, leadership=leadership, executor=executor, clock=clock, offload=runtime.offload),
            params.cycle,
        )
        loop = Loop(cycle, cache, clock, params.loop, on_report)
        async with anyio.create_task_group() as tasks:
            if runtime.signals:
                tasks.start_soon(_stop_on_signal, stop)
            tasks.start_soon(cache.run)
            if elector is not None:
                tasks.start_soon(elector.run)
            tasks.start_soon(loop.run)
            await stop.wait()
            tasks.cancel_scope.cancel()


async def _stop_on_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for _ in received:
            stop.set()
            return
