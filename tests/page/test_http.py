"""Page and API over HTTP: documents as OpenAPI has them, headers, methods, refusals, the stream, and who waits."""

from __future__ import annotations

import copy
import gzip
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlsplit

import anyio
import jsonschema
import pytest

from bench.page.serving import Gallery, served
from rebalancer.control.offload import in_thread
from rebalancer.control.server import HttpParams, serving
from rebalancer.control.site import Board, Query, Site, SiteParams
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import SENTENCES, Report, Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration
from rebalancer.policy.cluster_state import MIGRATION_JOB, settled_pods
from rebalancer.present import api
from rebalancer.present.answers import DOCUMENTS, STREAM, Answer, openapi
from rebalancer.present.picture import Picture

OPENAPI: dict[str, Any] = json.loads(openapi())
DOCUMENTED = sorted(set(OPENAPI["paths"]) - {STREAM, "/api/v1/openapi.json"})


def strict(schema: Any) -> Any:
    """The schema with no room for fields that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: strict(part) for key, part in schema.items()}
    return {"additionalProperties": False, **told} if "properties" in told and told.get("type") == "object" else told


def check(name: str, document: object) -> None:
    """Raises where a document is not exactly what OpenAPI says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": strict(copy.deepcopy(OPENAPI["components"]))}
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.fixture(scope="module")
def gallery(picture: Picture) -> Iterator[Gallery]:
    with served(picture) as found:
        yield found


