"""Where scenes are played: a namespace and three equal nodes of the simulator or of the real control plane.

A scene sees the API alone and cannot tell which of the two it is on.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
from conformance.recording import Recording, collection
from controlplane.harness import ControlPlane
from controlplane.kubeclient import MERGE, ApiError, KubeClient, Object
from controlplane.nodes import QUICK, add_node, node_plane
from controlplane.objects import migration, node, vmi

from rebalancer.sim.chance import Dice
from rebalancer.sim.plane import Mishaps, NodePlaneParams
from rebalancer.sim.shapes import kubevirt, namespace
from rebalancer.sim.world import World, WorldParams

NODES = ("n0", "n1", "n2")
PATIENCE_SECONDS = 60
NEWS_SECONDS = 0.3
"""Within this time a scheduler has heard that a node was opened."""
QUIET_SECONDS = 2.5
"""Longer than anything of the node plane takes; what a controller still has to do, it has begun by then."""


@dataclass(slots=True)
class Stage:
    """One namespace, and what scenes do in it. VMs are started on n0 unless they say otherwise."""

    client: KubeClient
    recording: Recording

    @property
    def namespace(self) -> str:
        """Where everything of the scene is."""
        return self.recording.namespace

    def path(self, kind: str, name: str = "") -> str:
        """Path of a Migration, VMI, Pod or Event."""
        return collection(kind, self.namespace, name)

    # Doing

    async def boot(self, name: str, *, on: str = "n0", migratable: bool = True, cpu: str = "1", **spec: str) -> None:
        """Start a VM on a node and wait until it runs, can be migrated or not, and is ready."""
        others = [other for other in NODES if other != on]
        for other in others:
            await self.cordon(other)
        await self.order(name, cpu=cpu, **spec)
        await self.until("VMI", name, lambda found: _runs(found, migratable=migratable))
        for other in others:
            await self.cordon(other, on=False)
        await anyio.sleep(NEWS_SECONDS)

    async def order(self, name: str, *, cpu: str = "1", **spec: str) -> None:
        """Create a VM, wherever it will run."""
        await self.client.create(self.path("VMI"), vmi(name, cpu=cpu, namespace=self.namespace, **spec))

    async def cordon(self, name: str, *, on: bool = True) -> None:
        """Close a node to new pods, or open it."""
        await self.client.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": on or None}})

    async def migrate(self, name: str, vm: str, *, to: str, notes: dict[str, str] | None = None) -> Object | None:
        """Ask for a directed migration; None where that is refused."""
        body = migration(name, instance=vm, target=to, namespace=self.namespace)
        body["metadata"]["annotations"] = notes or {}
        return await self.post(f"migrate {vm} to {to} as {name}", body)

    async def post(self, what: str, body: Object, **query: str) -> Object | None:
        """Create a migration, however it looks."""
        return await self.recording.ask("POST", self.path("Migration"), body, what=what, **query)

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object of the scene."""
        await self.recording.ask("DELETE", self.path(kind, name), what=f"delete {kind} {name}")

    async def change(self, kind: str, name: str, body: Object) -> None:
        """A merge patch."""
        what = f"change {kind} {name}: {json.dumps(body)}"
        await self.recording.ask("PATCH", self.path(kind, name), body, what=what, content=MERGE)

    async def delete_target(self, pod: str) -> None:
        """Delete a pod whose name is generated."""
        await self.recording.ask("DELETE", self.path("Pod", pod), what="delete the target pod")

    async def limit_pods(self, pods: int) -> None:
        """A quota that the pods of the namespace fill already. No controller would count them for it here."""
        hard = {"pods": str(pods)}
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "full", "namespace": self.namespace},
            "spec": {"hard": hard},
        }
        await self.client.create(self._quotas, quota)
        await self.client.patch(f"{self._quotas}/full/status", {"status": {"hard": hard, "used": hard}})

    async def lift_limit(self) -> None:
        """Delete the quota again."""
        await self.client.delete(f"{self._quotas}/full")

    @property
    def _quotas(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/resourcequotas"

    async def evict(self, pod: str, *, what: str) -> None:
        """Ask for the eviction of a pod, as a drain does."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        await self.recording.ask("POST", self.path("Pod", pod) + "/eviction", body, what=what)

    # Looking

    async def find(self, kind: str, name: str) -> Object | None:
        """The object, None where there is none."""
        try:
            return await self.client.get(self.path(kind, name))
        except ApiError as refused:
            if refused.status == 404:
                return None
            raise

    async def until(self, kind: str, name: str, check: Callable[[Object], bool]) -> Object:
        """The object once it is as wanted."""
        found: Object | None = None
        with anyio.move_on_after(PATIENCE_SECONDS):
            while True:
                found = await self.find(kind, name)
                if found is not None and check(found):
                    return found
                await anyio.sleep(0.02)
        raise AssertionError(
            f"{kind} {name} did not become as the scene wants it: {found and found.get('status')}; "
            f"asked: {self.recording.asked}"
        )

    async def phase(self, name: str, *phases: str) -> Object:
        """A migration once it is in one of these phases."""
        return await self.until("Migration", name, lambda found: found.get("status", {}).get("phase") in phases)

    async def ended(self, name: str) -> None:
        """Wait until a migration is final and neither it nor its VM is held by it any more."""
        over = await self.until("Migration", name, _is_over)
        await self.until("VMI", over["spec"]["vmiName"], _is_at_rest)

    async def gone(self, kind: str, name: str) -> None:
        """Wait until the object is no more."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                if await self.find(kind, name) is None:
                    return
                await anyio.sleep(0.02)

    async def pods(self, vm: str) -> list[str]:
        """Names of a VM's launcher pods, the oldest first."""
        items = await self.client.items(self.path("Pod"))
        mine = [pod["metadata"] for pod in items if pod["metadata"]["annotations"].get("kubevirt.io/domain") == vm]
        return [meta["name"] for meta in sorted(mine, key=lambda meta: int(meta["resourceVersion"]))]

    async def target(self, vm: str, check: Callable[[Object], bool] = lambda _: True) -> Object:
        """The pod that a migration has made for a VM, once it is as wanted."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                for pod in await self.client.items(self.path("Pod"), labelSelector="kubevirt.io/migrationJobUID"):
                    if pod["metadata"]["annotations"].get("kubevirt.io/domain") == vm and check(pod):
                        return pod
                await anyio.sleep(0.02)


def _is_over(found: Object) -> bool:
    final = found.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return final and not found["metadata"].get("finalizers")


def _is_at_rest(vmi: Object) -> bool:
    return "kubevirt.io/migrationTargetNodeName" not in vmi["metadata"].get("labels", {})


def _runs(found: Object, *, migratable: bool) -> bool:
    status = found.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    wanted = {"LiveMigratable": "True" if migratable else "False", "Ready": "True"}
    return status.get("phase") == "Running" and wanted.items() <= conditions.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A script, and how the nodes behave in it."""

    name: str
    about: str
    play: Callable[[Stage], Awaitable[None]]
    nodes: NodePlaneParams = QUICK
    mishaps: Mishaps = field(default_factory=Mishaps)


async def _perform(scene: Scene, client: KubeClient, now: Callable[[], float]) -> Recording:
    recording = Recording(client, scene.name, now)
    async with anyio.create_task_group() as tasks:
        await tasks.start(recording.run)
        await scene.play(Stage(client, recording))
        await recording.quiet(QUIET_SECONDS)
        tasks.cancel_scope.cancel()
    return recording


async def in_simulator(scene: Scene) -> Recording:
    """Play a scene on the simulator; for an event loop in virtual time."""
    items: list[Object] = [kubevirt(), namespace("kubevirt"), namespace(scene.name)]
    for name in NODES:
        made = node(name)
        made["metadata"]["uid"] = Dice().uid("node", name)
        items.append({"apiVersion": "v1", "kind": "Node"} | made)
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "api")
        async with World(items, WorldParams(nodes=scene.nodes), mishaps=scene.mishaps) as world:
            await world.api.start(unix=socket)
            async with KubeClient("http://simulated", token="", connector=aiohttp.UnixConnector(socket)) as client:
                return await _perform(scene, client, asyncio.get_running_loop().time)


