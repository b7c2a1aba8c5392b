"""Budgets when the migrations that they count are gone, and when the clock by which they count has jumped."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from control.harness import (
    SLOW,
    Jumping,
    Story,
    another,
    hot_pair,
    loop_time,
    migrate,
    nodes,
    params,
    posts,
    retire,
    tell,
    vms,
)

from rebalancer.sim.faults import Rule, Script, Slow

HOUR = 3600.0


def posted(story: Story) -> int:
    return sum(entry.method == "POST" and entry.code == 201 for entry in story.writes())


def test_migrations_of_vms_that_are_gone_still_count_within_the_hour() -> None:
    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        begun = loop_time()
        await story.until("Finished")
        story.world.stop_vm(*move.vmi.split("/"))
        await anyio.sleep(30)
        assert story.migrations() == []
        retire(story, "a")
        held = await story.until("Held", 300)
        assert held.sentence.text.startswith("Wave 1 of ")
        assert "1 migrations began within an hour, 1 are allowed, until 2026-11-20 23:00:" in held.sentence.text
        await anyio.sleep(begun + HOUR - loop_time() - 1)
        assert posted(story) == 1
        await story.until("Started", 60)
        assert posted(story) == 2

    tell(hot_pair(), scenario, settings=params(per_hour=1, cooldown_seconds=0.0))


def test_migrations_that_gave_way_count_within_the_hour() -> None:
    """Each target is cordoned as soon as a VM is on its way there."""

    async def scenario(story: Story) -> None:
        for _ in range(2):
            (move,) = (await story.until("Started")).started
            await anyio.sleep(3)
            story.world.cordon(move.target)
            await story.until("Dropped")
        await story.until("Held", 300)
        assert story.migrations() == []
        assert "2 migrations began within an hour" in story.last.sentence.text

    items = [*nodes("a", "b", "c", "d"), *vms("a", "v0", "v1", "v2", "v3")]
    tell(items, scenario, settings=params(per_hour=2, cooldown_seconds=0.0), plane=SLOW)


@pytest.mark.slow
def test_a_clock_that_jumps_ahead_makes_no_hour_shorter() -> None:
    clock = Jumping()

    async def scenario(story: Story) -> None:
        await story.until("Started")
        begun = loop_time()
        await story.until("Finished")
        clock.wall += 2 * HOUR
        retire(story, "a")
        await story.until("Held", 300)
        await anyio.sleep(begun + HOUR - loop_time() - 1)
        assert posted(story) == 1
        await story.until("Started", 60)

    tell(hot_pair(), scenario, settings=params(per_hour=1, cooldown_seconds=0.0), clock=clock)


@pytest.mark.parametrize("stays", [True, False])
def test_after_a_restart_what_exists_is_what_is_known(stays: bool) -> None:
    """All that the next leader can know of the hour is what the API tells."""

    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        await story.until("Finished")
        story.stop.set()
        if not stays:
            story.world.stop_vm(*move.vmi.split("/"))
        await anyio.sleep(30)
        retire(story, "a")
        async with another(story, replace(params(per_hour=1, cooldown_seconds=0.0))) as twin:
            await twin.until("Held" if stays else "Started", 300)

    tell(hot_pair(), scenario, settings=params(per_hour=1, cooldown_seconds=0.0))


def test_what_others_begin_while_the_api_server_is_slow_counts_before_the_next_of_ours() -> None:
    """Three nodes are too full; while the first POST is answered, people begin two migrations of the three allowed."""

    async def scenario(story: Story) -> None:
        await story.until("Planned")
        await anyio.sleep(2)
        assert posted(story) == 1
        for name in ("x0", "x1"):
            migrate(story, name)
        await story.until("Held", 60)
        assert posted(story) == 1
        assert "3 migrations began within an hour, 3 are allowed" in story.last.sentence.text

    items = [*nodes(*"abcdefgh"), *vms("g", "x0", "x1")]
    for name in "abc":
        items += vms(name, *(f"{name}{number}" for number in range(4)))
    slow = Script([Rule(fault=Slow(seconds=4.0), matches=posts, times=9, after=True)])
    tell(items, scenario, settings=params(per_hour=3), faults=slow)
