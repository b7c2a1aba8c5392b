"""The little of the Kubernetes API that a node plane needs, over the store or over HTTP, and a mirror of a collection.

Code written against `KubeAPI` runs in the simulator and beside a real kube-apiserver alike.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from rebalancer.kube.outcome import ApiError as NoAnswer
from rebalancer.kube.outcome import Refusal
from rebalancer.kube.transport import Api
from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import Obj, decode, key_of
from rebalancer.sim.patching import merge
from rebalancer.sim.resources import Target, parse_path
from rebalancer.sim.store import ADDED, DELETED, Change, Deletion, Store

RELIST_SECONDS = 1.0
WATCH_SECONDS = 300


class KubeAPI(Protocol):
    """Paths as in the real API. Every method raises errors.ApiError for a refusal."""

    async def list(self, path: str) -> tuple[list[Obj], str]:
        """All objects of a collection, and its resourceVersion."""
        ...

    def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Obj]]:
        """(type, object) of each change after a version; ends whenever it likes."""
        ...

    async def get(self, path: str) -> Obj: ...

    async def patch(self, path: str, body: Obj) -> Obj:
        """A JSON merge patch; `path` may end in a subresource."""
        ...

    async def delete(self, path: str, *, grace_seconds: int | None = None) -> None: ...


class LocalKube:
    """The store itself: for the simulator's own parts, which see no faults and cost no HTTP."""

    def __init__(self, store: Store, actor: str) -> None:
        self._store = store
        self._actor = actor

    @staticmethod
    def _target(path: str) -> Target:
        target = parse_path(path)
        assert target is not None, f"no such path: {path}"
        return target

    async def list(self, path: str) -> tuple[list[Obj], str]:
        target = self._target(path)
        return self._store.items(target.resource.storage, target.namespace), str(self._store.version)

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Obj]]:
        resource = self._target(path).resource.storage
        queue: deque[Change] = deque(
            change for change in self._store.since(int(version)) if change.resource == resource
        )
        wake = asyncio.Event()

        def hear(change: Change) -> None:
            if change.resource == resource:
                queue.append(change)
                wake.set()

        unsubscribe = self._store.subscribe(hear)
        try:
            while True:
                while queue:
                    change = queue.popleft()
                    yield change.type, change.object
                wake.clear()
                await wake.wait()
        finally:
            unsubscribe()

    async def get(self, path: str) -> Obj:
        target = self._target(path)
        return self._store.get(target.resource.storage, target.namespace, target.name)

    async def patch(self, path: str, body: Obj) -> Obj:
        target = self._target(path)
        storage = target.resource.storage
        old = self._store.get(storage, target.namespace, target.name)
        return self._store.replace(storage, merge(old, body), part=target.subresource, actor=self._actor)

    async def delete(self, path: str, *, grace_seconds: int | None = None) -> None:
        target = self._target(path)
        how = Deletion(grace_seconds=grace_seconds)
        self._store.delete(target.resource.storage, target.namespace, target.name, how, actor=self._actor)


class HttpKube:
    """An API server over HTTP, simulated or real."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @staticmethod
    def _refused(refusal: Refusal) -> ApiError:
        return ApiError(refusal.status, refusal.kind, refusal.message)

    async def list(self, path: str) -> tuple[list[Obj], str]:
        pages = await self._api.list_all(path)
        if isinstance(pages, Refusal):
            raise self._refused(pages)
        bodies = [decode(page) for page in pages]
        return [item for body in bodies for item in body["items"]], bodies[-1]["metadata"]["resourceVersion"]

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Obj]]:
        query = {"resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        async with self._api.watch(path, query, idle_seconds=WATCH_SECONDS + 60.0) as lines:
            if isinstance(lines, Refusal):
                raise self._refused(lines)
            async for line in lines:
                event = decode(line)
                if event["type"] == "ERROR":
                    found = event["object"]
                    raise ApiError(found.get("code", 500), found.get("reason", ""), found.get("message", ""))
                yield event["type"], event["object"]

    async def get(self, path: str) -> Obj:
        answer = await self._api.get(path)
        if isinstance(answer, Refusal):
            raise self._refused(answer)
        item: Obj = decode(answer.body)
        return item

    async def patch(self, path: str, body: Obj) -> Obj:
        answer = await self._api.patch(path, body)
        if isinstance(answer, Refusal):
            raise self._refused(answer)
        item: Obj = decode(answer.body)
        return item

    async def delete(self, path: str, *, grace_seconds: int | None = None) -> None:
        options = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        answer = await self._api.delete(path, options)
        if isinstance(answer, Refusal):
            raise self._refused(answer)


class Mirror:
    """A local copy of a collection by list and watch; `changed` is called with the key of each object that moved."""

    def __init__(self, api: KubeAPI, path: str, changed: Callable[[str], None]) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self.items: dict[str, Obj] = {}

    def learn(self, item: Obj) -> None:
        """Take in the answer to a write of ours, so that the next decision does not rest on the state before it."""
        key = key_of(item)
        known = self.items.get(key)
        if known is not None and int(item["metadata"]["resourceVersion"]) > int(known["metadata"]["resourceVersion"]):
            self.items[key] = item

    async def run(self) -> None:
        """Keep up for ever."""
        while True:
            try:
                items, version = await self._api.list(self._path)
                self._replace({key_of(item): item for item in items})
                await self._follow(version)
            except (ApiError, NoAnswer):
                await asyncio.sleep(RELIST_SECONDS)

    def _replace(self, fresh: dict[str, Obj]) -> None:
        gone = [key for key in self.items if key not in fresh]
        self.items = fresh
        for key in (*gone, *fresh):
            self._changed(key)

    async def _follow(self, version: str) -> None:
        while True:
            async for kind, item in self._api.watch(self._path, version):
                version = item["metadata"]["resourceVersion"]
                key = key_of(item) if kind != "BOOKMARK" else ""
                if kind == DELETED:
                    self.items.pop(key, None)
                elif kind == ADDED or key in self.items:
                    self.items[key] = item
                if key:
                    self._changed(key)
