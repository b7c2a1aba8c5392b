"""What we write into the cluster, as the API wants it."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.naming import MANAGED_BY, MANAGER, PLAN, TARGET
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.plan import Move

MIGRATIONS = "virtualmachineinstancemigrations"
VMIS = "virtualmachineinstances"
KUBEVIRT = "/apis/kubevirt.io/v1"


def path(plural: str, namespace: str, name: str = "") -> str:
    """The path of a KubeVirt resource in a namespace, or of one object of it."""
    collection = f"{KUBEVIRT}/namespaces/{namespace}/{plural}"
    return f"{collection}/{name}" if name else collection


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLimits:
    """How long a target pod may be unschedulable, and pending for any reason.

    They replace KubeVirt's 300 and 900 s, during which a target pod that fits nowhere holds one of the cluster's few
    slots (KubeVirt: pkg/virt-controller/watch/migration/migration.go). A minute is several rounds of the scheduler.
    """

    unschedulable_seconds: int = 60
    pending_seconds: int = 300


def migration(move: Move, *, name: str, hostname: str, plan: str, limits: PodLimits) -> dict[str, object]:
    """A directed VirtualMachineInstanceMigration.

    `hostname` is the target's kubernetes.io/hostname label, which need not be its name.
    """
    namespace, vmi = move.vmi.split("/", 1)
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {MANAGED_BY: MANAGER, PLAN: plan},
            "annotations": {
                TARGET: move.target,
                "kubevirt.io/migrationUnschedulablePodTimeoutSeconds": str(limits.unschedulable_seconds),
                "kubevirt.io/migrationPendingPodTimeoutSeconds": str(limits.pending_seconds),
            },
        },
        "spec": {"vmiName": vmi, "addedNodeSelector": {HOSTNAME: hostname}},
    }
