"""Watches over HTTP: where they begin, what they send, how they end, and what can happen on the way."""

from __future__ import annotations

import asyncio

import pytest
from sim.cluster import NODES, Client, run

from rebalancer.sim.api import ApiParams
from rebalancer.sim.faults import EventFault, EventRule, Late, Script, Trouble
from rebalancer.sim.objects import Obj
from rebalancer.sim.world import World


def shown(events: list[Obj]) -> list[tuple[str, str]]:
    """(type, name) of the events that are about objects."""
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


async def later(world: World, *nodes: str, after: float = 1.0) -> None:
    """Cordon nodes, one after another."""
    for node in nodes:
        await asyncio.sleep(after)
        world.cordon(node)


def test_a_watch_from_a_version_sends_what_came_after_it_and_ends_in_time() -> None:
    async def scenario(world: World, client: Client) -> None:
        version = (await client.get(NODES))["metadata"]["resourceVersion"]
        world.cordon("w-00")
        began = world.clock.now()
        change = asyncio.create_task(later(world, "w-01"))
        events = await client.watch(NODES, resourceVersion=version, timeoutSeconds="30")
        await change
        assert shown(events) == [("MODIFIED", "w-00"), ("MODIFIED", "w-01")]
        assert [event["object"]["kind"] for event in events] == ["Node", "Node"]
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
        assert int(version) < versions[0] < versions[1]
        assert world.clock.now() - began == pytest.approx(30)

    run(scenario)


@pytest.mark.parametrize("version", ["", "0"])
def test_a_watch_from_anywhere_begins_with_everything(version: str) -> None:
    async def scenario(world: World, client: Client) -> None:
        change = asyncio.create_task(later(world, "w-01"))
        events = await client.watch(NODES, resourceVersion=version, timeoutSeconds="5")
        await change
        assert shown(events) == [("ADDED", "w-00"), ("ADDED", "w-01"), ("ADDED", "w-02"), ("MODIFIED", "w-01")]

    run(scenario)


def test_bookmarks_come_about_once_a_minute_with_the_version_only() -> None:
    async def scenario(world: World, client: Client) -> None:
        version = str(world.store.version)
        change = asyncio.create_task(later(world, "w-01"))
        events = await client.watch(NODES, resourceVersion=version, timeoutSeconds="150", allowWatchBookmarks="true")
        await change
        assert shown(events) == [("MODIFIED", "w-01"), ("BOOKMARK", ""), ("BOOKMARK", "")]
        assert events[-1]["object"]["metadata"]["resourceVersion"] == str(world.store.version)
        without = await client.watch(NODES, resourceVersion=version, timeoutSeconds="150")
        assert shown(without) == [("MODIFIED", "w-01")]

    run(scenario)


def test_a_streaming_list_ends_with_a_marked_bookmark() -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}

    async def scenario(world: World, client: Client) -> None:
        events = await client.watch(NODES, timeoutSeconds="5", **query)
        assert shown(events) == [("ADDED", "w-00"), ("ADDED", "w-01"), ("ADDED", "w-02"), ("BOOKMARK", "")]
        assert events[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}

    async def refused(world: World, client: Client) -> None:
        code, body = await client.ask("GET", NODES, watch="true", **query)
        assert (code, body["reason"]) == (422, "Invalid")
        assert "WatchList feature gate" in body["message"]

    run(scenario)
    run(refused, api=ApiParams(watch_list=False))


def test_a_watch_from_a_forgotten_version_gets_410_in_the_stream() -> None:
    async def scenario(world: World, client: Client) -> None:
        version = str(world.store.version)
        world.cordon("w-00")
        world.store.compact()
        events = await client.watch(NODES, resourceVersion=version)
        assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]
        assert events[0]["object"]["reason"] == "Expired"

    run(scenario)


def test_a_selector_turns_entering_and_leaving_into_added_and_deleted() -> None:
    async def scenario(world: World, client: Client) -> None:
        async def label() -> None:
            for value in ("web", "web2", "db"):
                await asyncio.sleep(1)

                def change(node: Obj, app: str = value) -> None:
                    node["metadata"]["labels"] |= {"app": app[:3], "v": app}

                world.store.modify("nodes", "", "w-00", change)

        version, change = str(world.store.version), asyncio.create_task(label())
        events = await client.watch(NODES, resourceVersion=version, labelSelector="app=web", timeoutSeconds="9")
        await change
        assert shown(events) == [("ADDED", "w-00"), ("MODIFIED", "w-00"), ("DELETED", "w-00")]

    run(scenario)


def test_one_object_can_be_watched_by_its_name() -> None:
    async def scenario(world: World, client: Client) -> None:
        version, change = str(world.store.version), asyncio.create_task(later(world, "w-00", "w-01"))
        query = {"resourceVersion": version, "timeoutSeconds": "9", "fieldSelector": "metadata.name=w-01"}
        events = await client.watch(NODES, **query)
        await change
        assert shown(events) == [("MODIFIED", "w-01")]

    run(scenario)


@pytest.mark.parametrize(
    ("fault", "expected", "seconds"),
    [
        (Trouble.DROP, [("MODIFIED", "w-00"), ("MODIFIED", "w-02")], 9),
        (Trouble.DUPLICATE, [("MODIFIED", name) for name in ("w-00", "w-01", "w-01", "w-02")], 9),
        (Trouble.CUT, [("MODIFIED", "w-00")], 2),
        (Trouble.EXPIRE, [("MODIFIED", "w-00"), ("ERROR", "")], 2),
        (Late(seconds=4), [("MODIFIED", name) for name in ("w-00", "w-01", "w-02")], 9),
    ],
    ids=["drop", "duplicate", "cut", "expire", "late"],
)
def test_faults_of_single_events(fault: EventFault, expected: list[tuple[str, str]], seconds: float) -> None:
    async def scenario(world: World, client: Client) -> None:
        version, began = str(world.store.version), world.clock.now()
        change = asyncio.create_task(later(world, "w-00", "w-01", "w-02"))
        events = await client.watch(NODES, resourceVersion=version, timeoutSeconds="9")
        assert world.clock.now() - began == pytest.approx(seconds)
        await change
        assert shown(events) == expected

    run(scenario, faults=Script(events=[EventRule(fault=fault, matches=lambda _, change: change.name == "w-01")]))


def test_a_client_that_goes_away_leaves_no_listener_behind() -> None:
    async def scenario(world: World, client: Client) -> None:
        await asyncio.sleep(1)
        before = world.store.listeners
        for _ in range(3):
            task = asyncio.create_task(client.watch(NODES, resourceVersion=str(world.store.version)))
            await asyncio.sleep(1)
            assert world.store.listeners == before + 1
            task.cancel()
            await asyncio.sleep(1)
        assert world.store.listeners == before

    run(scenario)
