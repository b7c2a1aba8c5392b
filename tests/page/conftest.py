"""Pictures to render, and a browser. Where there is no browser its tests are skipped, and say why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from bench.page.browser import browser, missing
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.history import Chapter, remember
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Held, Outcome, Report, Running, Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, state_of
from rebalancer.policy.triggers import TriggerMemory, find
from rebalancer.present.picture import Picture
from rebalancer.settings import load, rows

DUMP = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"
POLICY = PolicyParams(hold_seconds=0.0)


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Our recording of a real cluster: 12 workers, six of them hot, 130 VMs."""
    return read_dump(str(DUMP))


@pytest.fixture(scope="session")
def plan(snapshot: Snapshot) -> Plan:
    """A plan for it."""
    triggers, _ = find(snapshot, POLICY, TriggerMemory(), snapshot.taken)
    return decide(snapshot, triggers, PlanningParams(policy=POLICY, seconds=0.0), now=snapshot.taken)


@pytest.fixture(scope="session")
def picture(snapshot: Snapshot, plan: Plan) -> Picture:
    """The plan half carried out: one move done, one failed, one running, one held, one VM resting."""
    done, failed, flying, waiting = plan.waves[0].moves[:4]
    now = plan.created + 60.0
    report = Report(
        cycle=7,
        time=now,
        mode="active",
        sentence=Sentence(kind="Running", text="Wave 1 of many: 1 migration running"),
        leader=True,
        holder="rebalancer-0",
        synced=True,
        state=state_of(ClusterState.of(snapshot, settled=True), snapshot, POLICY),
        triggers=plan.triggers,
        plan=plan,
        wave=1,
        running=(
            Running(
                vmi=flying.vmi,
                migration="rb-flying",
                phase="Running",
                source=flying.source,
                target=flying.target,
                started=now - 20.0,
                deadline=now + 600.0,
            ),
        ),
        done=(
            Outcome(move=done, migration="rb-done", result="Succeeded", finished=now, landed_on=done.target),
            Outcome(move=failed, migration="rb-failed", result="Failed", message="the guest said <no>", finished=now),
        ),
        held=(
            Held(vmi=waiting.vmi, reason="PerTarget", message=f"{waiting.target} receives enough", until=now + 120.0),
        ),
        cooldowns=FrozenMap({done.vmi: now + 3600.0}),
        set_aside=snapshot.set_aside,
    )
    history: tuple[Chapter, ...] = remember((), report)
    settings = tuple(asdict(row) for row in rows(load({"cpu.high": "85"}), {"cpu.high": "85"}))
    return Picture(
        report=report, snapshot=snapshot, policy=POLICY, history=history, settings=settings, since=plan.created
    )


def need_browser() -> None:
    """Skips, or fails where a browser is required."""
    why = missing()
    if why and os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"a browser is required here, and: {why}", pytrace=False)
    if why:
        pytest.skip(why)


@pytest.fixture
def driver() -> Iterator[Chrome]:
    """A headless Chromium with an empty profile."""
    need_browser()
    with browser() as found:
        yield found


@pytest.fixture
def bare() -> Iterator[Chrome]:
    """The same with JavaScript switched off."""
    need_browser()
    with browser(scripts=False) as found:
        yield found
