"""Every version of every VMI and every migration that was ever stored, read from etcd itself.

The API server may be restarted, and its watches with it; etcd goes on, and all its versions are one sequence.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import anyio
from anyio.abc import TaskStatus
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object

REGISTRY = "/registry/kubevirt.io/"
VMIS, MIGRATIONS = "virtualmachineinstances", "virtualmachineinstancemigrations"
# Keys of both and of little else begin so.
PREFIX = f"{REGISTRY}virtualmachineinstance"
FINAL = ("Succeeded", "Failed")
LATEST_SECONDS = 0.5
LONGEST_LINE = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An object as of a revision, None where it was deleted. `name` is namespace/name."""

    revision: int
    resource: str
    name: str
    object: Object | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Unfinished migrations at a time."""

    cluster: int
    source: int
    target: int


@dataclass(slots=True)
class History:
    """What has happened since it was begun."""

    versions: list[Version] = field(default_factory=list)

    def moves(self) -> list[tuple[str, str, str]]:
        """(VM, from, to) of every VM that changed its node, in order."""
        found, at = [], dict[str, str]()
        for version in self._of(VMIS):
            node = (version.object or {}).get("status", {}).get("nodeName", "")
            if node and at.setdefault(version.name, node) != node:
                found.append((version.name, at[version.name], node))
                at[version.name] = node
        return found

    def broken(self, limits: Limits) -> list[str]:
        """What was true at any revision and must never be, one sentence each."""
        found: dict[str, int] = {}
        at, running = dict[str, str](), dict[str, tuple[str, str, str]]()
        for version in self.versions:
            item = version.object or {}
            status = item.get("status", {})
            if version.resource == VMIS:
                at[version.name] = status.get("nodeName", "")
                continue
            if not item or status.get("phase") in FINAL:
                running.pop(version.name, None)
            elif version.name not in running:
                vm = f"{item['metadata']['namespace']}/{item['spec']['vmiName']}"
                target = item["spec"].get("addedNodeSelector", {}).get("kubernetes.io/hostname", "")
                running[version.name] = vm, at.get(vm, ""), target
            for sentence in _too_many(running, limits):
                found.setdefault(sentence, version.revision)
        return [f"{sentence} at revision {revision}" for sentence, revision in found.items()]

    def most(self) -> int:
        """How many migrations were unfinished at the same time, at most."""
        running, most = set[str](), 0
        for version in self._of(MIGRATIONS):
            ended = version.object is None or version.object.get("status", {}).get("phase") in FINAL
            (running.discard if ended else running.add)(version.name)
            most = max(most, len(running))
        return most

    def _of(self, resource: str) -> Iterator[Version]:
        return (version for version in self.versions if version.resource == resource)


def _too_many(running: dict[str, tuple[str, str, str]], limits: Limits) -> Iterator[str]:
    vms, sources, targets = (Counter(ends) for ends in zip(*running.values(), strict=True)) if running else [{}] * 3
    if len(running) > limits.cluster:
        yield f"{len(running)} migrations in the cluster"
    for what, counts, most in (("of", vms, 1), ("off", sources, limits.source), ("onto", targets, limits.target)):
        for name, count in counts.items():
            if count > most:
                yield f"{count} migrations {what} {name}"


@asynccontextmanager
async def recorded(plane: ControlPlane) -> AsyncIterator[History]:
    """Records for as long as a `with` block. After it all is in."""
    history = History()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_record, plane.ports.etcd, history.versions)
        yield history
        seen = -1
        while seen < len(history.versions):
            seen = len(history.versions)
            await anyio.sleep(LATEST_SECONDS)
        tasks.cancel_scope.cancel()


async def _record(port: int, versions: list[Version], *, task_status: TaskStatus[None]) -> None:
    """Over etcd's JSON gateway, where keys and values are base64."""
    first, behind = PREFIX.encode(), PREFIX[:-1].encode() + bytes([ord(PREFIX[-1]) + 1])
    keys = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(behind).decode()}
    endless = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=endless, read_bufsize=LONGEST_LINE) as session:
        async with session.post("/v3/kv/range", json=keys) as response:
            now = await response.json()
        versions.extend(version for item in now.get("kvs", ()) if (version := _version(item, deleted=False)))
        start = int(now["header"]["revision"]) + 1
        async with session.post("/v3/watch", json={"create_request": keys | {"start_revision": start}}) as response:
            async for line in response.content:
                result = json.loads(line)["result"]
                if result.get("created"):
                    task_status.started()
                for event in result.get("events", ()):
                    if version := _version(event["kv"], deleted=event.get("type") == "DELETE"):
                        versions.append(version)


def _version(item: Object, *, deleted: bool) -> Version | None:
    resource, _, name = base64.b64decode(item["key"]).decode().removeprefix(REGISTRY).partition("/")
    if resource not in (VMIS, MIGRATIONS):
        return None
    found = None if deleted else json.loads(base64.b64decode(item["value"]))
    return Version(revision=int(item["mod_revision"]), resource=resource, name=name, object=found)
