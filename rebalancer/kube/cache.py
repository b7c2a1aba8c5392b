"""The cluster as a Snapshot, kept up to date by one reflector per resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import anyio

from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.kube.assembly import Assembly, Stored
from rebalancer.kube.cache_params import CACHE_DEFAULTS, CacheParams
from rebalancer.kube.decode import KINDS, Kind
from rebalancer.kube.reflector import Reflector, Shared
from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api

PARALLEL_LISTS = 2
"""Initial lists at once. A page of 500 pods costs about 5 of the API server's seats (API priority and fairness)."""


class Cache:
    """All resources that we read. `run` until cancelled.

    `revision` grows with every change of any object, `news` with every wake, too; `wait` sleeps until it has.
    """

    def __init__(
        self,
        api: Api,
        around: Surroundings,
        params: CacheParams = CACHE_DEFAULTS,
        kinds: Iterable[Kind] = tuple(KINDS.values()),
    ) -> None:
        self._around = around
        self._bell = anyio.Event()
        self.revision = 0
        self.news = 0
        shared = Shared(self._changed)
        self.reflectors = tuple(Reflector(kind, api, around, params, shared) for kind in kinds)
        self._assembly = Assembly.of({}, ())
        self._assembled = -1
        self._stored: Mapping[str, int] = {}

    async def run(self) -> None:
        """Keeps every resource until cancelled."""
        listing = anyio.CapacityLimiter(PARALLEL_LISTS)
        async with anyio.create_task_group() as tasks:
            for reflector in self.reflectors:
                tasks.start_soon(reflector.run, listing, name=f"reflector {reflector.kind.plural}")

    def _changed(self) -> None:
        self.revision += 1
        self.wake()

    def wake(self) -> None:
        """Wakes whoever waits, for news that are not the cluster's."""
        self.news += 1
        self._bell.set()
        self._bell = anyio.Event()

    async def wait(self, seen_news: int) -> None:
        """Until there are newer news than `seen_news`."""
        if self.news == seen_news:
            await self._bell.wait()

    @property
    def synced(self) -> bool:
        """Every resource has been listed once."""
        return all(reflector.synced for reflector in self.reflectors)

    def age_seconds(self) -> float:
        """Seconds since the resource that is furthest behind gave a sign of life."""
        return max((reflector.age_seconds() for reflector in self.reflectors if not reflector.absent), default=0.0)

    def problems(self) -> tuple[str, ...]:
        """Why nobody should act on this cache, one sentence per resource; empty when it is whole and fresh."""
        found = []
        for reflector in self.reflectors:
            why = f" ({reflector.problem})" if reflector.problem else ""
            if not reflector.synced:
                found.append(f"{reflector.kind.plural} are not listed yet{why}")
            elif reflector.forbidden:
                found.append(reflector.problem)
            elif not reflector.absent and reflector.stale():
                found.append(f"nothing heard of {reflector.kind.plural} for {reflector.age_seconds():.0f} s{why}")
        return tuple(found)

    def snapshot(self) -> Snapshot:
        """The cluster now. The same object for as long as nothing has changed, so equality is one comparison; and
        maps in which nothing has changed are those of the snapshot before it."""
        if self._assembled != self.revision:
            revision, stored, assemble = self._assembling()
            self._assembly, self._assembled, self._stored = assemble(), revision, stored
        return self._assembly.snapshot

    async def fresh(self, offload: Callable[[Callable[[], Assembly]], Awaitable[Assembly]]) -> Snapshot:
        """The same, put together wherever `offload` runs it: a large cluster's takes a while."""
        if self._assembled != self.revision:
            revision, stored, assemble = self._assembling()
            found = await offload(assemble)
            if revision > self._assembled:
                self._assembly, self._assembled, self._stored = found, revision, stored
        return self._assembly.snapshot

    @property
    def latest(self) -> Snapshot:
        """The cluster as it was put together last; empty where it never was."""
        return self._assembly.snapshot

    def _assembling(self) -> tuple[int, Mapping[str, int], Callable[[], Assembly]]:
        """The revision and how much each resource has stored by now, and a function that makes a snapshot of what there
        is: of what has been stored since the last one where that is known, else of copies of mere references."""
        before, stored = self._assembly, {reflector.kind.kind: reflector.kept.stored for reflector in self.reflectors}
        objects: dict[str, Mapping[str, object] | Stored] = {}
        for reflector in self.reflectors:
            kind, kept = reflector.kind.kind, reflector.kept
            recent = kept.since(self._stored.get(kind, -1))
            if recent is None:
                objects[kind] = dict(kept.items)
            else:
                objects[kind] = Stored({key: kept.items.get(key) for key in recent})
        aside, version, taken = self._all_set_aside(), self._resource_version(), self._around.now()
        assemble = partial(before.advance, objects, aside, resource_version=version, taken=taken)
        return self.revision, stored, assemble

    def _all_set_aside(self) -> tuple[SetAside, ...]:
        found = [entry for reflector in self.reflectors for entry in reflector.set_aside.values()]
        for reflector in self.reflectors:
            if reflector.absent and reflector.problem:
                found.append(SetAside(kind=reflector.kind.kind, name="(all)", reason=reflector.problem))
        return tuple(found)

    def _resource_version(self) -> str:
        """The newest of the resources' versions; they are opaque, so those that are no numbers are left out."""
        numbers = [int(r.resource_version) for r in self.reflectors if r.resource_version.isdecimal()]
        return str(max(numbers, default=0) or "")
