"""The elector: whatever the API server does, never two leaders, and never one that the lease has left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import pytest
from kube.serving import EPOCH, Served, monotonic, serve, surroundings

from rebalancer.kube.lease import Alone, Elector, LeaseParams
from rebalancer.kube.retry import Surroundings
from rebalancer.sim.faults import Entry, Hang, Refuse, Reset, Rule, Script, Slow

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kubevirt-rebalancer/leases/kubevirt-rebalancer"
A, B = LeaseParams(identity="a"), LeaseParams(identity="b")
FAULT_AT = 31.0
"""When faults begin: a has led since the start, renewing every two seconds at 0, 2, 4, ..."""


@dataclass(slots=True)
class Watcher:
    """Samples who may act ten times a second."""

    spells: dict[str, list[list[float]]] = field(default_factory=dict)
    overlaps: int = 0

    async def run(self, electors: dict[str, Elector]) -> None:
        while True:
            acting = [name for name, elector in electors.items() if elector.fence() > 0]
            self.overlaps += len(acting) > 1
            now = round(monotonic(), 1)
            for name in acting:
                spells = self.spells.setdefault(name, [])
                if spells and now - spells[-1][1] < 0.15:
                    spells[-1][1] = now
                else:
                    spells.append([now, now])
            await anyio.sleep(0.1)


def spell(begin: float, end: float) -> object:
    """A time of leading, as exact as the samples are."""
    return pytest.approx([begin, end], abs=0.11)


def contend(
    faults: Script,
    seconds: float = 90.0,
    during: Callable[[Served, anyio.CancelScope], object] | None = None,
    around: Surroundings | None = None,
) -> tuple[Watcher, Served]:
    """`a` starts first, `b` a second later; both run for a while. `during` may cancel a."""

    async def scenario(served: Served) -> tuple[Watcher, Served]:
        watcher = Watcher()
        async with served.client("a") as one, served.client("b") as other:
            electors = {"a": Elector(one, A, around or surroundings()), "b": Elector(other, B, surroundings())}
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as first:
                        first.start_soon(electors["a"].run)
                        tasks.start_soon(watcher.run, electors)
                        await anyio.sleep(1)
                        tasks.start_soon(electors["b"].run)
                        await anyio.sleep(FAULT_AT - 1)
                        if during is not None:
                            during(served, scope)
                        await anyio.sleep(seconds - FAULT_AT)
                        first.cancel_scope.cancel()
                await anyio.sleep(max(0.0, seconds - monotonic()))
                tasks.cancel_scope.cancel()
        return watcher, served

    served_store: list[Served] = []

    async def prepared(served: Served) -> tuple[Watcher, Served]:
        served.store.create("namespaces", {"metadata": {"name": "kubevirt-rebalancer"}})
        served_store.append(served)
        return await scenario(served)

    return serve(prepared, faults)


def of_a(method: str = "") -> Callable[[Entry], bool]:
    """The requests of `a` from FAULT_AT on."""
    return lambda entry: entry.user == "a" and entry.started - EPOCH >= FAULT_AT and method in ("", entry.method)


ALWAYS = 10**6


@pytest.mark.parametrize(
    "fault",
    [Hang(), Reset(), Refuse(code=500), Refuse(code=502, html=True), Refuse(code=429), Refuse(code=403)],
    ids=["hang", "reset", "500", "HTML 502", "429", "403"],
)
@pytest.mark.parametrize("method", ["", "PUT"], ids=["everything", "writes"])
def test_a_leader_that_cannot_renew_stops_ten_seconds_after_its_last_good_renewal_began(
    fault: Hang | Reset | Refuse, method: str
) -> None:
    watcher, _ = contend(Script([Rule(fault=fault, matches=of_a(method), times=ALWAYS)]))
    assert watcher.spells["a"] == [spell(0.0, 40.0)]
    (begin, _end), *more = watcher.spells["b"]
    # b waits 15 s from the last change it saw, and looks about every three seconds.
    assert 45.0 <= begin <= 30.0 + 15.0 + 2 * 2.2 * 2
    assert not more
    assert watcher.overlaps == 0


@pytest.mark.parametrize("fault", [Hang(), Reset(), Refuse(code=500), Slow(seconds=1.5)], ids=str)
def test_a_short_blip_changes_nothing(fault: Hang | Reset | Refuse | Slow) -> None:
    watcher, served = contend(Script([Rule(fault=fault, matches=of_a(), times=1)]))
    assert watcher.spells == {"a": [spell(0.0, 90.0)]}
    assert served.store.get("leases", "kubevirt-rebalancer", "kubevirt-rebalancer")["spec"]["leaseTransitions"] <= 1


def test_a_renewal_whose_answer_is_lost_counts_for_nothing_and_harms_nothing() -> None:
    rule = Rule(fault=Reset(), matches=of_a("PUT"), times=3, after=True)
    watcher, _ = contend(Script([rule]))
    assert watcher.spells == {"a": [spell(0.0, 90.0)]}
    assert rule.hits > 3


def test_leaving_gives_the_lease_back_at_once() -> None:
    watcher, served = contend(Script(), during=lambda _, scope: scope.cancel())
    assert watcher.spells["a"][0][1] == pytest.approx(FAULT_AT, abs=0.15)
    assert FAULT_AT < watcher.spells["b"][0][0] < FAULT_AT + 5.0
    releases = [e for e in served.server.log if e.method == "PUT" and e.body["spec"]["holderIdentity"] == ""]
    assert len(releases) == 2  # the other one is b's, when the test ends
    assert releases[0].started - EPOCH == pytest.approx(FAULT_AT)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_the_wall_clock_may_jump(jump: float) -> None:
    around = surroundings()
    jumping = Surroundings(
        monotonic=around.monotonic,
        now=lambda: around.now() + (jump if monotonic() > FAULT_AT else 0.0),
        random=around.random,
    )
    assert contend(Script(), around=jumping)[0].spells == {"a": [spell(0.0, 90.0)]}


def test_somebody_who_takes_the_lease_has_it() -> None:
    def steal(served: Served, _: anyio.CancelScope) -> None:
        def change(lease: dict[str, object]) -> None:
            lease["spec"] = {"holderIdentity": "thief", "leaseDurationSeconds": 15}

        served.store.modify("leases", "kubevirt-rebalancer", "kubevirt-rebalancer", change)

    watcher, _ = contend(Script(), during=steal)
    # The theft shows at the next renewal, as a conflict; nobody acts until the thief's lease has run out.
    assert watcher.spells["a"][0][1] <= FAULT_AT + 2.1
    rest = [spell for name in ("a", "b") for spell in watcher.spells.get(name, []) if spell[0] > FAULT_AT]
    assert min(begin for begin, _ in rest) >= FAULT_AT + 15.0
    assert watcher.overlaps == 0


def test_a_lease_that_is_deleted_is_made_again() -> None:
    def delete(served: Served, _: anyio.CancelScope) -> None:
        served.store.delete("leases", "kubevirt-rebalancer", "kubevirt-rebalancer")

    watcher, _ = contend(Script(), during=delete)
    assert watcher.overlaps == 0
    assert sum(end - begin for spells in watcher.spells.values() for begin, end in spells) > 80


def test_the_record_is_what_other_tools_expect() -> None:
    _, served = contend(Script(), seconds=40.0)
    first = next(entry.body for entry in served.server.log if entry.method == "POST")
    assert json.loads(json.dumps(first["spec"])) == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2027-01-15T08:00:00.000000Z",
        "renewTime": "2027-01-15T08:00:00.000000Z",
        "leaseTransitions": 0,
    }


@pytest.mark.parametrize("wrong", [{"duration_seconds": 10}, {"retry_seconds": 0.0}, {"renew_deadline_seconds": 15.0}])
def test_times_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="retry < renew deadline < duration"):
        LeaseParams(**wrong)  # type: ignore[arg-type]


def test_alone_there_is_nothing_to_lose() -> None:
    assert Alone().fence() == float("inf")
