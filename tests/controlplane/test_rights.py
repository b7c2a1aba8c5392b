"""RBAC: what our chart grants is enough, is no more than we use, and each right that is missing is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest
from anyio.to_thread import run_sync
from controlplane import chart
from controlplane.daemon import ACTIVE, DRY_RUN, USER, Daemon, daemon, embedded
from controlplane.harness import ControlPlane
from controlplane.kubeclient import ApiError, Object
from controlplane.objects import MIGRATIONS, migration, vmi
from controlplane.scene import Scene, enter, live_nodes
from controlplane.waiting import until

from rebalancer.domain.naming import migration_name
from rebalancer.kube.cache_params import CacheParams

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

CORE = ("nodes", "pods", "namespaces", "persistentvolumes", "persistentvolumeclaims")
VMIS, VMIMS = "virtualmachineinstances.kubevirt.io", "virtualmachineinstancemigrations.kubevirt.io"
LEASES, EVENTS = "leases.coordination.k8s.io", "events.events.k8s.io"
LISTED = (*CORE, "csinodes.storage.k8s.io", "kubevirts.kubevirt.io", VMIS, VMIMS)
READS = [(verb, resource) for resource in LISTED for verb in ("list", "watch")]
# KubeVirt itself lets everybody list its CR.
NAMED = [right for right in READS if right != ("list", "kubevirts.kubevirt.io")]
WRITES_OF_A_DRY_RUN = [(EVENTS, "create"), (EVENTS, "patch"), *((LEASES, verb) for verb in ("get", "create", "update"))]
LOOKS = [("get", VMIS), ("get", VMIMS)]
MOVES = [("create", VMIMS), ("delete", VMIMS)]
DRY_RIGHTS = {*READS, *LOOKS, *((verb, resource) for resource, verb in WRITES_OF_A_DRY_RUN)}
LEASE = {"metadata": {"name": chart.NAME}, "spec": {"holderIdentity": ""}}
CASE = "rights-of-a-case"


@pytest.fixture(scope="module")
async def scene(control_plane: ControlPlane, programs: Callable[..., None]) -> AsyncIterator[Scene]:
    """One VM has a reason to leave its node and may go to two others; another VM may stay."""
    programs("helm")
    async with live_nodes(control_plane) as found:
        stays = vmi("stays", tolerations=[{"operator": "Exists"}])
        await enter(found, ("r0", "r1", "r2"), [vmi("mover"), stays])
        await found.retire("r0")
        yield found


@pytest.fixture(scope="module")
async def release(programs: Callable[..., None]) -> str:
    """The chart's active release, with CASE for its name."""
    programs("helm")
    return await run_sync(partial(chart.render, CASE, mode=ACTIVE))


def rights(release: list[Object]) -> Iterator[tuple[str, str]]:
    """(verb, resource) of every rule of every role."""
    for role in release:
        for rule in role["rules"] if role["kind"] in ("Role", "ClusterRole") else ():
            for resource in rule["resources"]:
                group = rule["apiGroups"][0]
                yield from ((verb, f"{resource}.{group}" if group else resource) for verb in rule["verbs"])


def without(release: list[Object], verb: str, resource: str) -> list[Object]:
    """The release with one verb of one resource taken out of its roles."""
    plural, _, group = resource.partition(".")
    for role in release:
        if role["kind"] not in ("Role", "ClusterRole"):
            continue
        rules = []
        for rule in role["rules"]:
            for one in rule["resources"]:
                lacks = verb if (one, rule["apiGroups"]) == (plural, [group]) else ""
                verbs = [kept for kept in rule["verbs"] if kept != lacks]
                if verbs:
                    rules.append(rule | {"resources": [one], "verbs": verbs})
        role["rules"] = rules
    return release


async def lacking(scene: Scene, release: str, verb: str, resource: str) -> tuple[str, str]:
    """Namespace and token of a ServiceAccount that has all the rights of the chart but one."""
    name = f"no-{verb}-{resource.partition('.')[0]}"
    objects = without(chart.objects(release.replace(CASE, name)), verb, resource)
    return name, await chart.grant(scene.plane, name, objects)


async def test_install_manifest_is_the_chart_as_it_comes(programs: Callable[..., None]) -> None:
    programs("helm")
    assert await run_sync(chart.INSTALL.read_text) == await run_sync(chart.install_manifest)
    kinds = [item["kind"] for item in chart.objects(await run_sync(chart.install_manifest))]
    assert kinds[0] == "Namespace"
    assert 'REBALANCER_MODE\n              value: "dry-run"' in await run_sync(chart.install_manifest)


async def test_the_install_manifest_is_accepted_by_the_cluster(control_plane: ControlPlane) -> None:
    manifest = await run_sync(chart.install_manifest)
    told = await control_plane.kubectl("apply", "--validate=strict", "-f", "-", stdin=manifest)
    assert f"deployment.apps/{chart.NAME} created" in told
    await control_plane.kubectl("delete", "deployment,service", "--all", "-n", chart.NAME)


async def test_the_roles_hold_these_rights_and_no_more(release: str) -> None:
    assert sorted(rights(chart.objects(release))) == sorted((*DRY_RIGHTS, *MOVES))
    assert sorted(rights(await chart.rendered(mode=DRY_RUN))) == sorted(DRY_RIGHTS)


