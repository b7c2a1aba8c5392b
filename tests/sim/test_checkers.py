"""Every checker fires: promises are broken on purpose, by hand, and the checkers must say so, and only so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from sim.cluster import MIGRATIONS, Client, run, small, vmim, with_vm

from rebalancer.kube.dump import read_dump
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.rules import violations
from rebalancer.sim.check_picture import broken_rules, loads, take
from rebalancer.sim.check_reading import amount, need, selects, tolerated, wants_node
from rebalancer.sim.checkers import BLINK_SECONDS, Bounds, Broken, Checkers
from rebalancer.sim.objects import Obj
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.world import World, read_list

Act = Callable[[World, Client], Coroutine[Any, Any, None]]
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kubevirt-rebalancer/leases"
LOOSE = Bounds(per_cluster=99, per_source=99, per_target=99, per_hour=99, per_vm_day=99)


def ours(vmi: str, to: str, name: str = "", moment: str = "") -> Obj:
    item = vmim(vmi, to=to, name=name)
    item["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "kubevirt-rebalancer"}
    return item


def checked(act: Act, items: list[Obj], bounds: Bounds = LOOSE) -> list[Broken]:
    """What the checkers say about what a test does in the daemon's name."""

    async def scenario(world: World, client: Client) -> list[Broken]:
        checkers = Checkers(world.store, bounds)
        world.store.subscribe(checkers.change)
        world.api.listeners.append(checkers.request)
        client.session.headers["User-Agent"] = "kubevirt-rebalancer/0.1.0"
        await act(world, client)
        await asyncio.sleep(60)
        return checkers.broken

    return run(scenario, items)


async def post(client: Client, *items: Obj) -> None:
    for item in items:
        code, answer = await client.ask("POST", MIGRATIONS, item)
        assert code == 201, answer


def crowd(node: str, count: int, prefix: str = "x", **spec: Any) -> list[Obj]:
    return [part for number in range(count) for part in with_vm(f"{prefix}-{number}", node, **spec)]


def anti(app: str) -> Obj:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def together(app: str) -> Obj:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "topology.kubernetes.io/zone"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_a_good_move_breaks_nothing() -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-01"))

    assert checked(act, [*small(), *crowd("w-00", 7)], Bounds()) == []


def test_a_node_that_our_moves_push_above_its_threshold() -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-01"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1), *crowd("w-01", 6, "y")])
    assert (broken.promise, broken.about) == (1, "w-01")
    assert "cpu is at 90.5 % after our moves" in broken.text


@pytest.mark.parametrize("excuse", ["above before", "raised threshold", "somebody else"])
def test_what_is_not_our_doing(excuse: str) -> None:
    items = [*small(), *crowd("w-00", 2), *crowd("w-01", 7 if excuse == "above before" else 6, "y", vcpus=2)]
    if excuse == "raised threshold":
        next(item for item in items if item["metadata"]["name"] == "w-01")["metadata"]["annotations"] |= {
            "kubevirt-rebalancer.io/cpu-high": "95"
        }
    if excuse == "somebody else":
        items = [*small(), *crowd("w-00", 2), *crowd("w-01", 5, "y")]

    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-02" if excuse == "above before" else "w-01"))
        if excuse == "somebody else":
            await asyncio.sleep(1)
            await post(client, vmim("x-1", to="w-01"))

    assert checked(act, items) == []


def test_a_rule_that_our_move_breaks() -> None:
    """The scheduler guards the moved VM's own rules; those of whom it leaves behind are ours to mind."""
    leader, follower = with_vm("x-0", "w-00"), with_vm("follower", "w-00", affinity=together("x-0"))

    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-01"))

    (broken,) = checked(act, [*small(), *leader, *follower])
    assert (broken.promise, broken.about) == (1, "bank/x-0")
    assert "bank/follower on w-00: none of those it must be with" in broken.text


