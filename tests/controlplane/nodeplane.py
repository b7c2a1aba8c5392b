"""Stand-in for kubelet and virt-handler: carries out what the control plane decides, without guests.

What to write next is decided by pure functions of one object (pod_step, vmi_step); the loop only watches, waits and
writes, so the same steps can run against anything that speaks the API.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from controlplane.kubeclient import MERGE, ApiError, Object

PODS = "/api/v1/pods"
VMIS = "/apis/kubevirt.io/v1/virtualmachineinstances"
HEARTBEAT_SECONDS = 60
RETRY_SECONDS = 0.2
TARGET_LABEL = "kubevirt.io/migrationTargetNodeName"


class KubeAPI(Protocol):
    """What the node plane needs of a client: requests by path, watches as (type, object)."""

    async def get(self, path: str, **query: str) -> Object:
        """Read an object, or a list."""

    async def create(self, path: str, body: Object, **query: str) -> Object:
        """POST to a collection."""

    async def patch(self, path: str, body: object, *, content: str = MERGE, **query: str) -> Object:
        """Merge patch."""

    async def delete(self, path: str, **query: str) -> Object:
        """Delete an object."""

    def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """Events from a resource version on."""


@dataclass(slots=True, kw_only=True)
class NodePlane:
    """All nodes of a cluster. `kubelet` writes nodes and pods, `handler` writes VMIs, as on a real one."""

    kubelet: KubeAPI
    handler: KubeAPI
    step_seconds: float = 0.05
    _seen: dict[str, Object] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _nodes: set[str] = field(default_factory=set)

    async def add_node(self, node: Object) -> None:
        """Create a node, ready and without the taint that a node controller would have to remove."""
        created = await self.kubelet.create("/api/v1/nodes", {key: node[key] for key in ("metadata", "spec")})
        path = f"/api/v1/nodes/{created['metadata']['name']}"
        await self.kubelet.patch(f"{path}/status", {"status": node["status"]})
        await self.kubelet.patch(path, {"spec": {"taints": node["spec"].get("taints")}})
        self._nodes.add(path)
        await self._beat(path)

    async def run(self) -> None:
        """Keep every node working until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, self.kubelet, PODS, tasks)
            tasks.start_soon(self._follow, self.handler, VMIS, tasks)
            tasks.start_soon(self._heartbeats)

    async def _follow(self, client: KubeAPI, path: str, tasks: TaskGroup) -> None:
        while True:
            try:
                listing = await client.get(path)
                for item in listing["items"]:
                    self._notice("ADDED", path, item, tasks)
                version = listing["metadata"]["resourceVersion"]
                async for event, item in client.watch(path, resourceVersion=version):
                    self._notice(event, path, item, tasks)
            except (ApiError, OSError):
                await anyio.sleep(RETRY_SECONDS)

    def _notice(self, event: str, path: str, item: Object, tasks: TaskGroup) -> None:
        key = _path(path, item)
        if event == "DELETED":
            self._seen.pop(key, None)
            return
        self._seen[key] = item
        self._wake(key, tasks)
        instance = item["metadata"].get("annotations", {}).get("kubevirt.io/domain")
        if path == PODS and instance:
            # Whether this pod is to end depends on its VMI, whose last event may have come before the pod's.
            self._wake(_path(VMIS, {"metadata": item["metadata"] | {"name": instance}}), tasks)

    def _wake(self, key: str, tasks: TaskGroup) -> None:
        if key in self._seen and key not in self._busy:
            self._busy.add(key)
            tasks.start_soon(self._work, key)

    async def _work(self, key: str) -> None:
        """Write one step after the other for one object, until there is none."""
        try:
            while key in self._seen and await self._step(key):
                pass
        finally:
            self._busy.discard(key)

    async def _step(self, key: str) -> bool:
        """Do the next step; False when there is none."""
        item = self._seen[key]
        pod = "/pods/" in key
        if (pod_step(item) if pod else vmi_step(item)) is None:
            source = None if pod else leaving_pod(item)
            return source is not None and await self._end(source)
        await anyio.sleep(self.step_seconds)
        item = self._seen.get(key, item)
        change = pod_step(item) if pod else vmi_step(item)
        try:
            if change == DELETE:
                await self.kubelet.delete(key, gracePeriodSeconds="0")
                self._seen.pop(key, None)
            elif change is not None:
                guard: Object = {"metadata": {"resourceVersion": item["metadata"]["resourceVersion"]}}
                guard["metadata"] |= change.pop("metadata", {})
                client, path = (self.kubelet, f"{key}/status") if pod else (self.handler, key)
                self._seen[key] = await client.patch(path, change | guard)
        except (ApiError, OSError) as problem:
            await self._refresh(key, problem)
        return True

    async def _end(self, key: str) -> bool:
        """The guest has left this pod: its launcher exits."""
        pod = self._seen.get(key)
        if pod is None or pod["status"].get("phase") != "Running":
            return False
        try:
            self._seen[key] = await self.kubelet.patch(f"{key}/status", {"status": ended_status(pod)})
        except (ApiError, OSError) as problem:
            await self._refresh(key, problem)
        return True

    async def _refresh(self, key: str, problem: ApiError | OSError) -> None:
        """After a conflict or a lost connection: look again before the next step."""
        await anyio.sleep(RETRY_SECONDS)
        try:
            self._seen[key] = await self.kubelet.get(key)
        except ApiError as missing:
            if missing.status != 404:
                raise missing from problem
            self._seen.pop(key, None)
        except OSError:
            return

    async def _heartbeats(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_SECONDS)
            for path in sorted(self._nodes):
                # A beat that fails is made up by the next: five minutes without are needed to matter.
                with contextlib.suppress(ApiError, OSError):
                    await self._beat(path)

    async def _beat(self, path: str) -> None:
        labels = {"kubevirt.io/schedulable": "true"}
        await self.kubelet.patch(
            path, {"metadata": {"labels": labels, "annotations": {"kubevirt.io/heartbeat": _now()}}}
        )


