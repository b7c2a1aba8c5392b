"""An API server of a large cluster that only answers lists and watches, in a process of its own.

`python -m bench.scale.server NODES VMS_PER_NODE WATCH_LIST` prints its port. `POST /rate?events=1000` makes it send so
many changes a second, over all watches: pods, VMIs and nodes as 5 : 4 : 1, one of a hundred in what the daemon reads.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator

from aiohttp import web

from bench.scale.cluster import Cluster, Shape

PAGE = 500
TICK_SECONDS = 0.02
MIX = ("pods",) * 5 + ("virtualmachineinstances",) * 4 + ("nodes",)
MATERIAL = 100
"""Of so many changes one is in what the daemon reads: a label of a VM."""


class Server:
    """Lists in pages, WatchList where `watch_list`, and changes to all that watch."""

    def __init__(self, cluster: Cluster, *, watch_list: bool) -> None:
        self._cluster = cluster
        self._watch_list = watch_list
        self._watchers: dict[str, list[web.StreamResponse]] = {}
        self._rate = 0
        self._version = itertools.count(1_000)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if request.path == "/rate":
            self._rate = int(request.query["events"])
            return web.Response()
        plural = request.path.rsplit("/", 1)[1]
        if "watch" in request.query:
            return await self._watch(request, plural)
        first = int(request.query.get("continue") or 0)
        following = first + PAGE
        token = str(following) if following < self._cluster.shape.count(plural) else ""
        head = b'{"metadata":{"resourceVersion":"900","continue":"%s"},"items":[' % token.encode()
        return _json(head + b",".join(self._cluster.items(plural, first, PAGE)) + b"]}")

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        initial = "sendInitialEvents" in request.query
        if initial and not self._watch_list:
            return _json(b'{"kind":"Status","code":422,"reason":"Invalid","message":"the gate is off"}', 422)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if initial:
            for first in range(0, self._cluster.shape.count(plural), PAGE):
                lines = (b'{"type":"ADDED","object":%s}\n' % item for item in self._cluster.items(plural, first, PAGE))
                await response.write(b"".join(lines))
            end = b'{"resourceVersion":"900","annotations":{"k8s.io/initial-events-end":"true"}}'
            await response.write(b'{"type":"BOOKMARK","object":{"metadata":%s}}\n' % end)
        self._watchers.setdefault(plural, []).append(response)
        await asyncio.sleep(3600)
        return response

    async def live(self) -> None:
        """Sends changes for ever."""
        chosen = self._choices()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            lines: dict[str, list[bytes]] = {}
            for plural, item in itertools.islice(chosen, int(self._rate * TICK_SECONDS)):
                lines.setdefault(plural, []).append(b'{"type":"MODIFIED","object":%s}\n' % item)
            for plural, found in lines.items():
                for response in self._watchers.get(plural, ()):
                    await response.write(b"".join(found))

    def _choices(self) -> Iterator[tuple[str, bytes]]:
        """A walk through all objects that meets each kind's in another order than they were listed in."""
        for number in itertools.count():
            plural = MIX[number % len(MIX)]
            index = (number * 7919) % self._cluster.shape.count(plural)
            version = next(self._version)
            item = self._cluster.item(plural, index, version)
            if number % MATERIAL == 0:
                item = item.replace(b'"labels":{', b'"labels":{"generation":"%d",' % version, 1)
            yield plural, item


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


async def main() -> None:
    nodes, vms, watch_list = (int(argument) for argument in sys.argv[1:4])
    server = Server(Cluster(Shape(nodes=nodes, vms_per_node=vms)), watch_list=bool(watch_list))
    runner = web.ServerRunner(web.Server(server.handle, access_log=None))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await server.live()


if __name__ == "__main__":
    asyncio.run(main())
