"""Which VMs may be moved, and in which words the others stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import cluster, launcher, migration, node, vmi

from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition
from rebalancer.domain.pod import PodSpec
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.domain.vmi import MigrationState
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.movable import why_immovable

IGNORE = {"kubevirt-rebalancer.io/policy": "ignore"}
MIGRATABLE = {"LiveMigratable": Condition(status="True")}


def conditions(**more: Condition) -> FrozenMap[str, Condition]:
    return FrozenMap({**MIGRATABLE, **more})


def why(*objects: Any, kubevirt: KubeVirt | None = None) -> str | None:
    return verdict(cluster(node("n1"), node("n2"), *objects, kubevirt=kubevirt))


def verdict(snapshot: Snapshot) -> str | None:
    return why_immovable(snapshot.vmis["default/db"], snapshot, ClusterState.of(snapshot))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"eviction_strategy": "LiveMigrateIfPossible"}, None),
        ({"deleting": True}, "it is being deleted"),
        ({"phase": "Scheduled"}, "it is not running (phase Scheduled)"),
        ({"phase": ""}, "it is not running (phase unknown)"),
        ({"conditions": FrozenMap()}, "KubeVirt has not said yet whether it can be live-migrated"),
        ({"migratable": False}, "KubeVirt says it cannot be live-migrated"),
        (
            {
                "conditions": conditions(
                    LiveMigratable=Condition(status="False", reason="DisksNotLiveMigratable", message="not shared")
                )
            },
            "KubeVirt says it cannot be live-migrated (DisksNotLiveMigratable: not shared)",
        ),
        ({"annotations": IGNORE}, "it is annotated kubevirt-rebalancer.io/policy=ignore"),
        (
            {"annotations": {"descheduler.alpha.kubernetes.io/prefer-no-eviction": ""}},
            "it is annotated descheduler.alpha.kubernetes.io/prefer-no-eviction",
        ),
        ({"eviction_strategy": ""}, "its eviction strategy is None"),
        ({"eviction_strategy": "External"}, "its eviction strategy is External"),
        ({"evacuation_node": "n1"}, "it is being evacuated from n1"),
        ({"migration_state": MigrationState(migration_uid="m")}, "it is being migrated"),
        ({"migration_state": MigrationState(migration_uid="m", completed=True)}, None),
        ({"migrated_volumes": True}, "its volumes are being migrated"),
        ({"backup_in_progress": True}, "it is being backed up"),
        ({"spec": {"utility_volumes": True}}, "it has utility volumes attached"),
        (
            {"conditions": conditions(HotVCPUChange=Condition(status="True"))},
            "a change of its CPUs is pending",
        ),
        ({"conditions": conditions(HotMemoryChange=Condition(status="False"))}, None),
        (
            {"conditions": conditions(MigrationRequired=Condition(status="True"))},
            "KubeVirt is about to migrate it itself",
        ),
        ({"on": "n3"}, "it has no running pod on n3"),
        ({"spec": {"scheduler_name": "volcano"}}, "it is placed by another scheduler (volcano)"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_vm_alone(fields: dict[str, Any], reason: str | None) -> None:
    assert why(vmi("db", **{"on": "n1", **fields})) == reason


def test_the_clusters_eviction_strategy_is_the_default() -> None:
    one = vmi("db", on="n1", eviction_strategy="")
    assert why(one, kubevirt=KubeVirt(eviction_strategy="LiveMigrate")) is None
    assert why(vmi("db", on="n1", eviction_strategy="None"), kubevirt=KubeVirt(eviction_strategy="LiveMigrate")) == (
        "its eviction strategy is None"
    )


def test_a_namespace_opts_out_as_a_whole() -> None:
    opted_out = Namespace(name="default", annotations=FrozenMap(IGNORE))
    assert why(vmi("db", on="n1"), opted_out) == "its namespace is annotated kubevirt-rebalancer.io/policy=ignore"


def test_others_migrations_are_respected_while_they_run() -> None:
    one = vmi("db", on="n1")
    assert why(one, migration(one, "n2", name="drain", phase="Pending")) == "it is being migrated (drain)"
    assert why(one, migration(one, "n2", phase="Failed")) is None


def test_it_must_have_one_pod_that_is_well() -> None:
    one = vmi("db", on="n1")
    waiting = launcher(one, on="", suffix="-target", phase="Pending")
    assert why(one, launcher(one), waiting) == "it has 2 pods that have not ended"
    assert why(one, launcher(one), launcher(one, on="n2", suffix="-old", phase="Succeeded")) is None
    assert why(one, launcher(one, deleting=True)) == "its pod is terminating"
    assert why(one, launcher(one, phase="Failed")) == "it has no pod"


def test_what_only_the_scheduler_knows_is_left_to_it() -> None:
    one = vmi("db", on="n1")
    assert why(one, launcher(one, spec=PodSpec(resource_claims=("gpu",)))) == (
        "it uses resource claims, which only the scheduler can judge"
    )
    assert why(one, launcher(one, spec=PodSpec(scheduling_gates=("quota",)))) == "its pod has scheduling gates (quota)"


def test_a_name_too_long_for_the_migrations_label() -> None:
    name = "x" * 64
    snapshot = cluster(node("n1"), vmi(name, on="n1"))
    reason = why_immovable(snapshot.vmis[f"default/{name}"], snapshot, ClusterState.of(snapshot))
    assert reason == "its name is longer than 63 characters, and no migration can be labelled with it"


def test_what_could_not_be_read_stays() -> None:
    one = vmi("db", on="n1")
    snapshot = cluster(node("n1"), one)
    aside = SetAside(kind="VirtualMachineInstance", name="default/db", reason="spec.affinity: is a number")
    assert verdict(replace(snapshot, set_aside=(aside,))) == ("it could not be read wholly: spec.affinity: is a number")
    assert why(one, launcher(one, unreadable="spec.tolerations: is a number")) == (
        "its pod could not be read wholly: spec.tolerations: is a number"
    )
