"""What surrounds nodes and VMs: namespaces, volumes, KubeVirt's own configuration."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.selectors import NodeSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace, for namespace selectors and for opting out as a whole."""

    name: str
    labels: Labels = EMPTY
    annotations: FrozenMap[str, str] = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolume:
    """A volume with the nodes that can reach it. `csi` is (driver, handle) or ("", "")."""

    name: str
    labels: Labels = EMPTY
    node_affinity: NodeSelector | None = None
    access_modes: tuple[str, ...] = ()
    csi: tuple[str, str] = ("", "")
    claim: tuple[str, str] = ("", "")
    storage_class: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolumeClaim:
    """A claim; `volume` is "" while unbound."""

    namespace: str
    name: str
    volume: str = ""
    access_modes: tuple[str, ...] = ()
    storage_class: str = ""
    deleting: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CSINode:
    """How many volumes of each CSI driver a node can hold; a driver without a limit is absent from `limits`."""

    name: str
    limits: FrozenMap[str, int] = FrozenMap()


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeVirt:
    """The KubeVirt CR: limits, defaults and selectors that shape migrations (KubeVirt: pkg/virt-config)."""

    parallel_migrations_per_cluster: int = 5
    parallel_outbound_migrations_per_node: int = 2
    bandwidth_per_migration_bytes: int = 0
    completion_timeout_per_gib_seconds: int = 150
    progress_timeout_seconds: int = 150
    cpu_allocation_ratio: int = 10
    eviction_strategy: str = ""
    node_selectors: FrozenMap[str, str] = EMPTY
    default_cpu_model: str = ""
    feature_gates: tuple[str, ...] = ()
    version: str = ""
    phase: str = ""
    annotations: FrozenMap[str, str] = EMPTY
    infra_updating: bool = False
