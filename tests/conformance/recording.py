"""What happens to VMs, migrations and launcher pods of a namespace, and is said about them, as a client sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from controlplane.kubeclient import ApiError, KubeClient, Object

KUBEVIRT, CORE = "/apis/kubevirt.io/v1/namespaces", "/api/v1/namespaces"
COLLECTIONS = {
    "Migration": (KUBEVIRT, "virtualmachineinstancemigrations"),
    "VMI": (KUBEVIRT, "virtualmachineinstances"),
    "Pod": (CORE, "pods"),
    "Event": (CORE, "events"),
}


def collection(kind: str, namespace: str, name: str = "") -> str:
    """Path of a collection, or of one object in it."""
    group, plural = COLLECTIONS[kind]
    return f"{group}/{namespace}/{plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One change of one object."""

    kind: str
    gone: bool
    object: Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of the scene and its refusal; code 0 where it was granted."""

    request: str
    code: int = 0
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class Recording:
    """Follows the collections of one namespace; start it with run() before anything happens there."""

    client: KubeClient
    namespace: str
    now: Callable[[], float] = time.monotonic
    seen: list[Seen] = field(default_factory=list, init=False)
    asked: list[Asked] = field(default_factory=list, init=False)
    last: float = field(default=0.0, init=False)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Record until cancelled; ready once every collection is watched from its present version."""
        versions = {kind: await self._version(kind) for kind in COLLECTIONS}
        task_status.started()
        async with anyio.create_task_group() as tasks:
            for kind, version in versions.items():
                tasks.start_soon(self._follow, kind, version)

    async def _version(self, kind: str) -> str:
        found = await self.client.get(collection(kind, self.namespace))
        return str(found["metadata"]["resourceVersion"])

    async def _follow(self, kind: str, version: str) -> None:
        while True:
            async for change, item in self.client.watch(collection(kind, self.namespace), resourceVersion=version):
                version = item["metadata"]["resourceVersion"]
                if change != "BOOKMARK":
                    self.seen.append(Seen(kind=kind, gone=change == "DELETED", object=item))
                    self.last = self.now()

    async def ask(
        self, method: str, path: str, body: object = None, *, what: str, content: str = "application/json", **query: str
    ) -> Object | None:
        """One request of the scene, kept with its refusal; the answer, None where it was refused."""
        try:
            answer = await self.client.request(method, path, body, content=content, **query)
        except ApiError as refused:
            self.asked.append(Asked(request=what, code=refused.status, reason=refused.reason, message=refused.message))
            return None
        self.asked.append(Asked(request=what))
        return answer

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing has happened for so long."""
        self.last = max(self.last, self.now())
        while True:
            left = self.last + seconds - self.now()
            if left <= 0:
                return
            await anyio.sleep(left)
