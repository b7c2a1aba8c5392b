"""virt-controller's migrations, from the request to the last trace, good ways and bad; watched from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from sim.cluster import EXACT, MIGRATIONS, PODS, VMIS, Client, run, small, vmim, with_vm

from rebalancer.sim import admission, shapes
from rebalancer.sim.migration_case import UNSCHEDULABLE_TIMEOUT
from rebalancer.sim.objects import Obj, is_true, labels_of, phase, status
from rebalancer.sim.plane import Mishaps
from rebalancer.sim.store import Change
from rebalancer.sim.world import World

TO_END = ["", "Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running"]


@dataclass(slots=True, kw_only=True)
class Diary:
    """What an observer of one migration sees: its phases and their times, and the events about it."""

    phases: list[str] = field(default_factory=list)
    moments: dict[str, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, world: World, name: str = "m") -> Diary:
        diary, began = cls(), world.clock.now()

        def note(change: Change) -> None:
            if change.resource == "virtualmachineinstancemigrations" and change.name == name:
                seen = phase(change.object)
                if not diary.phases or diary.phases[-1] != seen:
                    diary.phases.append(seen)
                    diary.moments[seen] = change.time - began
            elif change.resource == "events" and change.object["involvedObject"]["name"] == name:
                diary.texts.append(f"{change.object['reason']}: {change.object['message']}")

        world.store.subscribe(note)
        return diary


def pods_of(world: World) -> dict[str, str]:
    """Node to phase of every launcher pod; "-" for one without a node."""
    return {pod["spec"].get("nodeName", "-"): phase(pod) for pod in world.store.items("pods", "bank")}


def state_of(world: World) -> Obj:
    """The VMI's migrationState."""
    return dict(status(world.store.get("virtualmachineinstances", "bank", "vm")).get("migrationState") or {})


def vm_cluster() -> list[Obj]:
    return [*small(), *with_vm()]


def test_a_migration_that_goes_well() -> None:
    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        code, _ = await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        assert code == 201
        await asyncio.sleep(5)
        assert world.place_of("bank", "vm") == "w-00"
        assert pods_of(world) == {"w-00": "Running", "w-02": "Running"}, "both sides hold their room"
        vmi = await client.get(f"{VMIS}/vm")
        assert len(vmi["status"]["activePods"]) == 2
        assert vmi["metadata"]["labels"]["kubevirt.io/migrationTargetNodeName"] == "w-02"
        await asyncio.sleep(30)
        assert diary.phases == [*TO_END, "Succeeded"]
        assert pods_of(world) == {"w-00": "Succeeded", "w-02": "Running"}
        vmi = await client.get(f"{VMIS}/vm")
        assert vmi["status"]["nodeName"] == vmi["metadata"]["labels"]["kubevirt.io/nodeName"] == "w-02"
        assert "kubevirt.io/migrationTargetNodeName" not in vmi["metadata"]["labels"]
        state = vmi["status"]["migrationState"]
        assert (state["sourceNode"], state["targetNode"], state["completed"]) == ("w-00", "w-02", True)
        assert "failed" not in state
        done = await client.get(f"{MIGRATIONS}/m")
        assert done["status"]["migrationState"] == state
        assert "finalizers" not in done["metadata"] or done["metadata"]["finalizers"] == []
        assert [entry["phase"] for entry in done["status"]["phaseTransitionTimestamps"]] == [*TO_END[1:], "Succeeded"]
        assert [text.partition(":")[0] for text in diary.texts] == [
            "SuccessfulCreate",
            "SuccessfulHandOver",
            "SuccessfulMigration",
        ]

    run(scenario, vm_cluster())


def test_the_target_pod_is_rendered_from_the_vmi_and_pinned_by_the_request() -> None:
    vmi, pod = with_vm(
        tolerations=[{"key": "t", "operator": "Exists"}],
        nodeSelector={"topology.kubernetes.io/zone": "z2"},
        affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "rack"}]}},
    )
    pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] = "w-00"  # left by a directed migration before

    async def scenario(world: World, client: Client) -> None:
        _, made = await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        await asyncio.sleep(5)
        target = next(item for item in world.store.items("pods", "bank") if item["spec"]["nodeName"] == "w-02")
        spec = target["spec"]
        assert spec["nodeSelector"]["kubernetes.io/hostname"] == "w-02"
        assert spec["nodeSelector"]["topology.kubernetes.io/zone"] == "z2"
        assert spec["nodeSelector"]["cpu-model-migration.node.kubevirt.io/Skylake-Server"] == "true"
        assert spec["nodeSelector"]["cpu-vendor.node.kubevirt.io/Intel"] == "true"
        assert spec["tolerations"] == [{"key": "t", "operator": "Exists"}]
        terms = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert terms[0] == {"topologyKey": "rack"}
        assert terms[1]["labelSelector"]["matchLabels"] == {"kubevirt.io/created-by": vmi["metadata"]["uid"]}
        assert labels_of(target)["kubevirt.io/migrationJobUID"] == made["metadata"]["uid"]
        assert target["metadata"]["annotations"]["kubevirt.io/migrationJobName"] == "m"
        assert spec["containers"][0]["resources"] == pod["spec"]["containers"][0]["resources"]

    run(scenario, [*small(), vmi, pod])


