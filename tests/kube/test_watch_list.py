"""Lists that come as the beginning of a watch, and every way in which that does not work."""

from __future__ import annotations

import json

import anyio
import pytest
from kube.serving import Answer, Served, answering, says, serve, streams, surroundings

from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.decode import KINDS
from rebalancer.kube.reflector import Reflector
from rebalancer.sim.faults import Entry, EventRule, Fault, Hang, Refuse, Reset, Rule, Script, Trouble
from rebalancer.sim.virtualtime import run_virtual

NODES = (KINDS["Node"],)
PARAMS = CacheParams(page_limit=2)


def initial(entry: Entry) -> bool:
    return "sendInitialEvents" in entry.query


def create(served: Served, name: str) -> None:
    status = {"allocatable": {"cpu": "4", "memory": "1Gi", "pods": "9"}}
    served.store.create("nodes", {"metadata": {"name": name}, "status": status})


def follow(faults: Script | None = None) -> tuple[list[str], Reflector, Served]:
    """Five nodes; after some minutes one goes and one comes, and the server forgets what was."""

    async def scenario(served: Served) -> tuple[list[str], Reflector, Served]:
        for index in range(5):
            create(served, f"n{index}")
        cache = Cache(served.api, surroundings(), PARAMS, NODES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await anyio.sleep(300)
            served.store.delete("nodes", "", "n2")
            create(served, "n5")
            await anyio.sleep(300)
            tasks.cancel_scope.cancel()
        return sorted(cache.snapshot().nodes), cache.reflectors[0], served

    return serve(scenario, faults)


def rule(fault: Fault, times: int = 1, after: bool = False) -> Script:
    return Script([Rule(fault=fault, matches=initial, times=times, after=after)])


@pytest.mark.parametrize(
    ("faults", "watch_lists", "pages"),
    [
        (Script(), 1, 0),
        (rule(Refuse(code=422, reason="Invalid", message="sendInitialEvents is forbidden for watch"), 99), 1, 3),
        (rule(Refuse(code=400), 99), 1, 3),
        (rule(Refuse(code=403)), 1, 3),
        (rule(Refuse(code=410)), 1, 3),
        (rule(Refuse(code=500), 2), 1, 3),
        (rule(Refuse(code=502, html=True)), 1, 3),
        (rule(Refuse(code=429, retry_after_seconds=7)), 1, 3),
        (rule(Reset()), 2, 0),
        (rule(Hang()), 1, 3),
        (Script(events=[EventRule(fault=Trouble.EXPIRE, matches=lambda *_: True)]), 2, 0),
    ],
    ids=["served", "gate is off", "400", "403", "410", "500", "HTML", "429", "reset", "hangs", "expires later"],
)
def test_what_is_not_served_as_a_watch_is_listed_in_pages(faults: Script, watch_lists: int, pages: int) -> None:
    names, reflector, served = follow(faults)
    asked = [entry for entry in served.server.log if initial(entry)]
    listed = served.requests("list")
    assert (len(asked), len(listed)) == (watch_lists, pages)
    assert (reflector.synced, reflector.problem) == (True, "")
    assert names == ["n0", "n1", "n3", "n4", "n5"]


def line(kind: str, name: str = "", version: int = 1, **meta: object) -> bytes:
    found = {"metadata": {"name": name, "resourceVersion": str(version), **meta}}
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def end(version: int = 9) -> bytes:
    return line("BOOKMARK", version=version, annotations={"k8s.io/initial-events-end": "true"})


PAGED = says(json.dumps({"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "paged"}}]}))
SILENT = streams(then_silence=True)
A, B = line("ADDED", "a"), line("ADDED", "b", 2)


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (streams(A, B, end(), then_silence=True), ["a", "b"]),
        (streams(A, B, line("DELETED", "a", 3), line("MODIFIED", "b", 4), end(), then_silence=True), ["b"]),
        (streams(end(), then_silence=True), []),
        (streams(A, B), ["paged"]),
        (streams(A, B[:20]), ["paged"]),
        (streams(A, b"<html>\n"), ["paged"]),
        (streams(A, line("ERROR")), ["paged"]),
        (streams(A, b'{"type":"ERROR","object":{"code":410}}\n'), ["paged"]),
        (streams(A, line("BOOKMARK", version=5), then_silence=True), ["paged"]),
        (streams(A, line("BOOKMARK", annotations={"k8s.io/initial-events-end": "true"}, resourceVersion=""),
                 then_silence=True), ["paged"]),
        (streams(A, then_silence=True), ["paged"]),
        (streams(A, b'{"type":"ADDED","object":"' + b"x" * 5_000_000 + b'"}\n'), ["paged"]),
    ],
    ids=[
        "whole", "with changes", "empty", "ends early", "cut off", "HTML", "an error", "expired",
        "a server that does not know WatchList", "an end without version", "falls silent", "a line without end",
    ],
)  # fmt: skip
def test_a_list_is_whole_or_does_not_count(first: Answer, names: list[str]) -> None:
    seen: list[list[str]] = []

    async def main() -> None:
        async with answering([first, PAGED, SILENT]) as api:
            params = CacheParams(idle_seconds=30, stale_seconds=1000)
            cache = Cache(api, surroundings(), params, NODES)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cache.run)
                for _ in range(40):
                    await anyio.sleep(1)
                    seen.append(list(cache.snapshot().nodes))
                tasks.cancel_scope.cancel()

    run_virtual(main)
    assert seen[-1] == names
    assert all(found in ([], names) for found in seen), "nothing of an unfinished list is ever shown"