DELETE: Object = {"delete": True}


def pod_step(pod: Object) -> Object | None:
    """What kubelet does next with a pod: DELETE, a change, or nothing."""
    if not pod["spec"].get("nodeName"):
        return None
    if "deletionTimestamp" in pod["metadata"]:
        return DELETE
    if pod["status"].get("phase") == "Pending":
        return {"status": _running_status(pod)}
    return None


def vmi_step(vmi: Object) -> Object | None:
    """What virt-handler writes next into a VMI, or nothing."""
    status = vmi["status"]
    if status.get("phase") == "Scheduled":
        condition = {"type": "LiveMigratable", "status": "True", "lastProbeTime": _now(), "lastTransitionTime": None}
        conditions = [one for one in status.get("conditions", []) if one["type"] != "LiveMigratable"]
        return {
            "status": {
                "phase": "Running",
                "conditions": [*conditions, condition],
                "machine": {"type": "q35"},
                "migrationMethod": "LiveMigration",
                "selinuxContext": "none",
            }
        }
    if status.get("phase") != "Running":
        return None
    return _migration_step(vmi, status.get("migrationState") or {})


def _migration_step(vmi: Object, state: Object) -> Object | None:
    """One step of a migration. `failed: false` is never written: virt-controller compares the field by JSON patch."""
    labels = vmi["metadata"].get("labels", {})
    target = state.get("targetNode")
    if not target or TARGET_LABEL not in labels:
        return None
    if state.get("completed"):
        return {"metadata": {"labels": {TARGET_LABEL: None}}}
    if state.get("abortRequested"):
        reason = "Live migration has been aborted"
        ended = {"abortStatus": "Succeeded", "endTimestamp": _now(), "completed": True, "failed": True}
        return {"status": {"migrationState": ended | {"failureReason": reason}}}
    if not state.get("targetNodeAddress"):
        prepared: Object = {"targetNodeAddress": "127.0.0.1", "targetDirectMigrationNodePorts": {"49152": 0}}
        return {"status": {"migrationState": prepared}}
    if not state.get("startTimestamp"):
        return {"status": {"migrationState": {"startTimestamp": _now(), "mode": "PreCopy"}}}
    if not state.get("endTimestamp"):
        arrived = {"targetNodeDomainDetected": True, "targetNodeDomainReadyTimestamp": _now(), "endTimestamp": _now()}
        return {
            "metadata": {"labels": {"kubevirt.io/nodeName": target}},
            "status": {"nodeName": target, "evacuationNodeName": None, "migrationState": arrived},
        }
    return {"status": {"migrationState": {"completed": True}}}


def leaving_pod(vmi: Object) -> str | None:
    """Path of the pod a guest has left (or never reached), whose launcher exits."""
    state = vmi["status"].get("migrationState") or {}
    if not state.get("completed"):
        return None
    pod = state.get("targetPod") if state.get("failed") else state.get("sourcePod")
    return f"/api/v1/namespaces/{vmi['metadata']['namespace']}/pods/{pod}" if pod else None


def _running_status(pod: Object) -> Object:
    now = _now()
    ready = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodReadyToStartContainers")
    ]
    kept = [one for one in pod["status"].get("conditions", []) if one["type"] == "PodScheduled"]
    running = {"running": {"startedAt": now}}
    finished = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    first = [
        _container(one, running if one.get("restartPolicy") == "Always" else finished)
        for one in pod["spec"].get("initContainers", [])
    ]
    address = "10.0.0.1"
    return {
        "phase": "Running",
        "conditions": [*kept, *ready],
        "startTime": now,
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "initContainerStatuses": first,
        "containerStatuses": [_container(one, running) for one in pod["spec"]["containers"]],
    }


def ended_status(pod: Object) -> Object:
    """Status of a pod whose containers have exited well."""
    now = _now()
    finished = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    return {
        "phase": "Succeeded",
        "initContainerStatuses": [_container(one, finished) for one in pod["spec"].get("initContainers", [])],
        "containerStatuses": [_container(one, finished) for one in pod["spec"]["containers"]],
    }


def _container(container: Object, state: Object) -> Object:
    up = "running" in state
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": up or "terminated" in state,
        "started": up,
        "restartCount": 0,
        "state": state,
    }


def _path(collection: str, item: Object) -> str:
    base, plural = collection.rsplit("/", 1)
    return f"{base}/namespaces/{item['metadata']['namespace']}/{plural}/{item['metadata']['name']}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
