"""What virt-api refuses, in its codes and texts; and what it lets through although one might think otherwise."""

from __future__ import annotations

import asyncio

import pytest
from sim.cluster import MERGE, MIGRATIONS, PODS, VMIS, Client, run, small, vmim, with_vm

from rebalancer.sim.admission import CONTROLLER
from rebalancer.sim.api import ApiParams
from rebalancer.sim.objects import Obj
from rebalancer.sim.world import World

CREATE = 'admission webhook "migration-create-validator.kubevirt.io" denied the request: '


def cluster() -> list[Obj]:
    stopped, gone = with_vm("stopped")
    stopped["status"]["phase"] = "Succeeded"
    gone["status"]["phase"] = "Succeeded"
    stuck, pod = with_vm("stuck")
    message = "cannot migrate VMI: PVC data is not shared"
    stuck["status"]["conditions"] = [
        {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable", "message": message}
    ]
    return [*small(), *with_vm("vm"), stopped, gone, stuck, pod]


@pytest.mark.parametrize(
    ("body", "code", "reason", "message"),
    [
        (vmim(""), 422, "Invalid", CREATE + "vmiName is missing"),
        (
            vmim(priority="system-critical"),
            422,
            "Invalid",
            CREATE + "Migration priority queue, only virt-controller is allowed to set priority field",
        ),
        (vmim("ghost"), 400, None, CREATE + 'the VMI "bank/ghost" does not exist'),
        (vmim("stopped"), 400, None, CREATE + "Cannot migrate VMI in finalized state."),
        (
            vmim("stuck"),
            400,
            None,
            CREATE + "Cannot migrate VMI, Reason: DisksNotLiveMigratable, "
            "Message: cannot migrate VMI: PVC data is not shared",
        ),
    ],
    ids=["no name", "priority", "no VMI", "final", "not migratable"],
)
def test_migrations_that_are_refused(body: Obj, code: int, reason: str | None, message: str) -> None:
    async def scenario(world: World, client: Client) -> None:
        status, answer = await client.ask("POST", MIGRATIONS, body)
        assert (status, answer.get("reason"), answer["message"]) == (code, reason, message)

    run(scenario, cluster())


@pytest.mark.parametrize(
    "body",
    [vmim(), vmim(to="w-00"), vmim(to="nowhere"), vmim(to="w-01")],
    ids=["undirected", "to its own node", "to no node", "directed"],
)
def test_migrations_that_are_admitted(body: Obj) -> None:
    async def scenario(world: World, client: Client) -> None:
        code, made = await client.ask("POST", MIGRATIONS, body)
        assert code == 201
        assert made["metadata"]["labels"]["kubevirt.io/vmi-name"] == "vm"
        assert made["metadata"]["finalizers"] == ["kubevirt.io/migrationJobFinalize"]

    run(scenario, cluster())


def test_a_second_migration_is_400_under_whatever_name_until_the_first_has_ended() -> None:
    async def scenario(world: World, client: Client) -> None:
        _, first = await client.ask("POST", MIGRATIONS, vmim(name="m"))
        uid = first["metadata"]["uid"]
        text = (
            f"in-flight migration detected. Active migration job ({uid}) is currently already in progress for VMI vm."
        )
        for name in ("m", "other"):
            code, answer = await client.ask("POST", MIGRATIONS, vmim(name=name))
            assert (code, answer["message"]) == (400, CREATE + text)
        await asyncio.sleep(60)
        code, answer = await client.ask("POST", MIGRATIONS, vmim(name="m"))
        assert (code, answer["reason"]) == (409, "AlreadyExists")
        assert (await client.ask("POST", MIGRATIONS, vmim(name="other")))[0] == 201

    run(scenario, cluster())


def test_unknown_fields_are_dropped_or_refused_as_the_client_wishes() -> None:
    async def scenario(world: World, client: Client) -> None:
        code, answer = await client.ask("POST", MIGRATIONS, vmim(speed="high"), fieldValidation="Strict")
        assert code == 400
        assert answer["message"].endswith(': strict decoding error: unknown field "spec.speed"')
        code, made = await client.ask("POST", MIGRATIONS, vmim(speed="high"), dryRun="All")
        assert (code, made["spec"]) == (201, {"vmiName": "vm"})
        assert (await client.get(MIGRATIONS))["items"] == []

    run(scenario, cluster())


def test_a_migrations_spec_and_label_are_for_ever() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", MIGRATIONS, vmim(name="m"))
        patches: list[Obj] = [{"spec": {"vmiName": "stuck"}}, {"metadata": {"labels": {"kubevirt.io/vmi-name": None}}}]
        for patch in patches:
            assert (await client.ask("PATCH", f"{MIGRATIONS}/m", patch, kind=MERGE))[0] == 422
        note = {"metadata": {"labels": {"mine": "yes"}}}
        assert (await client.ask("PATCH", f"{MIGRATIONS}/m", note, kind=MERGE))[0] == 200

    run(scenario, cluster())


def test_only_kubevirt_changes_what_a_vmi_is_and_how_it_does() -> None:
    async def scenario(world: World, client: Client) -> None:
        status, labels = {"status": {"phase": "Failed"}}, {"metadata": {"labels": {"x": "y"}}}
        client.session.headers["Authorization"] = "Bearer person"
        assert (await client.ask("PATCH", f"{VMIS}/vm", labels, kind=MERGE))[0] == 200
        code, answer = await client.ask("PATCH", f"{VMIS}/vm", status, kind=MERGE)
        assert (code, "update of VMI object is restricted" in answer["message"]) == (422, True)
        client.session.headers["Authorization"] = "Bearer controller"
        assert (await client.ask("PATCH", f"{VMIS}/vm", status, kind=MERGE))[0] == 200

    run(scenario, cluster(), api=ApiParams(tokens={"person": "somebody", "controller": CONTROLLER}))


EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}


