"""The transport: one aiohttp session with explicit timeouts, status checks and our own name.

kubernetes_asyncio's own transport is not used: it checks no status of raw bodies, knows no timeout, trusts the
environment's proxies and hides Retry-After.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import anyio
import msgspec
from aiohttp.http_exceptions import LineTooLong

from rebalancer import __version__
from rebalancer.kube.outcome import (
    EXPIRED,
    Answer,
    ApiError,
    LineError,
    Refusal,
    permission,
    refusal,
)

USER_AGENT = f"kubevirt-rebalancer/{__version__}"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
READ_BUFFER_BYTES = 2**21
"""aiohttp takes lines of up to twice this; etcd objects are at most 1.5 MiB."""

Query = Mapping[str, str]
Credentials = Callable[[bool], Awaitable[str]]
"""Gives the Authorization header's value, "" for none; True asks for a fresh one because the last was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientParams:
    """Limits of one request. `timeout_seconds` covers it from connect to last byte (a hung call would never return).

    `body_limit_bytes`: a page of 500 objects is 7 MB; far above that is no answer of an API server.
    """

    timeout_seconds: float = 30.0
    connect_seconds: float = 10.0
    body_limit_bytes: int = 512 * 2**20
    connections: int = 32


CLIENT_DEFAULTS = ClientParams()


async def anonymous(_: bool) -> str:
    """Credentials of a server that asks for none (the simulator)."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the API server is and how to get there; `connector` is called on the running loop.

    `trust` reads the certificate authorities again, because the server's certificate was not accepted: somebody may
    have replaced them.
    """

    base_url: str
    connector: Callable[[], aiohttp.BaseConnector]
    credentials: Credentials = anonymous
    trust: Callable[[], Awaitable[None]] | None = None
    proxy: str | None = None
    server_hostname: str | None = None


def unix_socket(path: str) -> Endpoint:
    """An API server on a UNIX socket: tests and the simulator."""
    return Endpoint(base_url="http://localhost", connector=lambda: aiohttp.UnixConnector(path))


def plain_tcp(base_url: str) -> Endpoint:
    """An API server over plain HTTP, without credentials: the simulator for people, kubectl proxy."""
    return Endpoint(base_url=base_url, connector=aiohttp.TCPConnector)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    path: str
    query: Query | None = None
    body: bytes | None = None
    content_type: str = JSON
    listing: bool = False
    watching: bool = False

    @property
    def kind(self) -> str:
        """The method, or WATCH."""
        return "WATCH" if self.watching else self.method

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    def permission(self) -> str:
        return permission(self.method, self.path, watching=self.watching, listing=self.listing)


