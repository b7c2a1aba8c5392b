"""Windows, blackouts and pauses: what waits says why and until when, and nothing begins before."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import anyio
import pytest
from control.harness import SLOW, Story, hot_pair, nodes, params, posts, tell, vms

from rebalancer import daemon
from rebalancer.policy.windows import Calendar, parse
from rebalancer.sim.faults import Refuse, Rule, Script

HOUR = 3600.0


def planned(windows: str = "", blackouts: str = "") -> daemon.DaemonParams:
    settings = params()
    calendar = Calendar(windows=parse(windows), blackouts=parse(blackouts))
    return replace(settings, cycle=replace(settings.cycle, calendar=calendar))


def two_waves() -> list[dict[str, object]]:
    """Two nodes to cool, one move at a time."""
    return [*nodes("a", "b", "c", "d"), *vms("a", "v0", "v1", "v2", "v3"), *vms("b", "w0", "w1", "w2", "w3")]


@pytest.mark.slow
def test_a_plan_waits_for_its_window_is_made_anew_with_the_cluster_and_begins_on_time() -> None:
    """The simulated world begins at 2026-11-20 22:00:00 UTC."""

    async def scenario(story: Story) -> None:
        report = await story.until("Held")
        assert report.plan is not None
        assert report.sentence.text == (
            f"Plan {report.plan.id} with 1 move in 1 wave waits: no window is open; migrations begin again at "
            "2026-11-21 02:00 CET"
        )
        (held,) = report.held
        assert (held.reason, held.vmi) == ("OutsideWindows", report.plan.moves[0].vmi)
        assert held.until - report.time < 3 * HOUR
        story.world.cordon(report.plan.moves[0].target)
        await anyio.sleep(60)
        assert story.last.plan is not None
        assert story.last.plan.moves[0].target != report.plan.moves[0].target
        started = await story.until("Started", 4 * HOUR)
        assert 0 <= started.time - held.until < 30

    tell(hot_pair(), scenario, settings=planned("0 2 * * * 4h Europe/Berlin"))


def test_no_wave_begins_after_the_window_has_closed_and_what_runs_goes_on() -> None:
    async def scenario(story: Story) -> None:
        started = await story.until("Started")
        await story.until("Dropped")
        assert story.texts("Dropped")[0].endswith("no window is open; migrations begin again at 2026-11-21 22:00 UTC")
        assert [outcome.result for outcome in story.last.done] == ["Succeeded"]
        await anyio.sleep(HOUR)
        assert story.kinds[-1] == "Held"
        assert len(story.migrations()) == len(started.started) == 1

    settings = planned("0 22 * * * 2m")
    settings = replace(settings, cycle=replace(settings.cycle, limits=replace(settings.cycle.limits, per_cluster=1)))
    tell(two_waves(), scenario, settings=settings, plane=SLOW)


@pytest.mark.slow
def test_a_plan_that_waits_has_nothing_left_to_do_when_the_reason_for_it_goes() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Held")
        story.world.stop_vm("bank", "v0")
        await story.until("Balanced")
        await anyio.sleep(6 * HOUR)
        assert story.writes() == []

    tell(hot_pair(), scenario, settings=planned(blackouts="0 0 * * * 26h"))


def test_a_plan_of_which_nothing_has_begun_is_dropped_when_the_reason_for_it_goes() -> None:
    async def scenario(story: Story) -> None:
        plan = (await story.until("Held")).plan
        assert plan is not None
        other = {"bank/v1": "v2"}.get(plan.moves[0].vmi, "v1")
        story.world.stop_vm("bank", other)
        await story.until("Dropped")
        assert story.texts("Dropped") == [f"Dropped plan {plan.id}: what it was made for has gone"]
        await story.until("Balanced")
        assert [entry.code for entry in story.writes() if entry.user] == [429]

    throttle = Rule(fault=Refuse(code=429, retry_after_seconds=300), matches=posts)
    tell(hot_pair(), scenario, faults=Script([throttle]))


def test_paused_by_the_settings() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(60)
        assert story.last.sentence.text == (
            "Paused: by the settings; nothing new is started until REBALANCER_PAUSED is false"
        )
        assert story.writes() == []

    settings = params()
    tell(hot_pair(), scenario, settings=replace(settings, cycle=replace(settings.cycle, paused=True)))


def test_paused_by_a_signal_at_once_and_resumed_by_the_next() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)
        await story.until("Paused", 20)
        assert story.last.sentence.text == (
            "Paused: by SIGUSR1 at 2026-11-20 22:00:00 UTC; nothing new is started until SIGUSR1 comes again, "
            "or the daemon is restarted"
        )
        await anyio.sleep(HOUR)
        assert story.writes() == []
        os.kill(os.getpid(), signal.SIGUSR1)
        await story.until("Started", 20)

    tell(hot_pair(), scenario, signals=True)
