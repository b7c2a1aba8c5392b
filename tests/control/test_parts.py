"""The smaller parts: back-off, Events in the background, our own HTTP server, and the edge where bugs end up."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import aiohttp
import anyio
import pytest
from control.harness import Story, client, hot_pair, params, tell

from rebalancer.control.backoff import Backoff, BackoffParams
from rebalancer.control.cycle import ACTIVE, Cycle, CycleParams, Ports
from rebalancer.control.executor import Executor
from rebalancer.control.gate import why_unfit
from rebalancer.control.loop import Loop, LoopParams
from rebalancer.control.offload import inline
from rebalancer.control.recorder import EventParams, Recorder
from rebalancer.control.server import HttpParams, ServerError, serving
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Report
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.cache import Cache
from rebalancer.kube.lease import Alone
from rebalancer.kube.retry import Surroundings
from rebalancer.sim.faults import Hang, Refuse, Rule, Script
from rebalancer.sim.world import LoopClock


class Hand:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_with_every_failure_in_a_row_up_to_the_cap_and_are_forgotten() -> None:
    clock = Hand()
    backoff = Backoff(
        clock, BackoffParams(vm_seconds=10, vm_cap_seconds=30, node_seconds=5, node_cap_seconds=5, streak=99)
    )
    waits = []
    for _ in range(4):
        backoff.failed("bank/v", "n", "no")
        waits.append(backoff.vmis()["bank/v"].until - clock.now)
        clock.now += waits[-1]
        assert backoff.vmis() == {}
    assert waits == [10, 20, 30, 30]
    clock.now += 30
    assert backoff.vmis() == {}
    backoff.failed("bank/v", "n", "no")
    assert backoff.vmis()["bank/v"].until - clock.now == 10
    assert backoff.nodes()["n"].until - clock.now == 5


def test_a_success_ends_the_streak_and_the_waits() -> None:
    clock = Hand()
    backoff = Backoff(clock, BackoffParams(streak=3))
    for vmi in ("a", "b"):
        backoff.failed(vmi, "n", "no")
    backoff.succeeded("a", "n")
    assert set(backoff.vmis()) == {"b"}
    assert backoff.nodes() == {}
    backoff.failed("c", "m", "no")
    assert backoff.breaker() is None


def test_the_breaker_closes_after_its_time_and_one_more_failure_opens_it_again() -> None:
    clock = Hand()
    backoff = Backoff(clock, BackoffParams(streak=2, pause_seconds=100))
    for vmi in ("a", "b"):
        backoff.failed(vmi, "n", f"{vmi} failed")
    breaker = backoff.breaker()
    assert breaker is not None
    assert (breaker.failures, breaker.until, breaker.message) == (2, 100, "b failed")
    clock.now = 100
    assert backoff.breaker() is None
    backoff.failed("c", "m", "again")
    assert backoff.breaker() is not None


@pytest.mark.parametrize(
    "wrong", [{"vm_seconds": 0.0}, {"node_cap_seconds": 1.0}, {"streak": 0}, {"pause_seconds": 0.0}]
)
def test_backoffs_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BackoffParams(**wrong)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An Event to be told."""

    kind: str = "VirtualMachineInstance"
    type: str = "Normal"
    reason: str = "RebalancingStarted"
    note: str = "a note"
    namespace: str = "bank"
    name: str = "v0"


def record(*notes: Told, faults: Script | None = None, waiting: int = 200) -> tuple[list[dict[str, object]], int]:
    """The Events in the end, and how many were lost."""

    async def scenario(story: Story) -> tuple[list[dict[str, object]], int]:
        async with client(story) as api, anyio.create_task_group() as tasks:
            recorder = Recorder(api, Alone(), LoopClock(), EventParams(waiting=waiting), lambda *_: "uid-1")
            recorder.tell(notes)
            tasks.start_soon(recorder.run)
            await anyio.sleep(60)
            tasks.cancel_scope.cancel()
        return story.world.store.items("events"), recorder.lost

    return tell(hot_pair(), scenario, faults=faults, start=False)


