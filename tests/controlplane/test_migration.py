"""A directed migration on the real control plane: the harness and the node plane work together."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from controlplane.harness import PROGRAMS, ControlPlane
from controlplane.kubeclient import ApiError, KubeClient, Object
from controlplane.nodes import add_node, node_plane
from controlplane.objects import INSTANCES, MIGRATIONS, migration, node, path, vmi

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

SECONDS = 30
PIPED = """\
apiVersion: v1
kind: Namespace
metadata: {name: piped}
"""


async def until(client: KubeClient, where: str, phase: str) -> Object:
    """The object once it has the phase."""
    seen: Object = {}
    with anyio.move_on_after(SECONDS):
        while seen.get("status", {}).get("phase") != phase:
            await anyio.sleep(0.05)
            seen = await client.get(where)
    assert seen["status"].get("phase") == phase, seen["status"]
    return seen


async def test_directed_migration_takes_its_vm_to_the_named_node(control_plane: ControlPlane) -> None:
    admin = control_plane.client("admin")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node_plane(control_plane).run)
        await add_node(control_plane, node("n0"))
        instance = vmi("vm")
        await admin.create(INSTANCES.format(namespace="default"), instance)
        assert (await until(admin, path(instance), "Running"))["status"]["nodeName"] == "n0"
        await add_node(control_plane, node("n1"))

        directed = migration("to-n1", instance="vm", target="n1")
        await admin.create(MIGRATIONS.format(namespace="default"), directed)
        done = await until(admin, path(directed), "Succeeded")

        moved = await admin.get(path(instance))
        assert moved["status"]["nodeName"] == "n1"
        assert moved["status"]["migrationState"]["completed"] is True
        phases = [one["phase"] for one in done["status"]["phaseTransitionTimestamps"]]
        assert phases == [
            "Pending",
            "Scheduling",
            "Scheduled",
            "PreparingTarget",
            "TargetReady",
            "Running",
            "Succeeded",
        ]

        again = migration("back", instance="vm", target="n0")
        await admin.create(MIGRATIONS.format(namespace="default"), again)
        await until(admin, path(again), "Succeeded")
        assert (await admin.get(path(instance)))["status"]["nodeName"] == "n0"
        tasks.cancel_scope.cancel()


async def test_virt_api_refuses_a_migration_of_a_vm_that_is_not_there(control_plane: ControlPlane) -> None:
    with pytest.raises(ApiError, match="does not exist") as refused:
        await control_plane.client().create(
            MIGRATIONS.format(namespace="default"), migration("nowhere", instance="ghost", target="n1")
        )
    assert refused.value.status == 400


async def test_priority_is_for_virt_controller_alone(control_plane: ControlPlane) -> None:
    urgent = migration("urgent", instance="vm", target="n1")
    urgent["spec"]["priority"] = "system-critical"
    with pytest.raises(ApiError) as refused:
        await control_plane.client().create(MIGRATIONS.format(namespace="default"), urgent)
    assert refused.value.status == 422


async def test_kubectl_reads_and_applies(control_plane: ControlPlane) -> None:
    assert "namespace/piped" in await control_plane.kubectl("apply", "-f", "-", stdin=PIPED)
    assert "piped" in await control_plane.kubectl("get", "namespaces", "-o", "name")


async def test_audit_log_names_who_wrote(control_plane: ControlPlane) -> None:
    await control_plane.namespace("audited")
    token = await control_plane.service_account_token("audited", "default")
    with pytest.raises(ApiError) as refused:
        await control_plane.client(token=token).create(
            MIGRATIONS.format(namespace="audited"),
            migration("mine", instance="vm", target="n1", namespace="audited"),
        )
    assert refused.value.status == 403
    user = "system:serviceaccount:audited:default"
    written = [event for event in await control_plane.audit() if event.user == user and event.mutating]
    assert [(event.verb, event.resource, event.code) for event in written] == [
        ("create", "virtualmachineinstancemigrations", 403)
    ]


async def test_without_kubevirt_its_api_is_absent(programs: Callable[..., None]) -> None:
    programs(*PROGRAMS)
    async with ControlPlane(kubevirt=False) as plane:
        with pytest.raises(ApiError) as absent:
            await plane.client().get(MIGRATIONS.format(namespace="default"))
    assert absent.value.status == 404


async def test_api_server_comes_back_where_it_was(control_plane: ControlPlane) -> None:
    admin = control_plane.client()
    await control_plane.namespace("kept")
    for crash in (False, True):
        before = control_plane.pid("kube-apiserver")
        await control_plane.restart_apiserver(crash=crash)
        assert control_plane.pid("kube-apiserver") != before
        assert (await admin.get("/api/v1/namespaces/kept"))["metadata"]["name"] == "kept"


async def test_compaction_makes_an_old_watch_expire(control_plane: ControlPlane) -> None:
    admin = control_plane.client()
    await control_plane.compact()
    # The watch cache may still hold the revision; a list at an exact old revision goes to etcd.
    with pytest.raises(ApiError) as expired:
        await admin.get("/api/v1/namespaces", resourceVersion="2", resourceVersionMatch="Exact", limit="1")
    assert expired.value.status == 410
