"""Reflectors and cache: whatever happens between us and the API server, in the end we have what it has."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest
from kube.serving import Served, answering, monotonic, says, serve, streams, surroundings

from rebalancer.domain.node import Node
from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.decode import KINDS
from rebalancer.kube.reflector import Reflector
from rebalancer.sim.faults import Entry, EventRule, Refuse, Reset, Rule, Script, Trouble
from rebalancer.sim.virtualtime import run_virtual

NODES = (KINDS["Node"],)
PARAMS = CacheParams(page_limit=2, watch_list=False)
MINUTE = 60.0


def cpu(served: Served, name: str, amount: str) -> None:
    """Creates a node, or gives it another capacity."""
    status = {"allocatable": {"cpu": amount, "memory": "1Gi", "pods": "9"}}
    if served.store.find("nodes", "", name) is None:
        served.store.create("nodes", {"metadata": {"name": name}, "status": status})
    else:
        served.store.modify("nodes", "", name, lambda node: node.update(status=status))


async def life(served: Served) -> None:
    """Five nodes; then, over ten minutes, one changes, one goes, one comes, one comes back as another."""
    for index in range(5):
        cpu(served, f"n{index}", "4")
    await anyio.sleep(2 * MINUTE)
    cpu(served, "n1", "8")
    await anyio.sleep(2 * MINUTE)
    served.store.delete("nodes", "", "n2")
    await anyio.sleep(2 * MINUTE)
    cpu(served, "n5", "2")
    await anyio.sleep(2 * MINUTE)
    served.store.delete("nodes", "", "n3")
    cpu(served, "n3", "1")
    await anyio.sleep(2 * MINUTE)


AT_THE_END = {"n0": 4000, "n1": 8000, "n3": 1000, "n4": 4000, "n5": 2000}


def follow(
    faults: Script | None = None,
    params: CacheParams = PARAMS,
    story: Callable[[Served], Awaitable[None]] = life,
    settle_seconds: float = 2 * MINUTE,
) -> tuple[dict[str, int], Reflector, Served]:
    """What the cache says in the end: CPU in millicores by node."""

    async def scenario(served: Served) -> tuple[dict[str, int], Reflector, Served]:
        cache = Cache(served.api, surroundings(), params, NODES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await story(served)
            await anyio.sleep(settle_seconds)
            nodes = cache.snapshot().nodes
            tasks.cancel_scope.cancel()
        return {name: node.allocatable.cpu_milli for name, node in nodes.items()}, cache.reflectors[0], served

    return serve(scenario, faults)


def is_list(entry: Entry) -> bool:
    return entry.verb == "list"


def is_watch(entry: Entry) -> bool:
    return entry.verb == "watch"


def request(fault: Refuse | Reset, matches: Callable[[Entry], bool], skip: int = 0, times: int = 1) -> Script:
    return Script([Rule(fault=fault, matches=matches, skip=skip, times=times)])


def event(trouble: Trouble, skip: int = 0, times: int = 1) -> Script:
    return Script(events=[EventRule(fault=trouble, matches=lambda *_: True, skip=skip, times=times)])


@pytest.mark.parametrize(
    ("faults", "lists"),
    [
        (Script(), 1),
        (request(Refuse(code=410, reason="Expired"), lambda e: "continue" in e.query), 1),
        (request(Refuse(code=410, reason="Expired"), is_watch), 2),
        (request(Refuse(code=410, reason="Gone"), is_watch, times=3), 4),
        (request(Refuse(code=429, retry_after_seconds=5), is_list), 1),
        (request(Refuse(code=429, retry_after_seconds=5), is_watch), 1),
        (request(Refuse(code=500), is_list, times=3), 1),
        (request(Refuse(code=500), is_watch, times=3), 1),
        (request(Refuse(code=502, html=True), is_watch, times=3), 1),
        (request(Reset(), is_list), 1),
        (request(Reset(), is_watch), 1),
        (event(Trouble.EXPIRE, skip=1), 2),
        (event(Trouble.CUT, skip=1), 1),
        (event(Trouble.DUPLICATE, times=9), 1),
    ],
    ids=[
        "no fault",
        "410 on a continue token",
        "410 at the start of a watch",
        "410 three times over",
        "429 on list",
        "429 on watch",
        "500 on list",
        "500 on watch",
        "HTML on watch",
        "reset on list",
        "reset on watch",
        "410 in mid-stream",
        "cut in mid-stream",
        "events twice",
    ],
)
def test_the_cache_ends_up_with_what_the_server_has(faults: Script, lists: int) -> None:
    nodes, reflector, _ = follow(faults)
    assert nodes == AT_THE_END
    assert reflector.lists == lists


def test_what_a_new_list_does_not_name_was_deleted() -> None:
    """The event of the deletion is lost, and the stream breaks later: only the list can tell."""
    script = Script(
        events=[
            EventRule(fault=Trouble.DROP, matches=lambda _, change: change.type == "DELETED"),
            EventRule(fault=Trouble.EXPIRE, matches=lambda _, change: change.name == "n5"),
        ]
    )
    assert follow(script)[0] == AT_THE_END


def test_a_watch_that_ends_is_watched_again_and_not_listed() -> None:
    nodes, reflector, served = follow(params=replace(PARAMS, watch_seconds=(20.0, 40.0)))
    assert nodes == AT_THE_END
    assert reflector.lists == 1
    assert 20 < len(served.requests("watch")) < 30
    assert {entry.query["timeoutSeconds"] for entry in served.requests("watch")} == {"30"}
    assert {entry.query["allowWatchBookmarks"] for entry in served.requests("watch")} == {"true"}
    assert all("resourceVersion" not in entry.query for entry in served.requests("list"))


@pytest.mark.parametrize(
    ("fault", "matches"),
    [
        (Refuse(code=500), is_list),
        (Refuse(code=502, html=True), is_list),
        (Reset(), is_list),
        (Refuse(code=410, reason="Expired"), is_watch),
        (Refuse(code=500), is_watch),
        (Reset(), is_watch),
        (Refuse(code=403, reason="Forbidden"), is_watch),
        (Refuse(code=404, reason="NotFound"), is_watch),
    ],
)
def test_a_broken_server_is_asked_ever_more_rarely(fault: Refuse | Reset, matches: Callable[[Entry], bool]) -> None:
    """At 0.8 s doubling to 30 s, with half the jitter, ten minutes have room for 18 attempts."""
    _, _, served = follow(request(fault, matches, times=10**6))
    attempts = [entry for entry in served.server.log if matches(entry)]
    # aiohttp sends a read again, once, when the connection drops under it.
    assert 10 < len(attempts) <= (50 if isinstance(fault, Reset) else 25)
    assert len(served.server.log) <= 110


def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_hot_loop() -> None:
    async def main() -> int:
        asked = 0

        async def count(handler_request: object) -> object:
            nonlocal asked
            asked += 1
            return await streams()(handler_request)  # type: ignore[arg-type]

        listing = says(json.dumps({"metadata": {"resourceVersion": "1"}, "items": []}))
        async with answering([listing, count]) as api, anyio.create_task_group() as tasks:  # type: ignore[list-item]
            tasks.start_soon(Cache(api, surroundings(), PARAMS, NODES).run)
            await anyio.sleep(10 * MINUTE)
            tasks.cancel_scope.cancel()
        return asked

    assert run_virtual(main) <= 25


def node(name: str, version: int, **status: object) -> dict[str, object]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "status": status}


def line(kind: str, item: object) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


FIRST = says(json.dumps({"metadata": {"resourceVersion": "1"}, "items": [node("a", 1)]}))
SECOND = says(json.dumps({"metadata": {"resourceVersion": "9"}, "items": [node("a", 1), node("z", 9)]}))
SILENT = streams(then_silence=True)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ((line("ADDED", node("b", 2)),), ["a", "b"]),
        ((b"<html>gateway</html>\n",), ["a", "z"]),
        ((b'{"type":"ADDED","object":{"metada',), ["a"]),
        ((b'{"type":"ADDED"}\n',), ["a"]),
        ((b'{"type":"DANCED","object":{}}\n',), ["a", "z"]),
        ((b'{"type":"ADDED","object":{"metadata":{"name":"\xff\xfe"}}}\n', line("ADDED", node("c", 3))), ["a", "c"]),
        ((line("ADDED", node("b", 2)), b"\n"), ["a", "z"]),
        ((line("ERROR", {"code": 410, "reason": "Expired"}),), ["a", "z"]),
        ((line("ERROR", {"code": 500}),), ["a"]),
        ((line("ERROR", {}),), ["a"]),
        ((line("BOOKMARK", {"metadata": {"resourceVersion": "5"}}),), ["a"]),
        ((line("DELETED", node("a", 2)),), []),
        ((line("DELETED", node("unknown", 2)),), ["a"]),
        ((line("MODIFIED", node("b", 2)),), ["a", "b"]),
        ((line("ADDED", node("a", 1)), line("ADDED", node("a", 1))), ["a"]),
    ],
    ids=[
        "an event",
        "HTML",
        "cut off",
        "no object",
        "unknown type",
        "no UTF-8",
        "empty line",
        "expired",
        "an error",
        "an empty error",
        "bookmark",
        "deleted",
        "deleted unknown",
        "modified unknown",
        "the same again",
    ],
)
def test_a_line_is_an_event_or_a_reason_to_list_again(lines: tuple[bytes, ...], names: list[str]) -> None:
    async def main() -> list[str]:
        async with answering([FIRST, streams(*lines, then_silence=len(lines[-1]) > 0 and lines[-1].endswith(b"\n")),
                              SECOND, SILENT]) as api:  # fmt: skip
            # A second request that is a watch again is answered by a list: what is no event must not do harm either.
            cache = Cache(api, surroundings(), replace(PARAMS, idle_seconds=1000, stale_seconds=1001), NODES)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.run)
                await anyio.sleep(10)
                tasks.cancel_scope.cancel()
            return list(cache.snapshot().nodes)

    assert run_virtual(main) == names


def test_a_broken_object_is_set_aside_and_comes_back_when_it_is_whole() -> None:
    async def main() -> None:
        broken = node("a", 2, allocatable={"cpu": "lots", "memory": "1Gi", "pods": "9"})
        whole = node("a", 3, allocatable={"cpu": "3", "memory": "1Gi", "pods": "9"})
        pace = 10.0
        stream = streams(line("MODIFIED", broken), line("MODIFIED", whole), pause_seconds=pace, then_silence=True)
        async with answering([FIRST, stream]) as api, anyio.create_task_group() as tasks:
            cache = Cache(api, surroundings(), PARAMS, NODES)
            tasks.start_soon(cache.run)
            await anyio.sleep(pace / 2)
            snapshot = cache.snapshot()
            assert [entry.name for entry in snapshot.set_aside] == ["a"]
            assert not snapshot.nodes["a"].capacity_known
            await anyio.sleep(pace)
            snapshot = cache.snapshot()
            assert snapshot.set_aside == ()
            assert snapshot.nodes["a"].allocatable.cpu_milli == 3000
            tasks.cancel_scope.cancel()

    run_virtual(main)


def test_a_silent_connection_is_found_out_and_the_cache_says_how_old_it_is() -> None:
    async def main() -> None:
        # The second connection is refused: nothing is heard until the third.
        page = says("{}", 500)
        async with answering([FIRST, SILENT, page, page, page, page, page, page, SILENT]) as api:
            cache = Cache(api, surroundings(), PARAMS, NODES)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.run)
                await anyio.sleep(100)
                assert cache.problems() == ()
                assert cache.age_seconds() == pytest.approx(100, abs=1)
                await anyio.sleep(145)
                assert [problem[:32] for problem in cache.problems()] == ["nothing heard of nodes for 245 s"]
                await anyio.sleep(40)
                assert cache.problems() == ()
                tasks.cancel_scope.cancel()

    run_virtual(main)


def test_after_an_outage_the_first_resource_that_is_back_brings_the_others() -> None:
    """Each would else wait out its own streak; and what is known to be broken counts as old soon."""

    async def scenario(served: Served) -> list[float]:
        around = replace(surroundings(), random=random.Random(7).random)
        kinds = tuple(KINDS[name] for name in ("Node", "Namespace", "Pod", "VirtualMachineInstance"))
        cache = Cache(served.api, around, CacheParams(), kinds)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(MINUTE)
            await served.server.stop()
            await anyio.sleep(8)
            assert cache.problems() == ()
            await anyio.sleep(7)
            assert [problem.split(" for ")[0] for problem in cache.problems()] == [
                f"nothing heard of {kind.plural}" for kind in kinds
            ]
            await anyio.sleep(4 * MINUTE)
            await served.server.start(unix=served.socket)
            back: dict[str, float] = {}
            with anyio.fail_after(2 * MINUTE):
                while len(back) < len(kinds):
                    await anyio.sleep(0.1)
                    now = {r.kind.kind: monotonic() for r in cache.reflectors if not r.problem}
                    back = now | back
            tasks.cancel_scope.cancel()
        return sorted(back.values())

    times = serve(scenario)
    assert times[-1] - times[0] < 2


def test_resources_whose_watches_break_by_turns_do_not_wake_each_other_for_ever() -> None:
    """Every watch is opened, which is a sign of life, and breaks at its first event."""

    async def scenario(served: Served) -> int:
        kinds = (KINDS["Node"], KINDS["Namespace"])
        cache = Cache(served.api, replace(surroundings(), random=random.Random(7).random), CacheParams(), kinds)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(MINUTE)
            served.server.faults = Script([], [EventRule(fault=Trouble.BREAK, matches=lambda *_: True, times=10**6)])
            for number in range(600):
                for plural in ("nodes", "namespaces"):
                    served.store.create(plural, {"metadata": {"name": f"n{number}"}})
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        return len(served.server.log)

    assert serve(scenario) <= 2 * 25


def test_nothing_is_listed_yet_means_why() -> None:
    def forbid(_user: str, _verb: str, resource: object, *_: object) -> bool:
        return getattr(resource, "plural", "") not in ("pods", "persistentvolumes")

    async def scenario(served: Served) -> tuple[bool, tuple[str, ...], list[str]]:
        cache = Cache(served.api, surroundings())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(30)
            tasks.cancel_scope.cancel()
        return cache.synced, cache.problems(), [entry.sentence() for entry in cache.snapshot().set_aside]

    synced, problems, set_aside = serve(scenario, authorize=forbid)
    assert not synced
    assert len(problems) == 1
    assert problems[0].startswith("pods are not listed yet (cannot list pods: not permitted to list pods: ")
    assert [text[:78] for text in set_aside] == [
        "PersistentVolume (all) is set aside: not permitted to list persistentvolumes: "
    ]


def test_the_snapshot_is_the_same_object_while_nothing_changes_that_we_read() -> None:
    async def scenario(served: Served) -> None:
        cpu(served, "n", "4")
        cache = Cache(served.api, surroundings(), PARAMS, NODES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(1)
            first, news = cache.snapshot(), cache.news
            beat = {"somebody": "x", "kubevirt.io/heartbeat": "2033-05-18T03:33:20Z"}
            served.store.modify("nodes", "", "n", lambda node: node["metadata"].update(annotations=beat))
            await anyio.sleep(1)
            assert cache.snapshot() is first
            with anyio.move_on_after(5) as nothing:
                await cache.wait(news)
            assert nothing.cancelled_caught
            tasks.start_soon(_later, 3.0, lambda: cpu(served, "n", "5"))
            begun = monotonic()
            await cache.wait(news)
            assert monotonic() - begun == pytest.approx(3.0, abs=0.01)
            assert cache.snapshot() is not first
            assert cache.snapshot().nodes["n"].heartbeat == 2_000_000_000.0, "no news, but known with the next"
            tasks.cancel_scope.cancel()

    serve(scenario)


async def _later(seconds: float, action: Callable[[], None]) -> None:
    await anyio.sleep(seconds)
    action()


def test_values_are_domain_values() -> None:
    _, reflector, _ = follow()
    assert all(isinstance(item, Node) for item in reflector.items.values())


@pytest.mark.parametrize(("refusals", "kept"), [(4, True), (1000, False)], ids=["for a moment", "for good"])
def test_what_an_api_server_refuses_for_a_moment_is_kept(refusals: int, kept: bool) -> None:
    """One that has just started knows no roles yet and refuses everybody."""

    async def scenario(served: Served) -> None:
        served.store.create("persistentvolumes", {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}}})
        cache = Cache(served.api, surroundings(), PARAMS, (KINDS["PersistentVolume"],))
        had = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            for _ in range(120):
                await anyio.sleep(1)
                had.append("v" in cache.snapshot().volumes)
            tasks.cancel_scope.cancel()
        assert all(had[:10])
        assert all(had) is kept
        assert bool(cache.snapshot().set_aside) is not kept

    serve(scenario, request(Refuse(code=403, reason="Forbidden"), is_watch, times=refusals))


def test_a_right_to_watch_that_is_missing_is_a_problem_at_once() -> None:
    async def scenario(served: Served) -> None:
        cpu(served, "n0", "4")
        cache = Cache(served.api, surroundings(), PARAMS, NODES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(1)
            assert cache.synced
            assert cache.problems() == ("cannot watch nodes: not permitted to watch nodes: injected",)
            await anyio.sleep(MINUTE)
            assert cache.problems() == ()
            tasks.cancel_scope.cancel()

    serve(scenario, request(Refuse(code=403, reason="Forbidden"), is_watch, times=3))
