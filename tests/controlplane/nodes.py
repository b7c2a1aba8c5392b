"""The simulator's node plane, standing in for kubelets and virt-handlers of the real control plane."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import aiohttp
from controlplane.harness import ControlPlane
from controlplane.kubeclient import ApiError, KubeClient, Object

from rebalancer.kube.outcome import ApiError as NoAnswerError
from rebalancer.sim.chance import Dice
from rebalancer.sim.errors import ApiError as RefusedError
from rebalancer.sim.nodeplane import NodePlane
from rebalancer.sim.plane import Mishaps, NodePlaneParams

# As quick as a real control plane allows, so that tests wait for it and not for us.
QUICK = NodePlaneParams(
    pod_start=(0.05, 0.1),
    pod_stop=(0.05, 0.1),
    vm_boot=(0.05, 0.1),
    prepare=(0.05, 0.1),
    handshake=(0.02, 0.05),
    source_exit=(0.05, 0.1),
)


class SplitKube:
    """The node plane's KubeAPI over two identities: KubeVirt's objects are virt-handler's, all others kubelet's.

    virt-api admits changes of a VMI's status only from KubeVirt's own accounts, and those may not write pods.
    """

    def __init__(self, kubelet: KubeClient, handler: KubeClient) -> None:
        self._kubelet = kubelet
        self._handler = handler

    def _client(self, path: str) -> KubeClient:
        return self._handler if path.startswith("/apis/kubevirt.io/") else self._kubelet

    async def _ask(self, method: str, path: str, body: Object | None = None, *, content: str = "") -> Object:
        kind = {"content": content} if content else {}
        try:
            return await self._client(path).request(method, path, body, **kind)
        except ApiError as refusal:
            raise _refused(refusal) from refusal
        except (OSError, TimeoutError, aiohttp.ClientError) as problem:
            raise NoAnswerError(str(problem)) from problem

    async def list(self, path: str) -> tuple[list[Object], str]:
        """All objects of a collection, and its resourceVersion."""
        found = await self._ask("GET", path)
        return found["items"], found["metadata"]["resourceVersion"]

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        """(type, object) of each change after a version."""
        try:
            async for event in self._client(path).watch(path, resourceVersion=version):
                yield event
        except ApiError as refusal:
            raise _refused(refusal) from refusal
        except (OSError, TimeoutError, aiohttp.ClientError) as problem:
            raise NoAnswerError(str(problem)) from problem

    async def get(self, path: str) -> Object:
        """Read an object."""
        return await self._ask("GET", path)

    async def patch(self, path: str, body: Object) -> Object:
        """A JSON merge patch."""
        return await self._ask("PATCH", path, body, content="application/merge-patch+json")

    async def delete(self, path: str, *, grace_seconds: int | None = None) -> None:
        """Delete an object."""
        options = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        await self._ask("DELETE", path, options)


def _refused(refusal: ApiError) -> RefusedError:
    return RefusedError(refusal.status, refusal.reason, refusal.message)


def node_plane(
    control_plane: ControlPlane, *, params: NodePlaneParams = QUICK, mishaps: Mishaps | None = None, seed: int = 0
) -> NodePlane:
    """A node plane for all nodes of a control plane; run() it beside the test."""
    api = SplitKube(control_plane.client("kubelet"), control_plane.client("handler"))
    return NodePlane(api, now=time.time, dice=Dice(seed), params=params, mishaps=mishaps)


async def add_node(control_plane: ControlPlane, node: Object) -> None:
    """Create a node with its status, heartbeat and taints, without those that a node controller would remove."""
    kubelet = control_plane.client("kubelet")
    beat = {"kubevirt.io/heartbeat": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    metadata = node["metadata"] | {"annotations": beat | node["metadata"].get("annotations", {})}
    path = f"/api/v1/nodes/{metadata['name']}"
    await kubelet.create("/api/v1/nodes", {"metadata": metadata, "spec": node["spec"]})
    await kubelet.patch(f"{path}/status", {"status": node["status"]})
    await kubelet.patch(path, {"spec": {"taints": node["spec"].get("taints")}})