@pytest.mark.parametrize(
    ("at", "phases", "seconds"),
    [
        (0.25, ["", "Pending", "Failed"], 1),
        (0.75, ["", "Pending", "Scheduling", "Failed"], 1),
        (3.0, [*TO_END, "Failed"], 3),  # handed off: the abort waits until there is something to abort
        (6.0, [*TO_END, "Failed"], 3),
    ],
    ids=["pending", "scheduling", "preparing", "running"],
)
def test_a_migration_that_is_deleted_leaves_the_vm_where_it_was(at: float, phases: list[str], seconds: float) -> None:
    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        await asyncio.sleep(at)
        assert (await client.ask("DELETE", f"{MIGRATIONS}/m"))[0] == 200
        await asyncio.sleep(seconds)
        assert diary.phases == phases
        assert (await client.ask("GET", f"{MIGRATIONS}/m"))[0] == 404
        assert world.place_of("bank", "vm") == "w-00"
        await asyncio.sleep(10)
        assert pods_of(world)["w-00"] == "Running"
        assert pods_of(world).get("w-02") in (None, "Failed")
        if "Running" in phases:
            state = state_of(world)
            assert (state["failed"], state["abortStatus"]) == (True, "Succeeded")
            assert state["failureReason"] == "Live migration has been aborted"

    run(scenario, vm_cluster(), nodes=replace(EXACT, bandwidth_bytes=0.2e9))


def test_a_deletion_that_comes_too_late_changes_nothing() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        arrived = asyncio.Event()
        world.store.subscribe(lambda _: arrived.set() if state_of(world).get("endTimestamp") else None)
        await arrived.wait()
        await client.ask("DELETE", f"{MIGRATIONS}/m")
        await asyncio.sleep(30)
        assert world.place_of("bank", "vm") == "w-02"
        assert (await client.ask("GET", f"{MIGRATIONS}/m"))[0] == 404

    run(scenario, vm_cluster())


@pytest.mark.parametrize(("annotation", "seconds"), [("", 300), ("30", 30)])
def test_an_unschedulable_target_holds_its_slot_until_the_time_is_up(annotation: str, seconds: float) -> None:
    async def scenario(world: World, client: Client) -> None:
        diary, body = Diary.of(world), vmim(to="w-00", name="m")
        if annotation:
            body["metadata"]["annotations"] = {UNSCHEDULABLE_TIMEOUT: annotation}
        await client.ask("POST", MIGRATIONS, body)
        await asyncio.sleep(seconds - 5)
        assert diary.phases[-1] == "Scheduling"
        assert pods_of(world) == {"w-00": "Running", "-": "Pending"}
        await asyncio.sleep(10)
        assert diary.phases == ["", "Pending", "Scheduling", "Failed"]
        assert diary.moments["Failed"] == pytest.approx(seconds, abs=2)
        assert pods_of(world) == {"w-00": "Running"}
        pod = "Migration target pod for VMI [bank/vm] is currently unschedulable."
        assert f"migrationTargetPodUnschedulable: {pod}" in diary.texts
        assert "FailedMigration: Migration target pod was removed during active migration." in diary.texts

    run(scenario, vm_cluster())


class Fails(Mishaps):
    """Target pods, or transfers, fail."""

    def __init__(self, *, pods: str = "", transfers: str = "", stuck: bool = False) -> None:
        self._pods, self._transfers, self._stuck = pods, transfers, stuck

    def pod(self, pod: Obj) -> str:
        return self._pods

    def transfer(self, vmi: Obj) -> str:
        return self._transfers

    def stuck(self, pod: Obj) -> bool:
        return self._stuck


