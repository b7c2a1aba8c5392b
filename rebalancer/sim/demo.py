"""The cluster to look at: our recording with a little life in it, on 127.0.0.1, at a speed that people can follow.

    async def show(cluster: Demo) -> None:
        await daemon.run(params, Api(plain_tcp(cluster.url)), Runtime(clock=cluster.clock), on_report=...)

    run_demo(show, seed=0, speed=10.0)

The loop's clock runs `speed` times faster than the wall's, for the cluster and for the daemon that shares the loop;
kubectl and browsers notice nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from rebalancer.sim.check_reading import amount, need
from rebalancer.sim.life import Life, LifeParams
from rebalancer.sim.migration_case import RUNNING_PHASES
from rebalancer.sim.objects import TERMINAL, Obj, is_true, key_of, labels_of, owner_uid, phase, status
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.store import ADDED, DELETED, Change
from rebalancer.sim.virtualtime import ScaledLoop
from rebalancer.sim.world import LoopClock, World, WorldParams, read_list

T = TypeVar("T")

LIVELY = LifeParams(start=180.0, stop=180.0, cordon=1200.0, cordon_lasts=600.0, migrate=900.0)
"""In the cluster's own time: something to see every few seconds at ten times its speed."""

REMEMBERED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as people want to see it; percentages are reservations of all pods, both halves of migrations included."""

    name: str
    cpu_percent: float
    memory_percent: float
    vms: int
    ready: bool
    cordoned: bool
    worker: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationView:
    """A migration that has not ended."""

    name: str
    vmi: str
    phase: str
    source: str
    target: str
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The cluster at one moment. `seconds` of its own time since it began; `events` newest last, as (seconds, text)."""

    seconds: float
    nodes: tuple[NodeView, ...]
    migrations: tuple[MigrationView, ...]
    vms: int
    events: tuple[tuple[float, str], ...]


