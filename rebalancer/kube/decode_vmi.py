"""VirtualMachineInstances and their migrations."""

from __future__ import annotations

from functools import lru_cache

from rebalancer.domain.frozen import EMPTY, FrozenMap
from rebalancer.domain.quantity import milli_of, unit_of
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.vmi import VMI, Migration, MigrationState, VMISpec
from rebalancer.kube import decode_terms, wire, wire_vmi
from rebalancer.kube.reading import (
    BROKEN,
    UnreadableError,
    amounts,
    attempt,
    conditions,
    epoch,
    explain,
    inside,
    kept_annotations,
    labels,
    nano,
)


def vmi(found: wire_vmi.VMI, problems: list[str]) -> VMI | None:
    """A VMI, or None where anything of it cannot be read: what is not known of a VM cannot be judged."""
    meta, status = found.metadata, found.status or wire_vmi.VMIStatus()
    if problems:
        return None
    try:
        with inside("metadata.creationTimestamp"):
            created = epoch(meta.creation_timestamp)
        with inside("spec"):
            spec = _shared(_spec(found.spec))
        with inside("status.conditions"):
            known_conditions = conditions(status.conditions)
        with inside("status.migrationState"):
            migration_state = _migration_state(status.migration_state)
    except BROKEN as error:
        problems.append(explain(error))
        return None
    return VMI(
        namespace=meta.namespace or "",
        name=meta.name,
        uid=meta.uid or "",
        labels=labels(meta.labels),
        annotations=kept_annotations(meta.annotations),
        spec=spec,
        phase=status.phase or "",
        node=status.node_name or "",
        conditions=known_conditions,
        eviction_strategy=found.spec.eviction_strategy or "",
        evacuation_node=status.evacuation_node_name or "",
        migration_state=migration_state,
        migration_method=status.migration_method or "",
        machine_type=(status.machine.type if status.machine else "") or "",
        tsc_frequency=(status.topology_hints.tsc_frequency if status.topology_hints else 0) or 0,
        active_pods=FrozenMap(status.active_pods) if status.active_pods else EMPTY,
        migrated_volumes=bool(status.migrated_volumes),
        backup_in_progress=_backup_in_progress(status),
        created=created,
        deleting=meta.deletion_timestamp is not None,
    )


def _backup_in_progress(status: wire_vmi.VMIStatus) -> bool:
    """KubeVirt: pkg/util/migrations, IsBackupInProgress."""
    backup = status.changed_block_tracking.backup_status if status.changed_block_tracking else None
    return bool(backup and backup.backup_name and not backup.completed)


@lru_cache(maxsize=32_768)
def _shared(spec: VMISpec) -> VMISpec:
    return spec


def _spec(found: wire_vmi.VMISpec) -> VMISpec:
    domain = found.domain
    cpu, memory = domain.cpu or wire_vmi.CPU(), domain.memory or wire_vmi.Memory()
    devices = domain.devices or wire_vmi.Devices()
    with inside("nodeSelector"):
        node_selector = decode_terms.node_selector_map(bytes(found.node_selector))
    with inside("affinity"):
        affinity = decode_terms.affinity(bytes(found.affinity))
    with inside("tolerations"):
        tolerations = decode_terms.tolerations(bytes(found.tolerations))
    with inside("topologySpreadConstraints"):
        spread = decode_terms.spread(bytes(found.topology_spread_constraints))
    decode_terms.check_unmerged(affinity, spread)
    with inside("domain"):
        requests, limits = _resources(domain)
        guest_memory_bytes = _guest_memory(memory, requests, limits)
        cores, sockets, threads = (_count("cpu", name, getattr(cpu, name)) for name in ("cores", "sockets", "threads"))
        io_threads = domain.io_threads.supplemental_pool_thread_count if domain.io_threads else 0
        io_threads = _count("ioThreads", "supplementalPoolThreadCount", io_threads)
    return VMISpec(
        node_selector=node_selector,
        affinity=affinity,
        tolerations=tolerations,
        spread=spread,
        scheduler_name=found.scheduler_name or "",
        priority_class_name=found.priority_class_name or "",
        architecture=found.architecture or "amd64",
        machine_type=(domain.machine.type if domain.machine else "") or "",
        cpu_model=cpu.model or "",
        features=tuple((feature.name, feature.policy or "") for feature in cpu.features or ()),
        hyperv=_hyperv(domain),
        cores=cores,
        sockets=sockets,
        threads=threads,
        dedicated_cpu=bool(cpu.dedicated_cpu_placement),
        isolate_emulator_thread=bool(cpu.isolate_emulator_thread),
        realtime=cpu.realtime is not None,
        io_threads=io_threads,
        launch_security=_launch_security(found),
        guest_memory_bytes=guest_memory_bytes,
        hugepages=(memory.hugepages.page_size if memory.hugepages else "") or "",
        cpu_requests_milli=milli_of(requests[CPU]) if CPU in requests else None,
        cpu_limits_milli=milli_of(limits[CPU]) if CPU in limits else None,
        host_devices=tuple(device.device_name or "" for device in devices.host_devices or ()),
        gpus=tuple(device.device_name or "" for device in devices.gpus or ()),
        networks=tuple(network.multus.network_name or "" for network in found.networks or () if network.multus),
        volume_claims=tuple(sorted({claim for volume in found.volumes or () for claim in _claims(volume)})),
        utility_volumes=bool(found.utility_volumes),
    )


