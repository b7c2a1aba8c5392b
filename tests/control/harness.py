"""The whole daemon against a small simulated cluster, in virtual time, and what it said."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from rebalancer import daemon
from rebalancer.control.cycle import ACTIVE, CycleParams
from rebalancer.control.offload import inline
from rebalancer.domain.report import Report
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.transport import Api, unix_socket
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits
from rebalancer.policy.load import PolicyParams
from rebalancer.sim.api import ApiParams
from rebalancer.sim.faults import Entry, Faults
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import Mishaps, NodePlaneParams
from rebalancer.sim.shapes import kubevirt, namespace, node, running, vmi
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import LoopClock, World, WorldParams

T = TypeVar("T")
MIGRATIONS = "virtualmachineinstancemigrations"
PLANE = NodePlaneParams()
SLOW = NodePlaneParams(bandwidth_bytes=1.2e8, dirty_bytes=1.0e8)
"""Transfers of minutes: time for something to come in between."""
QUICK = PolicyParams(hold_seconds=0.0)


def nodes(*names: str, cpu: int = 9) -> list[Obj]:
    """Equal nodes, and what every cluster has."""
    found = [node(name, cpu=cpu, memory_gib=64, zone=f"z{index}") for index, name in enumerate(names)]
    return [kubevirt(), namespace("bank"), *found]


def vms(on: str, *names: str, vcpus: int = 2, labels: dict[str, str] | None = None, **spec: Any) -> list[Obj]:
    """Running VMs of namespace bank on a node. `spec` goes into the VMI's spec."""
    found: list[Obj] = []
    for name in names:
        order = vmi("bank", name, vcpus=vcpus, memory_gib=4, labels=labels)
        order["spec"] |= spec
        found += running(order, on)
    return found


def hot_pair() -> list[Obj]:
    """Node a is full with four VMs of 2 CPU, node b and c are empty: one move cures it."""
    return [*nodes("a", "b", "c"), *vms("a", "v0", "v1", "v2", "v3")]


@dataclass(slots=True)
class Story:
    """A running daemon and its cluster. `reports` are all cycles, `said` their sentences as (kind, text)."""

    world: World
    socket: str
    reports: list[Report] = field(default_factory=list)
    stop: anyio.Event = field(default_factory=anyio.Event)

    @property
    def kinds(self) -> list[str]:
        """The kinds of sentences in order, without repetitions."""
        found: list[str] = []
        for report in self.reports:
            if not found or found[-1] != report.sentence.kind:
                found.append(report.sentence.kind)
        return found

    def texts(self, kind: str) -> list[str]:
        """What sentences of one kind said, without repetitions."""
        return list(dict.fromkeys(r.sentence.text for r in self.reports if r.sentence.kind == kind))

    @property
    def last(self) -> Report:
        return self.reports[-1]

    def writes(self, resource: str = MIGRATIONS) -> list[Entry]:
        """The requests of the daemon that may have changed something."""
        return [e for e in self.world.api.log if e.writes and e.target and e.target.resource.plural == resource]

    def migrations(self) -> list[Obj]:
        return self.world.store.items(MIGRATIONS)

    async def until(self, kind: str, seconds: float = 3600.0) -> Report:
        """Waits for the next report of a kind."""
        seen = len(self.reports)
        with anyio.fail_after(seconds):
            while True:
                for report in self.reports[seen:]:
                    if report.sentence.kind == kind:
                        return report
                seen = len(self.reports)
                await anyio.sleep(0.25)


def params(
    mode: str = ACTIVE, *, identity: str = "a", policy: PolicyParams = QUICK, **limits: Any
) -> daemon.DaemonParams:
    """A daemon that acts, without hold time and budgets by the hour unless told otherwise."""
    cycle = CycleParams(mode=mode, planning=PlanningParams(policy=policy, seconds=1.0), limits=Limits(**limits))
    return daemon.DaemonParams(cycle=cycle, lease=LeaseParams(identity=identity))


def tell(
    items: Sequence[Obj],
    scenario: Callable[[Story], Awaitable[T]],
    *,
    settings: daemon.DaemonParams | None = None,
    faults: Faults | None = None,
    mishaps: Mishaps | None = None,
    plane: NodePlaneParams = PLANE,
    start: bool = True,
    **runtime: Any,
) -> T:
    """Runs a scenario beside a daemon (unless `start` is False) on a cluster of these objects.

    `runtime` is what the daemon stands on besides virtual time: signals, a way to read settings again.
    """

    async def main() -> T:
        api = ApiParams(tokens={"a": "a", "b": "b"})
        world = World(list(items), WorldParams(api=api, nodes=plane), faults=faults, mishaps=mishaps)
        with tempfile.TemporaryDirectory() as folder:
            async with world:
                socket = str(Path(folder) / "api")
                await world.api.start(unix=socket)
                story = Story(world=world, socket=socket)
                async with anyio.create_task_group() as tasks:
                    if start:
                        tasks.start_soon(partial(serve, story, settings or params(), **runtime))
                    result = await scenario(story)
                    world.check()
                    story.stop.set()
                    tasks.cancel_scope.cancel()
                return result

    return run_virtual(main)


def client(story: Story, user: str = "a") -> Api:
    """A client of a story's API server, as one of its users."""

    async def credentials(_: bool) -> str:
        return f"Bearer {user}"

    return Api(replace(unix_socket(story.socket), credentials=credentials))


async def serve(story: Story, settings: daemon.DaemonParams, user: str = "a", **more: Any) -> None:
    """A daemon until the story stops it."""
    runtime = daemon.Runtime(**{"clock": LoopClock(), "offload": inline, "random": lambda: 0.5, **more})
    await daemon.run(settings, client(story, user), runtime, on_report=story.reports.append, stop=story.stop)


@asynccontextmanager
async def another(story: Story, settings: daemon.DaemonParams, user: str = "b") -> AsyncIterator[Story]:
    """A second daemon on the same cluster, with reports of its own."""
    twin = Story(world=story.world, socket=story.socket)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, twin, settings, user)
        yield twin
        tasks.cancel_scope.cancel()


def annotate(story: Story, resource: str, namespace: str, name: str, **annotations: str) -> None:
    """Annotates an object under our prefix."""

    def change(item: Obj) -> None:
        found = item["metadata"].setdefault("annotations", {})
        found.update({f"kubevirt-rebalancer.io/{key}": value for key, value in annotations.items()})

    story.world.store.modify(resource, namespace, name, change)


def retire(story: Story, node: str) -> None:
    """Every VM on a node gets a reason to leave."""

    def change(item: Obj) -> None:
        item["spec"]["taints"] = [{"key": "retiring", "value": "soon", "effect": "NoSchedule"}]

    story.world.store.modify("nodes", "", node, change)


def migrate(story: Story, name: str) -> None:
    """A user migrates a VM of namespace bank himself."""
    meta = {"namespace": "bank", "name": f"users-own-{name}", "labels": {"kubevirt.io/vmi-name": name}}
    story.world.store.create(MIGRATIONS, {"metadata": meta, "spec": {"vmiName": name}})


def posts(entry: Entry) -> bool:
    """Whether a request makes a VMIM."""
    return entry.method == "POST" and MIGRATIONS in entry.path


def loop_time() -> float:
    return asyncio.get_running_loop().time()


class Jumping(LoopClock):
    """A clock whose two hands can be moved."""

    wall = 0.0
    frozen = 0.0

    def now(self) -> float:
        return super().now() + self.wall + self.frozen

    def monotonic(self) -> float:
        return super().monotonic() + self.frozen
