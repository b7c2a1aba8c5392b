"""The transport: what an answer is, what a refusal, what neither; time limits; credentials."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from kube.serving import Served, answering, monotonic, says, serve, streams

from rebalancer.kube.client import Access, TokenFile, connect
from rebalancer.kube.outcome import Answer, ApiError, ConfigError, Refusal, permission
from rebalancer.kube.transport import Api, ClientParams, Endpoint
from rebalancer.sim.faults import Hang, Refuse, Reset, Rule, Script
from rebalancer.sim.virtualtime import run_virtual

NODES = "/api/v1/nodes"
LIST = json.dumps({"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": []})


def status(code: int, reason: str, message: str, **details: object) -> str:
    """A metav1.Status."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return json.dumps(body)


@pytest.mark.parametrize(
    ("code", "body", "headers", "expected"),
    [
        (404, status(404, "NotFound", 'nodes "x" not found'), {}, ("NotFound", 'nodes "x" not found', 0.0)),
        (409, status(409, "AlreadyExists", "there"), {}, ("AlreadyExists", "there", 0.0)),
        (409, status(409, "Conflict", "changed"), {}, ("Conflict", "changed", 0.0)),
        (410, status(410, "Expired", "too old"), {}, ("Expired", "too old", 0.0)),
        (422, status(422, "Invalid", "spec: wrong"), {}, ("Invalid", "spec: wrong", 0.0)),
        (400, status(400, "", "in-flight migration detected"), {}, ("Rejected", "in-flight migration detected", 0.0)),
        (429, status(429, "TooManyRequests", "slow"), {"Retry-After": "7"}, ("TooManyRequests", "slow", 7.0)),
        (429, status(429, "TooManyRequests", "slow", retryAfterSeconds=3), {}, ("TooManyRequests", "slow", 3.0)),
        (403, status(403, "Forbidden", "no"), {}, ("Forbidden", "not permitted to get nodes: no", 0.0)),
        (404, "404 page not found", {}, ("NotFound", "404 page not found", 0.0)),
        (418, "x" * 5000, {}, ("Rejected", "x" * 500, 0.0)),
    ],
)
def test_a_refusal_is_a_value(code: int, body: str, headers: dict[str, str], expected: tuple[str, str, float]) -> None:
    async def main() -> Answer | Refusal:
        async with answering([says(body, code, **headers)]) as api:
            return await api.get(f"{NODES}/x")

    answer = run_virtual(main)
    assert isinstance(answer, Refusal)
    assert (answer.kind, answer.message, answer.retry_after_seconds) == expected


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (says("<html>Bad gateway</html>", 502, "text/html"), "502 text/html: <html>Bad gateway</html>"),
        (says("<html>Please sign in</html>", 200, "text/html"), "200 text/html"),
        (says("", 301, Location="http://elsewhere"), "301"),
        (says("{}", 500), "500"),
        (says("{}", 503, **{"Retry-After": "9"}), "503"),
        (says("{}", 401), "401"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_what_came(handler: object, words: str) -> None:
    async def main() -> None:
        async with answering([handler]) as api:  # type: ignore[list-item]
            with pytest.raises(ApiError, match=words):
                await api.get(NODES)

    run_virtual(main)


def test_an_answer_larger_than_any_api_server_gives_is_not_read_to_its_end() -> None:
    async def main() -> None:
        async with answering([says(b"x" * 10_000)]) as api:
            small = Api(api.endpoint, ClientParams(body_limit_bytes=1000))
            async with small:
                with pytest.raises(ApiError, match="larger than 1000 bytes"):
                    await small.get(NODES)

    run_virtual(main)


@pytest.mark.parametrize(
    "fault", [Hang(), Reset(), Refuse(code=502, html=True)], ids=lambda fault: type(fault).__name__
)
def test_a_write_without_an_answer_is_an_error_within_its_time_limit(fault: Hang | Reset | Refuse) -> None:
    async def scenario(served: Served) -> tuple[float, dict[tuple[str, str], int]]:
        begun = monotonic()
        with pytest.raises(ApiError):
            await served.api.create(NODES, {"metadata": {"name": "n"}}, timeout_seconds=2.5)
        return monotonic() - begun, dict(served.api.answers)

    faults = Script([Rule(fault=fault, matches=lambda entry: entry.method == "POST", times=9)])
    seconds, answers = serve(scenario, faults)
    assert answers == {("POST", "502" if isinstance(fault, Refuse) else "none"): 1}
    assert seconds == pytest.approx(2.5 if isinstance(fault, Hang) else 0.0, abs=0.01)


def test_a_list_whose_token_expires_in_the_middle_starts_over() -> None:
    async def scenario(served: Served) -> tuple[int, int]:
        for index in range(5):
            served.store.create("nodes", {"metadata": {"name": f"n{index}"}})
        pages = await served.api.list_all(NODES, limit=2)
        assert not isinstance(pages, Refusal)
        items = [item for page in pages for item in json.loads(page)["items"]]
        return len(items), len(served.requests("list"))

    expired = Rule(fault=Refuse(code=410, reason="Expired"), matches=lambda entry: "continue" in entry.query)
    assert serve(scenario, Script([expired])) == (5, 5)


def test_a_list_that_expires_every_time_is_given_up() -> None:
    async def scenario(served: Served) -> object:
        return await served.api.list_all(NODES)

    expired = Rule(fault=Refuse(code=410, reason="Expired"), matches=lambda _: True, times=99)
    answer = serve(scenario, Script([expired]))
    assert isinstance(answer, Refusal)
    assert answer.kind == "Expired"


def test_every_request_says_who_asks_and_wants_no_compression() -> None:
    seen: list[web.Request] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.json_response({})

    async def main() -> None:
        async with answering([note]) as api:
            await api.get(NODES)
            await api.patch(NODES, {})

    run_virtual(main)
    assert seen[0].headers["User-Agent"].startswith("kubevirt-rebalancer/")
    assert seen[0].headers["Accept-Encoding"] == "identity"
    assert seen[1].headers["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("GET", "/api/v1/nodes", {"listing": True}, "list nodes"),
        ("GET", "/api/v1/pods", {"watching": True}, "watch pods"),
        ("GET", "/apis/kubevirt.io/v1/namespaces/bank/virtualmachineinstances/db", {},
         "get virtualmachineinstances.kubevirt.io in namespace bank"),
        ("POST", "/apis/kubevirt.io/v1/namespaces/bank/virtualmachineinstancemigrations", {},
         "create virtualmachineinstancemigrations.kubevirt.io in namespace bank"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y", {},
         "update leases.coordination.k8s.io in namespace x"),
        ("GET", "/api/v1/namespaces/bank", {}, "get namespaces"),
    ],
)  # fmt: skip
def test_a_missing_permission_is_named_as_a_role_would(
    method: str, path: str, options: dict[str, bool], expected: str
) -> None:
    assert permission(method, path, **options) == expected


