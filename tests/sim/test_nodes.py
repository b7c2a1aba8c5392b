"""VMs start and stop, pods find nodes, nodes die: everything around migrations, on the store and over HTTP."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace

import pytest
from sim.cluster import EXACT, NODES, PODS, VMIS, Client, run, small, vmim, with_vm

from rebalancer.kube.transport import Api, unix_socket
from rebalancer.sim import shapes
from rebalancer.sim.api import ApiParams, ApiServer
from rebalancer.sim.chance import Dice
from rebalancer.sim.kubeapi import HttpKube
from rebalancer.sim.nodeplane import NodePlane
from rebalancer.sim.objects import Obj, condition, is_true, phase, seconds_of, status
from rebalancer.sim.plane import FailingShare, Mishaps
from rebalancer.sim.store import Store
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World


def only(world: World, resource: str = "pods") -> Obj:
    """The one object of its kind in namespace bank."""
    (found,) = world.store.items(resource, "bank")
    return found


def order(name: str = "vm", vcpus: int = 2, **spec: object) -> Obj:
    vmi = shapes.vmi("bank", name, vcpus=vcpus, memory_gib=4)
    vmi["spec"] |= spec
    return vmi


def test_a_vm_starts_and_stops() -> None:
    async def scenario(world: World, client: Client) -> None:
        code, _ = await client.ask("POST", VMIS, order())
        assert code == 201
        await asyncio.sleep(0.5)
        assert phase(only(world, "virtualmachineinstances")) == "Scheduling"
        await asyncio.sleep(10)
        vmi = await client.get(f"{VMIS}/vm")
        node = vmi["status"]["nodeName"]
        assert (vmi["status"]["phase"], vmi["metadata"]["labels"]["kubevirt.io/nodeName"]) == ("Running", node)
        assert is_true(vmi, "Ready")
        assert is_true(vmi, "LiveMigratable")
        assert [entry["phase"] for entry in vmi["status"]["phaseTransitionTimestamps"]] == [
            "Pending", "Scheduling", "Scheduled", "Running",
        ]  # fmt: skip
        pod = only(world)
        assert (phase(pod), pod["spec"]["nodeName"]) == ("Running", node)
        assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "2"
        await client.ask("DELETE", f"{VMIS}/vm")
        await asyncio.sleep(10)
        assert (await client.get(VMIS))["items"] == (await client.get(PODS))["items"] == []

    run(scenario)


def test_a_vm_whose_launcher_dies_has_failed() -> None:
    async def scenario(world: World, client: Client) -> None:
        name = only(world)["metadata"]["name"]
        await client.ask("DELETE", f"{PODS}/{name}", gracePeriodSeconds="0")
        await asyncio.sleep(5)
        assert phase(only(world, "virtualmachineinstances")) == "Failed"

    run(scenario, [*small(), *with_vm()])


class Immovable(Mishaps):
    def immovable(self, vmi: Obj) -> tuple[str, str] | None:
        return ("HostDeviceNotLiveMigratable", "VMI uses a host device")


def test_a_vm_can_start_unfit_for_migration() -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", VMIS, order())
        await asyncio.sleep(10)
        found = condition(only(world, "virtualmachineinstances"), "LiveMigratable")
        assert found is not None
        assert (found["status"], found["reason"]) == ("False", "HostDeviceNotLiveMigratable")

    run(scenario, mishaps=Immovable())


def test_pods_go_where_most_is_free_and_wait_where_nothing_is() -> None:
    async def scenario(world: World, client: Client) -> None:
        for name, vcpus in (("a", 8), ("b", 8), ("c", 8), ("d", 4), ("e", 10)):
            await client.ask("POST", VMIS, order(name, vcpus))
            await asyncio.sleep(5)
        assert world.places() == {f"bank/{name}": node for name, node in zip("abcde", NODE_ORDER, strict=True)}
        waiting = next(pod for pod in world.store.items("pods", "bank") if not pod["spec"].get("nodeName"))
        found = condition(waiting, "PodScheduled")
        assert found is not None
        assert found["message"] == (
            "0/3 nodes are available: 3 Insufficient cpu. "
            "no new claims to deallocate, preemption: 0/3 nodes are available: "
            "3 No preemption victims found for incoming pod."
        )
        await client.ask("DELETE", f"{VMIS}/b")
        await asyncio.sleep(20)
        assert world.place_of("bank", "e") == "w-01", "room was made, and the pod was tried again"

    run(scenario)


NODE_ORDER = ("w-00", "w-01", "w-02", "w-00", "")


def test_cordoned_and_tainted_nodes_take_nobody() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.cordon("w-00")
        taint: Obj = {"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}
        await client.ask("PATCH", f"{NODES}/w-01", taint, kind="application/strategic-merge-patch+json")
        for name in ("a", "b"):
            await client.ask("POST", VMIS, order(name))
        await asyncio.sleep(10)
        assert set(world.places().values()) == {"w-02"}

    run(scenario)


def test_heartbeats_keep_nodes_schedulable_for_vms() -> None:
    async def scenario(world: World, client: Client) -> None:
        await asyncio.sleep(1000)
        for node in (await client.get(NODES))["items"]:
            age = world.clock.now() - seconds_of(node["metadata"]["annotations"]["kubevirt.io/heartbeat"])
            assert age <= 133

    run(scenario, nodes=replace(EXACT, heartbeat=(60.0, 132.0)))


def test_a_node_dies_and_comes_back() -> None:
    async def scenario(world: World, client: Client) -> None:
        world.lose("w-00")
        await asyncio.sleep(60)
        node = await client.get(f"{NODES}/w-00")
        assert condition(node, "Ready")["status"] == "Unknown"  # type: ignore[index]
        assert {taint["effect"] for taint in node["spec"]["taints"]} == {"NoSchedule", "NoExecute"}
        assert node["metadata"]["labels"]["kubevirt.io/schedulable"] == "false"
        await asyncio.sleep(300)
        assert only(world)["metadata"]["deletionTimestamp"]
        assert phase(only(world, "virtualmachineinstances")) == "Running", "nobody knows yet"
        await asyncio.sleep(400)
        assert phase(only(world, "virtualmachineinstances")) == "Failed"
        assert world.store.items("pods", "bank") == []
        world.regain("w-00")
        await asyncio.sleep(30)
        node = await client.get(f"{NODES}/w-00")
        assert "taints" not in node["spec"]
        assert is_true(node, "Ready")

    run(scenario, [*small(), *with_vm()])


@pytest.mark.parametrize(
    ("lost", "at", "place", "reason"),
    [
        ("w-02", 5.0, "w-00", "Live migration stuck for 150 seconds and has been aborted"),
        ("w-00", 5.0, "w-00", None),
    ],
    ids=["target", "source"],
)
def test_a_node_that_dies_during_a_migration(lost: str, at: float, place: str, reason: str | None) -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", VMIS.replace("instances", "instancemigrations"), vmim(to="w-02"))
        await asyncio.sleep(at)
        world.lose(lost)
        await asyncio.sleep(250)
        vmi = only(world, "virtualmachineinstances")
        assert status(vmi)["nodeName"] == place
        assert status(vmi)["migrationState"].get("failureReason") == reason

    run(scenario, [*small(), *with_vm()])


@pytest.mark.parametrize(
    ("bandwidth", "dirty", "seconds"), [(1.1e9, 0.1e9, 4.3), (0.6e9, 0.1e9, 8.6), (0.1e9, 0.2e9, 750)]
)
def test_transfers_take_memory_over_bandwidth_and_give_up_when_they_never_end(
    bandwidth: float, dirty: float, seconds: float
) -> None:
    async def scenario(world: World, client: Client) -> None:
        await client.ask("POST", VMIS.replace("instances", "instancemigrations"), vmim(to="w-02"))
        await asyncio.sleep(800)
        state = status(only(world, "virtualmachineinstances"))["migrationState"]
        took = seconds_of(state["endTimestamp"]) - seconds_of(state["startTimestamp"])
        assert took == pytest.approx(seconds, abs=1.5)
        assert bool(state.get("failed")) is (dirty > bandwidth)

    run(scenario, [*small(), *with_vm()], nodes=replace(EXACT, bandwidth_bytes=bandwidth, dirty_bytes=dirty))


def test_a_share_of_failures_is_the_same_in_every_run() -> None:
    share = FailingShare(Dice(3), transfers=0.5, pods=0.2)
    vmis: list[Obj] = [{"status": {"migrationState": {"migrationUid": f"m{number}"}}} for number in range(200)]
    first = [bool(share.transfer(vmi)) for vmi in vmis]
    assert first == [bool(FailingShare(Dice(3), transfers=0.5).transfer(vmi)) for vmi in vmis]
    assert 70 < sum(first) < 130


HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"


async def credentials(_: bool) -> str:
    return "Bearer secret"


def test_the_node_plane_works_over_http_alone() -> None:
    """As beside a real kube-apiserver: it sees nothing but the API, and its writes can conflict."""
    with tempfile.TemporaryDirectory() as folder:

        async def main() -> tuple[str, str]:
            loop = asyncio.get_running_loop()
            store = Store(lambda: 1_800_000_000 + loop.time())
            server = ApiServer(store, params=ApiParams(tokens={"secret": HANDLER}))
            for item in small():
                store.load(item["kind"].lower() + "s", item)
            vmi, pod = with_vm()
            pod["status"] = {"phase": "Pending"}
            vmi["status"] = {"phase": "Scheduled", "nodeName": "w-00"}
            store.load("pods", pod)
            store.load("virtualmachineinstances", vmi)
            await server.start(unix=f"{folder}/api")
            async with Api(replace(unix_socket(f"{folder}/api"), credentials=credentials)) as api:
                plane = NodePlane(HttpKube(api), now=store.now, dice=Dice(), params=replace(EXACT, heartbeat=(60, 60)))
                running = asyncio.create_task(plane.run())
                await asyncio.sleep(0.9)
                store.modify("pods", "bank", pod["metadata"]["name"], lambda item: item["metadata"].update(labels={}))
                await asyncio.sleep(20)
                phases = tuple(
                    phase(item) for kind in ("pods", "virtualmachineinstances") for item in store.items(kind)
                )
                store.delete("pods", "bank", pod["metadata"]["name"])
                await asyncio.sleep(400)
                assert store.items("pods") == []
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await server.stop()
            return phases[0], phases[1]

        assert run_virtual(main) == ("Running", "Running")