def test_a_rule_that_somebody_else_breaks_is_not_held_against_us() -> None:
    leader, follower = with_vm("x-0", "w-00"), with_vm("follower", "w-00", affinity=together("x-0"))

    async def act(world: World, client: Client) -> None:
        await post(client, vmim("x-0", to="w-01"), ours("y-0", "w-01"))

    assert checked(act, [*small(), *leader, *follower, *crowd("w-00", 1, "y")]) == []


def test_a_target_that_the_scheduler_refuses() -> None:
    async def act(world: World, client: Client) -> None:
        await asyncio.sleep(30)
        await post(client, ours("x-0", "w-01"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1), *crowd("w-01", 7, "y")])
    assert broken.promise == 2
    assert "a target of ours finds no node: 0/3 nodes are available: 1 Insufficient cpu" in broken.text


def test_a_target_that_was_cordoned_under_our_hands_is_no_broken_promise() -> None:
    async def act(world: World, client: Client) -> None:
        await asyncio.sleep(30)
        world.cordon("w-01")
        await post(client, ours("x-0", "w-01"))

    assert checked(act, [*small(), *crowd("w-00", 1)]) == []


def test_back_and_forth_within_a_day() -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-01"))
        await asyncio.sleep(3600)
        await post(client, ours("x-0", "w-00"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1)])
    assert (broken.promise, broken.about) == (5, "bank/x-0")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (replace(LOOSE, per_cluster=2), "migration 3 in the cluster, 2 are allowed"),
        (replace(LOOSE, per_source=2), "migration 3 off w-00, 2 are allowed"),
        (replace(LOOSE, per_target=1), "migration 2 onto w-01, 1 are allowed"),
        (replace(LOOSE, per_hour=2), "migration 3 within an hour, 2 are allowed"),
    ],
    ids=["cluster", "source", "target", "hour"],
)
def test_rates(bounds: Bounds, text: str) -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, vmim("x-0", to="w-02"))
        await asyncio.sleep(BLINK_SECONDS + 1.0)
        await post(client, ours("x-1", "w-01"), ours("x-2", "w-01"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 3)], bounds)
    assert (broken.promise, broken.text) == (6, text)


def test_the_rate_of_one_vm_within_a_day() -> None:
    async def act(world: World, client: Client) -> None:
        for target in ("w-01", "w-02"):
            await post(client, ours("x-0", target))
            await asyncio.sleep(600)

    (broken,) = checked(act, [*small(), *crowd("w-00", 1)], replace(LOOSE, per_vm_day=1))
    assert (broken.promise, broken.text) == (6, "migration 2 of bank/x-0 within a day, 1 are allowed")


@pytest.mark.parametrize(("first", "promise"), [(True, 7), (False, 9)], ids=["of ours", "of somebody else"])
def test_two_migrations_of_one_vm(first: bool, promise: int) -> None:
    """virt-api's check is no lock: two that are posted at the same moment can both be admitted."""

    async def act(world: World, client: Client) -> None:
        one = ours("x-0", "w-01", "one") if first else vmim("x-0", to="w-01", name="one")
        for item in (one, ours("x-0", "w-02", "two")):
            item["metadata"]["namespace"] = "bank"
            world.store.create("virtualmachineinstancemigrations", item)
            await asyncio.sleep(6)

    broken = checked(act, [*small(), *crowd("w-00", 1)])
    assert [entry.promise for entry in broken] == [promise]


def mark(world: World, vm: str, **notes: str) -> None:
    def change(item: Obj) -> None:
        item["metadata"]["annotations"] = {f"kubevirt-rebalancer.io/{key}": value for key, value in notes.items()}

    world.store.modify("virtualmachineinstances", "bank", vm, change)


@pytest.mark.parametrize(("before", "after", "texts"), [(6.0, 0.0, ["has been opted out, 6 s before"]), (0.0, 6.0, [])])
def test_a_vm_that_has_been_opted_out(before: float, after: float, texts: list[str]) -> None:
    """One must not be moved then, and what moves it must end soon."""

    async def act(world: World, client: Client) -> None:
        if before:
            mark(world, "x-0", policy="ignore")
            await asyncio.sleep(before)
        await post(client, ours("x-0", "w-01"))
        if after:
            await asyncio.sleep(1.0)
            mark(world, "x-0", policy="ignore")

    broken = checked(act, [*small(), *crowd("w-00", 1)])
    assert {entry.promise for entry in broken} == {9}
    assert broken[-1].text.startswith("bank/x-0 has been opted out, and ours went on for ")
    assert all(any(text in entry.text for entry in broken) for text in texts)