async def on_control_plane(scene: Scene, plane: ControlPlane) -> Recording:
    """Play a scene on the real control plane, and leave nothing behind that the next one would see."""
    await plane.namespace(scene.name)
    async with _nodes(scene, plane) as client:
        for name in NODES:
            await client.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
        try:
            return await _perform(scene, client, asyncio.get_running_loop().time)
        finally:
            with anyio.CancelScope(shield=True):
                await _clear(client, scene.name)


@asynccontextmanager
async def _nodes(scene: Scene, plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """The node plane with the scene's ways, over nodes that are made where they are missing."""
    client = plane.client()
    known = {item["metadata"]["name"] for item in await client.items("/api/v1/nodes")}
    for name in NODES:
        if name not in known:
            await add_node(plane, node(name))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node_plane(plane, params=scene.nodes, mishaps=scene.mishaps).run)
        yield client
        tasks.cancel_scope.cancel()


async def _clear(client: KubeClient, space: str) -> None:
    """Remove a scene's VMs with all that hangs on them; no garbage collector would do it."""
    for vm in await client.items(collection("VMI", space)):
        await client.delete(collection("VMI", space, vm["metadata"]["name"]))
    await _empty(client, collection("VMI", space))
    await anyio.sleep(NEWS_SECONDS)
    # KubeVirt 1.8 now and then leaves a failed migration with its finalizer behind when the VM goes at that moment.
    for left in await client.items(collection("Migration", space)):
        with suppress(ApiError):
            path = collection("Migration", space, left["metadata"]["name"])
            await client.patch(path, {"metadata": {"finalizers": None}})
            await client.delete(path)
    await _empty(client, collection("Migration", space))
    await client.delete(collection("Pod", space), gracePeriodSeconds="0")
    await _empty(client, collection("Pod", space))


async def _empty(client: KubeClient, path: str) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            if not await client.items(path):
                return
            await anyio.sleep(0.1)
