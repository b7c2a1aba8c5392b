"""`rebalancer demo`, which `make run` starts: a simulated cluster with some life in it, and the daemon on it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import anyio

from rebalancer import daemon
from rebalancer.cli.serve import daemon_params
from rebalancer.control.offload import inline
from rebalancer.control.server import HttpParams
from rebalancer.kube.transport import Api, plain_tcp
from rebalancer.settings import Given, SettingsError, load, rows
from rebalancer.sim import demo
from rebalancer.sim.display import shown

UNLESS_GIVEN = {"mode": "active", "limits.per_hour": "120"}
"""Settings that differ here: it acts, and does not rest for most of an hour after its first thirty migrations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`speed` times faster than the wall clock, for `seconds` of the cluster's own time (0: until interrupted).

    `port` is where its API server listens on 127.0.0.1 for kubectl, 0 for any free one.
    """

    speed: float
    seed: int
    seconds: float
    port: int


def run(wanted: Wanted, given: Given) -> None:
    """Until interrupted, for the time that is wanted, or until nobody reads on.

    Raises SettingsError, and BrokenPipeError in the last case.
    """
    settings = load({**_unless_set(), **given})
    # The lease has nobody to compete with, and would be lost on a machine that cannot keep up with the speed.
    params = replace(
        daemon_params(settings, settings.lease_params("demo")),
        lease=None,
        http=HttpParams(host="127.0.0.1", port=_free_port()),
        settings=tuple(asdict(row) for row in rows(settings, given)),
    )

    async def show(cluster: demo.Demo) -> None:
        assert params.http is not None
        page = f"http://127.0.0.1:{params.http.port}"
        title = f"A simulated cluster, {wanted.speed:g}x as fast; see {page} or kubectl -s {cluster.url}"
        unread = anyio.Event()
        with shown(title, sys.stdout, lambda: _life(cluster), unread=unread.set) as on_report:
            runtime = daemon.Runtime(clock=cluster.clock, offload=inline)
            running = daemon.run(params, Api(plain_tcp(cluster.url)), runtime, on_report=on_report, stop=unread)
            with suppress(TimeoutError):
                await asyncio.wait_for(running, wanted.seconds or None)
        if unread.is_set():
            raise BrokenPipeError

    try:
        demo.run_demo(show, seed=wanted.seed, speed=wanted.speed, port=wanted.port)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SettingsError(f"--port {wanted.port}: {error.strerror}; 0 takes any free one") from None


def _free_port() -> int:
    """A port for the page. Nobody has taken it a moment later, as a rule."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _life(cluster: demo.Demo) -> list[tuple[float, str]]:
    """What people did. Migrations are left out: the daemon's own sentences tell of them."""
    return [(time, text) for time, text in cluster.view().events if "→" not in text and "migration" not in text]


def _unless_set() -> dict[str, str]:
    here = {name.upper() for name in os.environ}
    return {
        name: value
        for name, value in UNLESS_GIVEN.items()
        if f"REBALANCER_{name.replace('.', '__')}".upper() not in here
    }