def test_a_vm_that_has_just_migrated_rests() -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, vmim("x-0", to="w-01"))
        await asyncio.sleep(100)
        await post(client, ours("x-0", "w-02"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1)], replace(LOOSE, cooldown_seconds=600.0))
    assert broken.promise == 5
    assert broken.text.startswith("bank/x-0 has migrated 9")
    assert checked(act, [*small(), *crowd("w-00", 1)], replace(LOOSE, cooldown_seconds=60.0)) == []


def test_a_migration_that_is_not_given_up_at_its_deadline() -> None:
    async def act(world: World, client: Client) -> None:
        await post(client, ours("x-0", "w-01"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1)], replace(LOOSE, deadline_seconds=1.0, blink_seconds=1.0))
    assert broken.promise == 4
    assert "after its deadline" in broken.text


def test_a_migration_to_where_the_vm_is() -> None:
    async def act(world: World, client: Client) -> None:
        await asyncio.sleep(30)
        await post(client, ours("x-0", "w-00"))

    broken = checked(act, [*small(), *crowd("w-00", 1)])
    assert (3, "bank/x-0 is on w-00 already") in [(entry.promise, entry.text) for entry in broken]


def test_starts_whose_vm_has_gone_since_are_counted() -> None:
    async def act(world: World, client: Client) -> None:
        for number in range(3):
            await post(client, ours(f"x-{number}", "w-01"))
            await asyncio.sleep(60)
            world.stop_vm("bank", f"x-{number}")
            await asyncio.sleep(300)

    (broken,) = checked(act, [*small(), *crowd("w-00", 3)], replace(LOOSE, per_hour=2))
    assert (broken.promise, broken.about) == (6, "bank/x-2")
    assert broken.text == "migration 3 within an hour, 2 of VMs that are gone; 2 allowed"


def lease(holder: str, renewed: str) -> Obj:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}
    kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    return kind | {"metadata": {"name": "l", "namespace": "kubevirt-rebalancer"}, "spec": spec}


@pytest.mark.parametrize(
    ("holder", "renewed", "text"),
    [
        ("kubevirt-rebalancer", "2026-11-20T22:00:00.000000Z", ""),
        ("somebody", "2026-11-20T22:00:00.000000Z", "POST by kubevirt-rebalancer, but 'somebody' leads"),
        ("kubevirt-rebalancer", "2026-11-20T21:59:00.000000Z", "whose lease ended"),
    ],
    ids=["leader", "another leads", "expired"],
)
def test_writes_without_the_lease(holder: str, renewed: str, text: str) -> None:
    async def act(world: World, client: Client) -> None:
        await client.ask("POST", LEASES, lease(holder, renewed))
        await post(client, ours("x-0", "w-01"))

    broken = checked(act, [*small(), *crowd("w-00", 1)])
    assert [entry.promise for entry in broken] == ([7] if text else [])
    assert all(text in entry.text for entry in broken)


def test_a_dry_run_that_writes() -> None:
    async def act(world: World, client: Client) -> None:
        await client.ask("POST", LEASES, lease("kubevirt-rebalancer", "2026-11-20T22:00:00.000000Z"))
        await client.ask("POST", MIGRATIONS, ours("x-0", "w-01"), dryRun="All")
        await post(client, ours("x-0", "w-01"))

    (broken,) = checked(act, [*small(), *crowd("w-00", 1)], replace(LOOSE, dry_run=True))
    assert (broken.promise, broken.text) == (8, "POST in dry run")
    assert broken.sentence().startswith("promise 8 at ")


