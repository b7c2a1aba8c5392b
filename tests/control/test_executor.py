"""The executor: every way a start can end, and that nothing is written when it must not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from control.harness import MIGRATIONS, Story, client, hot_pair, migrate, tell

from rebalancer.control.executor import LOST, OUTDATED, REFUSED, WAITING, Executor, NotStarted
from rebalancer.control.flight import Flight
from rebalancer.domain.naming import migration_name
from rebalancer.domain.plan import Move
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import KINDS, build_snapshot, decode
from rebalancer.kube.lease import Alone
from rebalancer.sim.faults import Entry, Fault, Hang, Refuse, Reset, Rule, Script
from rebalancer.sim.objects import Obj
from rebalancer.sim.world import LoopClock

VMIS = "virtualmachineinstances"
Change = Callable[[Story], object]


class Fence(Alone):
    """A lease with so many seconds left."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def fence(self) -> float:
        return self._seconds


def picture(story: Story) -> Snapshot:
    """The cluster as a cache would have it."""
    store = story.world.store
    return build_snapshot(
        {
            kind.kind: [decode(kind.kind, json.dumps(item).encode()).value for item in store.items(kind.plural)]
            for kind in KINDS.values()
        }
    )


def vmi(change: Callable[[Obj], None]) -> Change:
    """Something happens to the VM after the plan was made."""

    def happen(story: Story) -> None:
        story.world.store.modify(VMIS, "bank", "v0", change)

    return happen


def nothing(_: Story) -> None:
    """The cluster is still the one that was planned for."""


def on_status(**fields: object) -> Change:
    return vmi(lambda item: item["status"].update(fields))


def another_vm(story: Story) -> None:
    """The VM was stopped and started again under its name."""
    vmi(lambda item: item["metadata"].update(uid="another"))(story)


def foreign_migration(story: Story) -> None:
    """A user migrates the VM himself."""
    migrate(story, "v0")


def taken(phase: str, vm: str = "v0", labels: dict[str, str] | None = None) -> Change:
    """The name that we would use is taken."""

    def change(story: Story) -> None:
        name = migration_name(picture(story).vmis["bank/v0"].uid, "a", "", 0)
        body = {
            "metadata": {
                "namespace": "bank",
                "name": name,
                "labels": {"kubevirt.io/vmi-name": vm, **(labels or {})},
            },
            "spec": {"vmiName": vm, "addedNodeSelector": {"kubernetes.io/hostname": "c"}},
        }
        story.world.store.create(MIGRATIONS, body)
        story.world.store.modify(MIGRATIONS, "bank", name, lambda item: item.update(status={"phase": phase}))

    return change


OURS = {"app.kubernetes.io/managed-by": "kubevirt-rebalancer", "kubevirt-rebalancer.io/plan": "earlier"}


def start(
    before: Change = nothing, after: Change = nothing, faults: Script | None = None, seconds_left: float = 1e9
) -> tuple[Flight | NotStarted, list[Entry]]:
    """Starts bank/v0 a → b; `before` happens before the snapshot is taken, `after` after it. The writes, too."""

    async def scenario(story: Story) -> tuple[Flight | NotStarted, list[Entry]]:
        before(story)
        snapshot = picture(story)
        move = Move(vmi="bank/v0", uid=snapshot.vmis["bank/v0"].uid, source="a", target="b", cost=1, reasons=())
        after(story)
        async with client(story) as api:
            result = await Executor(api, Fence(seconds_left), LoopClock()).start(move, "plan-1", snapshot)
        return result, [entry for entry in story.writes() if entry.user]

    return tell(hot_pair(), scenario, faults=faults, start=False)


def posting(entry: Entry) -> bool:
    return entry.method == "POST"


def test_a_start_is_one_post_and_a_flight() -> None:
    flight, writes = start()
    assert isinstance(flight, Flight)
    assert [(entry.method, entry.code) for entry in writes] == [("POST", 201)]
    assert flight.plan == "plan-1"
    assert flight.limit_seconds == pytest.approx(300.0)
    assert flight.migration.uid


