"""What can come between a plan and its end on a real cluster; what the daemon says, and where the VMs are then."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from controlplane.daemon import ACTIVE, Daemon, daemon, embedded, granted
from controlplane.harness import ControlPlane
from controlplane.kubeclient import ApiError, Object
from controlplane.objects import INSTANCES, MIGRATIONS, migration, vmi
from controlplane.scene import ALL_INSTANCES, RETIRING, Scene, enter, leave, live_nodes
from controlplane.waiting import until
from controlplane.witness import witness

from rebalancer.domain.naming import MANAGED_BY, MANAGER
from rebalancer.kube.outcome import Answer, Refusal
from rebalancer.kube.transport import Api
from rebalancer.sim.checkers import Bounds
from rebalancer.sim.kubelet import ended_status

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

NODES = ("t0", "t1", "t2")
LOOK_SECONDS = 1.0
SHORT = {
    "REBALANCER_MIGRATION__UNSCHEDULABLE_SECONDS": "3",
    "REBALANCER_MIGRATION__SETUP_SECONDS": "6",
}
VMI = f"{INSTANCES.format(namespace='default')}/mover"
Interference = Callable[[Scene, str], Awaitable[None]]


class Interfering(Api):
    """Something happens to the cluster after the daemon has looked and before its first migration is posted."""

    def __init__(self, api: Api, happens: Callable[[str], Awaitable[None]]) -> None:
        super().__init__(api.endpoint, api.params)
        self._happens: Callable[[str], Awaitable[None]] | None = happens

    async def create(
        self,
        path: str,
        manifest: object,
        query: Mapping[str, str] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Answer | Refusal:
        """POST; `happens` is told the node that the migration goes to."""
        if path.endswith("migrations") and self._happens is not None:
            happens, self._happens = self._happens, None
            assert isinstance(manifest, dict)
            await happens(manifest["spec"]["addedNodeSelector"]["kubernetes.io/hostname"])
        return await super().create(path, manifest, query, timeout_seconds=timeout_seconds)


@pytest.fixture(scope="module")
async def alive(control_plane: ControlPlane, programs: Callable[..., None]) -> AsyncIterator[Scene]:
    """Living nodes for the scenes of this module."""
    programs("helm")
    async with live_nodes(control_plane) as scene:
        yield scene


@pytest.fixture
async def scene(alive: Scene) -> AsyncIterator[Scene]:
    """A VM called "mover" on t0, which it may not stay on; t1 and t2 are free."""
    await enter(alive, NODES, [vmi("mover", memory="64Mi")])
    await alive.retire("t0")
    yield alive
    await leave(alive)


@pytest.fixture
async def crowd(alive: Scene) -> AsyncIterator[Scene]:
    """Four VMs on t0, which they may not stay on."""
    await enter(alive, NODES, [vmi(f"vm-{number}", memory="64Mi") for number in range(4)])
    await alive.retire("t0")
    yield alive
    await leave(alive)


async def places(scene: Scene) -> dict[str, str]:
    """Where each VM runs."""
    vmis = await scene.plane.client().items(ALL_INSTANCES)
    return {one["metadata"]["name"]: one["status"]["nodeName"] for one in vmis}


async def launchers(scene: Scene) -> list[str]:
    """The nodes of all launcher pods that have not ended."""
    pods = await scene.plane.client().items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher")
    return [pod["spec"].get("nodeName", "") for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]


# -- Between the last look and the POST -------------------------------------------------------------------------------


async def _somebody_migrates_it(scene: Scene, target: str) -> None:
    scene.mishaps.theirs_hang.add("theirs")
    await scene.migrate(migration("theirs", instance="mover", target=target))


async def _it_cannot_migrate_any_more(scene: Scene, target: str) -> None:
    conditions = (await scene.vmi("mover"))["status"]["conditions"]
    for one in conditions:
        # virt-controller compares conditions by JSON patch, and a null would not survive ours.
        one["lastProbeTime"] = one.get("lastProbeTime") or one["lastTransitionTime"]
        if one["type"] == "LiveMigratable":
            one |= {"status": "False", "reason": "HostDeviceNotLiveMigratable", "message": "it has got a host device"}
    await scene.plane.client("handler").patch(VMI, {"status": {"conditions": conditions}})


async def _it_is_gone(scene: Scene, target: str) -> None:
    await scene.plane.client().delete(VMI)
    await until(partial(scene.plane.client().items, ALL_INSTANCES), lambda found: not found)


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (_somebody_migrates_it, ("in-flight migration detected",)),
        (_it_cannot_migrate_any_more, ("ended as Refused", "Cannot migrate VMI", "it has got a host device")),
        (_it_is_gone, ("ended as Refused", "does not exist")),
    ],
    ids=["already migrating", "not migratable", "gone"],
)
async def test_admission_refuses(scene: Scene, happens: Interference, words: tuple[str, ...]) -> None:
    async with interfered(scene, happens) as ours:
        await ours.says("Dropped", *words)
    assert [one["metadata"]["name"] for one in await scene.migrations() if one["metadata"]["name"] != "theirs"] == []
    assert set((await places(scene)).values()) <= {"t0"}


async def _it_is_cordoned(scene: Scene, target: str) -> None:
    await scene.change_node(target, unschedulable=True)


async def test_a_target_that_is_cordoned_is_given_up_for_another(scene: Scene) -> None:
    async with interfered(scene, _it_is_cordoned) as ours:
        first = await ours.says("Started", "default/mover t0 → ")
        await ours.says("Dropped", "ended as Withdrawn: target t", "is cordoned")
        await ours.says("Finished", "1 migration done")
    target = first[-2:]
    assert await places(scene) == {"mover": next(name for name in ("t1", "t2") if name != target)}
    assert await scene.unfinished() == []


async def _it_is_tainted(scene: Scene, target: str) -> None:
    await scene.change_node(target, taints=[RETIRING])


async def _it_is_filled(scene: Scene, target: str) -> None:
    await scene.fill(target, "15900m")


async def _it_loses_its_name(scene: Scene, target: str) -> None:
    change = {"metadata": {"labels": {"kubernetes.io/hostname": "renamed"}}}
    await scene.plane.client().patch(f"/api/v1/nodes/{target}", change)


@pytest.mark.parametrize(
    ("happens", "filter_message"),
    [
        (_it_is_tainted, "untolerated taint"),
        (_it_is_filled, "Insufficient cpu"),
        (_it_loses_its_name, "didn't match Pod's node affinity/selector"),
    ],
    ids=["tainted", "filled", "renamed"],
)
async def test_a_target_that_does_not_fit_any_more_costs_seconds_and_then_the_vm_rests(
    scene: Scene, happens: Interference, filter_message: str
) -> None:
    async with interfered(scene, happens) as ours:
        await ours.says("Started", "default/mover t0 → ")
        await ours.says("Dropped", "ended as Failed", filter_message)
        await ours.says("Stuck", "its last migration failed", "it is left alone until")
    assert await places(scene) == {"mover": "t0"}
    await until(partial(launchers, scene), lambda nodes: nodes == ["t0"])


@asynccontextmanager
async def interfered(scene: Scene, happens: Interference) -> AsyncIterator[Daemon]:
    """The daemon, with something that happens to the cluster just before it posts its first migration."""
    token = await granted(scene.plane, ACTIVE)

    def wrap(api: Api) -> Api:
        return Interfering(api, partial(happens, scene))

    async with embedded(scene.plane, ACTIVE, token=token, wrap=wrap, more=SHORT) as ours:
        yield ours


# -- On the way -------------------------------------------------------------------------------------------------------


async def test_a_quota_that_lets_no_target_pod_in_ends_at_our_deadline(scene: Scene) -> None:
    # There is no controller here that would fill in the status.
    limit = {"pods": "1"}
    quotas = "/api/v1/namespaces/default/resourcequotas"
    await scene.plane.client().create(quotas, {"metadata": {"name": "full"}, "spec": {"hard": limit}})
    await scene.plane.client().patch(f"{quotas}/full/status", {"status": {"hard": limit, "used": limit}})
    async with daemon(scene.plane, ACTIVE, **SHORT) as ours:
        await ours.says("Started", "default/mover t0 → ")
        (pending,) = await until(scene.migrations, lambda found: any(_by_quota(one) for one in found))
        assert pending["status"]["phase"] == "Pending"
        await ours.says("Dropped", "ended as Failed: it passed its deadline")
        await ours.says("Stuck", "its last migration failed (default/mover: it passed its deadline")
    assert await scene.migrations() == []
    assert await launchers(scene) == ["t0"]


def _by_quota(vmim: Object) -> bool:
    conditions = vmim.get("status", {}).get("conditions", ())
    return any(one["type"] == "migrationRejectedByResourceQuota" for one in conditions)


async def test_a_target_pod_that_fails_leaves_its_vm_alone_for_a_while(scene: Scene) -> None:
    scene.mishaps.ours_fail.add("mover")
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Dropped", "default/mover t0 → ", "ended as Failed")
        await ours.says("Stuck", "its last migration failed")
    assert [one["status"]["phase"] for one in await scene.migrations()] == ["Failed"]
    assert await places(scene) == {"mover": "t0"}


async def _delete(scene: Scene) -> None:
    await scene.plane.client().delete(VMI)


async def _shut_down(scene: Scene) -> None:
    """The guest powers off: virt-handler says so, and its pod ends."""
    pods = await scene.plane.client().items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher")
    (source,) = (pod for pod in pods if pod["spec"].get("nodeName") == "t0")
    where = f"/api/v1/namespaces/default/pods/{source['metadata']['name']}/status"
    await scene.plane.client("handler").patch(VMI, {"status": {"phase": "Succeeded"}})
    await scene.plane.client("kubelet").patch(where, {"status": ended_status(source, time.time(), failed=False)})


@pytest.mark.parametrize(
    ("ends", "words"),
    [(_delete, "ended as Lost: default/mover does not exist any more"), (_shut_down, "ended as Failed")],
    ids=["deleted", "shut down"],
)
async def test_a_vm_that_ends_in_flight_ends_its_migration(
    scene: Scene, ends: Callable[[Scene], Awaitable[None]], words: str
) -> None:
    scene.mishaps.ours_hang.add("mover")
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Started", "default/mover t0 → ")
        await until(partial(launchers, scene), lambda nodes: len(nodes) == 2 and all(nodes))
        # What comes and goes between two looks is noticed later.
        await anyio.sleep(2 * LOOK_SECONDS)
        await ends(scene)
        await ours.says("Dropped", words)
    assert await scene.unfinished() == []
    await until(partial(launchers, scene), lambda nodes: "t0" not in nodes)


# -- Others first -----------------------------------------------------------------------------------------------------


async def test_a_migration_by_hand_goes_first(scene: Scene) -> None:
    scene.mishaps.theirs_hang.add("theirs")
    await scene.migrate(migration("theirs", instance="mover", target="t2"))
    await until(partial(launchers, scene), lambda nodes: sorted(nodes) == ["t0", "t2"])
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Balanced")
        await scene.plane.client().delete(f"{MIGRATIONS.format(namespace='default')}/theirs")
        await ours.says("Finished", "1 migration done")
    assert [one["metadata"]["labels"][MANAGED_BY] for one in await scene.migrations()] == [MANAGER]


async def test_a_drain_in_mid_wave_takes_the_vms_and_ours_are_withdrawn(crowd: Scene) -> None:
    crowd.mishaps.ours_hang.update(await places(crowd))
    async with daemon(crowd.plane, ACTIVE) as ours:
        await ours.says("Started", "started 2 migrations")
        mine = {one["spec"]["vmiName"] for one in await crowd.migrations()}
        await crowd.change_node("t0", unschedulable=True)
        for name in await _pods_on(crowd, "t0"):
            with pytest.raises(ApiError, match="triggered evacuation") as answer:
                await crowd.plane.client().create(
                    f"/api/v1/namespaces/default/pods/{name}/eviction",
                    {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}},
                )
            assert answer.value.status == 429
        await ours.says("Dropped", "ended as Withdrawn", "is being evacuated from t0")
        await until(partial(places, crowd), lambda found: "t0" not in found.values(), seconds=60)
        await ours.says("Balanced")
    assert len(mine) == 2
    done = await until(crowd.migrations, lambda found: all(_ended(one) for one in found))
    assert {one["metadata"]["name"].startswith("kubevirt-evacuation-") for one in done} == {True}


def _ended(vmim: Object) -> bool:
    return bool(vmim.get("status", {}).get("phase") == "Succeeded")


async def _pods_on(scene: Scene, node: str) -> list[str]:
    pods = await scene.plane.client().items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher")
    return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node]


async def test_limits_of_the_kubevirt_resource_that_are_lower_than_ours_are_kept(crowd: Scene) -> None:
    await _limit_kubevirt(crowd, cluster=1, node=1)
    async with witness(crowd.plane) as seen, daemon(crowd.plane, ACTIVE) as ours:
        await ours.says("Planned", "4 moves in 4 waves")
        await ours.says("Finished", "4 migrations done", seconds=60)
        assert await seen.broken(Bounds(per_cluster=1, per_source=1, per_hour=1000)) == []
    await _limit_kubevirt(crowd, cluster=5, node=2)
    assert "t0" not in (await places(crowd)).values()


async def _limit_kubevirt(scene: Scene, *, cluster: int, node: int) -> None:
    limits = {"parallelMigrationsPerCluster": cluster, "parallelOutboundMigrationsPerNode": node}
    await scene.plane.configure_kubevirt({"migrations": limits})
