"""A witness of a real cluster: hears every change and every request, and has the simulator's checkers judge them.

What the watches say is kept and put into one order afterwards: all objects are in one etcd, so their resourceVersions
are one sequence.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import anyio
from controlplane.audit import AuditEvent
from controlplane.chart import NAME
from controlplane.daemon import USER
from controlplane.harness import ControlPlane
from controlplane.kubeclient import KubeClient, Object

from rebalancer.sim.checkers import Bounds, Checkers
from rebalancer.sim.faults import Entry
from rebalancer.sim.objects import copy
from rebalancer.sim.resources import BY_STORAGE, parse_path
from rebalancer.sim.store import NOW, Store

WATCHED = ("nodes", "namespaces", "pods", "virtualmachineinstances", "virtualmachineinstancemigrations", "leases")
METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
CATCH_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One event of a watch. `time` in seconds since 1970, when it was heard."""

    version: int
    time: float
    type: str
    resource: str
    object: Object


@dataclass(slots=True)
class Witness:
    """What was seen of a cluster since the witness came."""

    plane: ControlPlane
    seen: list[Seen] = field(default_factory=list)

    async def broken(self, bounds: Bounds) -> list[str]:
        """Every promise that the one daemon here did not keep, as a sentence."""
        await anyio.sleep(CATCH_UP_SECONDS)
        replay = _Replay(replace(bounds, identity=self._holder()))
        writes = [_entry(event) for event in await self.plane.audit() if event.user == USER and event.mutating]
        return replay.judge(sorted(self.seen, key=lambda one: one.version), writes)

    def moves(self) -> list[tuple[str, str, str]]:
        """(VM, from, to) of every VM that changed its node, in order."""
        found, at = [], dict[str, str]()
        for one in sorted(self.seen, key=lambda one: one.version):
            node = one.object.get("status", {}).get("nodeName", "")
            if one.resource != "virtualmachineinstances" or one.type == "DELETED" or not node:
                continue
            name = f"{one.object['metadata']['namespace']}/{one.object['metadata']['name']}"
            if at.setdefault(name, node) != node:
                found.append((name, at[name], node))
                at[name] = node
        return found

    def _holder(self) -> str:
        """The name under which our daemon held the lease."""
        holders = [one.object["spec"].get("holderIdentity") for one in self.seen if one.resource == "leases"]
        return next((holder for holder in reversed(holders) if holder), "")


@asynccontextmanager
async def witness(plane: ControlPlane) -> AsyncIterator[Witness]:
    """Watches everything for as long as a `with` block."""
    found = Witness(plane)
    async with anyio.create_task_group() as tasks:
        for resource in WATCHED:
            await tasks.start(_follow, plane.client(), resource, found.seen)
        yield found
        tasks.cancel_scope.cancel()


async def _follow(
    client: KubeClient, resource: str, seen: list[Seen], *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    # Others have leases too.
    path = BY_STORAGE[resource].path(NAME if resource == "leases" else "")
    whole = await client.get(path)
    version = whole["metadata"]["resourceVersion"]
    for item in whole["items"]:
        seen.append(_seen("ADDED", resource, item))
    task_status.started()
    async for type_, item in client.watch(path, resourceVersion=version):
        seen.append(_seen(type_, resource, item))


def _seen(type_: str, resource: str, item: Object) -> Seen:
    version = int(item["metadata"]["resourceVersion"])
    return Seen(version=version, time=time.time(), type=type_, resource=resource, object=item)


def _entry(event: AuditEvent) -> Entry:
    """A request of the audit log as the checkers hear of one."""
    path = event.uri.partition("?")[0]
    return Entry(
        number=0,
        method=METHODS[event.verb],
        path=path,
        query={},
        user=event.user,
        user_agent=event.agent,
        verb=event.verb,
        target=parse_path(path),
        started=datetime.fromisoformat(event.received).timestamp(),
        code=event.code,
        body=event.request,
    )


class _Replay:
    """The history, told to the checkers through a store of the simulator."""

    def __init__(self, bounds: Bounds) -> None:
        self._now = 0.0
        self._store = Store(lambda: self._now)
        self._bounds = bounds

    def judge(self, history: Iterable[Seen], writes: Iterable[Entry]) -> list[str]:
        checkers = Checkers(self._store, self._bounds)
        waiting = sorted(writes, key=lambda entry: entry.started, reverse=True)
        listening = False
        for one in history:
            while waiting and waiting[-1].started < one.time:
                checkers.request(waiting.pop())
            self._now = max(self._now, one.time)
            if not listening and one.resource == "leases":
                # What was there before us is the scene, not a change.
                self._store.subscribe(checkers.change)
                listening = True
            self._apply(one)
        return [broken.sentence() for broken in checkers.broken]

    def _apply(self, one: Seen) -> None:
        metadata = one.object["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        known = self._store.find(one.resource, namespace, name)
        if one.type != "DELETED":
            if known is None:
                self._store.load(one.resource, one.object)
            else:
                self._store.modify(one.resource, namespace, name, lambda item: _become(item, one.object))
        elif known is not None:
            self._store.modify(one.resource, namespace, name, _without_finalizers)
            if self._store.find(one.resource, namespace, name) is not None:
                self._store.delete(one.resource, namespace, name, NOW)


def _become(item: Object, other: Object) -> None:
    item.clear()
    item |= copy(other)


def _without_finalizers(item: Object) -> None:
    item["metadata"].pop("finalizers", None)