@pytest.mark.parametrize(
    ("mishaps", "phases", "text"),
    [
        (
            Fails(pods="UnexpectedAdmissionError"),
            ["", "Pending", "Scheduling", "Failed"],
            "Migration failed because target pod shutdown during migration",
        ),
        (Fails(transfers="operation failed"), [*TO_END, "Failed"], "source node reported migration failed"),
        (
            Fails(stuck=True),
            ["", "Pending", "Scheduling", "Failed"],
            "Migration target pod was removed during active migration.",
        ),
    ],
    ids=["kubelet refuses", "transfer fails", "never starts"],
)
def test_what_fails_on_the_nodes(mishaps: Mishaps, phases: list[str], text: str) -> None:
    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        await asyncio.sleep(920)
        assert diary.phases == phases
        assert f"FailedMigration: {text}" in diary.texts
        assert world.place_of("bank", "vm") == "w-00"
        assert is_true(world.store.get("virtualmachineinstances", "bank", "vm"), "Ready")

    run(scenario, vm_cluster(), mishaps=mishaps)


def test_a_quota_keeps_a_migration_pending_until_there_is_room() -> None:
    quota: Obj = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "bank"},
        "spec": {"hard": {"requests.cpu": "3"}},
    }

    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        await asyncio.sleep(1000)
        assert diary.phases == ["", "Pending"]
        waiting = await client.get(f"{MIGRATIONS}/m")
        assert [entry["type"] for entry in waiting["status"]["conditions"]] == ["migrationRejectedByResourceQuota"]
        world.store.modify(
            "resourcequotas", "bank", "q", lambda item: item["spec"]["hard"].update({"requests.cpu": "9"})
        )
        await asyncio.sleep(30)
        assert diary.phases == [*TO_END, "Succeeded"]
        assert (await client.get(f"{MIGRATIONS}/m"))["status"]["conditions"] == []

    run(scenario, [*vm_cluster(), quota])


def test_a_vm_that_ends_takes_its_migration_with_it() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", MIGRATIONS, vmim(to="w-02", name="m"))
        await asyncio.sleep(4)
        world.stop_vm("bank", "vm")
        await asyncio.sleep(20)
        assert (await client.get(MIGRATIONS))["items"] == []
        assert (await client.get(PODS))["items"] == []

    run(scenario, vm_cluster())


def many(count: int, on: str = "w-00") -> list[Obj]:
    return [part for number in range(count) for part in with_vm(f"vm-{number}", on, vcpus=1, gib=2)]


def post_all(world: World, count: int, **spec: str) -> None:
    """Migrations of vm-0, vm-1, ... as virt-controller itself would make them."""
    for number in range(count):
        item = vmim(f"vm-{number}", name=f"m-{number}", **spec)
        item["metadata"]["namespace"] = "bank"
        admission.mutate_migration(item)
        admission.admit_migration(world.store, item, admission.CONTROLLER)
        world.store.create("virtualmachineinstancemigrations", item)


def at_work(world: World, source: str = "") -> int:
    """Migrations that have a target pod and have not ended, off one node or in all."""
    return sum(
        phase(item) in TO_END[2:]
        for item in world.store.items("virtualmachineinstancemigrations")
        if source in ("", world.place_of("bank", item["spec"]["vmiName"]))
    )


@pytest.mark.parametrize(
    ("settings", "cluster", "outbound"),
    [({}, 4, 2), ({"parallelMigrationsPerCluster": 3, "parallelOutboundMigrationsPerNode": 2}, 3, 2)],
)
def test_limits_of_the_kubevirt_cr(settings: Obj, cluster: int, outbound: int) -> None:
    items = [*small(workers=4), *many(4), *(with_vm("vm-4", "w-01")), *(with_vm("vm-5", "w-01"))]
    for item in items:
        if item["kind"] == "KubeVirt":
            item["spec"]["configuration"]["migrations"] = settings

    async def scenario(world: World, client: Client) -> None:
        total, off = list[int](), list[int]()
        world.store.subscribe(lambda _: total.append(at_work(world)))
        world.store.subscribe(lambda _: off.append(at_work(world, "w-00")))
        post_all(world, 6)
        await asyncio.sleep(200)
        assert (max(total), max(off)) == (cluster, outbound)
        ended = [phase(item) for item in world.store.items("virtualmachineinstancemigrations")]
        assert ended == ["Succeeded"] * 6

    run(scenario, items)


