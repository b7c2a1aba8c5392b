"""VirtualMachineInstances and their migrations."""

from __future__ import annotations

from typing import Any

import pytest
from kube.wires import CREATED, CREATED_SECONDS, GIB, meta, page, text, vmi_json

from rebalancer.domain.node import Condition
from rebalancer.domain.vmi import VMI, Migration, MigrationState
from rebalancer.kube.decode import (
    decode_object,
)


def test_a_vmi_with_everything() -> None:
    found = vmi_json(
        {
            "architecture": "arm64",
            "evictionStrategy": "LiveMigrate",
            "schedulerName": "s",
            "priorityClassName": "p",
            "domain": {
                "cpu": {
                    "cores": 2,
                    "sockets": 3,
                    "threads": 1,
                    "model": "host-model",
                    "features": [{"name": "invtsc", "policy": "require"}, {"name": "vmx"}],
                    "dedicatedCpuPlacement": True,
                    "isolateEmulatorThread": True,
                    "realtime": {},
                },
                "memory": {"guest": "4Gi", "hugepages": {"pageSize": "2Mi"}},
                "machine": {"type": "q35"},
                "features": {"hyperv": {"vpindex": {}, "synic": {"enabled": False}, "spinlocks": {"spinlocks": 8191}}},
                "launchSecurity": {"sev": {"policy": {"encryptedState": True}}},
                "ioThreads": {"supplementalPoolThreadCount": 2},
                "devices": {"hostDevices": [{"deviceName": "d"}], "gpus": [{"name": "g", "deviceName": "v/gpu"}]},
                "resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}},
            },
            "volumes": [
                {"name": "root", "dataVolume": {"name": "dv"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "pvc", "hotpluggable": True}},
                {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "image"}}},
                {"name": "dump", "memoryDump": {"claimName": "core"}},
            ],
            "networks": [{"name": "default", "pod": {}}, {"name": "n", "multus": {"networkName": "br"}}],
            "utilityVolumes": [{"name": "u"}],
        },
        conditions=[{"type": "LiveMigratable", "status": "False", "reason": "R", "lastTransitionTime": CREATED}],
        evacuationNodeName="n1",
        migrationMethod="BlockMigration",
        machine={"type": "pc-q35-9"},
        topologyHints={"tscFrequency": 2_500_000},
        activePods={"pod-uid": "n1"},
        migratedVolumes=[{"volumeName": "root"}],
        changedBlockTracking={"backupStatus": {"backupName": "b"}},
        migrationState={"migrationUid": "m", "sourceNode": "n0", "targetNode": "n1", "startTimestamp": CREATED},
    )
    vmi = decode_object("VirtualMachineInstance", text(found))
    assert isinstance(vmi, VMI)
    spec = vmi.spec
    assert (spec.vcpus, spec.cpu_model, spec.features) == (6, "host-model", (("invtsc", "require"), ("vmx", "")))
    assert (spec.dedicated_cpu, spec.isolate_emulator_thread, spec.realtime, spec.io_threads) == (True, True, True, 2)
    assert (spec.guest_memory_bytes, spec.hugepages) == (4 * GIB, "2Mi")
    assert (spec.cpu_requests_milli, spec.cpu_limits_milli) == (1500, 2000)
    assert (spec.hyperv, spec.launch_security) == (("spinlocks", "vpindex"), "sev-es")
    assert (spec.host_devices, spec.gpus, spec.networks) == (("d",), ("v/gpu",), ("br",))
    assert spec.volume_claims == ("core", "dv", "image", "pvc")
    assert (spec.architecture, spec.scheduler_name, spec.priority_class_name) == ("arm64", "s", "p")
    assert (spec.machine_type, vmi.machine_type, spec.utility_volumes) == ("q35", "pc-q35-9", True)
    assert vmi.conditions == {"LiveMigratable": Condition(status="False", reason="R", since=CREATED_SECONDS)}
    assert (vmi.node, vmi.evacuation_node, vmi.eviction_strategy) == ("n1", "n1", "LiveMigrate")
    assert (vmi.tsc_frequency, vmi.active_pods) == (2_500_000, {"pod-uid": "n1"})
    assert vmi.migration_method == "BlockMigration"
    assert (vmi.migrated_volumes, vmi.backup_in_progress) == (True, True)
    assert vmi.migration_state == MigrationState(
        migration_uid="m", source_node="n0", target_node="n1", started=CREATED_SECONDS
    )
    assert vmi.migration_state.in_flight


