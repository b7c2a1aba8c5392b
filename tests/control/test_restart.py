"""What a restart must not forget, and settings that change without one."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace

import anyio
import pytest
from control.harness import SLOW, Story, another, hot_pair, params, tell

from rebalancer import daemon
from rebalancer.control.backoff import BackoffParams
from rebalancer.control.cycle import DRY_RUN
from rebalancer.control.keep import keep
from rebalancer.control.lag import LagMeter
from rebalancer.control.recall import endings
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import MANAGED_BY, MANAGER, TARGET
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration, MigrationState
from rebalancer.kube.retry import Surroundings
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import Mishaps
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import LoopClock

NOW = 1_000_000.0
OURS = FrozenMap({MANAGED_BY: MANAGER})


def ended(name: str, ago: float, phase: str = "Failed", **more: object) -> Migration:
    """A migration of ours of bank/NAME to node b."""
    found = Migration(
        namespace="bank",
        name=f"rb-{name}-{ago:g}",
        uid=f"{name}-{ago:g}",
        vmi=name,
        phase=phase,
        labels=OURS,
        annotations=FrozenMap({TARGET: "b"}),
        phase_times=FrozenMap({phase: NOW - ago}),
        created=NOW - ago - 60,
        state=MigrationState(failure_reason="no luck"),
    )
    return replace(found, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("migration", "told"),
    [
        (ended("v", 60), ("bank/v", "b", 60.0, "no luck")),
        (ended("v", -60), ("bank/v", "b", 0.0, "no luck")),
        (ended("v", 60, "Succeeded"), ("bank/v", "b", 60.0, "")),
        (
            ended("v", 60, "Succeeded", state=MigrationState(target_node="c")),
            ("bank/v", "b", 60.0, "it landed on c instead of b"),
        ),
        (ended("v", 86_401), None),
        (ended("v", 60, "Running"), None),
        (ended("v", 60, labels=FrozenMap()), None),
        (ended("v", 60, state=MigrationState(abort_requested=True)), None),
    ],
    ids=["failed", "clock behind", "succeeded", "elsewhere", "long ago", "runs", "not ours", "withdrawn"],
)
def test_what_a_migration_tells_a_new_leader(migration: Migration, told: tuple[str, str, float, str] | None) -> None:
    found = [(e.vmi, e.target, e.ago_seconds, e.failure) for e in endings([migration, migration], Snapshot(), NOW)]
    assert found == ([told] if told else [])


def test_migrations_are_told_in_the_order_in_which_they_ended() -> None:
    found = endings([ended("b", 10), ended("c", 30), ended("a", 20)], Snapshot(), NOW)
    assert [ending.vmi for ending in found] == ["bank/c", "bank/a", "bank/b"]


class Failing(Mishaps):
    """Every transfer fails."""

    def transfer(self, vmi: Obj) -> str:
        return "the network is gone"


def restless(**backoff: float) -> daemon.DaemonParams:
    """A daemon that rests for its back-offs only."""
    settings = params(cooldown_seconds=0.0)
    found = BackoffParams(**backoff)  # type: ignore[arg-type]
    return replace(settings, cycle=replace(settings.cycle, backoff=found))


def test_a_vm_whose_migration_failed_rests_on_in_the_next_life() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Dropped")
        (first,) = story.migrations()
        story.stop.set()
        async with another(story, restless()) as twin:
            plan = (await twin.until("Planned")).plan
            assert plan is not None
            assert plan.moves[0].vmi != f"bank/{first['spec']['vmiName']}"

    tell(hot_pair(), scenario, settings=restless(), mishaps=Failing())


def test_an_open_breaker_stays_open_in_the_next_life_until_the_same_moment() -> None:
    settings = restless(vm_seconds=10, vm_cap_seconds=10, node_seconds=5, node_cap_seconds=5, streak=3)

    async def scenario(story: Story) -> None:
        broken = await story.until("Broken", 7200)
        story.stop.set()
        number = len(story.migrations())
        async with another(story, settings) as twin:
            again = await twin.until("Broken", 60)
            # The API gives times in whole seconds: the two sentences may differ by one.
            assert again.sentence.text[:60] == broken.sentence.text[:60]
            await anyio.sleep(1500)
            assert twin.kinds[-1] == "Broken"
            assert len(story.migrations()) == number
            await twin.until("Started", 600)

    tell(hot_pair(), scenario, settings=settings, mishaps=Failing())


def test_settings_are_read_again_by_signal_and_by_themselves_and_the_plan_in_force_is_dropped() -> None:
    latest = [params(DRY_RUN)]

    async def scenario(story: Story) -> None:
        await story.until("DryRun")
        latest[0] = params()
        os.kill(os.getpid(), signal.SIGHUP)
        await story.until("Started", 10)
        assert story.last.mode == "active"
        latest[0] = params(DRY_RUN)
        await story.until("Dropped", 40)
        assert story.texts("Dropped")[0].endswith(": the settings have changed")
        assert len(story.migrations()) == 1

    tell(hot_pair(), scenario, settings=params(DRY_RUN), plane=SLOW, signals=True, reload=lambda: latest[0])


def test_settings_that_cannot_be_used_change_nothing_and_are_a_warning_and_an_event() -> None:
    problems = ["REBALANCER_MODE=on: allowed is dry-run or active\nREBALANCER_CPU__HIGH=101: allowed is a number"]

    def read() -> daemon.DaemonParams:
        if problems:
            raise ValueError(problems[0])
        return replace(params(), lease=None)

    async def scenario(story: Story) -> None:
        await anyio.sleep(60)
        (warning,) = story.last.set_aside
        assert warning.sentence() == (
            "Settings (reload) is set aside: REBALANCER_MODE=on: allowed is dry-run or active; "
            "REBALANCER_CPU__HIGH=101: allowed is a number; the settings from before stay in force"
        )
        assert [e["reason"] for e in story.world.store.items("events")].count("SettingsNotApplied") == 1
        problems.clear()
        await anyio.sleep(60)
        (warning,) = story.last.set_aside
        assert warning.reason == "what has changed of lease takes effect after a restart"
        assert story.last.leader

    tell(hot_pair(), scenario, reload=read)


def test_what_a_part_raises_ends_neither_it_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Only a bug gets there; it is told, and tried again ever more slowly."""

    async def main() -> int:
        calls = 0

        async def part() -> None:
            nonlocal calls
            calls += 1
            raise ZeroDivisionError(str(calls))

        clock = LoopClock()
        around = Surroundings(monotonic=clock.monotonic, now=clock.now, random=lambda: 0.5)
        with anyio.move_on_after(600):
            await keep("the part", part, around)
        return calls

    with caplog.at_level(logging.ERROR):
        calls = run_virtual(main)
    assert 10 < calls < 30
    assert caplog.records[0].getMessage() == "the part failed and is begun again"


def test_the_lag_meter_tells_the_longest_delay_of_a_minute() -> None:
    async def main() -> list[float]:
        clock = LoopClock()
        jump = [0.0]
        meter = LagMeter(lambda: clock.monotonic() + jump[0])
        told = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(meter.run)
            await anyio.sleep(10)
            told.append(meter.longest_seconds)
            jump[0] += 0.4
            await anyio.sleep(50)
            told.append(meter.longest_seconds)
            await anyio.sleep(15)
            told.append(meter.longest_seconds)
            tasks.cancel_scope.cancel()
        return told

    assert run_virtual(main) == pytest.approx([0.0, 0.4, 0.0], abs=1e-6)
