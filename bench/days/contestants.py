"""Who looks after the VMs: our daemon, nobody, or the descheduler's LowNodeUtilization every five minutes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from bench.peers.low_node_utilization import Params, Standing, evictions, launchers
from rebalancer import daemon
from rebalancer.control.cycle import CycleParams
from rebalancer.control.loop import LoopParams
from rebalancer.control.offload import inline
from rebalancer.domain.pod import Pod
from rebalancer.domain.report import Report
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.cache import Cache
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.outcome import ApiError
from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api, unix_socket
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.sim.world import World

DAEMON, NOBODY, DESCHEDULER, DEVIATION = "rebalancer", "nobody", "LowNodeUtilization 50/80", "LowNodeUtilization ±10"
CONTESTANTS = (DAEMON, NOBODY, DESCHEDULER, DEVIATION)
LOOK_SECONDS = 300.0
"""The descheduler's --descheduling-interval default."""
PACE_SECONDS = 120.0
SEARCH_SECONDS = 0.0
PARAMS = daemon.DaemonParams(
    cycle=CycleParams(mode=daemon.ACTIVE, planning=PlanningParams(seconds=SEARCH_SECONDS)),
    loop=LoopParams(interval_seconds=PACE_SECONDS, debounce_seconds=PACE_SECONDS),
    lease=LeaseParams(duration_seconds=300, renew_deadline_seconds=240.0, retry_seconds=120.0),
)
"""The daemon as it is, but for its pace: looks every other minute, renews its lease as often, takes its first plan."""
PLUGIN = {
    DESCHEDULER: Params.of_cpu(50.0, 80.0),
    DEVIATION: Params.of_cpu(10.0, 10.0, deviation=True),
}
TOTAL, PER_NODE = 5, 2
"""Evictions under way at a time, as OpenShift's profile for KubeVirt has them; upstream there is no limit."""


@dataclass(slots=True)
class Diary:
    """What a contestant said: seconds by kind of sentence, dropped plans by reason, lines of log."""

    kinds: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    log: Counter[str] = field(default_factory=Counter)
    plans: int = 0
    last: tuple[float, str, str] = (0.0, "", "")
    changes: int = 0
    samples: list[str] = field(default_factory=list)

    def hear(self, report: Report) -> None:
        moment, kind, text = self.last
        if kind:
            self.kinds[kind] += round(report.time - moment)
        if text != report.sentence.text:
            self.changes += 1
            if report.sentence.kind not in ("Balanced", "WaveRunning"):
                self.samples.append(f"{report.time:.0f} {report.sentence.kind}: {report.sentence.text}")
                del self.samples[:-20000]
        if report.sentence.kind == "Dropped":
            self.dropped[report.sentence.text.partition(": ")[2][:60]] += 1
        self.plans += report.sentence.kind == "Planned"
        self.last = (report.time, report.sentence.kind, report.sentence.text)

    def figures(self) -> dict[str, Any]:
        return {
            "seconds_by_sentence": dict(self.kinds),
            "dropped": dict(self.dropped.most_common(20)),
            "log": dict(self.log.most_common(20)),
            "plans": self.plans,
            "sentences": self.changes,
        }


class _Lines(logging.Handler):
    def __init__(self, diary: Diary) -> None:
        super().__init__(logging.INFO)
        self._diary = diary

    def emit(self, record: logging.LogRecord) -> None:
        self._diary.log[f"{record.levelname} {record.msg}"] += 1


async def rebalancer(world: World, socket: str, diary: Diary, params: daemon.DaemonParams) -> None:
    """Our daemon, until cancelled."""
    handler = _Lines(diary)
    logging.getLogger("rebalancer").addHandler(handler)
    runtime = daemon.Runtime(
        clock=world.clock, offload=inline, random=random.Random(f"daemon {world.params.seed}").random
    )
    try:
        await daemon.run(params, Api(unix_socket(socket)), runtime, on_report=diary.hear)
    finally:
        logging.getLogger("rebalancer").removeHandler(handler)


async def nobody() -> None:
    """Does nothing, until cancelled."""
    await anyio.sleep_forever()


async def descheduler(world: World, socket: str, params: Params) -> None:
    """LowNodeUtilization over the API: what it evicts KubeVirt migrates, to wherever the scheduler likes."""
    clock = world.clock
    around = Surroundings(
        monotonic=clock.monotonic, now=clock.now, random=random.Random(f"descheduler {world.params.seed}").random
    )
    params = replace(params, total=TOTAL, per_node=PER_NODE)
    async with Api(unix_socket(socket)) as api:
        cache = Cache(api, around)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            cycle = 0
            while True:
                await anyio.sleep(LOOK_SECONDS)
                cycle += 1
                if not cache.problems():
                    await _look(api, cache.snapshot(), replace(params, seed=cycle))


async def _look(api: Api, snapshot: Snapshot, params: Params) -> None:
    state = ClusterState.of(snapshot)
    moving = {vmi.uid for vmi in snapshot.vmis.values() if vmi.evacuation_node}
    pending = frozenset(pod.uid for pod in snapshot.pods.values() if not pod.terminal and pod.owner[2] in moving)
    movable = {
        vmi.uid
        for vmi in snapshot.vmis.values()
        if "LiveMigratable" in vmi.conditions and vmi.conditions["LiveMigratable"].status == "True"
    }

    def standing(pod: Pod) -> Standing | None:
        """A VM that cannot migrate would be shut down by its eviction: its owner has said that it must not be."""
        return launchers(pod) if pod.owner[2] in movable else None

    for pod in evictions(state, params, standing=standing, pending=pending):
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {
                "name": pod.name,
                "namespace": pod.namespace,
                "annotations": {"requested-by": "sigs.k8s.io/descheduler"},
            },
        }
        with suppress(ApiError):
            await api.create(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction", eviction)


def contestant(
    name: str, world: World, socket: str, diary: Diary, params: daemon.DaemonParams
) -> Callable[[], Awaitable[None]]:
    """What runs beside the world, by its name."""
    if name == DAEMON:
        return lambda: rebalancer(world, socket, diary, params)
    if name == NOBODY:
        return nobody
    return lambda: descheduler(world, socket, PLUGIN[name])


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a contestant and waits for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