def test_a_refused_token_is_read_again_once_and_at_most_once() -> None:
    asked: list[bool] = []

    async def credentials(fresh: bool) -> str:
        asked.append(fresh)
        return "Bearer new" if fresh else "Bearer old"

    async def guard(request: web.Request) -> web.StreamResponse:
        good = request.headers["Authorization"] == "Bearer new"
        return web.json_response({}, status=200 if good else 401)

    async def main() -> None:
        async with answering([guard]) as api:
            endpoint = Endpoint(base_url="http://x", connector=api.endpoint.connector, credentials=credentials)
            async with Api(endpoint) as guarded:
                assert isinstance(await guarded.get(NODES), Answer)

    run_virtual(main)
    assert asked == [False, True]


def test_a_token_file_is_read_every_minute_stripped_and_kept_while_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "token"
    now = 0.0
    tokens = TokenFile(str(path), lambda: now)

    async def main() -> list[str]:
        nonlocal now
        found = []
        for seconds, text in ((0.0, "one\n"), (30.0, "two"), (61.0, "two"), (130.0, ""), (200.0, "three")):
            now = seconds
            path.write_text(text)
            found.append(await tokens.header(False))
        return found

    assert anyio.run(main) == ["Bearer one", "Bearer one", "Bearer two", "Bearer two", "Bearer three"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "kubeconfig .*nowhere"),
        ("just words", "cannot use the kubeconfig"),
        ("apiVersion: v1\nkind: Config\n", "cannot use the kubeconfig"),
        (
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: /none}}]\n"
            "users: [{name: u, user: {token: secret}}]\n",
            "none",
        ),
    ],
)
def test_an_access_that_cannot_be_used_is_one_line(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / ("nowhere" if text is None else "config")
    if text is not None:
        path.write_text(text)

    async def main() -> None:
        await connect(Access(kubeconfig=str(path)), monotonic=monotonic)

    with pytest.raises(ConfigError, match=words) as raised:
        anyio.run(main)
    assert "\n" not in str(raised.value)


def test_a_kubeconfig_gives_server_and_token(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1/prefix/'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )

    async def main() -> tuple[str, str]:
        api = await connect(Access(kubeconfig=str(path)), monotonic=monotonic)
        return api.base_url, await api.endpoint.credentials(False)

    assert anyio.run(main) == ("http://127.0.0.1:1/prefix", "Bearer t")


def test_a_watch_that_breaks_in_a_line_or_falls_silent_is_an_error() -> None:
    async def read(*handlers: object) -> list[bytes]:
        lines: list[bytes] = []
        async with (
            answering(handlers) as api,  # type: ignore[arg-type]
            api.watch(NODES, {}, idle_seconds=20.0) as stream,
        ):
            assert not isinstance(stream, Refusal)
            lines.extend([line async for line in stream])
        return lines

    async def main() -> None:
        assert await read(streams(b'{"a":1}\n{"b":2}\n')) == [b'{"a":1}\n', b'{"b":2}\n']
        with pytest.raises(ApiError, match="in the middle of a line"):
            await read(streams(b'{"a":1}\n{"b"'))
        begun = monotonic()
        with pytest.raises(ApiError):
            await read(streams(b'{"a":1}\n', then_silence=True))
        assert monotonic() - begun == pytest.approx(20.0, abs=1.0)
        with pytest.raises(ApiError, match="a line longer than"):
            await read(streams(b"x" * 5_000_000))

    run_virtual(main)
