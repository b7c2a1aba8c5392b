"""A little life for a simulated cluster: VMs come and go, nodes are cordoned, drained and lost, people move VMs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from rebalancer.sim import admission, shapes
from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import Obj, deleting, key_of, labels_of, phase
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS
from rebalancer.sim.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeParams:
    """How often things happen: the mean of seconds between two of a kind, 0 for never.

    A cordon lasts `cordon_lasts` seconds, a drained node comes back after `drain_lasts`, a lost one after `loss_lasts`.
    """

    start: float = 600.0
    stop: float = 600.0
    cordon: float = 7200.0
    drain: float = 0.0
    loss: float = 0.0
    migrate: float = 0.0
    cordon_lasts: float = 1800.0
    drain_lasts: float = 1800.0
    loss_lasts: float = 1200.0


class Life:
    """What happens to a world from outside. Every kind of event has its own random stream."""

    def __init__(self, world: World, params: LifeParams) -> None:
        self._world = world
        self._params = params
        self._born = 0
        self._away: set[str] = set()
        self.events: list[str] = []

    async def run(self) -> None:
        """Live until cancelled."""
        params = self._params
        kinds: tuple[tuple[str, float, Callable[[int], Coroutine[None, None, None]]], ...] = (
            ("start", params.start, self._start),
            ("stop", params.stop, self._stop),
            ("cordon", params.cordon, self._cordon),
            ("drain", params.drain, self._drain),
            ("loss", params.loss, self._lose),
            ("migrate", params.migrate, self._migrate),
        )
        async with asyncio.TaskGroup() as group:
            for name, mean, happen in kinds:
                if mean:
                    group.create_task(self._again(name, mean, happen))

    async def _again(self, name: str, mean: float, happen: Callable[[int], Coroutine[None, None, None]]) -> None:
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                number += 1
                await asyncio.sleep(self._world.dice.of("life", name, number).expovariate(1.0 / mean))
                group.create_task(happen(number))

    def _tell(self, text: str) -> None:
        self.events.append(f"{self._world.clock.monotonic():.0f} {text}")

    def _pick(self, items: list[Obj], *subject: object) -> Obj | None:
        return self._world.dice.of("life", *subject).choice(items) if items else None

    def _workers(self) -> list[Obj]:
        """Workers that are as they should be."""
        return [
            node
            for node in self._world.store.items("nodes")
            if "node-role.kubernetes.io/control-plane" not in labels_of(node)
            and not node.get("spec", {}).get("unschedulable")
            and node["metadata"]["name"] not in self._away
        ]

    def _vmis(self) -> list[Obj]:
        return [vmi for vmi in self._world.store.items(VMIS) if phase(vmi) == "Running" and not deleting(vmi)]

    async def _start(self, number: int) -> None:
        spaces = [
            space["metadata"]["name"]
            for space in self._world.store.items("namespaces")
            if not space["metadata"]["name"].startswith(("kube", "default"))
        ]
        draw = self._world.dice.of("life", "born", number)
        vcpus, gib = draw.choice(shapes.SIZES)
        self._born += 1
        vmi = shapes.vmi(draw.choice(spaces), f"new-{self._born:04}", vcpus=vcpus, memory_gib=gib)
        created = self._world.start_vm(vmi)
        self._tell(f"{key_of(created)} is started")

    async def _stop(self, number: int) -> None:
        vmi = self._pick(self._vmis(), "stop", number)
        if vmi is not None:
            self._tell(f"{key_of(vmi)} is stopped")
            self._world.stop_vm(vmi["metadata"]["namespace"], vmi["metadata"]["name"])

    async def _cordon(self, number: int) -> None:
        node = self._pick(self._workers(), "cordon", number)
        if node is not None:
            await self._close(node["metadata"]["name"], self._params.cordon_lasts, drained=False)

    async def _drain(self, number: int) -> None:
        node = self._pick(self._workers(), "drain", number)
        if node is not None:
            await self._close(node["metadata"]["name"], self._params.drain_lasts, drained=True)

    async def _close(self, name: str, seconds: float, *, drained: bool) -> None:
        self._tell(f"{name} is {'drained' if drained else 'cordoned'}")
        if drained:
            self._world.drain(name)
        else:
            self._world.cordon(name)
        await asyncio.sleep(seconds)
        self._world.cordon(name, on=False)
        self._tell(f"{name} is back")

    async def _lose(self, number: int) -> None:
        node = self._pick(self._workers(), "loss", number)
        if node is None:
            return
        name = node["metadata"]["name"]
        self._away.add(name)
        self._tell(f"{name} is lost")
        self._world.lose(name)
        await asyncio.sleep(self._params.loss_lasts)
        self._world.regain(name)
        self._away.discard(name)
        self._tell(f"{name} is back")

    async def _migrate(self, number: int) -> None:
        """A person migrates a VM to wherever the scheduler likes."""
        vmi = self._pick(self._vmis(), "migrate", number)
        if vmi is None:
            return
        kind = BY_STORAGE[MIGRATIONS]
        item: Obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": vmi["metadata"]["namespace"]},
            "spec": {"vmiName": vmi["metadata"]["name"]},
        }
        admission.mutate_migration(item)
        try:
            admission.admit_migration(self._world.store, item, "a person")
        except ApiError:
            return  # it is under way already, or cannot move
        self._world.store.create(MIGRATIONS, item, actor="user")
        self._tell(f"{key_of(vmi)} is migrated by hand")


def unfinished(world: World) -> int:
    """Migrations that have not ended."""
    return len(world.store.where(MIGRATIONS, "open", "open"))
