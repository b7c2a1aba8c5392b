"""VirtualMachineInstances and their migrations."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.node import Condition
from rebalancer.domain.pod import NO_AFFINITY, Affinity, Toleration, TopologySpreadConstraint


@dataclass(frozen=True, slots=True, kw_only=True)
class VMISpec:
    """What of a VMI's spec shapes the target pod of its next migration (KubeVirt: pkg/virt-controller/services).

    `features` are (name, policy) of spec.domain.cpu.features; `hyperv` the names of the enabled Hyper-V features.
    `cpu_requests_milli` and `cpu_limits_milli` are None where not set.
    `launch_security` is "", "sev", "sev-es", "sev-snp", "tdx" or "s390-pv"; `networks` are the multus network names.
    `volume_claims` are the claims behind volumes, hot-plugged ones included.
    """

    node_selector: FrozenMap[str, str] = EMPTY
    affinity: Affinity = NO_AFFINITY
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[TopologySpreadConstraint, ...] = ()
    scheduler_name: str = ""
    priority_class_name: str = ""
    architecture: str = "amd64"
    machine_type: str = ""
    cpu_model: str = ""
    features: tuple[tuple[str, str], ...] = ()
    hyperv: tuple[str, ...] = ()
    cores: int = 0
    sockets: int = 0
    threads: int = 0
    dedicated_cpu: bool = False
    isolate_emulator_thread: bool = False
    realtime: bool = False
    io_threads: int = 0
    launch_security: str = ""
    guest_memory_bytes: int = 0
    hugepages: str = ""
    cpu_requests_milli: int | None = None
    cpu_limits_milli: int | None = None
    host_devices: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volume_claims: tuple[str, ...] = ()
    utility_volumes: bool = False

    @property
    def vcpus(self) -> int:
        """Cores x sockets x threads; zero counts as one (KubeVirt: hardware.GetNumberOfVCPUs)."""
        return max(self.cores, 1) * max(self.sockets, 1) * max(self.threads, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationState:
    """VMI.status.migrationState of the last migration that was handed over to virt-handler."""

    migration_uid: str = ""
    source_node: str = ""
    target_node: str = ""
    source_pod: str = ""
    target_pod: str = ""
    started: float = 0.0
    ended: float = 0.0
    completed: bool = False
    failed: bool = False
    abort_requested: bool = False
    failure_reason: str = ""

    @property
    def in_flight(self) -> bool:
        return bool(self.migration_uid) and not self.completed


@dataclass(frozen=True, slots=True, kw_only=True)
class VMI:
    """One VirtualMachineInstance. `annotations` holds only those that we, KubeVirt or the descheduler read."""

    namespace: str
    name: str
    uid: str
    labels: Labels = EMPTY
    annotations: FrozenMap[str, str] = EMPTY
    spec: VMISpec = VMISpec()
    phase: str = ""
    node: str = ""
    conditions: FrozenMap[str, Condition] = FrozenMap()
    eviction_strategy: str = ""
    evacuation_node: str = ""
    migration_state: MigrationState = MigrationState()
    migration_method: str = ""
    machine_type: str = ""
    tsc_frequency: int = 0
    active_pods: FrozenMap[str, str] = EMPTY
    migrated_volumes: bool = False
    backup_in_progress: bool = False
    created: float = 0.0
    deleting: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


FINAL_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One VirtualMachineInstanceMigration (VMIM).

    `phase_times` maps each phase to when it was reached, in seconds since 1970.
    `annotations` and `labels` hold what we, KubeVirt's drain and its workload updater write.
    """

    namespace: str
    name: str
    uid: str
    vmi: str
    phase: str = ""
    labels: Labels = EMPTY
    annotations: FrozenMap[str, str] = EMPTY
    added_node_selector: FrozenMap[str, str] = EMPTY
    priority: str = ""
    conditions: FrozenMap[str, Condition] = FrozenMap()
    state: MigrationState = MigrationState()
    phase_times: FrozenMap[str, float] = FrozenMap()
    created: float = 0.0
    deleting: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def vmi_key(self) -> str:
        return f"{self.namespace}/{self.vmi}"

    @property
    def final(self) -> bool:
        return self.phase in FINAL_PHASES
