"""Our own HTTP server: /healthz and /readyz, and whatever pages and routes it is given (/metrics, the page)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

Page = Callable[[], tuple[str, bytes]]
"""Renders a page: content type and body."""
Probe = Callable[[], str]
"""Why we are not healthy or not ready, "" when we are."""


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer: a browser runs and loads nothing but what we serve, and shows us in nobody's frame."""


class ServerError(Exception):
    """The server cannot listen; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParams:
    """Where to listen. On every interface by default, so that probes and Prometheus get in; port 0 picks a free one."""

    host: str = "0.0.0.0"
    port: int = 8080

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port = {self.port}: must be between 0 and 65535")


@asynccontextmanager
async def serving(
    params: HttpParams,
    pages: Mapping[str, Page],
    *,
    healthy: Probe,
    ready: Probe,
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[tuple[str, int]]:
    """Serves for as long as it is entered; gives host and port. Health answers carry no names. Raises ServerError."""
    application = web.Application()
    application.on_response_prepare.append(_add_headers)
    application.router.add_routes(routes)
    for path, page in pages.items():
        application.router.add_get(path, _page(page))
    application.router.add_get("/healthz", _probe(healthy))
    application.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, params.host, params.port)
        try:
            await site.start()
        except OSError as error:
            raise ServerError(f"cannot listen on {params.host}:{params.port}: {error.strerror or error}") from error
        host, port = runner.addresses[0][:2]
        yield str(host), int(port)
    finally:
        await runner.cleanup()


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _page(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        content_type, body = page()
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return handle


def _probe(probe: Probe) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        problem = probe()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    return handle