def _resources(domain: wire_vmi.Domain) -> tuple[dict[str, int], dict[str, int]]:
    found = domain.resources or wire.ResourceRequirements()
    with inside("resources.requests"):
        requests = amounts(found.requests)
    with inside("resources.limits"):
        return requests, amounts(found.limits)


def _guest_memory(memory: wire_vmi.Memory, requests: dict[str, int], limits: dict[str, int]) -> int:
    """Bytes that a migration copies: what the guest sees, which is its request unless set apart."""
    with inside("memory.guest"):
        guest = nano(memory.guest)
    return unit_of(guest or requests.get(MEMORY, 0) or limits.get(MEMORY, 0))


_MOST = 2**20
"""vCPUs or threads; a topology beyond it is a mistake, and its product would pass all limits."""


def _count(section: str, name: str, number: int | None) -> int:
    if not 0 <= (number or 0) <= _MOST:
        raise UnreadableError(f"{section}.{name}: {number} is not a number of threads")
    return number or 0


def _hyperv(domain: wire_vmi.Domain) -> tuple[str, ...]:
    """Enabled Hyper-V features; one that is named without `enabled` is enabled."""
    found = (domain.features.hyperv if domain.features else None) or {}
    return tuple(sorted(name for name, state in found.items() if state is not None and state.enabled is not False))


def _launch_security(found: wire_vmi.VMISpec) -> str:
    """The kind of confidential guest (KubeVirt: pkg/util, IsSEVVMI and its like)."""
    security = found.domain.launch_security
    if security is None:
        return ""
    if found.architecture == "s390x":
        return "s390-pv"
    if security.snp is not None:
        return "sev-snp"
    if security.tdx is not None:
        return "tdx"
    if security.sev is None:
        return ""
    return "sev-es" if security.sev.policy and security.sev.policy.encrypted_state else "sev"


def _claims(volume: wire_vmi.VMIVolume) -> tuple[str, ...]:
    """A DataVolume's claim has the DataVolume's name."""
    names = (
        volume.persistent_volume_claim.claim_name if volume.persistent_volume_claim else "",
        volume.data_volume.name if volume.data_volume else "",
        volume.memory_dump.claim_name if volume.memory_dump else "",
        volume.ephemeral.persistent_volume_claim.claim_name
        if volume.ephemeral and volume.ephemeral.persistent_volume_claim
        else "",
    )
    return tuple(name for name in names if name)


def migration(found: wire_vmi.Migration, problems: list[str]) -> Migration | None:
    """A VMIM; one that can be read only in part stays, as unfinished, so that its VM counts as migrating.

    None where even the VM's name is unknown.
    """
    meta, status = found.metadata, found.status or wire_vmi.MigrationStatus()
    if not found.spec.vmi_name:
        problems.append("spec.vmiName: must not be empty")
        return None
    never: FrozenMap[str, float] = FrozenMap()
    return Migration(
        namespace=meta.namespace or "",
        name=meta.name,
        uid=meta.uid or "",
        vmi=found.spec.vmi_name,
        phase=status.phase or "",
        labels=labels(meta.labels),
        annotations=kept_annotations(meta.annotations),
        added_node_selector=labels(found.spec.added_node_selector),
        priority=found.spec.priority or "",
        conditions=attempt(problems, "status.conditions", lambda: conditions(status.conditions), FrozenMap()),
        state=attempt(
            problems, "status.migrationState", lambda: _migration_state(status.migration_state), MigrationState()
        ),
        phase_times=attempt(problems, "status.phaseTransitionTimestamps", lambda: _phase_times(status), never),
        created=attempt(problems, "metadata.creationTimestamp", lambda: epoch(meta.creation_timestamp), 0.0),
        deleting=meta.deletion_timestamp is not None,
    )


def _phase_times(status: wire_vmi.MigrationStatus) -> FrozenMap[str, float]:
    times = {}
    for index, entry in enumerate(status.phase_transition_timestamps or ()):
        with inside(f"[{index}].phaseTransitionTimestamp"):
            times[entry.phase or ""] = epoch(entry.phase_transition_timestamp)
    return FrozenMap(times)


def _migration_state(found: wire_vmi.MigrationState | None) -> MigrationState:
    if found is None:
        return _NO_MIGRATION
    with inside("startTimestamp"):
        started = epoch(found.start_timestamp)
    with inside("endTimestamp"):
        ended = epoch(found.end_timestamp)
    return MigrationState(
        migration_uid=found.migration_uid or "",
        source_node=found.source_node or "",
        target_node=found.target_node or "",
        source_pod=found.source_pod or "",
        target_pod=found.target_pod or "",
        started=started,
        ended=ended,
        completed=bool(found.completed),
        failed=bool(found.failed),
        abort_requested=bool(found.abort_requested),
        failure_reason=found.failure_reason or "",
    )


_NO_MIGRATION = MigrationState()
