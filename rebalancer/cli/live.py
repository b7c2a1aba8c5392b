"""A live cluster, listed once: for a plan, an explanation or a dump."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import anyio

from rebalancer.control.clock import SystemClock
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.client import connect
from rebalancer.kube.decode import KINDS, Kind, build_snapshot, decode_list
from rebalancer.kube.dump import list_objects, write_dump
from rebalancer.kube.outcome import NOT_FOUND, ApiError, Refusal
from rebalancer.kube.transport import Api
from rebalancer.settings import Settings

Pages = dict[str, tuple[bytes, ...]]
"""The raw pages of each kind's list."""


def snapshot(settings: Settings) -> Snapshot:
    """The cluster now. Raises ConfigError or ApiError."""
    clock = SystemClock()
    pages = anyio.run(_list_everything, settings, clock)
    lists = {kind: [decode_list(kind, body) for body in bodies] for kind, bodies in pages.items()}
    versions = (page.resource_version for found in lists.values() for page in found)
    return build_snapshot(
        {kind: [item for page in found for item in page.items] for kind, found in lists.items()},
        [aside for found in lists.values() for page in found for aside in page.set_aside],
        resource_version=max((version for version in versions if version.isdecimal()), key=int, default=""),
        taken=clock.now(),
    )


def dump(settings: Settings, file: str) -> None:
    """Writes the cluster into a file and says so on standard error. Raises ConfigError, ApiError or DumpError."""
    pages = anyio.run(_list_everything, settings, SystemClock())
    count = write_dump(file, _objects(pages))
    print(f"{count} objects of {len(pages)} kinds written to {file}", file=sys.stderr)


def _objects(pages: Pages) -> Iterator[dict[str, object]]:
    for kind, bodies in pages.items():
        for body in bodies:
            yield from list_objects(kind, body)


async def _list_everything(settings: Settings, clock: SystemClock) -> Pages:
    async with await connect(settings.access(), monotonic=clock.monotonic) as api:
        return {name: await _list(api, kind) for name, kind in KINDS.items()}


async def _list(api: Api, kind: Kind) -> tuple[bytes, ...]:
    answer = await api.list_all(kind.path)
    if not isinstance(answer, Refusal):
        return answer
    if kind.optional:
        return ()
    if answer.kind == NOT_FOUND:
        raise ApiError(f"{api.base_url} has no {kind.plural}: is KubeVirt installed?")
    raise ApiError(f"{api.base_url}: {answer.message}", status=answer.status)
