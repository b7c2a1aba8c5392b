"""One run: a contestant at work on the start state until nothing moves any more."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from controlplane.daemon import command
from controlplane.harness import ControlPlane

from bench.descheduler.contestants import DAEMON, INTERVAL_SECONDS, Contestant
from bench.descheduler.judge import Judge
from bench.descheduler.start import started

QUIET_SECONDS = 3 * INTERVAL_SECONDS
LIMIT_SECONDS = 100
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run came to. `quiet_seconds` is the moment of the last change; `quiet` False: it was still at it."""

    contestant: str
    evictions: int
    migrations: int
    failed: int
    moved_again: int
    ended_hot: int
    hotspots: tuple[str, ...]
    violations: tuple[str, ...]
    highest: float
    quiet: bool
    quiet_seconds: float
    durations: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The start state, and what the planner proves about the least that cures it."""

    hotspots: int
    violations: int
    highest: float
    moves: dict[str, int]
    bound: dict[str, int]
    proven: dict[str, bool]
    hotspots_left: dict[str, int]
    violations_left: dict[str, int]


async def contest(contestant: Contestant, etcd: Path, folder: Path) -> Result:
    """Run one contestant once."""
    async with started(etcd, folder) as plane, anyio.create_task_group() as tasks:
        judge = Judge(plane.client())
        await tasks.start(judge.run)
        began = time.monotonic()
        async with contestant.running(plane):
            quiet = await _until_quiet(judge, began)
        asked = [event for event in await plane.audit() if event.subresource == "eviction"]
        tasks.cancel_scope.cancel()
    phases = [flight.phase for flight in judge.flights.values()]
    return Result(
        contestant=contestant.name,
        evictions=len(asked),
        migrations=len(phases),
        failed=phases.count("Failed"),
        moved_again=judge.moved_again(),
        ended_hot=judge.ended_hot(),
        hotspots=tuple(judge.hotspots()),
        violations=tuple(judge.violations()),
        highest=max(judge.shares().values()),
        quiet=quiet,
        quiet_seconds=max(judge.last() - began, 0.0),
        durations=tuple(judge.durations()),
    )


async def _until_quiet(judge: Judge, began: float) -> bool:
    """Wait until nothing has moved for several intervals; False where that does not come in time."""
    while True:
        now = time.monotonic()
        if not judge.busy() and now - max(judge.last(), began) >= QUIET_SECONDS:
            return True
        if now - began >= LIMIT_SECONDS:
            return False
        await anyio.sleep(POLL_SECONDS)


async def best(etcd: Path, folder: Path) -> Best:
    """Judge the start state, and ask the planner for the least that cures it at 80 % and down to 75 %."""
    async with started(etcd, folder) as plane, anyio.create_task_group() as tasks:
        judge = Judge(plane.client())
        await tasks.start(judge.run)
        plans = {low: await _plan(plane, low) for low in ("80", "75")}
        tasks.cancel_scope.cancel()
    return Best(
        hotspots=len(judge.hotspots()),
        violations=len(judge.violations()),
        highest=max(judge.shares().values()),
        moves={low: sum(len(wave["moves"]) for wave in plan["waves"]) for low, plan in plans.items()},
        bound={low: plan["bound"]["moves"] for low, plan in plans.items()},
        proven={low: plan["bound"]["proven"] for low, plan in plans.items()},
        hotspots_left={low: len(plan["after"]["hotspots"]) for low, plan in plans.items()},
        violations_left={low: len(plan["after"]["violations"]) for low, plan in plans.items()},
    )


async def _plan(plane: ControlPlane, low: str) -> dict[str, Any]:
    settings = DAEMON | {"REBALANCER_CPU__LOW": low, "REBALANCER_SOLVER__SECONDS": "30"}
    answer = await command(plane, "plan", "-o", "json", **settings)
    if answer.code:
        raise RuntimeError(answer.err)
    made: dict[str, Any] = json.loads(answer.out)
    return made
