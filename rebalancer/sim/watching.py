"""Watches: the stream of changes as lines of JSON, with bookmarks, selectors, expiry and faults."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import web

from rebalancer.sim import events
from rebalancer.sim.errors import ApiError
from rebalancer.sim.faults import Entry, Faults, Late, Trouble, Watch
from rebalancer.sim.objects import Obj, encode
from rebalancer.sim.resources import Target
from rebalancer.sim.selecting import selector
from rebalancer.sim.store import ADDED, DELETED, MODIFIED, Change, Store


def line(kind: str, item: Obj) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), encode(item))


class Watcher:
    """One open watch; `broken` when its connection is to be dropped in the middle of a line."""

    def __init__(
        self, store: Store, target: Target, entry: Entry, faults: Faults, bookmark_seconds: float = 60.0
    ) -> None:
        query = entry.query
        self._store = store
        self._target = target
        self._entry = entry
        self._matches = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        self._faults = faults
        self._bookmark_seconds = bookmark_seconds
        self._bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        self._queue: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._sent = 0
        self.broken = False

    def _on_change(self, change: Change) -> None:
        if self._relevant(change):
            self._queue.append(change)
            self._wake.set()

    def _relevant(self, change: Change) -> bool:
        target = self._target
        return change.resource == target.resource.storage and target.namespace in ("", change.namespace)

    def _render(self, item: Obj) -> Obj:
        return events.to_new(item) if self._target.resource is events.NEW_GROUP else item

    def _initial(self) -> bytes:
        items = self._store.items(self._target.resource.storage, self._target.namespace)
        chosen = [item for item in items if self._matches is None or self._matches(item)]
        return b"".join(line(ADDED, self._render(item)) for item in chosen)

    def _bookmark(self, *, end_of_initial: bool = False) -> bytes:
        resource = self._target.resource
        meta: Obj = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if end_of_initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return line("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

    def _change_line(self, change: Change) -> bytes:
        """The line of one change; a selector turns entering and leaving into ADDED and DELETED, "" if neither."""
        if self._matches is None:
            if self._target.resource is events.NEW_GROUP:
                return line(change.type, events.to_new(change.object))
            return change.line()
        before = change.previous is not None and self._matches(change.previous)
        after = change.type != DELETED and self._matches(change.object)
        if not before and not after:
            return b""
        item = change.object
        if change.type == MODIFIED and not after and change.previous is not None:
            item = change.previous | {
                "metadata": change.previous["metadata"] | {"resourceVersion": str(change.version)}
            }
        kind = change.type if before == after else ADDED if after else DELETED
        return line(DELETED if change.type == DELETED else kind, self._render(item))

    async def run(self, response: web.StreamResponse, start: str, *, initial: bool, seconds: float) -> None:
        """Send until the time is up. `start` is the resourceVersion of the request, `initial` sendInitialEvents."""
        loop = asyncio.get_running_loop()
        unsubscribe = self._store.subscribe(self._on_change)
        try:
            first = b""
            if initial or start in ("", "0"):
                first = self._initial() + (self._bookmark(end_of_initial=True) if initial else b"")
            else:
                try:
                    self._queue.extend(change for change in self._store.since(int(start)) if self._relevant(change))
                except ApiError as error:
                    await response.write(line("ERROR", error.status()))
                    return
            if first:
                await response.write(first)
            await self._follow(response, loop.time() + seconds)
        finally:
            unsubscribe()

    async def _follow(self, response: web.StreamResponse, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + self._bookmark_seconds
        while True:
            while self._queue:
                if not await self._send(response):
                    return
            now = loop.time()
            if now >= deadline - 1e-6:
                return
            if now >= bookmark_at - 1e-6:
                bookmark_at = now + self._bookmark_seconds
                if self._bookmarks:
                    await response.write(self._bookmark())
                continue
            self._wake.clear()
            timer = loop.call_at(min(deadline, bookmark_at), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _send(self, response: web.StreamResponse) -> bool:
        """Send everything that waits; False ends the watch."""
        lines: list[bytes] = []
        while self._queue:
            change = self._queue.popleft()
            text = self._change_line(change)
            if not text:
                continue
            trouble = self._faults.event(Watch(entry=self._entry, sent=self._sent), change)
            self._sent += 1
            if isinstance(trouble, Late):
                await response.write(b"".join(lines))
                lines = []
                await asyncio.sleep(trouble.seconds)
            elif trouble is Trouble.DROP:
                continue
            elif trouble is Trouble.DUPLICATE:
                lines.append(text)
            elif trouble is Trouble.EXPIRE:
                status = ApiError(410, "Expired", f"too old resource version: {change.version} (injected)").status()
                await response.write(b"".join(lines) + line("ERROR", status))
                return False
            elif trouble in (Trouble.CUT, Trouble.BREAK):
                self.broken = trouble is Trouble.BREAK
                await response.write(b"".join([*lines, text[: len(text) // 2] if self.broken else b""]))
                return False
            lines.append(text)
        if lines:
            await response.write(b"".join(lines))
        return True
