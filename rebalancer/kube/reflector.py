"""One resource, kept as the API server has it: list, watch, and begin again, with client-go's semantics.

Source: k8s.io/client-go tools/cache/reflector.go. A watch that ends is watched again from where it was; only an
expired resourceVersion or an unreadable line costs a new list. An object that is absent from a new list was deleted.

A list is asked for as the beginning of a watch where the server can do that (WatchList, since Kubernetes 1.32), which
spares it whole pages in memory; where it cannot, or where that fails, in pages.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import anyio

from rebalancer.domain.snapshot import SetAside
from rebalancer.kube.cache_params import CACHE_DEFAULTS, CacheParams
from rebalancer.kube.decode import DecodeError, Kind, WatchEvent, decode_event, decode_list
from rebalancer.kube.kept import Kept, Key, put
from rebalancer.kube.outcome import (
    EXPIRED,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    REJECTED,
    TOO_MANY_REQUESTS,
    ApiError,
    LineError,
    Refusal,
)
from rebalancer.kube.retry import Comeback, Retry, Surroundings
from rebalancer.kube.transport import Api

LOG = logging.getLogger(__name__)

TOO_LARGE = "Too large resource version"
"""How the API server calls a version that it has not reached (apiserver: storage.NewTooLargeResourceVersionError)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the reflectors of one cache have in common: whom they tell of news, and of an API server that is back."""

    changed: Callable[[], None] = lambda: None
    comeback: Comeback = field(default_factory=Comeback)


class Reflector:
    """The objects of one kind by key (name, or "namespace/name"). `run` until cancelled.

    `kept` holds them; it also knows of objects that have come and are equal, but not the same, while `revision` grows
    with every change. `synced` is true after the first whole list. `problem` is why the last attempt failed, "" when
    all is well. `forbidden` while we may not watch what we have listed. An optional kind that is not served, or that we
    may not see, is empty and `absent`.
    """

    def __init__(
        self,
        kind: Kind,
        api: Api,
        around: Surroundings,
        params: CacheParams = CACHE_DEFAULTS,
        shared: Shared | None = None,
    ) -> None:
        self.kind = kind
        self.kept = Kept()
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
        self.shared = shared or Shared()
        self._retry = Retry(around)
        self._progress = around.monotonic()
        self._broken_since: float | None = None
        self._refused_since: float | None = None
        self._watch_lists = params.watch_list
        self._in_pages = False

    def age_seconds(self) -> float:
        """Seconds since the API server last gave a sign of life about this resource."""
        return self._around.monotonic() - self._progress

    def stale(self) -> bool:
        """Whether nobody should act on what we have."""
        now, broken = self._around.monotonic(), self._broken_since
        if broken is not None and now - broken > self._params.broken_seconds:
            return True
        return now - self._progress > self._params.stale_seconds

    @property
    def items(self) -> dict[Key, object]:
        """The objects."""
        return self.kept.items

    async def run(self, listing: anyio.CapacityLimiter) -> None:
        """Lists and watches for ever. `listing` bounds how many reflectors list at once: lists are what the API
        server's fairness charges for."""
        while True:
            try:
                if not self.resource_version and not (self._watch_lists and not self._in_pages):
                    async with listing:
                        await self._list()
                if self.absent:
                    await anyio.sleep(self._params.forbidden_seconds if self.problem else self._params.absent_seconds)
                    self.resource_version = ""
                else:
                    await self._watch(listing)
            except ApiError as error:
                await self._recover(error)
            except Exception as error:  # the edge: no single resource may end all the others
                LOG.exception("watching %s failed", self.kind.plural)
                self.resource_version = ""
                await self._pause(f"{type(error).__name__}: {error}")

    async def _recover(self, error: ApiError) -> None:
        if not self.resource_version:
            self._in_pages = True
        if isinstance(error, LineError) or (error.status == 504 and TOO_LARGE in str(error)):
            # Asking for the same again would end the same way. A version that is too large is of another life of the
            # server: it has been restored from a backup.
            self.resource_version, self._in_pages = "", True
        await self._pause(str(error), error.retry_after_seconds, until_others=True)

    def _forbid(self, problem: str) -> None:
        """We may list but not watch, which is news the first time."""
        self.problem = problem
        if not self.forbidden:
            self.forbidden = True
            self._touch()

    async def _pause(self, problem: str, at_least_seconds: float = 0.0, *, until_others: bool = False) -> None:
        """Waits out a failure; `until_others`: not for much longer once another resource is heard of again."""
        self.problem = problem
        if self._broken_since is None:
            self._broken_since = self._around.monotonic()
        seconds = self._retry.delay(at_least_seconds)
        if not until_others or at_least_seconds or self._retry.hurried:
            await anyio.sleep(seconds)
        elif await self.shared.comeback.wait(seconds):
            self._retry.hurried = True
            await anyio.sleep(self._params.comeback_seconds * self._around.random())

    def _note_progress(self) -> None:
        self._progress = self._around.monotonic()
        self.problem = ""
        if self._broken_since is not None:
            self._broken_since = None
            self.shared.comeback.tell()

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
        if not version:
            raise ApiError(f"the list of {self.kind.plural} has no resourceVersion")
        self.listed(items, set_aside, version)

    def listed(self, items: dict[Key, object], set_aside: dict[Key, SetAside], version: str) -> None:
        """Takes over a whole list."""
        self.lists += 1
        self.absent = False
        self.resource_version = version
        self._note_progress()
        if not self.synced or items != self.items or set_aside != self.set_aside:
            self._replace(items, set_aside)
        self.kept.replace(items)

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
        self.kept.replace(items)
        self.set_aside = set_aside
        self.synced = True
        self._touch()

    def _touch(self) -> None:
        self.revision += 1
        self.shared.changed()

    async def _watch(self, listing: anyio.CapacityLimiter) -> None:
        """Follows one watch to its end, which begins with a list where we have none. Returns to be called again;
        forgets the resourceVersion when it expired."""
        started = self._around.monotonic()
        initial = not self.resource_version
        problem, retry_after, expired = "", 0.0, False
        async with AsyncExitStack() as listing_now:
            if initial:
                await listing_now.enter_async_context(listing)
            self.watches += 1
            query = self._query(initial=initial)
            async with self._api.watch(self.kind.path, query, idle_seconds=self._params.idle_seconds) as stream:
                if isinstance(stream, Refusal):
                    if initial:
                        # Refused as a watch; as a list it may be granted, and if not, its words are the better ones.
                        self._watch_lists = self._watch_lists and stream.kind not in (INVALID, REJECTED)
                        self._in_pages = True
                    if initial and stream.kind != TOO_MANY_REQUESTS:
                        return
                    expired = stream.kind == EXPIRED
                    problem, retry_after = stream.message, stream.retry_after_seconds
                    if self._refused_watch(stream):
                        return
                else:
                    self.forbidden = False
                    self._refused_since = None
                    self._note_progress()
                    expired = initial and not await self._gather(stream)
                    await listing_now.aclose()
                    expired = expired or await self._follow(stream)
        if expired:
            # Also paced: a server that expires every version it has just given would be listed in a hot loop.
            self.resource_version = ""
            await self._pause("the watch expired", retry_after)
        elif problem:
            await self._pause(f"cannot watch {self.kind.plural}: {problem}", retry_after)
        elif self._around.monotonic() - started < self._params.short_watch_seconds:
            await self._pause(f"the watch of {self.kind.plural} ended at once")

    def _query(self, *, initial: bool) -> dict[str, str]:
        shortest, longest = self._params.watch_seconds
        query = {
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(shortest + (longest - shortest) * self._around.random())),
        }
        if initial:
            return {**query, "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        return {**query, "resourceVersion": self.resource_version}

    def _refused_watch(self, refusal: Refusal) -> bool:
        """Takes note of a watch that we were refused. True where that is dealt with."""
        if refusal.kind == NOT_FOUND:
            self.resource_version = ""
        if refusal.kind != FORBIDDEN:
            return False
        if self.kind.optional:
            self._refused(refusal)
            return True
        self._forbid(f"cannot watch {self.kind.plural}: {refusal.message}")
        return False

    async def _gather(self, stream: AsyncIterator[bytes]) -> bool:
        """The list at the beginning of a watch, whole or not at all. False where it expired meanwhile."""
        items: dict[Key, object] = {}
        set_aside: dict[Key, SetAside] = {}
        async for line in stream:
            event = self._read(line)
            if event.type == "ERROR":
                self._in_pages = True
                return False
            if event.type == "BOOKMARK":
                if not event.initial_events_end or not event.resource_version:
                    # An older server, which does not know what it was asked for.
                    self._watch_lists = False
                    raise ApiError(f"the watch of {self.kind.plural} does not say where its list ends")
                self.listed(items, set_aside, event.resource_version)
                return True
            self._progress = self._around.monotonic()
            put(items, event.key, None if event.type == "DELETED" else event.object)
            put(set_aside, event.key, None if event.type == "DELETED" else event.set_aside)
        raise ApiError(f"the watch of {self.kind.plural} ended before its list did")

    def _read(self, line: bytes) -> WatchEvent:
        """The event of a line. Raises ApiError; what an unreadable line would have told, only a list can say now."""
        try:
            event = decode_event(self.kind.kind, line)
        except DecodeError as error:
            self.resource_version, self._in_pages = "", True
            raise ApiError(f"a line of the watch of {self.kind.plural} cannot be read: {error}") from error
        if event.type == "ERROR" and event.code != 410:
            told = f": {event.message}" if event.message else ""
            raise ApiError(f"the watch of {self.kind.plural} reports an error{told}", status=event.code)
        return event

    async def _follow(self, stream: AsyncIterator[bytes]) -> bool:
        """Applies events until the server closes. True where the resourceVersion has expired."""
        async for line in stream:
            event = self._read(line)
            if event.type == "ERROR":
                return True
            if _older(event.resource_version, self.resource_version):
                before, self.resource_version = self.resource_version, ""
                raise ApiError(
                    f"the watch of {self.kind.plural} went back from resourceVersion {before} to "
                    f"{event.resource_version}: the server's data is from before"
                )
            self._note_progress()
            self._in_pages = False
            self.apply(event)
            self.resource_version = event.resource_version or self.resource_version
        return False

    def apply(self, event: WatchEvent) -> None:
        """Takes over one event of a watch."""
        if event.type == "BOOKMARK":
            return
        known, warned = self.items.get(event.key), self.set_aside.get(event.key)
        deleted = event.type == "DELETED"
        # What can be read of a broken object counts, beside the warning; if that is nothing, what we knew is obsolete.
        item = None if deleted else event.object
        warning = None if deleted else event.set_aside
        if item == known and warning == warned:
            # No news, and the object stays that we have: new ones for old all the time would be new work for the
            # garbage collector, over and over again. Heartbeats alone are no part of what is compared.
            if getattr(item, "heartbeat", None) != getattr(known, "heartbeat", None):
                self.kept.put(event.key, item)
            return
        self.kept.put(event.key, item)
        put(self.set_aside, event.key, warning)
        self._touch()


def _older(version: str, than: str) -> bool:
    """resourceVersions are opaque; where both are numbers, as they have always been, they tell before from after."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)


def key_of(kind: Kind, item: object) -> Key:
    """Name, or "namespace/name"; the KubeVirt CR, of which there is one, goes by its kind."""
    name: str = getattr(item, "name", kind.kind)
    namespace: str = getattr(item, "namespace", "")
    return f"{namespace}/{name}" if namespace else name
