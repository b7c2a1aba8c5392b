"""Processes of the control plane: started with a log, watched while awaited, ended by their own process id."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

POLL_SECONDS = 0.05
TAIL_LINES = 25
KILL_SECONDS = 30
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


class ProcessError(Exception):
    """A part of the control plane ended, or was not ready in time; the message has the end of its log."""


class Launcher:
    """Starts processes from one thread that lives as long as they may.

    Linux ends a child with the *thread* that started it (prctl's PDEATHSIG), which is how none outlives a test run that
    was killed; a thread of a pool that comes and goes would take the child with it.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="controlplane-launcher")

    async def start(
        self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start one process; its output is added to `log`."""
        start = partial(_popen, list(command), log, dict(environment or {}))
        return Process(name, await asyncio.get_running_loop().run_in_executor(self._executor, start), log)

    def close(self) -> None:
        """Call when every process has ended."""
        self._executor.shutdown(wait=True)


def _popen(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us alone, so that we end the parts in their order and etcd last.
    with log.open("ab") as output:
        return subprocess.Popen(
            [*DIE_WITH_PARENT, *command] if shutil.which(DIE_WITH_PARENT[0]) else command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(log.parent), "GOGC": "400"} | environment,
            start_new_session=True,
        )


class Process:
    """One running part."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def ended(self) -> bool:
        """Whether it has exited."""
        return self._popen.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """What it ended with; negative the signal that ended it, None while it runs."""
        return self._popen.poll()

    async def ready(self, check: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Wait until `check` says yes; ProcessError when the process ends before, or the time does."""
        with anyio.move_on_after(seconds):
            while not self.ended():
                if await check():
                    return
                await anyio.sleep(POLL_SECONDS)
        why = f"ended with {self._popen.returncode}" if self.ended() else f"was not ready after {seconds:g} s"
        raise ProcessError(f"{self.name} {why}\n{await run_sync(self.tail)}")

    async def stop(self, *, seconds: float = 10) -> None:
        """Ask it to end, after `seconds` make it end, and wait until it has gone."""
        self._popen.send_signal(signal.SIGTERM)
        if not await run_sync(self._gone, seconds):
            await self.kill()

    async def kill(self) -> None:
        """End it as a crash would, and wait until it has gone."""
        self._popen.kill()
        await run_sync(self._gone, KILL_SECONDS)

    def _gone(self, seconds: float) -> bool:
        try:
            self._popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- {self.name}: last lines of {self.log.name}", *text[-lines:]])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now; all are held at once so that no two are the same."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
