"""Days of a living cluster, small ones of those that `python -m bench.days` measures: the same assertions."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from bench.days.agenda import DAY, HOUR, AgendaParams, agenda
from bench.days.contestants import DAEMON, NOBODY, PARAMS
from bench.days.run import live
from rebalancer.control.loop import LoopParams
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.lease import LeaseParams

SEEDS = (
    1,
    *((random.SystemRandom().randrange(2, 1_000_000),) if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else ()),
)
"""`make fuzz` lives through another one each time."""
SMALL = AgendaParams(
    nodes=12, vms=250, days=3, office=0.1, churn=0.06, resize=0.02, migrate=0.02, cordons=1.0, drains=0.5, losses=0.5,
    upgrade_day=0, rolling_day=-1, quiet_day=2,
)  # fmt: skip
CALM_HOURS = 3.0
"""After life has stopped: what is hot by then is cured within this time, or never will be."""
UNHURRIED = replace(PARAMS, loop=LoopParams(interval_seconds=300.0, debounce_seconds=300.0))


IDLE = replace(
    UNHURRIED,
    loop=LoopParams(interval_seconds=600.0, debounce_seconds=600.0, silent_seconds=1200.0),
    cache=CacheParams(watch_seconds=(3000.0, 3600.0), idle_seconds=1500.0, stale_seconds=2400.0),
    lease=LeaseParams(duration_seconds=1200, renew_deadline_seconds=1000.0, retry_seconds=600.0),
)
"""A month of small things, at a pace at which it passes in half a minute."""


def test_a_month_is_written_down_before_it_begins_and_equal_seeds_give_equal_months() -> None:
    params = AgendaParams()
    month = agenda(params, 7)
    assert month == agenda(params, 7)
    assert month.happenings != agenda(params, 8).happenings
    kinds = {one.what for one in month.happenings}
    assert kinds == {
        "start", "stop", "resize", "plug", "migrate", "cordon", "drain", "open", "lose", "regain", "install", "upgrade",
    }  # fmt: skip
    assert all(0 <= one.time < params.quiet_day * DAY for one in month.happenings)
    assert list(month.happenings) == sorted(month.happenings, key=lambda one: one.time)
    names = {vm.key for vm in (*month.vms, *month.born)}
    assert {one.vm for one in month.happenings if one.vm} <= names
    assert len(month.vms) == params.vms


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_days_of_a_living_cluster(seed: int) -> None:
    """Life for two days with faults and an upgrade, and a day of silence."""
    life = agenda(SMALL, seed)
    ours, nothing = (live(life, name, params=UNHURRIED) for name in (DAEMON, NOBODY))
    assert ours["broken"] == [], f"seed {seed}"
    assert not any(line.startswith(("ERROR", "CRITICAL")) for line in ours["log"]), ours["log"]
    assert ours["pingpongs"].get("ours", 0) == 0
    assert ours["most_in_24h"] <= PARAMS.cycle.limits.per_vm_day
    above, otherwise = (sum(day["above"] for day in run["days"]) for run in (ours, nothing))
    assert otherwise > 0.02 or seed != SEEDS[0], "a cluster in which nothing is ever too full shows nothing"
    assert above < otherwise / 2 + 0.01, (
        f"seed {seed}: {above:.3f} node-days above the threshold, {otherwise:.3f} without us"
    )
    late = [moment for moment in ours["moved_at"] if moment > SMALL.quiet_day * DAY + CALM_HOURS * HOUR]
    assert late == [], f"seed {seed}: a steady cluster gets no move, ever"


@pytest.mark.slow
def test_a_month_leaves_nothing_behind() -> None:
    """What the process holds after thirty days is what it held after five: memory, files and tasks."""
    params = AgendaParams(
        nodes=6, vms=48, days=30, office=0.1, churn=0.2, resize=0.05, migrate=0.1, cordons=0.3, drains=0.2, losses=0.1,
        upgrade_day=2, rolling_day=-1,
    )  # fmt: skip
    found = live(agenda(params, 1), DAEMON, params=IDLE, bookmark_seconds=600.0, history=1000)
    days = found["days"]
    assert found["broken"] == []
    warm, last = days[4], days[-1]
    assert last["files"] <= warm["files"], (warm, last)
    assert last["tasks"] <= warm["tasks"] + 2, (warm, last)
    assert last["blocks"] <= warm["blocks"] * 1.08, (warm, last)
    assert last["rss_mib"] <= warm["rss_mib"] * 1.08, (warm, last)
