"""Time that jumps, time that hurries, and randomness that depends on nothing but its subject."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from rebalancer.sim.chance import Dice
from rebalancer.sim.virtualtime import DeadlockError, ScaledLoop, VirtualLoop, run_virtual


def test_a_day_passes_in_no_time_and_to_the_second() -> None:
    async def main() -> list[float]:
        loop, moments = asyncio.get_running_loop(), []
        for _ in range(24):
            await asyncio.sleep(3600)
            moments.append(loop.time())
        return moments

    began = time.monotonic()
    assert run_virtual(main) == pytest.approx([3600.0 * hour for hour in range(1, 25)])
    assert time.monotonic() - began < 1


def test_timers_fire_in_their_order_whoever_set_them() -> None:
    async def main() -> list[str]:
        said: list[str] = []

        async def say(text: str, after: float) -> None:
            await asyncio.sleep(after)
            said.append(text)

        await asyncio.gather(say("third", 30), say("first", 10), say("second", 10.001))
        return said

    assert run_virtual(main) == ["first", "second", "third"]


def test_a_thread_at_work_stops_the_clock() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        timer = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.to_thread(time.sleep, 0.05)
        passed = loop.time()
        timer.cancel()
        return passed

    assert run_virtual(main) == 0.0


def test_waiting_for_what_never_comes_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match="nothing is ready"):
        run_virtual(main)


def test_the_shared_random_generator_is_seeded_and_given_back() -> None:
    async def main() -> float:
        return random.random()

    before = random.getstate()
    assert run_virtual(main, seed=7) == run_virtual(main, seed=7) != run_virtual(main, seed=8)
    assert random.getstate() == before


def test_scaled_time_runs_as_many_times_faster() -> None:
    async def main() -> float:
        began = time.monotonic()
        await asyncio.sleep(10)
        return time.monotonic() - began

    with asyncio.Runner(loop_factory=lambda: ScaledLoop(100)) as runner:
        assert runner.run(main()) == pytest.approx(0.1, abs=0.08)


@pytest.mark.parametrize("speed", [0, -1])
def test_time_does_not_stand_still_or_run_backwards(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be positive"):
        ScaledLoop(speed)


def test_real_time_is_to_be_had_in_virtual_time() -> None:
    loop = VirtualLoop(start=5.0)
    try:
        assert loop.time() == 5.0
        assert abs(loop.real_time() - time.monotonic()) < 1
    finally:
        loop.close()


def test_draws_depend_on_seed_and_subject_alone() -> None:
    one, two, other = Dice(1), Dice(1), Dice(2)
    two.fraction("somebody else")
    assert one.fraction("vm", 3) == two.fraction("vm", 3) != other.fraction("vm", 3)
    assert one.fraction("vm", 3) != one.fraction("vm3")
    assert all(10 <= one.between(10, 20, number) < 20 for number in range(100))
    assert sum(one.happens(0.25, number) for number in range(4000)) == pytest.approx(1000, rel=0.1)
    assert len({one.uid(number) for number in range(100)} | {one.suffix(number) for number in range(100)}) == 200
