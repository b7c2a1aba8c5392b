"""A network between a client and the API server that can be cut: bytes are passed on, swallowed, or reset."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from enum import Enum

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus

CHUNK_BYTES = 2**16


class Cut(Enum):
    """How a network is broken: everything is accepted and nothing arrives, or every connection is reset."""

    SILENCE = "silence"
    RESET = "reset"


@dataclass(slots=True)
class Proxy:
    """Listens on a port of 127.0.0.1 and connects to another. `run` it beside the test; then `port` is known."""

    behind: int
    port: int = field(default=0, init=False)
    _cut: Cut | None = field(default=None, init=False)
    _open: set[anyio.CancelScope] = field(default_factory=set, init=False)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Until cancelled."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._serve)

    def cut(self, how: Cut) -> None:
        """Breaks the network: open connections too."""
        self._cut = how
        if how is Cut.RESET:
            self._end()

    def heal(self) -> None:
        """Mends it. What was swallowed is lost, and so are the connections that it was lost from."""
        self._cut = None
        self._end()

    def _end(self) -> None:
        for scope in self._open:
            scope.cancel()

    async def _serve(self, client: SocketStream) -> None:
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with client:
                    _reset_when_closed(client)
                    await self._connect(client)
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                return  # either side has gone
            finally:
                self._open.discard(scope)

    async def _connect(self, client: SocketStream) -> None:
        if self._cut is Cut.RESET:
            return
        if self._cut is Cut.SILENCE:
            while True:
                await client.receive(CHUNK_BYTES)
        async with await anyio.connect_tcp("127.0.0.1", self.behind) as server, anyio.create_task_group() as tasks:
            _reset_when_closed(server)
            for source, sink in ((client, server), (server, client)):
                tasks.start_soon(self._pass_on, source, sink, tasks.cancel_scope)

    async def _pass_on(self, source: SocketStream, sink: SocketStream, both: anyio.CancelScope) -> None:
        try:
            while True:
                chunk = await source.receive(CHUNK_BYTES)
                if self._cut is None:
                    await sink.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            both.cancel()


def _reset_when_closed(stream: SocketStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