@pytest.mark.parametrize(
    ("security", "architecture", "expected"),
    [
        (None, "amd64", ""),
        ({}, "amd64", ""),
        ({}, "s390x", "s390-pv"),
        ({"sev": {}}, "amd64", "sev"),
        ({"snp": {}}, "amd64", "sev-snp"),
        ({"tdx": {}}, "amd64", "tdx"),
    ],
)
def test_kinds_of_confidential_guests(security: Any, architecture: str, expected: str) -> None:
    found = vmi_json({"architecture": architecture, "domain": {"launchSecurity": security}})
    vmi = decode_object("VirtualMachineInstance", text(found))
    assert isinstance(vmi, VMI)
    assert vmi.spec.launch_security == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"domain": {"memory": {"guest": "x"}}}, "spec.domain.memory.guest: not a quantity: 'x'"),
        ({"domain": {"cpu": {"cores": -1}}}, "spec.domain.cpu.cores: -1 is not a number of threads"),
        ({"domain": {"cpu": {"cores": "2"}}}, "spec.domain.cpu.cores: expected `int | null`, got `str`"),
        ({"volumes": [{"persistentVolumeClaim": 1}]}, "spec.volumes[0].persistentVolumeClaim: expected"),
    ],
)
def test_a_vmi_of_which_anything_is_unreadable_is_set_aside(spec: dict[str, Any], message: str) -> None:
    vmis = page("VirtualMachineInstance", vmi_json(spec))
    assert vmis.items == ()
    assert vmis.set_aside[0].name == "ns/a"
    assert vmis.set_aside[0].reason.startswith(message)


def test_a_migration() -> None:
    found = {
        "metadata": meta(labels={"app.kubernetes.io/managed-by": "kubevirt-rebalancer"}),
        "spec": {"vmiName": "vm", "addedNodeSelector": {"kubernetes.io/hostname": "n2"}, "priority": "system-critical"},
        "status": {
            "phase": "Running",
            "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": CREATED}],
            "migrationState": {"migrationUid": "m", "completed": True, "failed": True, "failureReason": "why"},
        },
    }
    migration = decode_object("VirtualMachineInstanceMigration", text(found))
    assert isinstance(migration, Migration)
    assert (migration.vmi_key, migration.phase, migration.final) == ("ns/vm", "Running", False)
    assert migration.added_node_selector == {"kubernetes.io/hostname": "n2"}
    assert migration.labels == {"app.kubernetes.io/managed-by": "kubevirt-rebalancer"}
    assert (migration.priority, migration.phase_times) == ("system-critical", {"Pending": CREATED_SECONDS})
    assert (migration.state.failed, migration.state.failure_reason) == (True, "why")


def test_a_migration_that_is_half_readable_counts_as_unfinished() -> None:
    """So its VM counts as migrating and its slot as taken, which is the safe side."""
    found = {"metadata": meta(), "spec": {"vmiName": "vm"}, "status": {"phase": ["Succeeded"]}}
    migrations = page("VirtualMachineInstanceMigration", found, {"metadata": meta("b"), "spec": {}})
    (migration,) = migrations.items
    assert isinstance(migration, Migration)
    assert (migration.vmi_key, migration.final) == ("ns/vm", False)
    assert [entry.reason for entry in migrations.set_aside] == [
        "status.phase: expected `str | null`, got `array`",
        "spec.vmiName: must not be empty",
    ]