# The checkers' own reading


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("100m", 0.1), ("2Ki", 2048), ("1.5G", 1.5e9), (None, 0), ("1Ei", 2**60), ("1e3", 1000), ("x", None)],
)
def test_amounts(text: str | None, value: float | None) -> None:
    if value is None:
        with pytest.raises(ValueError, match=r"not a quantity|Invalid literal"):
            amount(text)
    else:
        assert amount(text) == pytest.approx(value)


def test_a_pod_needs_its_containers_its_sidecars_and_its_greediest_start() -> None:
    def container(cpu: str, **more: str) -> Obj:
        return {"resources": {"requests": {"cpu": cpu}}} | more

    spec: Obj = {"containers": [container("1"), {"resources": {"limits": {"cpu": "500m"}}}]}
    assert need({"spec": spec}, "cpu") == 1.5
    spec["initContainers"] = [container("250m", restartPolicy="Always"), container("2")]
    assert need({"spec": spec}, "cpu") == 2.25
    spec["overhead"] = {"cpu": "100m"}
    assert float(need({"spec": spec}, "cpu")) == pytest.approx(2.35)


def test_selectors_and_tolerations() -> None:
    have = {"app": "web", "n": "5"}
    expressions = [
        ({"key": "app", "operator": "In", "values": ["web"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "none", "operator": "NotIn", "values": ["web"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
        ({"key": "n", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "n", "operator": "Lt", "values": ["4"]}, False),
    ]
    for expression, holds in expressions:
        assert selects({"matchExpressions": [expression]}, have) is holds
    assert not selects(None, have)
    assert selects({}, have)
    node: Obj = {"metadata": {"name": "w", "labels": have}}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    field = {"key": "metadata.name", "operator": "In", "values": ["w"]}
    for term, wanted in (
        ({"matchFields": [field]}, True),
        ({}, False),
        ({"matchExpressions": [expressions[1][0]]}, False),
    ):
        assert (
            bool(wants_node({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [term]}}}}, node)) is wanted
        )
    taint = {"key": "gpu", "value": "a", "effect": "NoSchedule"}
    for toleration, covers in (
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "a"}, True),
        ({"key": "gpu", "value": "b"}, False),
        ({"key": "gpu", "value": "a", "effect": "NoExecute"}, False),
    ):
        assert tolerated({"tolerations": [toleration]}, taint) is covers


def test_checkers_and_policy_see_the_same_wrongs_in_our_recording() -> None:
    """Two readings of the same objects that share no code."""
    snapshot = read_dump(str(RECORDING))
    state = ClusterState.of(snapshot, settled=True)
    plurals = {"Node": "nodes", "Pod": "pods", "VirtualMachineInstance": "virtualmachineinstances"}
    found: dict[str, list[Obj]] = {}
    for item in read_list(RECORDING):
        found.setdefault(plurals.get(item["kind"], "other"), []).append(item)
    picture = take(lambda plural: found.get(plural, []))
    assert {name for name, _ in broken_rules(picture)} == {violation.vmi for violation in violations(state, snapshot)}
    assert {name: load * 1000 for name, load in loads(picture, "cpu").items()} == {
        name: state.requested(name).cpu_milli for name in snapshot.nodes
    }
    assert loads(picture, "memory") == {name: state.requested(name).memory_bytes for name in snapshot.nodes}


def test_spread_counts_domains_that_a_vm_may_use() -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {},
    }
    vms = [*with_vm("a", "w-00", topologySpreadConstraints=[constraint]), *with_vm("b", "w-00"), *with_vm("c", "w-01")]
    nodes = [item for item in small() if item["kind"] == "Node"]

    def items(plural: str) -> list[Obj]:
        kinds = {"pods": "Pod", "virtualmachineinstances": "VirtualMachineInstance", "nodes": "Node"}
        return [item for item in (*nodes, *vms) if item["kind"] == kinds.get(plural)]

    assert list(broken_rules(take(items))) == [("bank/a", "spread 0")]
    vms[0]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "w-00"}
    assert broken_rules(take(items)) == {}, "no other domain is open to it"