@contextmanager
def asked(url: str, path: str, *, method: str = "GET", **headers: str) -> Iterator[HTTPResponse]:
    """One request; the connection is closed at the end."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        yield connection.getresponse()
    finally:
        connection.close()


def read(url: str, path: str) -> tuple[int, Any]:
    """Status and JSON body of a GET."""
    with asked(url, path) as response:
        body = response.read()
        return response.status, json.loads(body) if body else None


def test_openapi_itself_names_every_path() -> None:
    assert OPENAPI["openapi"].startswith("3.1")
    jsonschema.Draft202012Validator.check_schema({"components": OPENAPI["components"]["schemas"]})
    served_paths = {document.path for document in DOCUMENTS if document.path.startswith("/api/")}
    assert set(OPENAPI["paths"]) == served_paths | {STREAM}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_answers_are_what_openapi_says(gallery: Gallery, plan: Plan, path: str) -> None:
    query = f"?vmi={quote(plan.moves[0].vmi, safe='')}" if path.endswith("explain") else ""
    status, told = read(gallery.url, path + query)
    assert status == 200
    reference = OPENAPI["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    check(reference.rpartition("/")[2], told)


def test_the_cluster_adds_up(gallery: Gallery, snapshot: Snapshot) -> None:
    _, told = read(gallery.url, "/api/v1/cluster")
    assert [node["name"] for node in told["nodes"]] == list(snapshot.nodes)
    assert sum(len(node["vmis"]) for node in told["nodes"]) == told["size"]["vmis"] == 130
    (hot,) = [node for node in told["nodes"] if node["name"] == "w-00"]
    assert hot["cpu"]["reserved"] == 63_010
    assert hot["cpu"]["allocatable"] == 63_500
    (spot,) = [spot for spot in told["hotspots"] if spot["node"] == "w-00"]
    assert spot["percent"] == pytest.approx(100 * hot["cpu"]["reserved"] / hot["cpu"]["allocatable"], abs=0.01)


def test_vms_are_where_they_will_be_when_migrations_have_landed(snapshot: Snapshot, plan: Plan) -> None:
    """One VM has a target pod, one an old pod that lingers, one no pod, and one whose pod says another node."""
    flying, lingering, without, elsewhere = (snapshot.vmis[move.vmi] for move in plan.moves[:4])
    pods, now = dict(snapshot.pods), settled_pods(snapshot)
    job = Migration(namespace=flying.namespace, name="rb", uid="job", vmi=flying.name, phase="Running")
    labels = FrozenMap({**now[flying.key].labels, MIGRATION_JOB: job.uid})
    pods["bank/target"] = replace(now[flying.key], name="target", uid="t", node="w-11", labels=labels)
    pods["bank/old"] = replace(now[lingering.key], name="old", uid="o", node="w-11")
    del pods[now[without.key].key]
    pods[now[elsewhere.key].key] = replace(now[elsewhere.key], node="w-11")
    there = replace(snapshot, pods=FrozenMap(pods), migrations=FrozenMap({"bank/rb": job}))
    found = dict(api.homes(there))
    assert found == settled_pods(there)
    assert (found[flying.key].node, found[lingering.key].node) == ("w-11", lingering.node)
    assert {without.key, elsewhere.key} & set(found) == set()


def test_the_plan_says_how_far_it_has_come(gallery: Gallery, plan: Plan) -> None:
    _, told = read(gallery.url, "/api/v1/plan")
    assert told["wave"] == 1
    assert [move["result"] for move in told["waves"][0]["moves"]][:3] == ["Succeeded", "Failed", ""]
    _, history = read(gallery.url, "/api/v1/history")
    (chapter,) = history["plans"]
    assert (chapter["id"], chapter["standing"], chapter["actual"]["moves"]) == (plan.id, "Running", 1)


def test_before_anything_is_known() -> None:
    with served(Picture()) as empty:
        assert read(empty.url, "/api/v1/plan") == (204, None)
        status, told = read(empty.url, "/api/v1/cluster")
        assert status == 200
        check("Cluster", told)
        assert told["problem"]["todo"].startswith("Wait")
        status, told = read(empty.url, "/api/v1/explain?vmi=a/b")
        assert status == 503
        check("Error", told)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "vmi is missing"),
        ("?vmi=bank/db-0-11", 404, "did you mean bank/db-0-1"),
        ("?vmi=bank/db-0-1&node=w-99", 404, "there is no node w-99"),
    ],
    ids=["no VM", "unknown VM", "unknown node"],
)
def test_refusals_say_what_to_do(gallery: Gallery, query: str, status: int, words: str) -> None:
    found, told = read(gallery.url, f"/api/v1/explain{query}")
    assert found == status
    check("Error", told)
    assert words in told["what"]
    assert told["todo"]


def test_one_nodes_verdict(gallery: Gallery) -> None:
    _, told = read(gallery.url, "/api/v1/explain?vmi=bank/db-0-1&node=w-11")
    assert list(told["nodes"]) == ["w-11"]
    assert told["nodes"]["w-11"]["plugin"] == "NodeUnschedulable"


def test_why_not_without_scripts(gallery: Gallery) -> None:
    with asked(gallery.url, "/?vmi=bank%2Fdb-0-1") as response:
        told = response.read().decode()
    assert "runs on w-03 and may move" in told
    assert "NodeUnschedulable: node(s) were unschedulable" in told
    with asked(gallery.url, "/?vmi=%3Cscript%3Ealert(1)%3C/script%3E") as response:
        told = response.read().decode()
    assert "<script>alert" not in told
    assert "there is no VM &lt;script&gt;" in told


@pytest.mark.parametrize("path", [*(document.path for document in DOCUMENTS), STREAM])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(gallery: Gallery, path: str, method: str) -> None:
    with asked(gallery.url, path, method=method) as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/assets/page.js", "/api/v1/cluster", STREAM, "/healthz", "/nothing-here"])
def test_every_answer_keeps_browsers_safe(gallery: Gallery, path: str) -> None:
    with asked(gallery.url, path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] in ("no-store", "no-cache")


def test_answers_are_packed_and_not_sent_twice(gallery: Gallery) -> None:
    with asked(gallery.url, "/api/v1/cluster", Accept_Encoding="gzip") as response:
        assert response.headers["Content-Encoding"] == "gzip"
        told, tag = json.loads(gzip.decompress(response.read())), response.headers["ETag"]
    assert told == read(gallery.url, "/api/v1/cluster")[1]
    with asked(gallery.url, "/api/v1/cluster", If_None_Match=tag) as response:
        assert (response.status, response.read()) == (304, b"")


def test_nothing_private_leaves(picture: Picture) -> None:
    secret = FrozenMap({"secret-of-mine": "secret-of-mine"})
    vmis = {key: replace(vmi, annotations=secret, labels=secret) for key, vmi in picture.snapshot.vmis.items()}
    nodes = {name: replace(node, annotations=secret) for name, node in picture.snapshot.nodes.items()}
    snapshot = replace(picture.snapshot, vmis=FrozenMap(vmis), nodes=FrozenMap(nodes))
    shown = replace(picture, snapshot=snapshot)
    for document in DOCUMENTS:
        assert b"secret-of-mine" not in document.render(shown, {"vmi": "bank/db-0-1"}).body, document.path


def events(response: HTTPResponse, number: int) -> list[tuple[str, dict[str, Any]]]:
    """The next so many events of a stream: id and data."""
    found: list[tuple[str, dict[str, Any]]] = []
    entry: dict[str, str] = {}
    while len(found) < number:
        line = response.readline().decode().rstrip("\n")
        name, _, value = line.partition(": ")
        entry[name] = value
        if not line:
            if "data" in entry:
                found.append((entry["id"], json.loads(entry["data"])))
            entry = {}
    return found


def test_the_stream_tells_what_is_new_and_resumes(picture: Picture) -> None:
    assert picture.report is not None
    with served(picture) as gallery:
        with asked(gallery.url, STREAM) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            ((first, told),) = events(response, 1)
            check("Summary", told)
            assert told["cycle"] == 7
            gallery.show(replace(picture, report=replace(picture.report, cycle=8)))
            ((second, told),) = events(response, 1)
            assert told["cycle"] == 8
        gallery.show(replace(picture, report=replace(picture.report, cycle=9)))
        with asked(gallery.url, STREAM, Last_Event_ID=first) as response:
            assert [told["cycle"] for _, told in events(response, 2)] == [8, 9]
        with asked(gallery.url, STREAM, Last_Event_ID=second) as response:
            assert [told["cycle"] for _, told in events(response, 1)] == [9]
        with asked(gallery.url, STREAM, Last_Event_ID="another-process-8") as response:
            assert [told["cycle"] for _, told in events(response, 1)] == [9]
        assert read(gallery.url, "/api/v1/cluster")[1]["cycle"] == 9


@dataclass(slots=True)
class Slow:
    """A document that takes its time. `rendered` counts how often."""

    gate: threading.Event = field(default_factory=threading.Event)
    rendered: int = 0
    path: str = "/slow"
    parameters: tuple[str, ...] = ()
    lasting: bool = False

    @property
    def render(self) -> Callable[[None, Query], Answer]:
        def render(_: None, __: Query) -> Answer:
            self.rendered += 1
            assert self.gate.wait(20)
            return Answer(body=b"{}")

        return render


def test_a_slow_document_is_rendered_once_holds_nobody_up_and_queues_are_bounded() -> None:
    slow, statuses = Slow(), list[int]()

    async def fetch(host: str, port: int, path: str) -> int:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
            return int((await stream.receive()).split()[1])

    async def many() -> None:
        site = Site(Board("here"), lambda: None, [slow], in_thread, SiteParams(waiting=3))
        params = HttpParams(host="127.0.0.1", port=0)
        async with serving(params, {}, healthy=str, ready=str, routes=site.routes(STREAM)) as (host, port):
            turned_away = anyio.Semaphore(0)

            async def ask() -> None:
                statuses.append(await fetch(host, port, "/slow"))
                turned_away.release()

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask)
                await turned_away.acquire()  # two of them, because three may wait
                await turned_away.acquire()
                began = time.perf_counter()
                assert await fetch(host, port, "/healthz") == 200
                assert time.perf_counter() - began < 5
                slow.gate.set()

    anyio.run(many)
    assert sorted(statuses) == [200, 200, 200, 503, 503]
    assert slow.rendered == 1


def test_streams_are_bounded() -> None:
    async def many() -> None:
        site: Site[None] = Site(Board("here"), lambda: None, [], in_thread, SiteParams(streams=1))
        params = HttpParams(host="127.0.0.1", port=0)
        async with serving(params, {}, healthy=str, ready=str, routes=site.routes(STREAM)) as (host, port):
            answers = []
            async with await anyio.connect_tcp(host, port) as first, await anyio.connect_tcp(host, port) as second:
                for stream in (first, second):
                    await stream.send(f"GET {STREAM} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
                    answers.append((await stream.receive()).split()[1])
            assert answers == [b"200", b"503"]

    anyio.run(many)


def test_a_report_of_any_kind_fits_the_schema() -> None:
    kinds = OPENAPI["components"]["schemas"]["Summary"]["properties"]["sentence"]["properties"]["kind"]["enum"]
    assert set(kinds) == set(SENTENCES)
    for kind in SENTENCES:
        check("Summary", api.summary(Report(cycle=1, time=1e9, mode="active", sentence=Sentence(kind=kind, text="so"))))
