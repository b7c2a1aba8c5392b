"""Kubelets and virt-handlers of all nodes: what must happen on a node for pods to run and VMs to move.

Written against `KubeAPI` alone, so that it stands in for the nodes of the simulated cluster and of a real control plane
without nodes. What is to happen next to an object is decided by pure functions (kubelet.py, virt_handler.py) from the
objects; this file waits for the moment, writes, and begins again from what it then sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rebalancer.kube.outcome import ApiError as NoAnswer
from rebalancer.sim.chance import Dice
from rebalancer.sim.errors import ApiError
from rebalancer.sim.kubeapi import KubeAPI, Mirror
from rebalancer.sim.kubelet import pod_step
from rebalancer.sim.objects import HEARTBEAT, SCHEDULABLE, Obj, owner_uid, stamp
from rebalancer.sim.plane import Decide, Mishaps, NodePlaneParams, Plane, Step
from rebalancer.sim.resources import BY_STORAGE, VMIS
from rebalancer.sim.virt_handler import vmi_step

RETRY_SECONDS = 0.5


class NodePlane:
    """All nodes of a cluster. `lost` names nodes that are dead: nothing happens on them any more."""

    def __init__(
        self,
        api: KubeAPI,
        *,
        now: Callable[[], float],
        dice: Dice,
        params: NodePlaneParams | None = None,
        mishaps: Mishaps | None = None,
    ) -> None:
        self._api = api
        self.lost: set[str] = set()
        self._pods = Mirror(api, "/api/v1/pods", self._pod_changed)
        self._vmis = Mirror(api, BY_STORAGE[VMIS].path(), self._vmi_changed)
        self._nodes = Mirror(api, "/api/v1/nodes", self._node_changed)
        self._plane = Plane(
            params=params or NodePlaneParams(),
            mishaps=mishaps or Mishaps(),
            dice=dice,
            now=now,
            alive=self._alive,
            vmi_of=self._vmi_of,
        )
        self._decide: dict[str, Decide] = {"pods": pod_step, VMIS: vmi_step}
        self._mirrors = {"pods": self._pods, VMIS: self._vmis}
        self._busy: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hearts: dict[str, asyncio.Task[None]] = {}
        self._vmi_keys: dict[str, str] = {}

    def lose(self, node: str) -> None:
        """The node dies."""
        self.lost.add(node)

    def regain(self, node: str) -> None:
        """The node is back, with whatever the API still says is on it."""
        self.lost.discard(node)
        for resource, mirror in self._mirrors.items():
            for key in mirror.items:
                self._kick(resource, key)

    async def run(self) -> None:
        """Keep all nodes going until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for mirror in (self._nodes, self._vmis, self._pods):
                    group.create_task(mirror.run())
        finally:
            for task in (*self._tasks, *self._hearts.values()):
                task.cancel()
            await asyncio.gather(*self._tasks, *self._hearts.values(), return_exceptions=True)

    # Looking

    def _alive(self, node: str) -> bool:
        return node in self._nodes.items and node not in self.lost

    def _vmi_of(self, pod: Obj) -> Obj | None:
        return self._vmis.items.get(self._vmi_keys.get(owner_uid(pod), ""))

    def _pod_changed(self, key: str) -> None:
        self._kick("pods", key)

    def _vmi_changed(self, key: str) -> None:
        vmi = self._vmis.items.get(key)
        self._kick(VMIS, key)
        if vmi is None:
            return
        uid = vmi["metadata"]["uid"]
        self._vmi_keys[uid] = key
        state = (vmi.get("status") or {}).get("migrationState") or {}
        namespace = vmi["metadata"]["namespace"]
        for name in (state.get("sourcePod"), state.get("targetPod")):
            if name:
                self._kick("pods", f"{namespace}/{name}")

    def _node_changed(self, key: str) -> None:
        if key in self._nodes.items and key not in self._hearts and any(self._plane.params.heartbeat):
            self._hearts[key] = asyncio.create_task(self._beat(key))

    # Acting

    def _kick(self, resource: str, key: str) -> None:
        """Something about the object changed: decide again, in the task that is on it or in a new one."""
        wake = self._busy.get((resource, key))
        if wake is not None:
            wake.set()
        elif self._next(resource, key) is not None:
            self._busy[resource, key] = asyncio.Event()
            task = asyncio.create_task(self._work(resource, key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self, resource: str, key: str) -> Step | None:
        item = self._mirrors[resource].items.get(key)
        return None if item is None else self._decide[resource](self._plane, item)

    async def _work(self, resource: str, key: str) -> None:
        loop, wake, due = asyncio.get_running_loop(), self._busy[resource, key], dict[str, float]()
        try:
            while (step := self._next(resource, key)) is not None:
                moment = due.setdefault(step.name, loop.time() + step.seconds)
                if loop.time() < moment - 1e-6:
                    wake.clear()
                    timer = loop.call_at(moment, wake.set)
                    await wake.wait()
                    timer.cancel()
                    continue
                del due[step.name]
                await self._act(resource, key, step)
        finally:
            del self._busy[resource, key]

    async def _act(self, resource: str, key: str, step: Step) -> None:
        item = self._mirrors[resource].items[key]
        meta = item["metadata"]
        path = BY_STORAGE[resource].path(meta["namespace"], meta["name"])
        try:
            if step.patch is None:
                await self._api.delete(path, grace_seconds=0)
                self._mirrors[resource].items.pop(key, None)
                return
            guard: dict[str, Any] = {"resourceVersion": meta["resourceVersion"]}
            body = step.patch | {"metadata": step.patch.get("metadata", {}) | guard}
            answer = await self._api.patch(path + (f"/{step.subresource}" if step.subresource else ""), body)
            self._mirrors[resource].learn(answer)
        except (ApiError, NoAnswer):
            await asyncio.sleep(RETRY_SECONDS)  # a conflict, or gone: the mirror will say which

    async def _beat(self, node: str) -> None:
        """virt-handler's heartbeat: the annotation, and the label that makes a node schedulable for VMs."""
        beats = 0
        while True:
            await asyncio.sleep(self._plane.draw(self._plane.params.heartbeat, "heartbeat", node, beats))
            beats += 1
            found = self._nodes.items.get(node)
            if found is None or node in self.lost:
                continue
            meta: Obj = {"annotations": {HEARTBEAT: stamp(self._plane.now())}}
            if "node-role.kubernetes.io/control-plane" not in (found["metadata"].get("labels") or {}):
                meta["labels"] = {SCHEDULABLE: "true"}
            try:
                await self._api.patch(f"/api/v1/nodes/{node}", {"metadata": meta})
            except (ApiError, NoAnswer):
                continue
