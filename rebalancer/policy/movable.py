"""Which VMs may be moved at all, and why the others stay."""

from __future__ import annotations

from typing import Final

from rebalancer.domain.naming import POLICY
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState

IGNORE: Final = "ignore"
PREFER_NO_EVICTION: Final = "descheduler.alpha.kubernetes.io/prefer-no-eviction"
DEFAULT_SCHEDULER: Final = "default-scheduler"
STRATEGIES: Final = ("LiveMigrate", "LiveMigrateIfPossible")
PENDING_CHANGES: Final = {
    "HotVCPUChange": "a change of its CPUs is pending",
    "HotMemoryChange": "a change of its memory is pending",
    "VolumesChange": "a change of its volumes is pending",
    "MigrationRequired": "KubeVirt is about to migrate it itself",
}
"""Conditions on which KubeVirt migrates the VM by itself, or withholds the success of any migration."""
MAX_NAME: Final = 63


def why_immovable(vmi: VMI, snapshot: Snapshot, state: ClusterState) -> str | None:
    """Why a VM must stay, in a few words; None where it may move. Cooldowns are not looked at here.

    `state` must not be settled: it has to hold the pods of migrations in flight.
    """
    return (
        _unread(vmi, snapshot)
        or _unfit(vmi)
        or _unwanted(vmi, snapshot)
        or _busy(vmi, state)
        or _unknowable(vmi, state)
    )


def _unread(vmi: VMI, snapshot: Snapshot) -> str | None:
    for aside in snapshot.set_aside:
        if aside.kind == VMI_KIND and aside.name == vmi.key:
            return f"it could not be read wholly: {aside.reason}"
    return None


def _unfit(vmi: VMI) -> str | None:
    """What KubeVirt would refuse (its migration-create admitter and migration controller)."""
    if vmi.deleting:
        return "it is being deleted"
    if vmi.phase != "Running":
        return f"it is not running (phase {vmi.phase or 'unknown'})"
    migratable = vmi.conditions.get("LiveMigratable")
    if migratable is None:
        return "KubeVirt has not said yet whether it can be live-migrated"
    if migratable.status != "True":
        said = ": ".join(part for part in (migratable.reason, migratable.message) if part)
        return f"KubeVirt says it cannot be live-migrated{f' ({said})' if said else ''}"
    if len(vmi.name) > MAX_NAME:
        return f"its name is longer than {MAX_NAME} characters, and no migration can be labelled with it"
    return None


def _unwanted(vmi: VMI, snapshot: Snapshot) -> str | None:
    """Who asked us to leave it."""
    if vmi.annotations.get(POLICY) == IGNORE:
        return f"it is annotated {POLICY}={IGNORE}"
    namespace = snapshot.namespaces.get(vmi.namespace)
    if namespace is not None and namespace.annotations.get(POLICY) == IGNORE:
        return f"its namespace is annotated {POLICY}={IGNORE}"
    if PREFER_NO_EVICTION in vmi.annotations:
        return f"it is annotated {PREFER_NO_EVICTION}"
    default = snapshot.kubevirt.eviction_strategy if snapshot.kubevirt is not None else ""
    strategy = vmi.eviction_strategy or default or "None"
    if strategy not in STRATEGIES:
        return f"its eviction strategy is {strategy}"
    return None


def _busy(vmi: VMI, state: ClusterState) -> str | None:
    """What is going on with it already."""
    if vmi.evacuation_node:
        return f"it is being evacuated from {vmi.evacuation_node}"
    migration = state.in_flight.get(vmi.key)
    if migration is not None:
        return f"it is being migrated ({migration.name})"
    if vmi.migration_state.in_flight and not vmi.migration_state.failed:
        return "it is being migrated"
    if vmi.migrated_volumes:
        return "its volumes are being migrated"
    if vmi.backup_in_progress:
        return "it is being backed up"
    if vmi.spec.utility_volumes:
        return "it has utility volumes attached"
    for kind, pending in PENDING_CHANGES.items():
        condition = vmi.conditions.get(kind)
        if condition is not None and condition.status == "True":
            return pending
    return _pods(vmi, state)


def _pods(vmi: VMI, state: ClusterState) -> str | None:
    """It must have one pod, in sound condition, on the node that the VMI names."""
    pods = state.launchers.get(vmi.uid, ())
    if len(pods) > 1:
        return f"it has {len(pods)} pods that have not ended"
    active = state.active_pods.get(vmi.key)
    if active is None:
        return f"it has no running pod on {vmi.node}" if pods else "it has no pod"
    if active.unreadable:
        return f"its pod could not be read wholly: {active.unreadable}"
    return "its pod is terminating" if active.deleting else None


def _unknowable(vmi: VMI, state: ClusterState) -> str | None:
    """What cannot be judged from outside the scheduler."""
    scheduler = vmi.spec.scheduler_name or DEFAULT_SCHEDULER
    if scheduler != DEFAULT_SCHEDULER:
        return f"it is placed by another scheduler ({scheduler})"
    active = state.active_pods[vmi.key]
    if active.spec.resource_claims:
        return "it uses resource claims, which only the scheduler can judge"
    if active.spec.scheduling_gates:
        return f"its pod has scheduling gates ({', '.join(active.spec.scheduling_gates)})"
    return None
