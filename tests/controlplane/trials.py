"""Directed migrations of many VMs at once: what virt-controller makes of each, and what the scheduler does with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object
from controlplane.makes import GATES, HOSTNAME, NODE_SELECTORS, Make, first_node, guests, other_nodes
from controlplane.nodes import SplitKube, add_node
from controlplane.objects import INSTANCES, MIGRATIONS, migration, path

from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import KINDS, Value, decode
from rebalancer.kube.snapshot import build_snapshot
from rebalancer.sim.kubeapi import Mirror

T = TypeVar("T")
SECONDS = 120
AT_ONCE = 30
JOB = "kubevirt.io/migrationJobUID"
LIMITS = {"parallelMigrationsPerCluster": 1_000, "parallelOutboundMigrationsPerNode": 1_000}
CONFIGURATION: Object = {"migrations": LIMITS, "developerConfiguration": {"featureGates": list(GATES)}}
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "disk"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "volumeMode": "Block",
        "claimRef": {"name": "disk", "namespace": "default"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["of-twin"]}]}
                ]
            }
        },
        "csi": {"driver": "disks.example", "volumeHandle": "disk"},
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {
        "name": "disk",
        "namespace": "default",
        "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"},
    },
    "spec": {
        "volumeName": "disk",
        "accessModes": ["ReadWriteMany"],
        "volumeMode": "Block",
        "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
IMPORTANT = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "important"},
    "value": 1000,
    "preemptionPolicy": "Never",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The cluster when all VMs run: as the API tells it, by kind, and as we read it."""

    raw: dict[str, list[Object]]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One directed migration: the target pod as it was created, and where it was bound or why it was not."""

    vmi: str
    towards: str
    pod: Object
    node: str = ""
    message: str = ""


@dataclass(slots=True)
class Watched:
    """Pods and migrations as they change."""

    plane: ControlPlane
    created: dict[str, Object] = field(default_factory=dict)
    _change: anyio.Event = field(default_factory=anyio.Event)
    _pods: Mirror = field(init=False)
    _migrations: Mirror = field(init=False)
    _instances: Mirror = field(init=False)

    def __post_init__(self) -> None:
        api = SplitKube(self.plane.client(), self.plane.client())
        self._pods = Mirror(api, "/api/v1/pods", self._pod_changed)
        self._migrations = Mirror(api, KINDS["VirtualMachineInstanceMigration"].path, self._changed)
        self._instances = Mirror(api, KINDS["VirtualMachineInstance"].path, self._changed)

    async def run(self) -> None:
        """Keep watching."""
        async with anyio.create_task_group() as tasks:
            for mirror in (self._pods, self._migrations, self._instances):
                tasks.start_soon(mirror.run)

    def target(self, job: str) -> Object | None:
        """The target pod of a migration as it is now."""
        created = self.created.get(job)
        return self._pods.items.get(_key(created)) if created else None

    def migration(self, name: str) -> Object | None:
        return self._migrations.items.get(f"default/{name}")

    def waiting(self, makes: Sequence[Make]) -> list[str]:
        """VMs that do not run yet, or of which it is not known whether they may migrate, and what is said of them."""
        found = {make.name: self._instances.items.get(f"default/{make.name}") for make in makes}
        return [f"{name}: {(vmi or {}).get('status')}" for name, vmi in found.items() if not vmi or not _runs(vmi)]

    async def until(self, look: Callable[[], T | None], what: Callable[[], object]) -> T:
        """What `look` finds, once it finds something; `what` says what is missing when that takes too long."""
        with anyio.move_on_after(SECONDS):
            while True:
                change = self._change
                found = look()
                if found:
                    return found
                await change.wait()
        raise AssertionError(f"not within {SECONDS} s: {what()}")

    def _changed(self, _: str) -> None:
        self._change.set()
        self._change = anyio.Event()

    def _pod_changed(self, key: str) -> None:
        pod = self._pods.items.get(key)
        job = pod["metadata"].get("labels", {}).get(JOB) if pod else None
        if pod and job:
            self.created.setdefault(job, pod)
        self._changed(key)


async def set_up(plane: ControlPlane, watched: Watched, makes: Sequence[Make]) -> Scene:
    """All VMs run on the first node; then the others come, and what changes while VMs run."""
    admin = plane.client()
    await plane.configure_kubevirt(CONFIGURATION)
    await plane.namespace("elsewhere", labels={"team": "elsewhere"})
    await admin.create("/apis/scheduling.k8s.io/v1/priorityclasses", IMPORTANT)
    await admin.create("/api/v1/persistentvolumes", VOLUME)
    await admin.patch("/api/v1/persistentvolumes/disk/status", {"status": {"phase": "Bound"}})
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    await admin.create(claims, CLAIM)
    bound = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}}
    await admin.patch(f"{claims}/disk/status", {"status": bound})
    await add_node(plane, first_node())
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def start(make: Make) -> None:
        async with limit:
            await admin.create(INSTANCES.format(namespace="default"), make.manifest())

    async with anyio.create_task_group() as tasks:
        for make in makes:
            tasks.start_soon(start, make)
    await watched.until(lambda: not watched.waiting(makes), lambda: watched.waiting(makes))
    for node in other_nodes():
        await add_node(plane, node)
    for pod in guests():
        await admin.create("/api/v1/namespaces/default/pods", pod)
    for make in makes:
        if make.late:
            await plane.client("controller").patch(path(make.manifest()), {"spec": make.late})
    developer = CONFIGURATION["developerConfiguration"] | {"nodeSelectors": NODE_SELECTORS}
    await plane.configure_kubevirt(CONFIGURATION | {"developerConfiguration": developer})
    return await look(plane)


async def look(plane: ControlPlane) -> Scene:
    """Everything that a daemon reads."""
    raw = {name: await plane.client().items(kind.path) for name, kind in KINDS.items()}
    return Scene(raw=raw, snapshot=read(raw))


def read(raw: dict[str, list[Object]]) -> Snapshot:
    """Lists of objects as a snapshot; none may be set aside."""
    objects: dict[str, list[Value]] = {}
    for kind, items in raw.items():
        for item in items:
            found = decode(kind, json.dumps(item).encode())
            assert found.set_aside is None, found.set_aside.sentence()
            assert found.value is not None
            objects.setdefault(kind, []).append(found.value)
    return build_snapshot(objects, resource_version="1", taken=0.0)


async def stays(plane: ControlPlane, watched: Watched, vmi: str, towards: str) -> Trial:
    """A migration to a node that will not take it: withdrawn once the scheduler has said so."""
    name = f"no-{vmi}"
    job = await _start(plane, name, vmi, towards)
    pod = await _judged(watched, job)
    await plane.client().delete(f"{MIGRATIONS.format(namespace='default')}/{name}")
    await watched.until(lambda: not (watched.migration(name) or watched.target(job)), lambda: watched.migration(name))
    return _trial(vmi, towards, watched.created[job], pod)


async def moves(plane: ControlPlane, watched: Watched, vmi: str, towards: str) -> Trial:
    """A migration to a node that will take it, to its end."""
    name = f"yes-{vmi}"
    job = await _start(plane, name, vmi, towards)
    pod = await _judged(watched, job)
    if _node(pod):
        await watched.until(lambda: _phase(watched.migration(name)) == "Succeeded", lambda: watched.migration(name))
    return _trial(vmi, towards, watched.created[job], pod)


async def _start(plane: ControlPlane, name: str, vmi: str, towards: str) -> str:
    """UID of a new migration."""
    hostname = (await plane.client().get(f"/api/v1/nodes/{towards}"))["metadata"]["labels"][HOSTNAME]
    made = migration(name, instance=vmi, target=hostname)
    return str((await plane.client().create(MIGRATIONS.format(namespace="default"), made))["metadata"]["uid"])


async def _judged(watched: Watched, job: str) -> Object:
    """The target pod of a migration, once the scheduler has bound it or said why not."""

    def judged() -> Object | None:
        pod = watched.target(job)
        return pod if pod and (_node(pod) or _refusal(pod)) else None

    return await watched.until(judged, lambda: watched.target(job))


def _trial(vmi: str, towards: str, created: Object, now: Object) -> Trial:
    return Trial(vmi=vmi, towards=towards, pod=created, node=_node(now), message=_refusal(now))


def _node(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))


def _refusal(pod: Object) -> str:
    conditions = pod["status"].get("conditions", ())
    unbound = (one for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False")
    return next((str(one["message"]) for one in unbound), "")


def _phase(resource: Object | None) -> str:
    return str((resource or {}).get("status", {}).get("phase", ""))


def _runs(vmi: Object) -> bool:
    conditions = vmi.get("status", {}).get("conditions", ())
    return _phase(vmi) == "Running" and any(one["type"] == "LiveMigratable" for one in conditions)


def _key(resource: Object) -> str:
    return f"{resource['metadata']['namespace']}/{resource['metadata']['name']}"
