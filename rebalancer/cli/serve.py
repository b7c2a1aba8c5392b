"""`rebalancer run`: the daemon against a real cluster, with its log on standard error."""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TextIO

import anyio

from rebalancer import daemon
from rebalancer.control.clock import SystemClock
from rebalancer.control.cycle import CycleParams
from rebalancer.domain.report import Report
from rebalancer.kube.client import connect
from rebalancer.kube.lease import LeaseParams
from rebalancer.present import log
from rebalancer.settings import Given, Settings, load, rows


def run(given: Given) -> None:
    """Until a signal comes. Raises SettingsError, ConfigError or ServerError before it begins."""
    settings = load(given)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    anyio.run(_serve, settings, given)


async def _serve(settings: Settings, given: Given) -> None:
    clock = SystemClock()
    api = await connect(settings.access(), monotonic=clock.monotonic)
    lease = settings.lease_params(_identity())

    def read(found: Settings) -> daemon.DaemonParams:
        params = daemon_params(found, found.lease_params(lease.identity))
        return replace(params, access=found.access(), settings=tuple(asdict(row) for row in rows(found, given)))

    runtime = daemon.Runtime(clock=clock, signals=True, reload=lambda: read(load(given)))
    unread = anyio.Event()
    log_lines = Log(sys.stderr, as_json=settings.log.format == "json", unread=unread.set)
    await daemon.run(read(settings), api, runtime, on_report=log_lines.observe, stop=unread)


def daemon_params(settings: Settings, lease: LeaseParams, *, http: bool = True) -> daemon.DaemonParams:
    """The settings as the daemon takes them; a simulated one serves no HTTP."""
    cycle = CycleParams(
        mode=settings.mode,
        planning=settings.planning(),
        limits=settings.budget(),
        calendar=settings.calendar(),
        paused=settings.paused,
        own_namespace=lease.namespace,
    )
    return daemon.DaemonParams(
        cycle=cycle,
        executor=settings.executor(),
        loop=settings.loop(),
        lease=lease,
        events=settings.event_params(lease),
        http=settings.http_params() if http else None,
    )


class Log:
    """Writes what `observe`d Reports have to say. A steady cluster is a quiet log.

    `unread` is called once nobody reads it any more: without its log nobody could say what the daemon does and why.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, unread: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self._as_json = as_json
        self._unread = unread
        self._before: Report | None = None

    def observe(self, report: Report) -> None:
        """Takes over a cycle's report."""
        try:
            for line in log.lines(report, self._before, as_json=self._as_json):
                print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            self._unread()
        self._before = report


def _identity() -> str:
    """The pod's name; elsewhere the host's, with something that no other process has."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