def test_evacuations_go_first_and_wait_for_what_runs() -> None:
    async def scenario(world: World, client: Client) -> None:
        post_all(world, 3)
        await asyncio.sleep(1)
        pod = next(pod for pod in world.launchers("w-00") if "vm-3" in pod["metadata"]["name"])
        assert "Eviction triggered evacuation" in world.evict(pod)
        began: list[str] = []

        def note(change: Change) -> None:
            if (phase(change.previous or {}), phase(change.object)) == ("Pending", "Scheduling"):
                began.append(change.object["spec"]["vmiName"])

        world.store.subscribe(note)
        await asyncio.sleep(100)
        assert began == ["vm-3", "vm-2"], "the drain overtakes what waited before it"
        evacuation = next(
            item
            for item in world.store.items("virtualmachineinstancemigrations")
            if item["metadata"]["name"].startswith("kubevirt-evacuation-")
        )
        assert evacuation["metadata"]["annotations"]["kubevirt.io/evacuationMigration"] == "w-00"
        assert evacuation["spec"]["priority"] == "system-critical"
        assert "evacuationNodeName" not in world.store.get("virtualmachineinstances", "bank", "vm-3")["status"]

    run(scenario, [*small(), *many(4)])


def test_a_drain_empties_a_node() -> None:
    async def scenario(world: World, client: Client) -> None:
        answers = world.drain("w-00")
        assert len(answers) == 6
        await asyncio.sleep(300)
        assert world.launchers("w-00") == []
        assert set(world.places().values()) == {"w-01", "w-02"}

    run(scenario, [*small(), *many(6)])


def test_failed_evacuations_back_off() -> None:
    async def scenario(world: World, client: Client) -> None:
        made: list[float] = []

        def note(change: Change) -> None:
            if (phase(change.previous or {}), phase(change.object)) == ("Pending", "Scheduling"):
                made.append(world.clock.now())

        world.store.subscribe(note)
        world.evict(world.launchers()[0])
        await asyncio.sleep(200)
        gaps = [after - before for before, after in pairwise(made)]
        assert [round(gap / 20) for gap in gaps[:3]] == [1, 2, 4]

    run(scenario, vm_cluster(), mishaps=Fails(pods="UnexpectedAdmissionError"))


def test_only_the_newest_five_of_a_vm_are_kept() -> None:
    async def scenario(world: World, client: Client) -> None:
        for number in range(7):
            code, _ = await client.ask("POST", MIGRATIONS, vmim(name=f"m-{number}"))
            assert code == 201
            await asyncio.sleep(60)
        kept = [item["metadata"]["name"] for item in (await client.get(MIGRATIONS))["items"]]
        assert kept == [f"m-{number}" for number in range(2, 7)]

    run(scenario, vm_cluster())


def test_hot_plugged_volumes_keep_a_migration_pending() -> None:
    vmi, pod = with_vm()
    vmi["status"]["volumeStatus"] = [{"name": "disk", "hotplugVolume": {}}]

    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        await client.ask("POST", MIGRATIONS, vmim(name="m", to="w-00"))
        await asyncio.sleep(1000)
        assert diary.phases == ["", "Pending"]
        made = [text for text in diary.texts if text.startswith("SuccessfulCreate")]
        assert len(made) >= 3, "a new pod every five minutes, for ever"

    run(scenario, [*small(), vmi, pod])


def test_a_host_model_vm_on_a_node_without_labels_gets_no_target() -> None:
    items = vm_cluster()
    for item in items:
        if item["kind"] == "Node":
            item["metadata"]["labels"].pop("host-model-cpu.node.kubevirt.io/Skylake-Server")

    async def scenario(world: World, client: Client) -> None:
        diary = Diary.of(world)
        await client.ask("POST", MIGRATIONS, vmim(name="m"))
        await asyncio.sleep(100)
        assert diary.phases == ["", "Pending"]
        texts = [event["message"] for event in world.store.items("events", "bank")]
        assert any("does not have any host model label" in text for text in texts)

    run(scenario, items)


def test_a_vm_pinned_to_its_node_cannot_leave_it() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", MIGRATIONS, vmim(name="m", to="w-02"))
        await asyncio.sleep(10)
        target = next(pod for pod in world.store.items("pods", "bank") if not pod["spec"].get("nodeName"))
        assert target["spec"]["nodeSelector"]["kubernetes.io/hostname"] == "w-00", "the VM's own selector wins"
        condition = target["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert condition["message"].startswith("0/3 nodes are available: ")

    run(scenario, [*small(), *with_vm(nodeSelector={"kubernetes.io/hostname": "w-00"})])


def test_shapes_are_what_they_say() -> None:
    items = shapes.build(shapes.Shape(workers=3, control_planes=1, cpu=32, fill=0.5), seed=4)
    assert items == shapes.build(shapes.Shape(workers=3, control_planes=1, cpu=32, fill=0.5), seed=4)
    assert items != shapes.build(shapes.Shape(workers=3, control_planes=1, cpu=32, fill=0.5), seed=5)
    kinds = [item["kind"] for item in items]
    assert kinds.count("Node") == 4
    assert kinds.count("Pod") == kinds.count("VirtualMachineInstance") > 5
