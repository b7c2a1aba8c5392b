"""The daemon's own HTTP server: /metrics, /healthz and /readyz. Read-only; it knows no more than the last Report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from rebalancer.control.clock import Clock
from rebalancer.domain.report import Report
from rebalancer.present.metrics import CONTENT_TYPE, Metrics


class ListenError(Exception):
    """The address cannot be listened on; the message says why and what to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParams:
    """Where to listen. `silence_seconds` without a cycle means that the loop hangs: the one thing a restart heals."""

    address: str = "0.0.0.0"
    port: int = 8080
    silence_seconds: float = 300.0


class Endpoint:
    """What the paths answer; `observe` every Report."""

    def __init__(self, clock: Clock, params: HttpParams) -> None:
        self._clock = clock
        self._params = params
        self._report: Report | None = None
        self._heard = clock.monotonic()
        self._metrics = Metrics()
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/metrics", self._answer_metrics),
                web.get("/healthz", self._answer_health),
                web.get("/readyz", self._answer_readiness),
            ]
        )

    def observe(self, report: Report) -> None:
        """Takes over a cycle's report."""
        self._report = report
        self._heard = self._clock.monotonic()
        self._metrics.observe(report)

    async def _answer_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _answer_health(self, _: web.Request) -> web.Response:
        silent = self._clock.monotonic() - self._heard
        if silent > self._params.silence_seconds:
            return web.Response(status=500, text=f"no cycle has ended for {silent:.0f} s\n")
        return web.Response(text="ok\n")

    async def _answer_readiness(self, _: web.Request) -> web.Response:
        """A standby is ready: it could take over at once."""
        if self._report is None or not self._report.synced:
            why = self._report.sentence.text if self._report else "the first cycle has not ended yet"
            return web.Response(status=503, text=f"{why}\n")
        return web.Response(text=f"ok: {self._report.sentence.text}\n")


@asynccontextmanager
async def listening(endpoint: Endpoint, params: HttpParams) -> AsyncIterator[str]:
    """Serves the endpoint and gives its URL; with port 0, a free one is taken. Raises ListenError."""
    runner = web.AppRunner(endpoint.app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, params.address, params.port, shutdown_timeout=1.0)
        try:
            await site.start()
        except OSError as error:
            raise ListenError(f"cannot listen on {params.address}:{params.port}: {error.strerror or error}") from None
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
