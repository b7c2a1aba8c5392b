"""VirtualMachineInstances and their migrations on the wire (kubevirt.io/v1)."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from rebalancer.kube.wire import ClaimVolume, Condition, Named, Object, Quantity, ResourceRequirements, Wire


class CPUFeature(Wire):
    name: str = ""
    policy: str | None = None


class Realtime(Wire):
    pass


class CPU(Wire):
    cores: int | None = None
    sockets: int | None = None
    threads: int | None = None
    model: str | None = None
    features: list[CPUFeature] | None = None
    dedicated_cpu_placement: bool | None = None
    isolate_emulator_thread: bool | None = None
    realtime: Realtime | None = None


class Hugepages(Wire):
    page_size: str | None = None


class Memory(Wire):
    guest: Quantity = None
    hugepages: Hugepages | None = None


class Machine(Wire):
    type: str | None = None


class FeatureState(Wire):
    enabled: bool | None = None


class Features(Wire):
    hyperv: dict[str, FeatureState | None] | None = None


class SEVPolicy(Wire):
    encrypted_state: bool | None = None


class SEV(Wire):
    policy: SEVPolicy | None = None


class Present(Wire):
    """An object of which only the presence counts."""


class LaunchSecurity(Wire):
    sev: SEV | None = None
    snp: Present | None = None
    tdx: Present | None = None


class IOThreads(Wire):
    supplemental_pool_thread_count: int | None = None


class Device(Wire):
    device_name: str | None = None


class Devices(Wire):
    host_devices: list[Device] | None = None
    gpus: list[Device] | None = None


class Domain(Wire):
    cpu: CPU | None = None
    memory: Memory | None = None
    machine: Machine | None = None
    features: Features | None = None
    launch_security: LaunchSecurity | None = None
    io_threads: IOThreads | None = msgspec.field(default=None, name="ioThreads")
    devices: Devices | None = None
    resources: ResourceRequirements | None = None


class EphemeralDisk(Wire):
    persistent_volume_claim: ClaimVolume | None = None


class VMIVolume(Wire):
    persistent_volume_claim: ClaimVolume | None = None
    data_volume: Named | None = None
    ephemeral: EphemeralDisk | None = None
    memory_dump: ClaimVolume | None = None


class Multus(Wire):
    network_name: str | None = None


class Network(Wire):
    multus: Multus | None = None


class VMISpec(Wire):
    domain: Domain = msgspec.field(default_factory=Domain)
    architecture: str | None = None
    eviction_strategy: str | None = None
    scheduler_name: str | None = None
    priority_class_name: str | None = None
    node_selector: Raw = Raw()
    affinity: Raw = Raw()
    tolerations: Raw = Raw()
    topology_spread_constraints: Raw = Raw()
    volumes: list[VMIVolume] | None = None
    networks: list[Network] | None = None
    utility_volumes: list[Present] | None = None


class MigrationState(Wire):
    migration_uid: str | None = None
    source_node: str | None = None
    target_node: str | None = None
    source_pod: str | None = None
    target_pod: str | None = None
    start_timestamp: str | None = None
    end_timestamp: str | None = None
    completed: bool | None = None
    failed: bool | None = None
    abort_requested: bool | None = None
    failure_reason: str | None = None


class TopologyHints(Wire):
    tsc_frequency: int | None = None


class BackupStatus(Wire):
    backup_name: str | None = None
    completed: bool | None = None


class ChangedBlockTracking(Wire):
    backup_status: BackupStatus | None = None


class VMIStatus(Wire):
    phase: str | None = None
    node_name: str | None = None
    conditions: list[Condition] | None = None
    evacuation_node_name: str | None = None
    migration_state: MigrationState | None = None
    migration_method: str | None = None
    machine: Machine | None = None
    topology_hints: TopologyHints | None = None
    active_pods: dict[str, str] | None = None
    migrated_volumes: list[Present] | None = None
    changed_block_tracking: ChangedBlockTracking | None = None


class VMI(Object):
    spec: VMISpec = msgspec.field(default_factory=VMISpec)
    status: VMIStatus | None = None


class MigrationSpec(Wire):
    vmi_name: str | None = None
    added_node_selector: dict[str, str] | None = None
    priority: str | None = None


class PhaseTime(Wire):
    phase: str | None = None
    phase_transition_timestamp: str | None = None


class MigrationStatus(Wire):
    phase: str | None = None
    conditions: list[Condition] | None = None
    migration_state: MigrationState | None = None
    phase_transition_timestamps: list[PhaseTime] | None = None


class Migration(Object):
    spec: MigrationSpec = msgspec.field(default_factory=MigrationSpec)
    status: MigrationStatus | None = None
