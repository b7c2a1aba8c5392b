"""The page and the API over HTTP: cached answers, rendered off the event loop, and the stream that says what is new.

What is shown is given as documents, functions from a query to an answer: this file knows HTTP and nothing of plans.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import anyio
from aiohttp import web

from rebalancer.control.offload import Offload

Query = Mapping[str, str]
Scene_contra = TypeVar("Scene_contra", contravariant=True)
Shown = TypeVar("Shown")


class Answer(Protocol):
    """What a document says: its body and what that is; an empty body is 204."""

    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...
    @property
    def status(self) -> int: ...


class Document(Protocol[Scene_contra]):
    """What is to be had at a path.

    `render` gets the parameters of the query that are in `parameters`, the others are ignored. It is called in a thread
    and must be pure. `lasting`: the answer never changes.
    """

    @property
    def path(self) -> str: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...
    @property
    def lasting(self) -> bool: ...
    @property
    def render(self) -> Callable[[Scene_contra, Query], Answer]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteParams:
    """`cached`: answers that are kept. `waiting`: requests for one document that may wait for their turn.

    `streams`: open streams at a time. `remembered`: notes that a stream which broke off can catch up with.
    `alive_seconds`: a stream without news says so, often enough for proxies, which cut silent connections after 30 s.
    """

    cached: int = 64
    waiting: int = 16
    streams: int = 100
    remembered: int = 256
    alive_seconds: float = 15.0


SITE_DEFAULTS = SiteParams()
PARAMETER_MAX = 600
"""Characters of a parameter: a namespace and a name have 253 each at most."""
COMPRESSED_FROM = 1024


class Board:
    """Where news are put up. A version per note; whoever has seen one can wait for the next.

    `epoch` tells this board's versions from those of a process before us.
    """

    def __init__(self, epoch: str, remembered: int = SITE_DEFAULTS.remembered) -> None:
        self.version = 0
        self._epoch = epoch
        self._notes: deque[tuple[int, bytes]] = deque(maxlen=remembered)
        self._news = anyio.Event()

    def put(self, note: bytes) -> None:
        """Puts up a note: one line of JSON."""
        self.version += 1
        self._notes.append((self.version, note))
        self._news.set()
        self._news = anyio.Event()

    async def wait(self, seen: int) -> None:
        """Until there is something newer than `seen`."""
        if self.version == seen:
            await self._news.wait()

    def since(self, seen: int) -> bytes:
        """The notes after version `seen`, as server-sent events."""
        return b"".join(
            f"id: {self._epoch}-{version}\nevent: report\ndata: ".encode() + note + b"\n\n"
            for version, note in self._notes
            if version > seen
        )

    def seen(self, last_event: str) -> int:
        """The version that a reader has seen by its Last-Event-ID; for a new reader all but the last one."""
        epoch, _, version = last_event.rpartition("-")
        if epoch == self._epoch and version.isdecimal() and int(version) <= self.version:
            return int(version)
        return self.version - 1


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A rendered answer as it goes out."""

    answer: Answer
    packed: bytes
    etag: str
    version: int


@dataclass(slots=True)
class _Turn:
    """One document is rendered once at a time: those who wait find it in the cache."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0


class Site(Generic[Shown]):
    """The routes of all documents and of the stream. `look` gives what documents are rendered from, on the loop."""

    def __init__(
        self,
        board: Board,
        look: Callable[[], Shown],
        documents: Iterable[Document[Shown]],
        offload: Offload,
        params: SiteParams = SITE_DEFAULTS,
    ) -> None:
        self._board = board
        self._look = look
        self._documents = tuple(documents)
        self._offload = offload
        self._params = params
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
        self._turns = {document.path: _Turn() for document in self._documents}
        self._streams = 0

    def routes(self, stream: str) -> tuple[web.RouteDef, ...]:
        """GET for each document, and the stream at its path; every other method is refused with 405."""
        documents = [web.get(document.path, self._handler(document)) for document in self._documents]
        return (*documents, web.get(stream, self._stream, allow_head=False))

    def _handler(self, document: Document[Shown]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            query = {name: request.query[name] for name in document.parameters if name in request.query}
            if any(len(value) > PARAMETER_MAX for value in query.values()):
                return web.Response(status=414, text=f"a parameter is longer than {PARAMETER_MAX} characters\n")
            kept = await self._had(document, query)
            if kept is None:
                return web.Response(status=503, headers={"Retry-After": "5"}, text="too many wait for this\n")
            return _response(request, kept, lasting=document.lasting)

        return handle

    async def _had(self, document: Document[Shown], query: Query) -> _Kept | None:
        """The answer for the newest version; None where too many wait for it already."""
        key, turn = (document.path, *(f"{name}={query[name]}" for name in sorted(query))), self._turns[document.path]
        if (kept := self._fresh(key, document)) is not None:
            return kept
        if turn.waiting >= self._params.waiting:
            return None
        turn.waiting += 1
        try:
            async with turn.lock:
                if (kept := self._fresh(key, document)) is not None:
                    return kept
                version = self._board.version
                kept = await self._offload(partial(_render, partial(document.render, self._look(), query), version))
                self._kept[key] = kept
                while len(self._kept) > self._params.cached:
                    self._kept.popitem(last=False)
                return kept
        finally:
            turn.waiting -= 1

    def _fresh(self, key: tuple[str, ...], document: Document[Shown]) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or not (document.lasting or kept.version == self._board.version):
            return None
        self._kept.move_to_end(key)
        return kept

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the newest report at once, or all that a reader has missed, and each further one."""
        if self._streams >= self._params.streams:
            return web.Response(status=503, headers={"Retry-After": "30"}, text="too many streams are open\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._streams += 1
        try:
            await response.prepare(request)
            seen = self._board.seen(request.headers.get("Last-Event-ID", ""))
            await response.write(b"retry: 3000\n\n")
            while True:
                version, news = self._board.version, self._board.since(seen)
                await response.write(news or b": still here\n\n")
                seen = version
                with anyio.move_on_after(self._params.alive_seconds):
                    await self._board.wait(seen)
        except ConnectionError:
            return response  # the reader has gone
        finally:
            self._streams -= 1


def _render(render: Callable[[], Answer], version: int) -> _Kept:
    answer = render()
    packed = gzip.compress(answer.body, compresslevel=1, mtime=0) if len(answer.body) >= COMPRESSED_FROM else b""
    etag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    return _Kept(answer=answer, packed=packed, etag=etag, version=version)


def _response(request: web.Request, kept: _Kept, *, lasting: bool) -> web.Response:
    headers = {"ETag": kept.etag, "Cache-Control": "no-cache" if lasting else "no-store", "Vary": "Accept-Encoding"}
    answer = kept.answer
    if not answer.body:
        return web.Response(status=204, headers=headers)
    if answer.status == 200 and request.headers.get("If-None-Match") == kept.etag:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = answer.content_type
    body = answer.body
    if kept.packed and "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], body = "gzip", kept.packed
    return web.Response(status=answer.status, headers=headers, body=body)
