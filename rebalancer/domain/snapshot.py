"""An immutable picture of the cluster at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.cluster import CSINode, KubeVirt, Namespace, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.vmi import VMI, Migration


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An object that could not be read, or not wholly: one warning, never the end of a cycle."""

    kind: str
    name: str
    reason: str

    def sentence(self) -> str:
        return f"{self.kind} {self.name} is set aside: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster. Maps are keyed by name, or by "namespace/name" where namespaced, in sorted order.

    `kubevirt` is None where no KubeVirt CR was found. `taken` is in seconds since 1970.
    """

    nodes: FrozenMap[str, Node] = FrozenMap()
    pods: FrozenMap[str, Pod] = FrozenMap()
    vmis: FrozenMap[str, VMI] = FrozenMap()
    migrations: FrozenMap[str, Migration] = FrozenMap()
    namespaces: FrozenMap[str, Namespace] = FrozenMap()
    volumes: FrozenMap[str, PersistentVolume] = FrozenMap()
    claims: FrozenMap[str, PersistentVolumeClaim] = FrozenMap()
    csi_nodes: FrozenMap[str, CSINode] = FrozenMap()
    kubevirt: KubeVirt | None = None
    set_aside: tuple[SetAside, ...] = ()
    resource_version: str = ""
    taken: float = 0.0