@pytest.mark.parametrize(("verb", "resource"), NAMED, ids=[" ".join(right) for right in NAMED])
async def test_a_missing_right_to_read_is_named(scene: Scene, release: str, verb: str, resource: str) -> None:
    namespace, token = await lacking(scene, release, verb, resource)
    # An API server that has just started refuses for a moment; here that is not waited for.
    quick = CacheParams(forbidden_seconds=0.5)
    async with embedded(scene.plane, DRY_RUN, token=token, namespace=namespace, cache=quick) as ours:
        await ours.logs(f"not permitted to {verb} {resource}: ")


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_a_missing_right_to_the_lease_is_named(scene: Scene, release: str, verb: str) -> None:
    namespace, token = await lacking(scene, release, verb, LEASES)
    if verb == "update":
        await scene.plane.client().create(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", LEASE)
    async with embedded(scene.plane, ACTIVE, token=token, namespace=namespace) as ours:
        await ours.says("Standby", f"not permitted to {verb} {LEASES} in namespace {namespace}: ")
    assert await scene.migrations() == []


async def test_a_missing_right_to_create_events_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "create", EVENTS)
    async with embedded(scene.plane, DRY_RUN, token=token, namespace=namespace) as ours:
        await ours.logs("Events cannot be written", f"not permitted to create {EVENTS} in namespace {namespace}: ")
        await ours.says("DryRun", "has 1 move in 1 wave")


async def test_a_missing_right_to_patch_events_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "patch", EVENTS)
    async with embedded(scene.plane, DRY_RUN, token=token, namespace=namespace) as ours:
        # The same words about the same object for a second time are one Event with a count.
        for _ in range(2):
            for cordoned, kind in ((True, "Stuck"), (False, "DryRun")):
                await _cordon_targets(scene, cordoned)
                await _says_again(ours, kind)
        await ours.logs("Events cannot be written", f"not permitted to patch {EVENTS} in namespace {namespace}: ")


async def _says_again(ours: Daemon, kind: str) -> None:
    """Waits for one more line of a kind."""
    before = len(ours.messages(kind))

    async def now() -> int:
        return len(ours.messages(kind))

    await until(now, lambda count: count > before)


async def _cordon_targets(scene: Scene, cordoned: bool) -> None:
    for name in ("r1", "r2"):
        await scene.change_node(name, unschedulable=cordoned or None)


async def test_a_missing_right_to_look_at_a_vm_before_moving_it_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "get", VMIS)
    async with embedded(scene.plane, ACTIVE, token=token, namespace=namespace) as ours:
        await ours.says("Held", f"default/mover: not permitted to get {VMIS} in namespace default: ")
    assert await scene.migrations() == []


async def test_a_missing_right_to_create_migrations_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "create", VMIMS)
    async with embedded(scene.plane, ACTIVE, token=token, namespace=namespace) as ours:
        await ours.says("Failed", f"Nothing could be started: not permitted to create {VMIMS} in namespace default: ")
    assert await scene.migrations() == []


async def test_a_missing_right_to_read_a_migration_whose_name_is_taken_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "get", VMIMS)
    name = migration_name((await scene.vmi("mover"))["metadata"]["uid"], "r0", "", 0)
    await scene.migrate(migration(name, instance="stays", target="nowhere"))
    async with embedded(scene.plane, ACTIVE, token=token, namespace=namespace) as ours:
        await ours.says("Held", f"default/mover: not permitted to get {VMIMS} in namespace default: ")
    await _delete_migrations(scene)


async def test_a_missing_right_to_withdraw_a_migration_is_named(scene: Scene, release: str) -> None:
    namespace, token = await lacking(scene, release, "delete", VMIMS)
    scene.mishaps.ours_hang.add("mover")
    async with embedded(scene.plane, ACTIVE, token=token, namespace=namespace) as ours:
        await ours.says("Started", "default/mover r0 → ")
        await _cordon_targets(scene, True)
        await ours.says(
            "Failed", "must give way", "is cordoned", f"not permitted to delete {VMIMS} in namespace default: "
        )
        await _delete_migrations(scene)
        await _cordon_targets(scene, False)
    scene.mishaps.ours_hang.clear()


async def _delete_migrations(scene: Scene) -> None:
    await scene.plane.client().delete(MIGRATIONS.format(namespace="default"))
    await until(scene.migrations, lambda found: not found)


async def test_the_rights_of_a_dry_run_can_neither_start_nor_delete_a_migration(scene: Scene) -> None:
    name = "rights-of-a-dry-run"
    token = await chart.grant(scene.plane, name, await chart.rendered(name, mode=DRY_RUN))
    ours = scene.plane.client(token=token)
    for refused in (
        ours.create(MIGRATIONS.format(namespace="default"), migration("forbidden", instance="mover", target="r1")),
        ours.delete(f"{MIGRATIONS.format(namespace='default')}/any"),
    ):
        with pytest.raises(ApiError) as answer:
            await refused
        assert answer.value.status == 403


async def test_the_rights_of_the_chart_are_enough(scene: Scene) -> None:
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Finished", "1 migration done, 0 hotspots and 0 broken rules left")
        await ours.says("Balanced")
    assert await scene.place("mover") in ("r1", "r2")
    answers = [event for event in await scene.plane.audit() if event.user == USER]
    assert len(answers) > 10
    assert [event.uri for event in answers if event.code == 403] == []
