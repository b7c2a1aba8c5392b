"""One resource, kept as the API server has it: list, watch, and begin again, with client-go's semantics.

Source: k8s.io/client-go tools/cache/reflector.go. A watch that ends is watched again from where it was; only an
expired resourceVersion or an unreadable line costs a new list. An object that is absent from a new list was deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from rebalancer.domain.snapshot import SetAside
from rebalancer.kube.decode import DecodeError, Kind, WatchEvent, decode_event, decode_list
from rebalancer.kube.outcome import EXPIRED, FORBIDDEN, NOT_FOUND, ApiError, Refusal
from rebalancer.kube.retry import Retry, Surroundings
from rebalancer.kube.transport import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParams:
    """How resources are watched.

    `page_limit`: 500 objects decode in about 20 ms and take about 25 MB while they do; larger pages stall the loop.
    `watch_seconds`: a watch's own end, drawn between the two so that watches do not end together (client-go's values).
    `idle_seconds`: silence after which a connection counts as half-open: two and a half missed bookmarks.
    `short_watch_seconds`: a watch that ended sooner counts as a failure; a bad server is not asked in a hot loop.
    `list_seconds`: the time limit of one page.
    `absent_seconds`: how often an optional resource that is not served is looked for again.
    `forbidden_seconds`: how often one that we may not see is asked for again; before it counts as gone we hold on to
    what we have for as long, because an API server that has just started refuses everybody for some seconds.
    `stale_seconds`: age of the oldest resource beyond which nobody should act on the cache.
    """

    page_limit: int = 500
    watch_seconds: tuple[float, float] = (300.0, 600.0)
    idle_seconds: float = 150.0
    short_watch_seconds: float = 1.0
    list_seconds: float = 60.0
    absent_seconds: float = 300.0
    forbidden_seconds: float = 15.0
    stale_seconds: float = 240.0

    def __post_init__(self) -> None:
        if not 0 < self.idle_seconds < self.stale_seconds:
            raise ValueError("idle_seconds must be positive and below stale_seconds")


CACHE_DEFAULTS = CacheParams()

Key = str
V = TypeVar("V")


class Reflector:
    """The objects of one kind by key (name, or "namespace/name"). `run` until cancelled.

    `revision` grows with every change, `synced` is true after the first whole list. `problem` is why the last attempt
    failed, "" when all is well. `forbidden` while we may not watch what we have listed. An optional kind that is not
    served, or that we may not see, is empty and `absent`.
    """

    def __init__(
        self,
        kind: Kind,
        api: Api,
        around: Surroundings,
        params: CacheParams = CACHE_DEFAULTS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.items: dict[Key, object] = {}
        self.set_aside: dict[Key, SetAside] = {}
        self.revision = 0
        self.resource_version = ""
        self.synced = False
        self.absent = False
        self.forbidden = False
        self.problem = ""
        self.lists = 0
        self.watches = 0
        self._api = api
        self._around = around
        self._params = params
        self._changed = changed
        self._retry = Retry(around)
        self._progress = around.monotonic()
        self._refused_since: float | None = None

    def age_seconds(self) -> float:
        """Seconds since the API server last gave a sign of life about this resource."""
        return self._around.monotonic() - self._progress

    async def run(self, listing: anyio.CapacityLimiter) -> None:
        """Lists and watches for ever. `listing` bounds how many reflectors list at once: lists are what the API
        server's fairness charges for."""
        while True:
            try:
                if not self.resource_version:
                    async with listing:
                        await self._list()
                if self.absent:
                    await anyio.sleep(self._params.forbidden_seconds if self.problem else self._params.absent_seconds)
                    self.resource_version = ""
                else:
                    await self._watch()
            except ApiError as error:
                await self._pause(str(error), error.retry_after_seconds)

    def _forbid(self, problem: str) -> None:
        """We may list but not watch, which is news the first time."""
        self.problem = problem
        if not self.forbidden:
            self.forbidden = True
            self._touch()

    async def _pause(self, problem: str, at_least_seconds: float = 0.0) -> None:
        self.problem = problem
        await anyio.sleep(self._retry.delay(at_least_seconds))

    def _note_progress(self) -> None:
        self._progress = self._around.monotonic()
        self.problem = ""

    async def _list(self) -> None:
        """Replaces everything by a whole list; an unfinished one changes nothing."""
        items: dict[Key, object] = {}
        set_aside: dict[Key, SetAside] = {}
        token = version = ""
        while True:
            answer = await self._api.list_page(
                self.kind.path,
                limit=self._params.page_limit,
                token=token,
                timeout_seconds=self._params.list_seconds,
            )
            if isinstance(answer, Refusal):
                self._refused(answer)
                return
            try:
                page = decode_list(self.kind.kind, answer.body)
            except DecodeError as error:
                raise ApiError(f"the list of {self.kind.plural} cannot be read: {error}") from error
            items.update((key_of(self.kind, item), item) for item in page.items)
            set_aside.update((entry.name, entry) for entry in page.set_aside)
            # The pages of one list are of one moment; some servers say so on the first page only.
            version = page.resource_version or version
            token = page.continue_token
            if not token:
                break
        self.lists += 1
        self.absent = False
        self.resource_version = version
        self._note_progress()
        if not self.synced or items != self.items or set_aside != self.set_aside:
            self._replace(items, set_aside)
        self.items = items

    def _refused(self, answer: Refusal) -> None:
        """An optional kind may be missing; a continue token that expired is answered by starting over, later."""
        if self.kind.optional and answer.kind in (NOT_FOUND, FORBIDDEN):
            if answer.kind == FORBIDDEN and self._hold_on():
                raise ApiError(answer.message, status=answer.status)
            news = not self.absent
            self.absent = True
            self._note_progress()
            self.problem = answer.message if answer.kind == FORBIDDEN else ""
            if news or not self.synced or self.items:
                self._replace({}, {})
            return
        if answer.kind == NOT_FOUND:
            raise ApiError(f"{self.kind.plural} are not served here: {answer.message}", status=answer.status)
        raise ApiError(
            f"cannot list {self.kind.plural}: {answer.message}",
            status=answer.status,
            retry_after_seconds=answer.retry_after_seconds,
        )

    def _hold_on(self) -> bool:
        """Whether what was listed before is worth keeping still, although we may not see it just now."""
        now = self._around.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return self.synced and not self.absent and now - self._refused_since < self._params.forbidden_seconds

    def _replace(self, items: dict[Key, object], set_aside: dict[Key, SetAside]) -> None:
        self.items = items
        self.set_aside = set_aside
        self.synced = True
        self._touch()

    def _touch(self) -> None:
        self.revision += 1
        self._changed()

    async def _watch(self) -> None:
        """Follows one watch to its end. Returns to be called again; forgets the resourceVersion when it expired."""
        started = self._around.monotonic()
        shortest, longest = self._params.watch_seconds
        query = {
            "resourceVersion": self.resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(shortest + (longest - shortest) * self._around.random())),
        }
        self.watches += 1
        async with self._api.watch(self.kind.path, query, idle_seconds=self._params.idle_seconds) as stream:
            if isinstance(stream, Refusal):
                expired = stream.kind == EXPIRED
                problem, retry_after = stream.message, stream.retry_after_seconds
                if not expired and stream.kind == NOT_FOUND:
                    self.resource_version = ""
                if stream.kind == FORBIDDEN:
                    if self.kind.optional:
                        self._refused(stream)
                        return
                    self._forbid(f"cannot watch {self.kind.plural}: {problem}")
            else:
                self.forbidden = False
                self._refused_since = None
                self._note_progress()
                expired, problem, retry_after = await self._follow(stream), "", 0.0
        if expired:
            # Also paced: a server that expires every version it has just given would be listed in a hot loop.
            self.resource_version = ""
            await self._pause("the watch expired", retry_after)
        elif problem:
            await self._pause(f"cannot watch {self.kind.plural}: {problem}", retry_after)
        elif self._around.monotonic() - started < self._params.short_watch_seconds:
            await self._pause(f"the watch of {self.kind.plural} ended at once")

    async def _follow(self, stream: AsyncIterator[bytes]) -> bool:
        """Applies events until the server closes. True where the resourceVersion has expired."""
        async for line in stream:
            try:
                event = decode_event(self.kind.kind, line)
            except DecodeError as error:
                # What the line would have told is unknown: only a list can say it now.
                self.resource_version = ""
                raise ApiError(f"a line of the watch of {self.kind.plural} cannot be read: {error}") from error
            if event.type == "ERROR":
                if event.code == 410:
                    return True
                raise ApiError(f"the watch of {self.kind.plural} reports an error", status=event.code)
            self._note_progress()
            self._apply(event)
            self.resource_version = event.resource_version or self.resource_version
        return False

    def _apply(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            return
        known, warned = self.items.get(event.key), self.set_aside.get(event.key)
        deleted = event.type == "DELETED"
        # What can be read of a broken object counts, beside the warning; if that is nothing, what we knew is obsolete.
        item = None if deleted else event.object
        warning = None if deleted else event.set_aside
        if item == known and warning == warned:
            # A change in what we do not read, or do not compare by: it is kept, and no news.
            _put(self.items, event.key, item)
            return
        _put(self.items, event.key, item)
        _put(self.set_aside, event.key, warning)
        self._touch()


def _put(values: dict[Key, V], key: Key, value: V | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def key_of(kind: Kind, item: object) -> Key:
    """Name, or "namespace/name"; the KubeVirt CR, of which there is one, goes by its kind."""
    name: str = getattr(item, "name", kind.kind)
    namespace: str = getattr(item, "namespace", "")
    return f"{namespace}/{name}" if namespace else name
