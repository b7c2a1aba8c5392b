"""The API server over HTTP: pages, versions, writes, refusals, as clients of a real one meet them."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import pytest
from sim.cluster import MERGE, NODES, PODS, VMIS, Client, run, small, with_vm

from rebalancer.sim.api import ApiParams
from rebalancer.sim.faults import Entry, Faults, Hang, Refuse, Reset, Rule, Script, Slow, Stale, Truncate
from rebalancer.sim.objects import Obj
from rebalancer.sim.resources import Resource
from rebalancer.sim.world import World

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kubevirt-rebalancer/leases"
EVENTS = "/apis/events.k8s.io/v1/namespaces/bank/events"
CONFIG = "/api/v1/namespaces/bank/configmaps"


def config(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def names(body: Obj) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


def test_pages_show_one_moment_whatever_happens_between_them() -> None:
    async def scenario(world: World, client: Client) -> None:
        first = await client.get(NODES, limit="2")
        assert names(first) == ["w-00", "w-01"]
        assert first["metadata"]["remainingItemCount"] == 1
        world.store.delete("nodes", "", "w-02")
        second = await client.get(NODES, limit="2", **{"continue": first["metadata"]["continue"]})
        assert names(second) == ["w-02"]
        assert "continue" not in second["metadata"]
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert names(await client.get(NODES)) == ["w-00", "w-01"]

    run(scenario)


def test_lists_say_kind_for_themselves_and_only_custom_resources_for_each_item() -> None:
    async def scenario(world: World, client: Client) -> None:
        pods, vmis = await client.get("/api/v1/pods"), await client.get("/apis/kubevirt.io/v1/virtualmachineinstances")
        assert (pods["kind"], vmis["kind"]) == ("PodList", "VirtualMachineInstanceList")
        assert "kind" not in pods["items"][0]
        assert vmis["items"][0]["kind"] == "VirtualMachineInstance"
        assert (await client.get(f"{PODS}/{pods['items'][0]['metadata']['name']}"))["kind"] == "Pod"

    run(scenario, [*small(), *with_vm()])


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ({"resourceVersion": "0", "limit": "1"}, 200, ""),
        ({"resourceVersion": "nonsense"}, 400, "BadRequest"),
        ({"resourceVersion": "999999"}, 504, "Timeout"),
        ({"continue": "nonsense"}, 400, "BadRequest"),
        ({"labelSelector": "a in b"}, 400, "BadRequest"),
        ({"watch": "1", "resourceVersion": "nonsense"}, 400, "BadRequest"),
        ({"watch": "1", "sendInitialEvents": "true"}, 422, "Invalid"),
    ],
)
def test_list_and_watch_parameters(query: dict[str, str], code: int, reason: str) -> None:
    async def scenario(world: World, client: Client) -> None:
        status, body = await client.ask("GET", NODES, **query)
        assert (status, body.get("reason", "")) == (code, reason)
        if code == 200:
            assert len(body["items"]) == 3, "the watch cache knows no pages"
        else:
            assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", code)

    run(scenario)


def test_a_page_after_compaction_is_gone() -> None:
    async def scenario(world: World, client: Client) -> None:
        first = await client.get(NODES, limit="1")
        world.cordon("w-00")
        world.store.compact()
        code, body = await client.ask("GET", NODES, limit="1", **{"continue": first["metadata"]["continue"]})
        assert (code, body["reason"]) == (410, "Expired")
        assert "continue parameter is too old" in body["message"]

    run(scenario)


def test_exact_lists_look_back() -> None:
    async def scenario(world: World, client: Client) -> None:
        version = str(world.store.version)
        world.cordon("w-00")
        old = await client.get(NODES, resourceVersion=version, resourceVersionMatch="Exact")
        assert "unschedulable" not in old["items"][0]["spec"]
        assert (await client.get(NODES))["items"][0]["spec"] == {"unschedulable": True}

    run(scenario)


def test_create_read_replace_patch_delete() -> None:
    async def scenario(world: World, client: Client) -> None:
        code, made = await client.ask("POST", CONFIG, config("c", a="1"))
        assert (code, made["metadata"]["namespace"]) == (201, "bank")
        assert (await client.ask("POST", CONFIG, config("c")))[1]["reason"] == "AlreadyExists"
        code, patched = await client.ask("PATCH", f"{CONFIG}/c", {"data": {"b": "2"}}, kind=MERGE)
        assert (code, patched["data"]) == (200, {"a": "1", "b": "2"})
        assert (await client.ask("PUT", f"{CONFIG}/c", made))[1]["reason"] == "Conflict"
        assert (await client.ask("PUT", f"{CONFIG}/c", patched | {"data": {}}))[0] == 200
        code, gone = await client.ask("DELETE", f"{CONFIG}/c")
        assert (code, gone["status"]) == (200, "Success")
        code, body = await client.ask("GET", f"{CONFIG}/c")
        assert (code, body["message"]) == (404, 'configmaps "c" not found')

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "code"),
    [
        ("GET", "/api/v1/nothing", None, "", 404),
        ("GET", "/apis/unknown.io/v1/things", None, "", 404),
        ("POST", CONFIG, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}, "application/json", 400),
        ("POST", CONFIG, config("x") | {"metadata": {"name": "x", "namespace": "shop"}}, "application/json", 400),
        ("POST", CONFIG.replace("bank", "nowhere"), config("x"), "application/json", 404),
        ("POST", "/api/v1/configmaps", config("x"), "application/json", 405),
        ("POST", CONFIG, "{", "application/json", 400),
        ("PATCH", f"{NODES}/w-00", {"spec": {}}, "application/apply-patch+yaml", 415),
        ("PATCH", f"{NODES}/w-00", {"metadata": {"name": "w-99"}}, MERGE, 400),
        ("PATCH", f"{NODES}/w-00", [1], MERGE, 400),
        ("PATCH", f"{VMIS}/vm/status", {"status": {}}, MERGE, 404),
        ("PUT", NODES, {}, "application/json", 405),
        ("DELETE", f"{NODES}/none", None, "", 404),
    ],
)
def test_requests_that_are_refused(method: str, path: str, body: Any, kind: str, code: int) -> None:
    async def scenario(world: World, client: Client) -> None:
        status, answer = await client.ask(method, path, body, kind=kind)
        assert (status, answer["kind"]) == (code, "Status"), answer

    run(scenario, [*small(), *with_vm()])


def test_a_dry_run_answers_and_stores_nothing() -> None:
    async def scenario(world: World, client: Client) -> None:
        code, made = await client.ask("POST", CONFIG, config("c"), dryRun="All")
        assert (code, made["metadata"]["name"]) == (201, "c")
        assert (await client.ask("GET", f"{CONFIG}/c"))[0] == 404
        assert (await client.ask("POST", CONFIG, config("c"), dryRun="Some"))[0] == 400

    run(scenario)


def test_a_lease_is_written_only_on_top_of_what_was_read() -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}

    async def scenario(world: World, client: Client) -> None:
        _, made = await client.ask("POST", LEASES, lease)
        one = made | {"spec": {"holderIdentity": "one"}}
        two = made | {"spec": {"holderIdentity": "two"}}
        assert (await client.ask("PUT", f"{LEASES}/l", one))[0] == 200
        assert (await client.ask("PUT", f"{LEASES}/l", two))[0] == 409
        assert (await client.get(f"{LEASES}/l"))["spec"] == {"holderIdentity": "one"}

    run(scenario)


EVENT: Obj = {
    "apiVersion": "events.k8s.io/v1",
    "kind": "Event",
    "metadata": {"name": "e"},
    "eventTime": "2026-11-20T22:00:00.000000Z",
    "reportingController": "kubevirt-rebalancer",
    "reportingInstance": "one",
    "action": "Rebalance",
    "reason": "Planned",
    "type": "Normal",
    "note": "text",
    "regarding": {"kind": "Pod", "name": "p", "namespace": "bank"},
}


def test_events_of_both_groups_are_the_same_objects() -> None:
    async def scenario(world: World, client: Client) -> None:
        assert (await client.ask("POST", EVENTS, EVENT))[0] == 201
        old = await client.get("/api/v1/namespaces/bank/events/e")
        assert (old["apiVersion"], old["message"], old["involvedObject"]["name"]) == ("v1", "text", "p")
        found = (await client.get(EVENTS))["items"]
        assert [(event["note"], event["regarding"]["name"]) for event in found] == [("text", "p")]
        _, series = await client.ask("PATCH", f"{EVENTS}/e", {"note": "more"}, kind=MERGE)
        assert series["note"] == "more"

    run(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reportingInstance": ""},
        {"eventTime": None},
        {"action": "x" * 129},
        {"note": "x" * 1025},
        {"type": "Strange"},
        {"regarding": {"kind": "Node", "name": "w-00"}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_events_that_a_real_server_would_refuse(wrong: Obj) -> None:
    async def scenario(world: World, client: Client) -> None:
        code, body = await client.ask("POST", EVENTS, EVENT | wrong)
        assert (code, body["reason"]) == (422, "Invalid"), body

    run(scenario)


def test_the_log_knows_who_asked_for_what_and_how_it_went() -> None:
    async def scenario(world: World, client: Client) -> list[Entry]:
        client.session.headers["Authorization"] = "Bearer secret"
        client.session.headers["User-Agent"] = "tester/1"
        await client.get(NODES)
        await client.ask("POST", CONFIG, config("c"))
        await client.ask("POST", CONFIG, config("c"), dryRun="All")
        client.session.headers["Authorization"] = "Bearer wrong"
        assert (await client.ask("GET", NODES))[0] == 401
        return world.api.log

    log = run(scenario, api=ApiParams(tokens={"secret": "somebody"}))
    seen = [(entry.user, entry.verb, entry.writes, entry.code) for entry in log]
    assert seen == [
        ("somebody", "list", False, 200),
        ("somebody", "create", True, 201),
        ("somebody", "create", False, 409),
        ("", "list", False, 401),
    ]
    assert {entry.user_agent for entry in log} == {"tester/1"}
    assert log[1].body == config("c")
    assert "POST" in log[1].sentence()


def test_permissions() -> None:
    def readers(user: str, verb: str, resource: Resource, namespace: str, subresource: str) -> bool:
        return verb in ("get", "list", "watch")

    async def scenario(world: World, client: Client) -> None:
        await client.get(NODES)
        code, body = await client.ask("POST", CONFIG, config("c"))
        assert (code, body["reason"]) == (403, "Forbidden")
        text = 'User "system:admin" cannot create resource "configmaps" in API group "" in the namespace "bank"'
        assert body["message"] == f"configmaps is forbidden: {text}"

    run(scenario, authorize=readers)


def test_a_cluster_without_kubevirt() -> None:
    async def scenario(world: World, client: Client) -> None:
        assert (await client.ask("GET", "/apis/kubevirt.io/v1/virtualmachineinstances"))[0] == 404
        assert (await client.ask("GET", "/apis/kubevirt.io/v1"))[0] == 404
        await client.get(NODES)

    run(scenario, api=ApiParams(kubevirt=False))


def test_discovery_lists_what_is_served() -> None:
    async def scenario(world: World, client: Client) -> None:
        assert (await client.get("/version"))["major"] == "1"
        assert (await client.get("/api"))["versions"] == ["v1"]
        groups = {group["name"] for group in (await client.get("/apis"))["groups"]}
        assert {"kubevirt.io", "coordination.k8s.io", "events.k8s.io"} <= groups
        resources = {entry["name"]: entry for entry in (await client.get("/apis/kubevirt.io/v1"))["resources"]}
        assert resources["virtualmachineinstancemigrations"]["shortNames"] == ["vmim", "vmims"]
        assert "virtualmachineinstancemigrations/status" in resources
        assert "virtualmachineinstances/status" not in resources
        assert (await client.get("/apis/kubevirt.io"))["preferredVersion"]["version"] == "v1"
        paths = (await client.get("/openapi/v3"))["paths"]
        assert await client.get(paths["apis/kubevirt.io/v1"]["serverRelativeURL"])
        assert (await client.ask("GET", "/openapi/v2"))[0] == 404
        async with client.session.get("/readyz") as response:
            assert await response.text() == "ok"

    run(scenario)


def to_nodes(entry: Entry) -> bool:
    return entry.path == NODES


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Refuse(code=500), 500), (Refuse(code=429, reason="TooManyRequests", retry_after_seconds=3), 429)],
)
def test_injected_refusals(fault: Refuse, code: int) -> None:
    async def scenario(world: World, client: Client) -> None:
        async with client.session.get(NODES) as response:
            assert response.status == code
            assert response.headers.get("Retry-After") == ("3" if code == 429 else None)
        await client.get(NODES)

    run(scenario, faults=Script([Rule(fault=fault, matches=to_nodes)]))


def test_an_injected_page_of_a_proxy_is_html() -> None:
    async def scenario(world: World, client: Client) -> None:
        async with client.session.get(NODES) as response:
            assert (response.status, response.content_type) == (502, "text/html")

    run(scenario, faults=Script([Rule(fault=Refuse(code=502, html=True), matches=to_nodes)]))


@pytest.mark.parametrize("fault", [Reset(), Truncate(length=20)])
def test_lost_answers_belong_to_writes_that_were_carried_out(fault: Reset | Truncate) -> None:
    async def scenario(world: World, client: Client) -> None:
        with pytest.raises(Exception, match=r"disconnected|not completed|payload"):
            await client.ask("POST", CONFIG, config("c"))
        assert world.store.find("configmaps", "bank", "c") is not None
        assert world.api.log[0].code == 0

    run(scenario, faults=Script([Rule(fault=fault, matches=lambda entry: entry.verb == "create", after=True)]))


def test_a_reset_before_the_request_leaves_nothing_behind() -> None:
    async def scenario(world: World, client: Client) -> None:
        with pytest.raises(Exception, match="disconnected"):
            await client.ask("POST", CONFIG, config("c"))
        assert world.store.find("configmaps", "bank", "c") is None

    run(scenario, faults=Script([Rule(fault=Reset(), matches=lambda entry: entry.verb == "create")]))


def test_slow_and_hanging_answers_take_their_virtual_time() -> None:
    async def scenario(world: World, client: Client) -> None:
        began = world.clock.now()
        await client.get(NODES)
        assert world.clock.now() - began == pytest.approx(7)
        with pytest.raises(TimeoutError):
            async with client.session.get(NODES, timeout=aiohttp.ClientTimeout(total=30)):
                pass

    rules = [Rule(fault=Slow(seconds=7), matches=to_nodes), Rule(fault=Hang(), matches=to_nodes)]
    run(scenario, faults=Script(rules))


def test_stale_reads_show_the_past() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.cordon("w-00")
        node = (await client.get(NODES))["items"][0]
        assert "unschedulable" not in node["spec"]
        assert "unschedulable" not in (await client.get(f"{NODES}/w-00"))["spec"]
        assert (await client.get(f"{NODES}/w-00"))["spec"] == {"unschedulable": True}

    rules = [Rule(fault=Stale(changes=1), matches=lambda entry: entry.path.startswith(NODES), times=2)]
    run(scenario, faults=Script(rules))


def test_no_fault_is_the_default() -> None:
    entry = Entry(
        number=1, method="GET", path=NODES, query={}, user="", user_agent="", verb="list", target=None, started=0.0
    )
    assert Faults().request(entry) is Faults().answer(entry) is None


def test_a_continue_token_of_another_server_is_refused() -> None:
    async def scenario(world: World, client: Client) -> None:
        foreign = base64.urlsafe_b64encode(b'{"v":"meta.k8s.io/v1"}').decode()
        assert (await client.ask("GET", NODES, **{"continue": foreign}))[0] == 400

    run(scenario)
