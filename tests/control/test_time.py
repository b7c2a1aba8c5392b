"""Clocks that jump, and a process that is frozen and wakes up."""

from __future__ import annotations

import time

import anyio
import pytest
from blockbuster import BlockingError
from control.harness import MIGRATIONS, SLOW, Jumping, Story, client, hot_pair, params, tell

from rebalancer.control.offload import inline
from rebalancer.daemon import Runtime, run
from rebalancer.domain.report import Report
from rebalancer.sim.faults import Entry, Fault, Faults
from rebalancer.sim.world import LoopClock

LEASES = "leases"


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
@pytest.mark.parametrize("kind", ["NotSynced", "Planned", "Started", "Running"])
def test_the_wall_clock_may_jump_by_an_hour_at_any_moment(jump: float, kind: str) -> None:
    """One migration, no deadline passed, no leadership lost, nothing begun twice."""
    clock = Jumping()

    async def scenario(story: Story) -> None:
        await story.until(kind)
        clock.wall += jump
        await story.until("Finished")
        await anyio.sleep(900)
        (migration,) = story.migrations()
        assert migration["status"]["phase"] == "Succeeded"
        assert story.kinds[-1] == "Balanced"
        assert not {"Dropped", "Broken", "Failed"} & set(story.kinds)
        led = [report.leader for report in story.reports]
        assert led[led.index(True) :] == [True] * led.count(True)

    tell(hot_pair(), scenario, plane=SLOW, clock=clock)


class Freezing(Faults):
    """Stops the daemon when its request of a number has been answered, for 30 s: its lease lasts for 15.

    The clocks of a process that is stopped go on, and when it wakes up it goes on where it was. `thawed` is the last
    request before that.
    """

    def __init__(self, clock: Jumping, number: int) -> None:
        self._clock = clock
        self._left = number
        self.thawed = 0

    def answer(self, entry: Entry) -> Fault | None:
        if entry.user == "a" and entry.verb != "watch":
            self._left -= 1
            if self._left == 0:
                self._clock.frozen += 30.0
                self.thawed = entry.number
        return None


@pytest.mark.parametrize("number", range(1, 31))
def test_a_process_that_was_frozen_longer_than_its_lease_writes_nothing_before_it_leads_again(number: int) -> None:
    clock = Jumping()
    freezing = Freezing(clock, number)

    async def scenario(story: Story) -> None:
        await story.until("Balanced")
        await anyio.sleep(60)
        assert freezing.thawed
        later = [e for e in story.world.api.log if e.user == "a" and e.number > freezing.thawed and e.writes]
        written = [entry.target.resource.plural for entry in later if entry.target]
        if MIGRATIONS in written:
            assert LEASES in written[: written.index(MIGRATIONS)], "a lease renewed after waking up comes first"
        assert len(story.migrations()) == 1

    tell(hot_pair(), scenario, faults=freezing, clock=clock)


def test_what_blocks_the_event_loop_fails_these_tests() -> None:
    """The guard around every test here sees a daemon that sleeps."""
    caught: list[str] = []

    def listen(_: Report) -> None:
        with pytest.raises(BlockingError):
            time.sleep(0.001)
        caught.append("sleep")

    async def scenario(story: Story) -> None:
        runtime = Runtime(clock=LoopClock(), offload=inline, random=lambda: 0.5)
        with anyio.move_on_after(5):
            await run(params(), client(story), runtime, on_report=listen)

    tell(hot_pair(), scenario, start=False)
    assert caught
