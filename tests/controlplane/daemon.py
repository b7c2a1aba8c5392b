"""The daemon as a process of its own, with an identity of its own, and the commands that people run beside it."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from controlplane import chart
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object
from controlplane.processes import Launcher

import rebalancer
import rebalancer.daemon
from rebalancer.cli import serve
from rebalancer.control.clock import SystemClock
from rebalancer.domain.frozen import EMPTY
from rebalancer.kube.cache_params import CACHE_DEFAULTS, CacheParams
from rebalancer.kube.client import connect
from rebalancer.kube.transport import Api
from rebalancer.settings import load
from rebalancer.settings.model import PREFIX

DRY_RUN, ACTIVE = "dry-run", "active"
USER = f"system:serviceaccount:{chart.NAME}:{chart.NAME}"
COMMAND = (sys.executable, "-m", "rebalancer")
# A VM may move again at once and nothing waits long: what keeps a daemon from moving too much must be its plans.
QUICK = {
    "REBALANCER_HOLD_SECONDS": "1",
    "REBALANCER_INTERVAL_SECONDS": "2",
    "REBALANCER_LIMITS__COOLDOWN_SECONDS": "0",
    "REBALANCER_LIMITS__COOLDOWN_MAX_SECONDS": "0",
    "REBALANCER_LIMITS__PER_HOUR": "1000",
    "REBALANCER_SOLVER__SECONDS": "5",
}
POLL_SECONDS = 0.1


@dataclass(slots=True)
class Daemon:
    """A running `rebalancer run`. `read` gives its log, whose lines are JSON, one for each cycle that has news."""

    read: Callable[[], str]
    ended: Callable[[], bool] = lambda: False

    def said(self) -> list[Object]:
        """Every log line so far."""
        lines = self.read().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def messages(self, *kinds: str) -> list[str]:
        """The words of the log lines of some kinds, or of all."""
        return [line["message"] for line in self.said() if not kinds or line["kind"] in kinds]

    async def says(self, kind: str, *words: str, seconds: float = 30) -> str:
        """Waits for a log line of a kind with all these words, and gives it."""
        return await self._until(lambda: self.messages(kind), words, f"no {kind} with {words}", seconds)

    async def logs(self, *words: str, seconds: float = 30) -> str:
        """Waits for any line with all these words."""
        return await self._until(lambda: self.read().splitlines(), words, f"no line with {words}", seconds)

    async def _until(self, look: Callable[[], list[str]], words: Sequence[str], missing: str, seconds: float) -> str:
        with anyio.move_on_after(seconds):
            while not self.ended():
                for text in look():
                    if all(word in text for word in words):
                        return text
                await anyio.sleep(POLL_SECONDS)
        raise AssertionError(f"{missing} within {seconds:g} s; it said:\n{self.read()}")


async def granted(plane: ControlPlane, mode: str) -> str:
    """The token of our ServiceAccount, with the roles that our chart gives it and nothing more."""
    return await chart.grant(plane, chart.NAME, await chart.rendered(mode=mode))


def settings(mode: str, kubeconfig: Path, namespace: str) -> dict[str, str]:
    """A daemon's environment."""
    return QUICK | {
        "REBALANCER_MODE": mode,
        "REBALANCER_KUBECONFIG": str(kubeconfig),
        "REBALANCER_LEASE__NAMESPACE": namespace,
        "REBALANCER_HTTP__HOST": "127.0.0.1",
        "REBALANCER_HTTP__PORT": "0",
        "REBALANCER_LOG__FORMAT": "json",
    }


@asynccontextmanager
async def daemon(plane: ControlPlane, mode: str, *, token: str = "", **more: str) -> AsyncIterator[Daemon]:
    """The daemon for as long as a `with` block; then it is asked to end, and must do so with exit code 0.

    Without a `token` it has the rights of our chart. `more` are environment variables.
    """
    token = token or await granted(plane, mode)
    number = len(list((plane.folder / "logs").glob("rebalancer-*.log")))
    kubeconfig = await plane.kubeconfig(f"rebalancer-{number}", token=token)
    environment = settings(mode, kubeconfig, chart.NAME) | {"PYTHONWARNINGS": "error"} | more
    launcher = Launcher()
    log = plane.folder / "logs" / f"rebalancer-{number}.log"
    process = await launcher.start("rebalancer", [*COMMAND, "run"], log=log, environment=environment)
    try:
        yield Daemon(log.read_text, process.ended)
        assert not process.ended(), process.tail()
        await process.stop()
        assert process.exit_code == 0, process.tail()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        if not process.ended():
            await process.kill()
        await run_sync(launcher.close)


@asynccontextmanager
async def embedded(
    plane: ControlPlane,
    mode: str,
    *,
    token: str,
    namespace: str = chart.NAME,
    wrap: Callable[[Api], Api] = lambda api: api,
    cache: CacheParams = CACHE_DEFAULTS,
    more: Mapping[str, str] = EMPTY,
) -> AsyncIterator[Daemon]:
    """The same daemon in this process: quicker to start, and with a transport that a test may `wrap`."""
    kubeconfig = await plane.kubeconfig(f"embedded-{namespace}", token=token)
    environment = settings(mode, kubeconfig, namespace) | dict(more)
    given = {name.removeprefix(PREFIX).replace("__", ".").lower(): value for name, value in environment.items()}
    loaded = load(given)
    clock, out = SystemClock(), io.StringIO()
    api = wrap(await connect(loaded.access(), monotonic=clock.monotonic))
    params = replace(serve.daemon_params(loaded, loaded.lease_params(namespace), http=False), cache=cache)
    warnings = logging.StreamHandler(out)
    logging.getLogger(rebalancer.__name__).addHandler(warnings)
    stop = anyio.Event()
    run = partial(
        rebalancer.daemon.run,
        params,
        api,
        rebalancer.daemon.Runtime(clock=clock),
        on_report=serve.Log(out, as_json=True).observe,
        stop=stop,
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield Daemon(out.getvalue)
            stop.set()
    finally:
        logging.getLogger(rebalancer.__name__).removeHandler(warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command printed."""

    out: str
    err: str
    code: int


async def command(plane: ControlPlane, *arguments: str, identity: str = "admin", **settings: str) -> Answer:
    """`rebalancer ...` as a person types it, with a kubeconfig of one of identities.TOKENS."""
    kubeconfig = await plane.kubeconfig(identity)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(plane.folder),
        "REBALANCER_KUBECONFIG": str(kubeconfig),
        **settings,
    }
    done = await anyio.run_process(
        [*COMMAND, *arguments], env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return Answer(out=done.stdout.decode(), err=done.stderr.decode(), code=done.returncode)
