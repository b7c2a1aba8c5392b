"""Garbage instead of answers: a sentence each, what was known is kept, and no server is asked in a hot loop."""

from __future__ import annotations

import json

import anyio
import pytest
from aiohttp import web
from kube.serving import Answer, Served, answering, says, serve, streams, surroundings

from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.decode import KINDS
from rebalancer.kube.lease import Elector, LeaseParams
from rebalancer.kube.reflector import Shared
from rebalancer.sim.faults import Entry, Refuse, Rule, Script
from rebalancer.sim.virtualtime import run_virtual

NODES = (KINDS["Node"],)
PAGES = CacheParams(watch_list=False, idle_seconds=1000, stale_seconds=1001)
MINUTES = 10
MOST = 25
"""Requests within ten minutes: the back-off doubles up to half a minute and more."""


def page(*names: str, version: str = "5", **more: object) -> str:
    items = [{"metadata": {"name": name, "resourceVersion": version}, **more} for name in names]
    return json.dumps({"metadata": {"resourceVersion": version}, "items": items})


def line(kind: str, name: str, version: int) -> bytes:
    item = {"metadata": {"name": name, "resourceVersion": str(version)}}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def watch(*answers: Answer) -> tuple[list[str], str, int, bool]:
    """What a cache makes of these answers, the last one repeated: names, why nobody should act, requests, synced."""
    asked = 0

    def counted(answer: Answer) -> Answer:
        async def handle(request: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return await answer(request)

        return handle

    async def main() -> tuple[list[str], str, int, bool]:
        async with answering([counted(answer) for answer in answers]) as api:
            cache = Cache(api, surroundings(), PAGES, NODES)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.run)
                await anyio.sleep(MINUTES * 60)
                tasks.cancel_scope.cancel()
            return list(cache.snapshot().nodes), "; ".join(cache.problems()), asked, cache.synced

    return run_virtual(main)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says("<html>hello</html>", content_type="text/html"), "200 text/html: <html>hello</html>"),
        (says("<html>gateway</html>", status=502, content_type="text/html"), "502 text/html: <html>gateway</html>"),
        (says("<html>who?</html>", status=403, content_type="text/html"), "not permitted to list nodes: <html>who?"),
        (says(""), "cannot be read"),
        (says(page("a")[:-9]), "cannot be read"),
        (says("null"), "cannot be read"),
        (says("[]"), "cannot be read"),
        (says('{"items": {}}'), "cannot be read"),
        (says('{"metadata": 5, "items": []}'), "the list of nodes has no resourceVersion"),
        (says('{"metadata": {}, "items": []}'), "the list of nodes has no resourceVersion"),
        (says(DEEP), "cannot be read"),
        (says(b"\xff\xfe" * 100), "cannot be read"),
        (says("{}", status=401), "401, the credentials are not accepted"),
    ],
    ids=[
        "a page", "a proxy's page", "a guard's page", "nothing", "cut off", "null", "an array", "items no array",
        "metadata no object", "no version", "without end", "no text", "401",
    ],
)  # fmt: skip
def test_garbage_instead_of_a_list_says_what_came_and_is_asked_for_ever_more_rarely(answer: Answer, words: str) -> None:
    names, problem, asked, synced = watch(answer)
    assert (names, synced) == ([], False)
    assert words in problem
    assert problem.startswith("nodes are not listed yet (")
    assert asked <= 2 * MOST, "a refused token is read again, once per request"


HUGE = {"metadata": {"name": "huge", "annotations": {"x": "y" * 50_000_000}, "resourceVersion": "5"}}
SILENT = streams(then_silence=True)


def test_an_object_of_50_mb_is_one_object() -> None:
    body = json.dumps({"metadata": {"resourceVersion": "5"}, "items": [HUGE, {"metadata": {"name": "a"}}]})
    names, problem, asked, _ = watch(says(body), SILENT)
    assert (names, problem) == (["a", "huge"], "")
    assert asked == 2