@pytest.mark.parametrize(
    ("after", "reason", "message"),
    [
        (lambda story: story.world.store.delete(VMIS, "bank", "v0"), "Gone", "bank/v0 does not exist any more"),
        (vmi(lambda item: item["metadata"].update(deletionTimestamp="2026-11-20T22:00:00Z")), "NotRunning",
         "bank/v0 is being deleted"),
        (another_vm, "Gone", "bank/v0 is another VM now, under the same name"),
        (on_status(nodeName="c"), "Moved", "bank/v0 runs on c, not on a any more"),
        (on_status(phase="Failed"), "NotRunning", "bank/v0 is Failed"),
        (on_status(evacuationNodeName="a"), "Yields", "bank/v0 is being evacuated from a"),
        (on_status(migrationState={"migrationUid": "x"}), "Migrating", "bank/v0 is migrating already"),
        (
            vmi(lambda item: item["metadata"].update(annotations={"kubevirt-rebalancer.io/policy": "ignore"})),
            "Yields",
            "bank/v0 has been opted out",
        ),
        (foreign_migration, "Migrating", "in-flight migration detected"),
    ],
)  # fmt: skip
def test_a_vm_that_is_no_longer_as_planned_is_left_alone(after: Change, reason: str, message: str) -> None:
    result, writes = start(after=after)
    assert isinstance(result, NotStarted)
    assert (result.kind, result.reason) == (OUTDATED, reason)
    assert message in result.message
    assert all(entry.code >= 400 for entry in writes)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (lambda story: story.world.cordon("b"), "target b is cordoned"),
        (lambda story: story.world.store.delete("nodes", "", "b"), "the target node is gone"),
        (foreign_migration, "bank/v0 has another migration, users-own-v0"),
    ],
)
def test_a_target_or_a_vm_that_the_snapshot_speaks_against_costs_no_write(before: Change, message: str) -> None:
    result, writes = start(before=before)
    assert isinstance(result, NotStarted)
    assert (result.kind, result.message) == (OUTDATED, message)
    assert writes == []


@pytest.mark.parametrize(
    ("fault", "answered", "kind", "reason", "message"),
    [
        (Refuse(code=429, message="later", retry_after_seconds=7), False, WAITING, "Throttled", "asks to wait: later"),
        (Refuse(code=403, message="no"), False, REFUSED, "Forbidden",
         "not permitted to create virtualmachineinstancemigrations.kubevirt.io in namespace bank: no"),
        (Refuse(code=422, message="bad"), False, REFUSED, "Rejected", "bad"),
        (Refuse(code=400, message="Cannot migrate VMI"), False, REFUSED, "Rejected", "Cannot migrate VMI"),
        (Refuse(code=404, message="no such"), False, REFUSED, "Rejected", "no such"),
        (Reset(), False, LOST, "Lost", "no answer and no VMIM rb-"),
        (Hang(), False, LOST, "Lost", "no answer within 10.0 s"),
        (Refuse(code=500), False, LOST, "Lost", "500"),
        (Refuse(code=502, html=True), False, LOST, "Lost", "502 text/html"),
        (Reset(), True, "", "", ""),
        (Hang(), True, "", "", ""),
        (Refuse(code=500), True, "", "", ""),
    ],
)  # fmt: skip
def test_every_answer_to_a_post_has_its_outcome(
    fault: Fault, answered: bool, kind: str, reason: str, message: str
) -> None:
    """`answered`: the API server carried it out, only the answer was lost."""
    result, writes = start(faults=Script([Rule(fault=fault, matches=posting, after=answered)]))
    assert len(writes) == 1
    if not kind:
        assert isinstance(result, Flight)
        return
    assert isinstance(result, NotStarted)
    assert (result.kind, result.reason) == (kind, reason)
    assert message in result.message
    assert result.retry_after_seconds == (7.0 if reason == "Throttled" else 0.0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (taken("Running", labels=OURS), ("Flight", "earlier", "c")),
        (taken("", labels=OURS), ("Flight", "earlier", "c")),
        (taken("Running"), (REFUSED, "NameTaken", "")),
        (taken("Running", vm="v1", labels=OURS), (REFUSED, "NameTaken", "")),
        (taken("Succeeded", labels=OURS), ("Flight", "plan-1", "b")),
        (taken("Failed"), ("Flight", "plan-1", "b")),
    ],
    ids=["ours, running", "ours, new", "not ours", "of another VM", "ours, ended", "not ours, ended"],
)
def test_a_name_that_is_taken_is_ours_or_nobodys(after: Change, expected: tuple[str, str, str]) -> None:
    result, _ = start(after=after)
    if isinstance(result, Flight):
        assert ("Flight", result.plan, result.move.target) == expected
    else:
        assert (result.kind, result.reason, "") == expected


