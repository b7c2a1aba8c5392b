"""Waiting as long as one must and no longer: for the API server, for KubeVirt, for what never comes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import anyio
import pytest
from control.harness import (
    MIGRATIONS,
    PLANE,
    SLOW,
    Story,
    another,
    hot_pair,
    loop_time,
    nodes,
    params,
    posts,
    retire,
    tell,
    vms,
)

from rebalancer.sim.faults import Entry, Refuse, Reset, Rule, Script, Slow

LEASES = "leases"


def deletes(entry: Entry) -> bool:
    return entry.method == "DELETE" and MIGRATIONS in entry.path


def reads_vmi(entry: Entry) -> bool:
    return entry.verb == "get" and "/virtualmachineinstances/" in entry.path


# -- The API server ---------------------------------------------------------------------------------------------------


def test_a_withdrawal_that_is_throttled_is_tried_again_when_the_server_wants_it() -> None:
    throttle = Rule(fault=Refuse(code=429, message="busy", retry_after_seconds=60), matches=deletes, times=3)

    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        await anyio.sleep(3)
        story.world.cordon(move.target)
        failed = await story.until("Failed")
        assert failed.sentence.text == (
            f"The migration of {move.vmi} to {move.target} must give way (target {move.target} is cordoned) and cannot "
            "be deleted: busy"
        )
        await story.until("Dropped", 600)
        moments = [entry.started for entry in story.writes() if entry.method == "DELETE"]
        assert len(moments) == 4
        assert all(later - earlier >= 60 for earlier, later in pairwise(moments))

    tell(hot_pair(), scenario, faults=Script([throttle]), plane=replace(SLOW, bandwidth_bytes=1.05e8))


@pytest.mark.parametrize("code", [429, 503])
def test_a_read_before_the_start_that_is_throttled_waits_as_long_as_the_server_wants(code: int) -> None:
    throttle = Rule(fault=Refuse(code=code, message="busy", retry_after_seconds=40), matches=reads_vmi)

    async def scenario(story: Story) -> None:
        held = await story.until("Held")
        assert "busy" in held.sentence.text
        assert ", until 2026-11-20 22:00:" in held.sentence.text
        begun = loop_time()
        await story.until("Started")
        assert 39 <= loop_time() - begun <= 60
        reads = [entry for entry in story.world.api.log if reads_vmi(entry)]
        assert len(reads) == 2

    tell(hot_pair(), scenario, faults=Script([throttle]))


def test_after_a_request_without_an_answer_nothing_begins_for_a_while() -> None:
    """It may still be on its way, and then the next one would be one too many."""

    async def scenario(story: Story) -> None:
        dropped = await story.until("Dropped")
        assert "ended as Lost: no answer and no VMIM rb-" in dropped.sentence.text
        begun = loop_time()
        held = await story.until("Held")
        assert "was not answered, until" in held.sentence.text
        await story.until("Started")
        assert loop_time() - begun >= 29

    tell(hot_pair(), scenario, faults=Script([Rule(fault=Reset(), matches=posts)]))


@pytest.mark.parametrize(
    ("code", "message"), [(400, "Cannot migrate VMI, Reason: HostDeviceNotLiveMigratable"), (422, "bad spec")]
)
def test_a_move_that_is_refused_says_so_at_once(code: int, message: str) -> None:
    async def scenario(story: Story) -> None:
        dropped = await story.until("Dropped")
        assert dropped.sentence.text.endswith(f" ended as Refused: {message}")
        assert "Running" not in story.kinds

    tell(hot_pair(), scenario, faults=Script([Rule(fault=Refuse(code=code, message=message), matches=posts)]))


def test_a_move_that_is_refused_beside_others_that_begin_is_in_the_same_sentence() -> None:
    async def scenario(story: Story) -> None:
        started = await story.until("Started")
        assert "started 1 migration: " in started.sentence.text
        assert "; 1 move did not begin (bank/" in started.sentence.text
        assert started.sentence.text.endswith(" ended as Refused: no)")

    items = [*nodes("a", "b", "c", "d"), *vms("a", "v0", "v1", "v2", "v3"), *vms("b", "w0", "w1", "w2", "w3")]
    tell(items, scenario, faults=Script([Rule(fault=Refuse(code=400, message="no"), matches=posts)]))


def test_the_lease_goes_back_when_the_last_write_has_been_answered_and_its_migration_is_adopted() -> None:
    """Told to stop in the middle of a POST: the next leader can see whatever it was that began."""

    async def scenario(story: Story) -> None:
        await story.until("Planned")
        await anyio.sleep(2)
        assert any(posts(entry) for entry in story.world.api.log)
        story.stop.set()
        async with another(story, params(identity="b")) as twin:
            await twin.until("Balanced")
            assert "1 migration of ours from an earlier one still run" in twin.texts("Running")[0]
        (post,) = (entry for entry in story.world.api.log if posts(entry))
        released = [e for e in story.writes(LEASES) if e.user == "a" and e.body["spec"]["holderIdentity"] == ""]
        assert post.code == 201
        assert released[0].started >= post.finished
        assert len(story.migrations()) == 1

    tell(hot_pair(), scenario, faults=Script([Rule(fault=Slow(seconds=4.0), matches=posts, after=True)]))


# -- KubeVirt ---------------------------------------------------------------------------------------------------------


def test_a_migration_that_comes_and_goes_between_two_looks_is_noticed_soon() -> None:
    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        story.world.stop_vm(*move.vmi.split("/"))
        begun = loop_time()
        await story.until("Dropped")
        assert loop_time() - begun < 5

    tell(hot_pair(), scenario)


def test_a_migration_that_does_not_end_although_it_was_deleted_holds_up_nothing_else() -> None:
    """Its target node is lost before the transfer, and its target pod tolerates that: KubeVirt puts the end off until
    the node is back or gone."""

    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        await anyio.sleep(10)
        story.world.lose(move.target)
        await anyio.sleep(300)
        retire(story, "e")
        await anyio.sleep(100)
        assert story.world.places()["bank/w0"] == "e"
        assert story.last.sentence.text == (
            f"Wave 1 of 1: 1 migration running, 0 of 1 move done; 1 deleted, but not ended ({move.vmi}: target "
            f"{move.target} is not ready)"
        )
        dropped = await story.until("Dropped", 1200)
        assert "is not ready; deleted 4" in dropped.sentence.text
        assert dropped.sentence.text.endswith(" s ago, it has not ended")
        await story.until("Finished", 300)
        assert story.world.places()["bank/w0"] != "e"
        unfinished = [m for m in story.migrations() if m["status"]["phase"] not in ("Succeeded", "Failed")]
        assert [m["spec"]["vmiName"] for m in unfinished] == [move.vmi.partition("/")[2]]

    items = [*nodes("a", "b", "c", "d", "e"), *vms("e", "w0", vcpus=1)]
    items += vms("a", "v0", "v1", "v2", "v3", tolerations=[{"operator": "Exists"}])
    tell(items, scenario, plane=replace(PLANE, prepare=(100.0, 100.0)))
