"""An API server on a UNIX socket, in virtual time, for tests of what talks to it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api, unix_socket
from rebalancer.sim.api import ApiParams, ApiServer
from rebalancer.sim.faults import Entry, Faults, Script
from rebalancer.sim.store import Store
from rebalancer.sim.virtualtime import run_virtual

T = TypeVar("T")
USERS = ("a", "b")
EPOCH = 1_800_000_000.0
"""Wall time at the beginning of every run."""


def monotonic() -> float:
    """The running loop's virtual time."""
    return asyncio.get_running_loop().time()


def surroundings(chance: float = 0.5) -> Surroundings:
    """Virtual time, and a random generator that always says the same."""
    return Surroundings(monotonic=monotonic, now=lambda: EPOCH + monotonic(), random=lambda: chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A store, the server in front of it, and a client."""

    store: Store
    server: ApiServer
    api: Api
    socket: str

    def client(self, user: str) -> Api:
        """One more client, to be entered; its requests are logged as that user's."""

        async def credentials(_: bool) -> str:
            return f"Bearer {user}"

        return Api(replace(unix_socket(self.socket), credentials=credentials))

    def requests(self, verb: str, resource: str = "") -> list[Entry]:
        """The requests so far, by verb (get, list, watch, create, ...) and resource."""
        return [
            entry
            for entry in self.server.log
            if entry.verb == verb and (not resource or (entry.target and entry.target.resource.plural == resource))
        ]


def serve(
    scenario: Callable[[Served], Awaitable[T]],
    faults: Faults | None = None,
    authorize: Callable[..., bool] | None = None,
) -> T:
    """Runs a scenario against a fresh server in virtual time."""

    async def main() -> T:
        with tempfile.TemporaryDirectory() as folder:
            socket = f"{folder}/api"
            store = Store(lambda: EPOCH + monotonic())
            params = ApiParams(tokens={user: user for user in USERS})
            server = ApiServer(store, faults=faults or Script(), authorize=authorize, params=params)
            await server.start(unix=socket)
            try:
                async with Api(unix_socket(socket)) as api:
                    return await scenario(Served(store=store, server=server, api=api, socket=socket))
            finally:
                await server.stop()

    return run_virtual(main)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handlers: Sequence[Answer]) -> AsyncIterator[Api]:
    """A server that answers its first request by the first handler, and so on; the last one answers all the rest."""
    waiting = list(handlers)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        handler = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return await handler(request)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        socket = str(Path(folder) / "api")
        await web.UnixSite(runner, socket).start()
        try:
            async with Api(unix_socket(socket)) as api:
                yield api
        finally:
            await runner.cleanup()


def says(body: bytes | str, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    """A handler that gives one answer."""

    async def handle(_: web.Request) -> web.StreamResponse:
        data = body.encode() if isinstance(body, str) else body
        return web.Response(body=data, status=status, content_type=content_type, headers=headers)

    return handle


def streams(*chunks: bytes, pause_seconds: float = 0.0, then_silence: bool = False) -> Answer:
    """A handler that streams chunks and closes, or falls silent with the connection open."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ConnectionError):  # the client may have had enough
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(pause_seconds)
            if then_silence:
                await asyncio.sleep(1e9)
            await response.write_eof()
        return response

    return handle