class Api:
    """The Kubernetes API over HTTP. An async context manager."""

    def __init__(self, endpoint: Endpoint, params: ClientParams = CLIENT_DEFAULTS) -> None:
        self.endpoint = endpoint
        self.params = params
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0
        self.answers: Counter[tuple[str, str]] = Counter()
        """(method or WATCH, status) of every request, "none" where no answer came: metric labels."""
        self._time_limits = aiohttp.ClientTimeout(total=None, sock_connect=params.connect_seconds)

    @property
    def base_url(self) -> str:
        """Where the API server is, for messages."""
        return self.endpoint.base_url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=self.endpoint.connector(),
            headers={"User-Agent": USER_AGENT, "Accept": JSON, "Accept-Encoding": "identity"},
            read_bufsize=READ_BUFFER_BYTES,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        with anyio.CancelScope(shield=True):
            await self._session.close()

    async def get(
        self, path: str, query: Query | None = None, *, timeout_seconds: float | None = None
    ) -> Answer | Refusal:
        """A quorum read: without resourceVersion the server answers from etcd or from a cache proven fresh."""
        return await self._send(_Request(method="GET", path=path, query=query), timeout_seconds)

    async def create(
        self, path: str, manifest: object, query: Query | None = None, *, timeout_seconds: float | None = None
    ) -> Answer | Refusal:
        """POST. An ApiError leaves open whether the object exists now: read it by name before anything else."""
        return await self._send(_Request(method="POST", path=path, query=query, body=_dump(manifest)), timeout_seconds)

    async def replace(self, path: str, manifest: object, *, timeout_seconds: float | None = None) -> Answer | Refusal:
        """PUT, guarded by the manifest's resourceVersion."""
        return await self._send(_Request(method="PUT", path=path, body=_dump(manifest)), timeout_seconds)

    async def patch(self, path: str, manifest: object, *, timeout_seconds: float | None = None) -> Answer | Refusal:
        """A JSON merge patch."""
        request = _Request(method="PATCH", path=path, body=_dump(manifest), content_type=MERGE_PATCH)
        return await self._send(request, timeout_seconds)

    async def delete(
        self, path: str, options: object | None = None, *, timeout_seconds: float | None = None
    ) -> Answer | Refusal:
        """DELETE; `options` may be DeleteOptions with preconditions."""
        body = None if options is None else _dump(options)
        return await self._send(_Request(method="DELETE", path=path, body=body), timeout_seconds)

    async def list_page(
        self,
        path: str,
        *,
        limit: int = 500,
        token: str = "",
        labels: str = "",
        timeout_seconds: float | None = None,
    ) -> Answer | Refusal:
        """One page. resourceVersion stays unset: "0" would ignore the limit and answer everything in one body."""
        query = {"limit": str(limit), "continue": token, "labelSelector": labels}
        query = {name: value for name, value in query.items() if value}
        return await self._send(_Request(method="GET", path=path, query=query, listing=True), timeout_seconds)

    async def list_all(
        self, path: str, *, limit: int = 500, labels: str = "", restarts: int = 3
    ) -> tuple[bytes, ...] | Refusal:
        """All pages of a list as raw bodies. A continue token that expires restarts the list, a few times."""
        expired: Refusal | None = None
        for _ in range(restarts):
            pages = await self._pages(path, limit, labels)
            if not isinstance(pages, Refusal):
                return pages
            expired = pages
            if expired.kind != EXPIRED:
                break
        assert expired is not None
        return expired

    async def _pages(self, path: str, limit: int, labels: str) -> tuple[bytes, ...] | Refusal:
        pages: list[bytes] = []
        token = ""
        while True:
            page = await self.list_page(path, limit=limit, token=token, labels=labels)
            if isinstance(page, Refusal):
                return page
            pages.append(page.body)
            token = continue_token(page.body)
            if not token:
                return tuple(pages)

    async def _send(self, request: _Request, timeout_seconds: float | None) -> Answer | Refusal:
        """One request, at most one repetition: with fresh credentials after a 401.

        The timeout is exact (not aiohttp's, which rounds up to whole seconds): the lease's fence relies on it.
        """
        seconds = self.params.timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            with anyio.fail_after(seconds):
                for fresh in (False, True):
                    answer = await self._exchange(request, fresh)
                    if answer is not None:
                        return answer
        except TimeoutError as error:
            raise ApiError(f"{request}: no answer within {seconds:.1f} s") from error
        raise ApiError(f"{request}: 401, the credentials are not accepted", status=401)

    async def _exchange(self, request: _Request, fresh: bool) -> Answer | Refusal | None:
        """None for a 401."""
        async with self._open(request, fresh=fresh) as response:
            if response.status == 401:
                return None
            return _judge(response, await self._read(response, request), request)

    @asynccontextmanager
    async def watch(
        self, path: str, query: Query, *, idle_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes] | Refusal]:
        """A watch as a stream of lines, or why there is none.

        Iterating raises ApiError when the stream breaks, falls silent for `idle_seconds` (a half-open connection:
        bookmarks come every minute) or sends a line without end; it just ends when the server closes it.
        """
        request = _Request(method="GET", path=path, query={**query, "watch": "true"}, watching=True)
        silence = aiohttp.ClientTimeout(total=None, sock_connect=self.params.connect_seconds, sock_read=idle_seconds)
        async with self._open(request, time_limits=silence) as response:
            if response.status == 401:
                await self.endpoint.credentials(True)
                raise ApiError(f"{request}: 401, the credentials are not accepted", status=401)
            if response.status == 200 and _is_json(response):
                yield _lines(response, request)
                return
            answer = _judge(response, await self._read(response, request), request)
            if isinstance(answer, Answer):
                raise ApiError(f"{request}: {response.status} without a stream", status=response.status)
            yield answer

    @asynccontextmanager
    async def _open(
        self, request: _Request, *, fresh: bool = False, time_limits: aiohttp.ClientTimeout | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "use the Api as an async context manager"
        self.requests += 1
        answered = False
        headers = {"Content-Type": request.content_type} if request.body is not None else {}
        if authorization := await self.endpoint.credentials(fresh):
            headers["Authorization"] = authorization
        try:
            async with self._session.request(
                request.method,
                self.endpoint.base_url.rstrip("/") + request.path,
                params=request.query,
                data=request.body,
                headers=headers,
                proxy=self.endpoint.proxy,
                server_hostname=self.endpoint.server_hostname,
                allow_redirects=False,
                timeout=time_limits or self._time_limits,
            ) as response:
                answered = True
                self.answers[request.kind, str(response.status)] += 1
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            if self.endpoint.trust is not None:
                await self.endpoint.trust()
            why = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            raise ApiError(f"{request}: the API server's certificate is not accepted: {why}") from error
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's own time limits (connect, silence) are OSErrors too; ours comes as a cancellation.
            raise ApiError(f"{request}: {str(error) or type(error).__name__}") from error
        finally:
            if not answered:
                self.answers[request.kind, "none"] += 1

    async def _read(self, response: aiohttp.ClientResponse, request: _Request) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > self.params.body_limit_bytes:
                raise ApiError(f"{request}: the answer is larger than {self.params.body_limit_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


async def _lines(response: aiohttp.ClientResponse, request: _Request) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await response.content.readline()
        except (ValueError, LineTooLong) as error:  # older and newer releases of aiohttp
            raise LineError(f"{request}: a line longer than {2 * READ_BUFFER_BYTES} bytes") from error
        if not line:
            return
        if not line.endswith(b"\n"):
            raise ApiError(f"{request}: the stream ended in the middle of a line")
        yield line


def _judge(response: aiohttp.ClientResponse, content: bytes, request: _Request) -> Answer | Refusal:
    status = response.status
    if 200 <= status < 300 and _is_json(response):
        return Answer(status=status, body=content)
    retry_after = _seconds(response.headers.get("Retry-After", ""))
    if 400 <= status < 500:
        return refusal(status, content, retry_after_seconds=retry_after, permission=request.permission())
    text = " ".join(content[:200].decode("utf-8", "replace").split())
    raise ApiError(
        f"{request}: {status} {response.content_type}: {text}", status=status, retry_after_seconds=retry_after
    )


def _is_json(response: aiohttp.ClientResponse) -> bool:
    """A proxy's page is no answer, whatever its status says."""
    return response.content_type == JSON


def _seconds(header: str) -> float:
    """Retry-After in seconds; the API server sends no dates."""
    return float(header) if header.isascii() and header.isdigit() and len(header) < 6 else 0.0


def _dump(manifest: object) -> bytes:
    return msgspec.json.encode(manifest)


class _ListMetadata(msgspec.Struct):
    token: str | None = msgspec.field(name="continue", default=None)


class _List(msgspec.Struct):
    metadata: _ListMetadata


_LIST = msgspec.json.Decoder(_List)


def continue_token(body: bytes) -> str:
    """metadata.continue of a list, "" on the last page; ApiError where the body is none."""
    try:
        return _LIST.decode(body).metadata.token or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("the answer is not a list") from error