def test_an_object_of_50_mb_in_a_watch_costs_a_list() -> None:
    event = json.dumps({"type": "ADDED", "object": HUGE}).encode() + b"\n"
    names, problem, asked, _ = watch(says(page("a")), streams(event), says(page("a", "b")), SILENT)
    assert (names, problem, asked) == (["a", "b"], "", 4)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ((line("ADDED", "b", 6), line("ADDED", "c", 3)), ["fresh"]),
        ((line("ADDED", "b", 6), line("BOOKMARK", "", 3)), ["fresh"]),
        ((line("ADDED", "b", 6), line("MODIFIED", "b", 6)), ["a", "b"]),
        ((line("ADDED", "\udcff", 6).replace(b"\\udcff", b"\xff"), line("ADDED", "b", 7)), ["a", "b"]),
        ((b'{"type":"ADDED","object":{"metadata":{"name":5}}}\n',), ["a"]),
        ((b'{"type":"ADDED","object":[]}\n',), ["a"]),
        ((b'{"type":7}\n',), ["fresh"]),
    ],
    ids=["an event from before", "a bookmark from before", "twice", "no UTF-8", "wrong types", "no object", "no type"],
)
def test_a_line_that_makes_no_sense_costs_itself_or_a_list(lines: tuple[bytes, ...], names: list[str]) -> None:
    stream = streams(*lines, then_silence=True)
    found, problem, asked, _ = watch(says(page("a")), stream, says(page("fresh", version="4")), SILENT)
    assert (found, problem) == (names, "")
    assert asked <= 4


@pytest.mark.parametrize("status", ["as an answer", "in the stream"])
def test_a_server_restored_from_a_backup_is_listed_anew(status: str) -> None:
    told = {"kind": "Status", "code": 504, "reason": "Timeout", "message": "Too large resource version: 5, current: 3"}
    as_event = streams(json.dumps({"type": "ERROR", "object": told}).encode() + b"\n")
    refused = says(json.dumps(told), status=504) if status == "as an answer" else as_event
    names, problem, asked, _ = watch(says(page("a")), refused, says(page("old", version="3")), SILENT)
    assert (names, problem, asked) == (["old"], "", 4)


def test_a_bug_in_one_resource_is_that_resources_problem(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is told of changes raises: not even that ends the others, or is tried in a hot loop."""

    async def scenario(served: Served) -> int:
        cache = Cache(served.api, surroundings(), CacheParams(), (KINDS["Node"], KINDS["Namespace"]))
        told = 0

        def broken() -> None:
            nonlocal told
            told += 1
            raise ZeroDivisionError("a bug")

        cache.reflectors[0].shared = Shared(broken)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            for index in range(600):
                served.store.create("nodes", {"metadata": {"name": f"n{index}"}})
                served.store.create("namespaces", {"metadata": {"name": f"n{index}"}})
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert len(cache.reflectors[1].items) == 600
        assert len(cache.reflectors[0].items) > 500
        return told

    told = serve(scenario)
    assert 10 < told < 2 * MOST
    assert {record.getMessage() for record in caplog.records} == {"watching nodes failed"}


@pytest.mark.parametrize(
    "body",
    ["", "[]", '{"metadata": 5}', f'{{"spec": {DEEP}}}', '{"metadata": {}, "spec": {"holderIdentity": 5}}'],
    ids=["nothing", "an array", "wrong type", "without end", "no name"],
)
def test_a_lease_that_cannot_be_read_is_nobodys_and_says_so(body: str) -> None:
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await says(body)(request)

    async def main() -> tuple[float, str]:
        async with answering([handle]) as api:
            elector = Elector(api, LeaseParams(), surroundings())
            with anyio.move_on_after(60):
                await elector.run()
            return elector.fence(), elector.problem

    fence, problem = run_virtual(main)
    assert fence == 0.0
    assert problem.startswith("the lease cannot be read: ")
    assert asked < 40


def test_a_token_that_is_revoked_and_replaced_costs_one_request_more_each() -> None:
    """Every request is refused until the file has the new token."""
    token = ["old"]

    def refused(entry: Entry) -> bool:
        return token[0] == "old"

    async def scenario(served: Served) -> tuple[list[str], list[str], int]:
        cache = Cache(served.api, surroundings(), CacheParams(watch_seconds=(60.0, 60.0)), NODES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(30)
            served.server.faults = Script([Rule(fault=Refuse(code=401), matches=refused, times=10**6)])
            await anyio.sleep(300)
            problems = list(cache.problems())
            number = len(served.server.log)
            token[0] = "new"
            served.store.create("nodes", {"metadata": {"name": "a"}})
            await anyio.sleep(90)
            tasks.cancel_scope.cancel()
        return problems, list(cache.snapshot().nodes), number

    problems, names, number = serve(scenario)
    (problem,) = problems
    assert problem.startswith("nothing heard of nodes for ")
    assert problem.endswith("(WATCH /api/v1/nodes: 401, the credentials are not accepted)")
    assert names == ["a"]
    assert number < MOST
