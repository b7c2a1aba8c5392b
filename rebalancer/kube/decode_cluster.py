"""Nodes, namespaces, volumes and KubeVirt's configuration."""

from __future__ import annotations

import sys
from functools import partial

from rebalancer.domain.cluster import CSINode, KubeVirt, Namespace, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition, Node, Taint
from rebalancer.domain.quantity import unit_of
from rebalancer.domain.resources import CPU, MEMORY, PODS
from rebalancer.kube import decode_terms, wire
from rebalancer.kube.reading import (
    BROKEN,
    HEARTBEAT,
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
    resources,
)


def node(found: wire.Node, problems: list[str]) -> Node:
    """A node; one of which anything cannot be read keeps what it has, and receives nothing."""
    meta = found.metadata
    spec, status = found.spec or wire.NodeSpec(), found.status or wire.NodeStatus()
    allocatable = attempt(problems, "status.allocatable", partial(_allocatable, status), dict[str, int]())
    created = attempt(problems, "metadata.creationTimestamp", partial(epoch, meta.creation_timestamp), 0.0)
    no_conditions: FrozenMap[str, Condition] = FrozenMap()
    known_conditions = attempt(problems, "status.conditions", partial(conditions, status.conditions), no_conditions)
    return Node(
        name=sys.intern(meta.name),
        uid=meta.uid or "",
        labels=labels(meta.labels),
        annotations=kept_annotations(meta.annotations),
        unschedulable=bool(spec.unschedulable),
        taints=tuple(Taint(key=one.key, value=one.value or "", effect=one.effect) for one in spec.taints or ()),
        allocatable=resources(allocatable),
        pods=unit_of(allocatable.get(PODS, 0)),
        conditions=known_conditions,
        declared_features=tuple(sorted(status.declared_features or ())),
        created=created,
        deleting=meta.deletion_timestamp is not None,
        capacity_known=not problems,
        heartbeat=_heartbeat((meta.annotations or {}).get(HEARTBEAT)),
    )


def _heartbeat(told: str | None) -> float | None:
    try:
        return None if told is None else epoch(told)
    except UnreadableError:
        return 0.0


def _allocatable(status: wire.NodeStatus) -> dict[str, int]:
    found = amounts(status.allocatable)
    for name in (CPU, MEMORY, PODS):
        if name not in found:
            raise UnreadableError(f"{name}: is missing")
    return found


def namespace(found: wire.Namespace, problems: list[str]) -> Namespace:
    """A namespace; what cannot be read of it is left out."""
    meta = found.metadata
    return Namespace(name=meta.name, labels=labels(meta.labels), annotations=kept_annotations(meta.annotations))


def persistent_volume(found: wire.PersistentVolume, problems: list[str]) -> PersistentVolume | None:
    """A volume, or None where anything cannot be read: pods on it then go nowhere."""
    spec = found.spec
    try:
        with inside("spec.nodeAffinity.required"):
            required = spec.node_affinity.required if spec.node_affinity else None
            node_affinity = decode_terms.node_selector(required) if required else None
    except BROKEN as error:
        problems.append(explain(error))
    if problems:
        return None
    return PersistentVolume(
        name=found.metadata.name,
        labels=labels(found.metadata.labels),
        node_affinity=node_affinity,
        access_modes=tuple(spec.access_modes or ()),
        csi=(spec.csi.driver, spec.csi.volume_handle) if spec.csi else ("", ""),
        claim=(spec.claim_ref.namespace or "", spec.claim_ref.name or "") if spec.claim_ref else ("", ""),
        storage_class=spec.storage_class_name or "",
    )


def persistent_volume_claim(found: wire.PersistentVolumeClaim, problems: list[str]) -> PersistentVolumeClaim | None:
    """A claim, or None where anything cannot be read: pods with it then go nowhere."""
    if problems:
        return None
    return PersistentVolumeClaim(
        namespace=found.metadata.namespace or "",
        name=found.metadata.name,
        volume=found.spec.volume_name or "",
        access_modes=tuple(found.spec.access_modes or ()),
        storage_class=found.spec.storage_class_name or "",
        deleting=found.metadata.deletion_timestamp is not None,
    )


def csi_node(found: wire.CSINode, problems: list[str]) -> CSINode:
    """A node's CSI drivers. A limit below zero is none, as kube-scheduler reads it."""
    limits = {
        driver.name: driver.allocatable.count
        for driver in found.spec.drivers or ()
        if driver.allocatable and driver.allocatable.count is not None and driver.allocatable.count >= 0
    }
    return CSINode(name=found.metadata.name, limits=FrozenMap(limits))


def kubevirt(found: wire.KubeVirt, problems: list[str]) -> KubeVirt:
    """KubeVirt's configuration with KubeVirt's defaults, also for what cannot be read (pkg/virt-config)."""
    status = found.status or wire.KubeVirtStatus()
    configuration = (found.spec.configuration if found.spec else None) or wire.KubeVirtConfiguration()
    migrations = configuration.migrations or wire.MigrationConfiguration()
    developer = configuration.developer_configuration or wire.DeveloperConfiguration()
    default, path = _DEFAULT, "spec.configuration.migrations"

    def positive(name: str, number: int | None, otherwise: int) -> int:
        if number is None:
            return otherwise
        if number < 0:
            problems.append(f"{path}.{name}: {number} is negative")
            return otherwise
        return number

    return KubeVirt(
        parallel_migrations_per_cluster=positive(
            "parallelMigrationsPerCluster",
            migrations.parallel_migrations_per_cluster,
            default.parallel_migrations_per_cluster,
        ),
        parallel_outbound_migrations_per_node=positive(
            "parallelOutboundMigrationsPerNode",
            migrations.parallel_outbound_migrations_per_node,
            default.parallel_outbound_migrations_per_node,
        ),
        bandwidth_per_migration_bytes=attempt(
            problems, f"{path}.bandwidthPerMigration", lambda: unit_of(nano(migrations.bandwidth_per_migration)), 0
        ),
        completion_timeout_per_gib_seconds=positive(
            "completionTimeoutPerGiB",
            migrations.completion_timeout_per_gib,
            default.completion_timeout_per_gib_seconds,
        ),
        progress_timeout_seconds=positive(
            "progressTimeout", migrations.progress_timeout, default.progress_timeout_seconds
        ),
        cpu_allocation_ratio=max(developer.cpu_allocation_ratio or default.cpu_allocation_ratio, 1),
        eviction_strategy=configuration.eviction_strategy or "",
        node_selectors=labels(developer.node_selectors),
        default_cpu_model=configuration.cpu_model or "",
        feature_gates=tuple(sorted(developer.feature_gates or ())),
        version=status.observed_kube_virt_version or "",
        phase=status.phase or "",
        annotations=kept_annotations(found.metadata.annotations),
        infra_updating=status.observed_deployment_id != status.target_deployment_id,
    )


_DEFAULT = KubeVirt()
