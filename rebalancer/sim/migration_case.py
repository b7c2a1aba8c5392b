"""One migration with everything that decides about it, and KubeVirt's constants about migrations."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.sim.objects import Obj, annotations_of, phase, status

ACTOR = "virt-controller"
RECORDER = "virtualmachine-controller"
"""Who virt-controller says it is in Events about VMs and their migrations."""
RUNNING_PHASES = ("Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running")
QUOTA, ABORT = "migrationRejectedByResourceQuota", "migrationAbortRequested"
PRIORITIES = {"system-critical": 100, "user-triggered": 50, "system-maintenance": 20, "": 0}
RUNNING_PRIORITY = 1000
KEPT_PER_VMI = 5
CONFIGURATION = {
    "allowAutoConverge": False,
    "allowPostCopy": False,
    "allowWorkloadDisruption": False,
    "bandwidthPerMigration": "0",
    "completionTimeoutPerGiB": 150,
    "nodeDrainTaintKey": "kubevirt.io/drain",
    "parallelMigrationsPerCluster": 5,
    "parallelOutboundMigrationsPerNode": 2,
    "progressTimeout": 150,
    "unsafeMigrationOverride": False,
    "utilityVolumesTimeout": 150,
}
"""Migration settings where the KubeVirt CR has none (KubeVirt: pkg/virt-config/virt-config.go)."""
BACKOFF_SECONDS = 20.0
OBSERVED = "kubevirt.io/latest-observed-api-version"
EVACUATION, WORKLOAD_UPDATE = "kubevirt.io/evacuationMigration", "kubevirt.io/workloadUpdateMigration"
UNSCHEDULABLE_TIMEOUT = "kubevirt.io/migrationUnschedulablePodTimeoutSeconds"
PENDING_TIMEOUT = "kubevirt.io/migrationPendingPodTimeoutSeconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The KubeVirt CR's migration settings, or its defaults."""

    cluster: int = 5
    outbound: int = 2

    @classmethod
    def of(cls, kubevirt: Obj | None) -> Limits:
        found = ((kubevirt or {}).get("spec", {}).get("configuration") or {}).get("migrations") or {}
        return cls(
            cluster=found.get("parallelMigrationsPerCluster") or 5,
            outbound=found.get("parallelOutboundMigrationsPerNode") or 2,
        )


@dataclass(slots=True, kw_only=True)
class Case:
    """One migration with everything that its next step depends on, read afresh for each step.

    `pods` are its target pods, `source_pod` the name of the pod the VMI runs in, `blocked` whether the VMI still
    belongs to another migration, `quota_exceeded` whether the target pod was refused just now.
    """

    item: Obj
    vmi: Obj
    pods: list[Obj]
    source_pod: str = ""
    blocked: bool = False
    quota_exceeded: bool = False

    @property
    def uid(self) -> str:
        return str(self.item["metadata"]["uid"])

    @property
    def pod(self) -> Obj | None:
        return self.pods[0] if self.pods else None

    @property
    def state(self) -> Obj:
        return status(self.vmi).get("migrationState") or {}

    @property
    def handed_off(self) -> bool:
        return bool(self.state.get("migrationUid") == self.uid)

    def hotplugged(self) -> bool:
        return any("hotplugVolume" in volume for volume in status(self.vmi).get("volumeStatus") or ())


def priority_of(item: Obj) -> int:
    """In the queue: what runs comes first, then by the priority of the spec."""
    if phase(item) in RUNNING_PHASES:
        return RUNNING_PRIORITY
    return PRIORITIES.get(item["spec"].get("priority", ""), 0)


def kubevirts_own(item: Obj) -> bool:
    """True for what drains and upgrades make; only these back off after failures."""
    return EVACUATION in annotations_of(item) or WORKLOAD_UPDATE in annotations_of(item)