@pytest.mark.parametrize(
    ("strategy", "migratable", "code", "text"),
    [
        ("LiveMigrate", True, 429, 'Eviction triggered evacuation of VMI "bank/vm"'),
        ("LiveMigrate", False, 429, "VMI vm is configured with an eviction strategy but is not live-migratable"),
        ("LiveMigrateIfPossible", True, 429, 'Eviction triggered evacuation of VMI "bank/vm"'),
        ("LiveMigrateIfPossible", False, 201, ""),
        ("External", True, 429, 'Eviction triggered evacuation of VMI "bank/vm"'),
        ("None", True, 201, ""),
    ],
)
def test_evictions_of_launcher_pods(strategy: str, migratable: bool, code: int, text: str) -> None:
    async def scenario(world: World, client: Client) -> None:
        pod = (await client.get(PODS))["items"][0]["metadata"]["name"]
        status, answer = await client.ask("POST", f"{PODS}/{pod}/eviction", EVICTION)
        assert status == code, answer
        marked = (await client.get(f"{VMIS}/vm"))["status"].get("evacuationNodeName")
        assert marked == ("w-00" if "triggered" in text else None)
        if code == 429:
            assert answer["message"].endswith(f"denied the request: {text}")
        if marked:
            _, again = await client.ask("POST", f"{PODS}/{pod}/eviction", EVICTION)
            assert again["message"].endswith(f"Evacuation in progress: {text}")

    vmi, pod = with_vm(evictionStrategy=strategy)
    if not migratable:
        vmi["status"]["conditions"][1]["status"] = "False"
    run(scenario, [*small(), vmi, pod])


def test_an_eviction_that_is_only_tried_marks_nothing() -> None:
    async def scenario(world: World, client: Client) -> None:
        pod = (await client.get(PODS))["items"][0]["metadata"]["name"]
        assert (await client.ask("POST", f"{PODS}/{pod}/eviction", EVICTION, dryRun="All"))[0] == 429
        assert "evacuationNodeName" not in (await client.get(f"{VMIS}/vm"))["status"]

    run(scenario, [*small(), *with_vm()])