@pytest.mark.parametrize("seconds_left", [0.0, 0.9])
def test_no_write_begins_when_the_lease_runs_out(seconds_left: float) -> None:
    result, writes = start(seconds_left=seconds_left)
    assert isinstance(result, NotStarted)
    assert (result.kind, result.reason) == (WAITING, "NotLeader")
    assert writes == []


def test_a_write_takes_no_longer_than_the_lease_lasts() -> None:
    result, (write,) = start(faults=Script([Rule(fault=Hang(), matches=posting)]), seconds_left=3.0)
    assert isinstance(result, NotStarted)
    assert "no answer within 3.0 s" in result.message
    assert write.finished - write.started == pytest.approx(3.0, abs=0.01)


def test_a_hostname_that_is_not_the_nodes_name_is_what_the_migration_selects() -> None:
    def rename(story: Story) -> None:
        def change(node: Obj) -> None:
            node["metadata"]["labels"]["kubernetes.io/hostname"] = "b.example"

        story.world.store.modify("nodes", "", "b", change)

    flight, (write,) = start(before=rename)
    assert isinstance(flight, Flight)
    assert write.body["spec"]["addedNodeSelector"] == {"kubernetes.io/hostname": "b.example"}


def test_withdrawing_deletes_that_very_migration_and_says_why_it_could_not() -> None:
    async def scenario(story: Story) -> None:
        snapshot = picture(story)
        move = Move(vmi="bank/v0", uid=snapshot.vmis["bank/v0"].uid, source="a", target="b", cost=1, reasons=())
        async with client(story) as api:
            executor = Executor(api, Fence(1e9), LoopClock())
            flight = await executor.start(move, "plan-1", snapshot)
            assert isinstance(flight, Flight)
            stranger = replace(flight, migration=replace(flight.migration, uid="another"))
            assert "uid" in (await executor.withdraw(stranger)).lower()
            assert await Executor(api, Fence(0.0), LoopClock()).withdraw(flight) == "the lease has run out"
            assert await executor.withdraw(flight) == ""
            assert await executor.withdraw(flight) == ""

    tell(hot_pair(), scenario, start=False)


def moved_before(ago_seconds: float) -> Change:
    """The VM's last migration ended so long ago, and virt-handler has not cleared up behind it."""

    def change(item: Obj) -> None:
        item["metadata"]["labels"]["kubevirt.io/migrationTargetNodeName"] = "a"
        ended = f"2026-11-20T21:59:{60 - ago_seconds:02.0f}Z" if ago_seconds < 60 else "2026-11-20T21:00:00Z"
        state = {"migrationUid": "last", "sourceNode": "b", "targetNode": "a", "completed": True, "endTimestamp": ended}
        item["status"]["migrationState"] = state

    return vmi(change)


def test_the_next_migration_waits_until_the_last_one_is_cleared_up() -> None:
    result, writes = start(after=moved_before(20))
    assert isinstance(result, NotStarted)
    assert (result.kind, result.reason, result.alone) == (WAITING, "ClearingUp", True)
    assert result.message == "the last migration of bank/v0 is still being cleared up"
    assert result.retry_after_seconds == pytest.approx(40, abs=1)
    assert writes == []


def test_where_nobody_clears_up_the_next_migration_begins_all_the_same() -> None:
    result, _ = start(after=moved_before(3600))
    assert isinstance(result, Flight)
