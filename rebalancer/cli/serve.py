"""`rebalancer run`: the daemon against a real cluster, with its log, HTTP endpoint and Events."""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid

import anyio

from rebalancer import daemon
from rebalancer.control.clock import SystemClock
from rebalancer.control.cycle import CycleParams
from rebalancer.domain.report import Report
from rebalancer.kube.client import connect
from rebalancer.kube.lease import LeaseParams
from rebalancer.outlets.events import EventParams, EventWriter
from rebalancer.outlets.http import Endpoint, listening
from rebalancer.outlets.log import Log
from rebalancer.settings import Given, Settings, load


def run(given: Given) -> None:
    """Until a signal comes. Raises SettingsError, ConfigError or ListenError before it begins."""
    settings = load(given)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    anyio.run(_serve, settings)


async def _serve(settings: Settings) -> None:
    clock = SystemClock()
    lease = settings.lease_params(_identity())
    endpoint = Endpoint(clock, settings.http_params())
    log = Log(sys.stderr, as_json=settings.log.format == "json")
    # Events have connections of their own, so that they never stand before a migration or a renewal of the lease.
    async with (
        await connect(settings.access(), monotonic=clock.monotonic) as events_api,
        listening(endpoint, settings.http_params()),
        anyio.create_task_group() as tasks,
    ):
        writer = EventWriter(events_api, clock, _event_params(lease))
        if settings.events:
            tasks.start_soon(writer.run)

        def on_report(report: Report) -> None:
            log.observe(report)
            endpoint.observe(report)
            if settings.events:
                writer.observe(report)

        api = await connect(settings.access(), monotonic=clock.monotonic)
        runtime = daemon.Runtime(clock=clock, signals=True)
        await daemon.run(daemon_params(settings, lease), api, runtime, on_report=on_report)
        tasks.cancel_scope.cancel()


def daemon_params(settings: Settings, lease: LeaseParams | None) -> daemon.DaemonParams:
    """The settings as the daemon takes them; without a lease it competes with nobody."""
    cycle = CycleParams(
        mode=settings.mode,
        planning=settings.planning(),
        limits=settings.budget(),
        own_namespace=lease.namespace if lease else CycleParams().own_namespace,
    )
    return daemon.DaemonParams(cycle=cycle, lease=lease)


def _identity() -> str:
    """The pod's name; elsewhere the host's, with something that no other process has."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def _event_params(lease: LeaseParams) -> EventParams:
    return EventParams(namespace=lease.namespace, name=lease.name, identity=lease.identity)