def test_an_event_names_its_object_by_uid_and_repeats_become_a_count() -> None:
    events, lost = record(Told(), Told(), Told(), Told(note="another"), Told(kind="Node", namespace="", name="a"))
    assert lost == 0
    by_note = {str(event.get("note") or event.get("message")): event for event in events}
    assert len(events) == 3
    assert by_note["another"]["metadata"]["namespace"] == "bank"  # type: ignore[index]
    assert {event["metadata"]["namespace"] for event in events} == {"bank", "default"}  # type: ignore[index]
    counts = sorted((event.get("series") or {}).get("count", 1) for event in events)  # type: ignore[attr-defined]
    assert counts == [1, 1, 3]


@pytest.mark.parametrize("fault", [Refuse(code=403), Refuse(code=500), Hang()], ids=["403", "500", "hang"])
def test_events_that_cannot_be_written_are_lost_and_hold_nothing_up(fault: Refuse | Hang) -> None:
    events, lost = record(
        *(Told(note=f"note {number}") for number in range(5)),
        faults=Script([Rule(fault=fault, matches=lambda entry: entry.method == "POST", times=2)]),
    )
    assert (len(events), lost) == (3, 2)


def test_a_flood_of_events_drops_the_oldest() -> None:
    events, lost = record(*(Told(note=f"note {number}") for number in range(9)), waiting=4)
    assert lost == 5
    assert len(events) == 4


def test_health_and_metrics_are_served_and_say_nothing_of_names() -> None:
    async def main() -> dict[str, tuple[int, str]]:
        problem = "not yet"
        pages = {"/metrics": lambda: ("text/plain; version=0.0.4", b"up 1\n")}
        found = {}
        async with (
            serving(HttpParams(host="127.0.0.1", port=0), pages, healthy=lambda: "", ready=lambda: problem) as (
                host,
                port,
            ),
            aiohttp.ClientSession() as session,
        ):
            for path in ("/healthz", "/readyz", "/metrics", "/nothing"):
                async with session.get(f"http://{host}:{port}{path}") as answer:
                    found[path] = answer.status, await answer.text()
            with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with serving(HttpParams(host="127.0.0.1", port=port), {}, healthy=str, ready=str):
                    pass
        return found

    assert anyio.run(main) == {
        "/healthz": (200, "ok\n"),
        "/readyz": (503, "not yet\n"),
        "/metrics": (200, "up 1\n"),
        "/nothing": (404, "404: Not Found"),
    }


def test_a_bug_becomes_a_sentence_and_cycles_go_on_ever_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    """A planner that raises is the edge's business: nobody else catches everything."""

    def broken(*_: object, **__: object) -> Plan:
        raise ZeroDivisionError("no node at all")

    async def scenario(story: Story) -> tuple[list[Report], bool]:
        clock = LoopClock()
        around = Surroundings(monotonic=clock.monotonic, now=clock.now, random=lambda: 0.5)
        reports: list[Report] = []
        async with client(story) as api, anyio.create_task_group() as tasks:
            cache = Cache(api, around)
            executor = Executor(api, Alone(), clock)
            ports = Ports(
                cache=cache, leadership=Alone(), executor=executor, clock=clock, offload=inline, decide=broken
            )
            cycle = Cycle(ports, CycleParams(mode=ACTIVE, planning=params().cycle.planning))
            loop = Loop(cycle, cache, clock, LoopParams(interval_seconds=1.0), reports.append)
            tasks.start_soon(cache.run)
            tasks.start_soon(loop.run)
            await anyio.sleep(600)
            tasks.cancel_scope.cancel()
        return reports, loop.alive()

    with caplog.at_level(logging.CRITICAL, logger="rebalancer"):
        reports, alive = tell(hot_pair(), scenario, start=False)
    failed = [report for report in reports if report.sentence.kind == "Failed"]
    assert failed[0].sentence.text == ("The cycle failed and will be tried again: ZeroDivisionError: no node at all")
    assert 5 < len(failed) < 15
    assert alive


def test_no_kubevirt_no_acting() -> None:
    assert why_unfit(Snapshot()) == "there is no readable KubeVirt resource in this cluster"
