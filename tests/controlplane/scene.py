"""Small clusters for one test: nodes, VMs that run on the first of them, and what may go wrong on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from controlplane.harness import ControlPlane
from controlplane.kubeclient import ApiError, Object
from controlplane.nodes import QUICK, add_node, node_plane
from controlplane.objects import INSTANCES, MIGRATIONS, node
from controlplane.waiting import until

from rebalancer.sim.plane import Mishaps, NodePlaneParams

ALL_INSTANCES = "/apis/kubevirt.io/v1/virtualmachineinstances"
ALL_MIGRATIONS = "/apis/kubevirt.io/v1/virtualmachineinstancemigrations"
RETIRING = {"key": "retiring", "value": "soon", "effect": "NoSchedule"}
OURS = "rb-"
FINAL = ("Succeeded", "Failed")
LEAVE_SECONDS = 60


@dataclass(slots=True)
class Scripted(Mishaps):
    """Target pods that hang or fail. `ours`: of our daemon's migrations of these VMs; `theirs`: of these migrations."""

    ours_hang: set[str] = field(default_factory=set)
    ours_fail: set[str] = field(default_factory=set)
    theirs_hang: set[str] = field(default_factory=set)

    def stuck(self, pod: Object) -> bool:
        vmi, job = _migration_of(pod)
        return job in self.theirs_hang or (job.startswith(OURS) and vmi in self.ours_hang)

    def pod(self, pod: Object) -> str:
        vmi, job = _migration_of(pod)
        return "UnexpectedAdmissionError" if job.startswith(OURS) and vmi in self.ours_fail else ""


def _migration_of(pod: Object) -> tuple[str, str]:
    """The VM and the VMIM whose target this pod is; "" for other pods."""
    notes = pod["metadata"].get("annotations", {})
    return notes.get("kubevirt.io/domain", ""), notes.get("kubevirt.io/migrationJobName", "")


@dataclass(slots=True)
class Scene:
    """Nodes and VMs in the namespace `default`, on a control plane with a node plane."""

    plane: ControlPlane
    mishaps: Scripted

    async def vmi(self, name: str) -> Object:
        """A VM as it is."""
        return await self.plane.client().get(f"{INSTANCES.format(namespace='default')}/{name}")

    async def place(self, name: str) -> str:
        """The node that a VM runs on."""
        return str((await self.vmi(name))["status"]["nodeName"])

    async def migrations(self) -> list[Object]:
        """Every VMIM."""
        return await self.plane.client().items(ALL_MIGRATIONS)

    async def unfinished(self) -> list[Object]:
        """VMIMs under way."""
        return [one for one in await self.migrations() if one.get("status", {}).get("phase") not in FINAL]

    async def change_node(self, name: str, **spec: object) -> None:
        """Change the spec of a node, e.g. unschedulable=True or taints=[...]."""
        await self.plane.client().patch(f"/api/v1/nodes/{name}", {"spec": spec})

    async def retire(self, name: str) -> None:
        """Give every VM on a node that does not tolerate it a reason to leave."""
        await self.change_node(name, taints=[RETIRING])

    async def fill(self, name: str, cpu: str) -> None:
        """A pod takes this much CPU on a node."""
        container = {"name": "filler", "image": "filler", "resources": {"requests": {"cpu": cpu}}}
        metadata = {"name": f"filler-{name}", "namespace": "default"}
        pod = {"metadata": metadata, "spec": {"nodeName": name, "containers": [container]}}
        await self.plane.client().create("/api/v1/namespaces/default/pods", pod)

    async def migrate(self, manifest: Object) -> Object:
        """Create a VMIM."""
        return await self.plane.client().create(MIGRATIONS.format(namespace="default"), manifest)


@asynccontextmanager
async def live_nodes(plane: ControlPlane, params: NodePlaneParams = QUICK) -> AsyncIterator[Scene]:
    """A node plane, for as long as a `with` block."""
    scene = Scene(plane, Scripted())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node_plane(plane, params=params, mishaps=scene.mishaps).run)
        yield scene
        tasks.cancel_scope.cancel()


async def enter(scene: Scene, nodes: Sequence[str], vmis: Iterable[Object], *, cpu: str = "16") -> None:
    """The VMs run on the first node; then the other nodes come."""
    admin = scene.plane.client()
    await add_node(scene.plane, node(nodes[0], cpu=cpu))
    names = []
    for one in vmis:
        await admin.create(INSTANCES.format(namespace="default"), one)
        names.append(one["metadata"]["name"])
    await until(
        lambda: admin.items(ALL_INSTANCES),
        lambda found: all(_runs(one) for one in found if one["metadata"]["name"] in names) and len(found) >= len(names),
    )
    for name in nodes[1:]:
        await add_node(scene.plane, node(name, cpu=cpu))


async def leave(scene: Scene) -> None:
    """Everything that a test has left goes: the next one begins with an empty cluster."""
    admin = scene.plane.client()
    for collection, found in ((INSTANCES, await admin.items(ALL_INSTANCES)), (MIGRATIONS, await scene.migrations())):
        for one in found:
            metadata = one["metadata"]
            await _delete(scene, f"{collection.format(namespace=metadata['namespace'])}/{metadata['name']}")
    await admin.delete("/api/v1/namespaces/default/resourcequotas")
    await until(lambda: admin.items(ALL_INSTANCES), lambda found: not found, seconds=LEAVE_SECONDS)
    await until(scene.migrations, lambda found: not found, seconds=LEAVE_SECONDS)
    await admin.delete("/api/v1/namespaces/default/pods", gracePeriodSeconds="0")
    await until(lambda: admin.items("/api/v1/pods"), lambda found: not found, seconds=LEAVE_SECONDS)
    await admin.delete("/api/v1/nodes")
    for names in (scene.mishaps.ours_hang, scene.mishaps.ours_fail, scene.mishaps.theirs_hang):
        names.clear()


async def _delete(scene: Scene, where: str) -> None:
    try:
        await scene.plane.client().delete(where)
    except ApiError as refusal:
        if refusal.status != 404:
            raise


def _runs(vmi: Object) -> bool:
    conditions = vmi.get("status", {}).get("conditions", ())
    return any(one["type"] == "LiveMigratable" for one in conditions) and vmi["status"].get("phase") == "Running"
