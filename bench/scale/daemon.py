"""The daemon in a process of its own, measured from inside: `python -m bench.scale.daemon PORT SECONDS` prints JSON.

CPU seconds are the process's own, threads included, so that other processes on the machine do not count. How long the
event loop was blocked is how late a timer of 5 ms was. On a busy machine that holds others' time; the CPU that the
loop's thread used from one timer to the next does not, nor does it hold what other threads did beside it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import anyio

from rebalancer.control.cycle import CycleParams
from rebalancer.daemon import DaemonParams, run
from rebalancer.domain.report import Report
from rebalancer.kube.transport import Api, plain_tcp

TICK_SECONDS = 0.005
SETTLE_SECONDS = 10.0
RATE = 1_000


class Loop:
    """How late timers were, and how much CPU the loop's own thread, and all threads, used from one to the next."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.own: list[float] = []
        self.all: list[float] = []

    async def run(self) -> None:
        """Measures until cancelled."""
        while True:
            due, own, all_threads = time.monotonic() + TICK_SECONDS, time.thread_time(), time.process_time()
            await anyio.sleep(TICK_SECONDS)
            self.late.append(time.monotonic() - due)
            self.own.append(time.thread_time() - own)
            self.all.append(time.process_time() - all_threads)

    def take(self) -> dict[str, float]:
        """What was seen since the last time, in milliseconds."""
        late, own, all_threads = sorted(self.late), max(self.own), max(self.all)
        self.late, self.own, self.all = [], [], []
        p99 = late[int(0.99 * (len(late) - 1))]
        return {name: 1000 * value for name, value in
                (("late", late[-1]), ("late_p99", p99), ("own", own), ("all", all_threads))}  # fmt: skip


def memory() -> dict[str, float]:
    """Resident memory now and at its highest, in MiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    now = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    return {"now": now / 1024, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


async def _rate(port: int, events: int) -> None:
    async with aiohttp.ClientSession() as session:
        await session.post(f"http://127.0.0.1:{port}/rate", params={"events": str(events)})


async def measure(port: int, seconds: float) -> dict[str, object]:
    """The figures."""
    reports: list[Report] = []
    loop = Loop()
    params = DaemonParams(cycle=CycleParams(), lease=None, events=None)

    async def until(reached: Callable[[Report], bool]) -> None:
        while not (reports and reached(reports[-1])):  # noqa: ASYNC110 - a measuring process, not the measured one
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        before = time.process_time(), time.monotonic()
        api = Api(plain_tcp(f"http://127.0.0.1:{port}"))

        async def daemon() -> None:
            await run(params, api, on_report=reports.append)

        tasks.start_soon(daemon)
        await until(lambda report: report.synced)
        sync = {"cpu": time.process_time() - before[0], "wall": time.monotonic() - before[1]}
        told = [report for report in reports if report.synced]
        figures: dict[str, object] = {"sync": sync, "sync_loop": loop.take(), "sync_memory": memory()}
        figures["first_cycle"] = told[-1].seconds
        await anyio.sleep(SETTLE_SECONDS)
        loop.take()
        await _rate(port, RATE)
        await anyio.sleep(SETTLE_SECONDS)
        loop.take()
        cpu, wall, requests, cycles = time.process_time(), time.monotonic(), api.requests, len(reports)
        await anyio.sleep(seconds)
        spent = time.monotonic() - wall
        figures |= {
            "steady": {"share": (time.process_time() - cpu) / spent, "cycles": len(reports) - cycles},
            "steady_loop": loop.take(),
            "steady_memory": memory(),
            "cycle_seconds": max(report.seconds for report in reports[cycles:]),
            "requests": api.requests - requests,
            "sentence": reports[-1].sentence.text,
        }
        await _rate(port, 0)
        tasks.cancel_scope.cancel()
    return figures


if __name__ == "__main__":
    print(json.dumps(anyio.run(measure, int(sys.argv[1]), float(sys.argv[2]))))