class Demo:
    """The running cluster: where to reach it, its clock, and what it looks like."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)
        self._began = world.clock.now()
        self._needs: dict[str, tuple[float, float]] = {}

    @property
    def clock(self) -> LoopClock:
        """The cluster's time, for the daemon that is to live in it."""
        return self._world.clock

    @property
    def url(self) -> str:
        """For `kubectl --server` and for the daemon."""
        return f"http://127.0.0.1:{self._world.api.port}"

    @property
    def world(self) -> World:
        """The cluster itself, to cordon or drain a node or to stop a VM."""
        return self._world

    def tell(self, text: str) -> None:
        """Add a line to what has happened."""
        self._events.append((self._world.clock.now() - self._began, text))

    def heard(self, change: Change) -> None:
        """Put what people would notice into words."""
        item, before = change.object, change.previous or {}
        if change.resource == MIGRATIONS and change.type != DELETED and phase(item) != phase(before):
            vmi = f"{change.namespace}/{item['spec'].get('vmiName')}"
            if phase(item) in TERMINAL:
                self.tell(f"{vmi}: migration {change.name} {phase(item).lower()}")
        elif change.resource == VMIS:
            self._heard_vmi(change, before)
        elif change.resource == "nodes" and change.type != ADDED:
            cordoned, was = (bool((one.get("spec") or {}).get("unschedulable")) for one in (item, before))
            if cordoned != was:
                self.tell(f"node {change.name} is {'cordoned' if cordoned else 'open again'}")

    def _heard_vmi(self, change: Change, before: Obj) -> None:
        key, now, was = key_of(change.object), status(change.object).get("nodeName"), status(before).get("nodeName")
        if change.type == DELETED:
            self.tell(f"{key} has stopped")
        elif was and now != was:
            self.tell(f"{key}: {was} → {now}")
        elif phase(change.object) == "Running" and phase(before) not in ("", "Running"):
            self.tell(f"{key} has started on {now}")

    def view(self) -> View:
        """The cluster as it is now."""
        store = self._world.store
        used: dict[str, tuple[float, float]] = {}
        for pod in store.items("pods"):
            node = pod["spec"].get("nodeName")
            if node and phase(pod) not in TERMINAL:
                cpu, memory = self._need(pod)
                have = used.get(node, (0.0, 0.0))
                used[node] = (have[0] + cpu, have[1] + memory)
        homes = [status(vmi).get("nodeName") for vmi in store.items(VMIS)]
        return View(
            seconds=self._world.clock.now() - self._began,
            nodes=tuple(
                self._node(node, used.get(node["metadata"]["name"], (0.0, 0.0)), homes.count(node["metadata"]["name"]))
                for node in store.items("nodes")
            ),
            migrations=tuple(self._migrations()),
            vms=len(homes),
            events=tuple(self._events),
        )

    def _need(self, pod: Obj) -> tuple[float, float]:
        uid = pod["metadata"]["uid"]
        if uid not in self._needs:
            self._needs[uid] = (float(need(pod, "cpu")), float(need(pod, "memory")))
        return self._needs[uid]

    @staticmethod
    def _node(node: Obj, used: tuple[float, float], vms: int) -> NodeView:
        offered = node["status"]["allocatable"]
        return NodeView(
            name=node["metadata"]["name"],
            cpu_percent=used[0] / float(amount(offered["cpu"])) * 100,
            memory_percent=used[1] / float(amount(offered["memory"])) * 100,
            vms=vms,
            ready=is_true(node, "Ready"),
            cordoned=bool(node.get("spec", {}).get("unschedulable")),
            worker="node-role.kubernetes.io/control-plane" not in labels_of(node),
        )

    def _migrations(self) -> list[MigrationView]:
        store, found = self._world.store, []
        for item in store.items(MIGRATIONS):
            if phase(item) not in ("", "Pending", *RUNNING_PHASES):
                continue
            namespace, name = item["metadata"]["namespace"], item["spec"].get("vmiName", "")
            vmi = store.find(VMIS, namespace, name)
            uid = item["metadata"]["uid"]
            target = next(
                (
                    pod["spec"].get("nodeName", "")
                    for pod in store.items("pods", namespace)
                    if labels_of(pod).get("kubevirt.io/migrationJobUID") == uid and owner_uid(pod)
                ),
                (item["spec"].get("addedNodeSelector") or {}).get("kubernetes.io/hostname", ""),
            )
            found.append(
                MigrationView(
                    name=item["metadata"]["name"],
                    vmi=f"{namespace}/{name}",
                    phase=phase(item),
                    source=str(status(vmi).get("nodeName", "")) if vmi else "",
                    target=target,
                    ours="app.kubernetes.io/managed-by" in labels_of(item),
                )
            )
        return found


@asynccontextmanager
async def demo_cluster(seed: int = 0, *, port: int = 0, life: LifeParams = LIVELY) -> AsyncIterator[Demo]:
    """The cluster, served on 127.0.0.1 (port 0 = a free one) for as long as the block lasts, in the loop's own time."""
    items = await asyncio.to_thread(read_list, RECORDING)
    epoch = time.time() - asyncio.get_running_loop().time()
    async with World(items, WorldParams(seed=seed, epoch=epoch)) as world:
        await world.api.start(port=port)
        demo = Demo(world)
        world.store.subscribe(demo.heard)
        task = asyncio.create_task(Life(world, life).run())
        try:
            yield demo
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def run_demo(main: Callable[[Demo], Coroutine[Any, Any, T]], *, seed: int = 0, speed: float = 10.0, port: int = 0) -> T:
    """Run a coroutine function with the demo cluster, on a loop whose clock is `speed` times as fast as the wall's.

    Raises ValueError for a speed that is not positive, OSError for a port that is taken.
    """

    async def body() -> T:
        async with demo_cluster(seed, port=port) as demo:
            return await main(demo)

    with asyncio.Runner(loop_factory=lambda: ScaledLoop(speed)) as runner:
        return runner.run(body())
