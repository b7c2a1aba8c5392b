"""Filters about volumes: VolumeRestrictions, NodeVolumeLimits, VolumeBinding, VolumeZone.

Where the snapshot knows no claims (or no volumes) at all, nobody let us read them: a running VM's claims exist, so
these filters then have nothing to ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rebalancer.domain.cluster import PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.pod import Pod, PodVolume
from rebalancer.domain.verdict import Rejection
from rebalancer.policy.cluster_state import ONE_POD, ClusterState
from rebalancer.policy.filters.check import OneByOne, Positions, Prepared

AMAZON: Final = "awsElasticBlockStore"
ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
OLD_ZONE: Final = "failure-domain.beta.kubernetes.io/zone"
OLD_REGION: Final = "failure-domain.beta.kubernetes.io/region"
TOPOLOGY_LABELS: Final = (OLD_ZONE, OLD_REGION, ZONE, REGION)
NEW_NAMES: Final = {OLD_ZONE: ZONE, OLD_REGION: REGION}

_DISK = Rejection(plugin="VolumeRestrictions", reasons=("node(s) had no available disk",))
_ONE_POD_ONLY = Rejection(
    plugin="VolumeRestrictions",
    reasons=(
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use"
        " by another pod",
    ),
)
_TOO_MANY = Rejection(plugin="NodeVolumeLimits", reasons=("node(s) exceed max volume count",))
_UNBOUND = Rejection(
    plugin="VolumeBinding", reasons=("pod has unbound immediate PersistentVolumeClaims",), unresolvable=True
)
_WRONG_NODE = Rejection(
    plugin="VolumeBinding", reasons=("node(s) didn't match PersistentVolume's node affinity",), unresolvable=True
)
_WRONG_ZONE = Rejection(plugin="VolumeZone", reasons=("node(s) had no available volume zone",), unresolvable=True)


def claims_of(state: ClusterState, pod: Pod) -> list[PersistentVolumeClaim | str]:
    """The pod's claims in the order of its volumes; a name where there is no such claim."""
    if not state.claims:
        return []
    names = [volume.claim for volume in pod.spec.volumes if volume.claim]
    return [state.claims.get(f"{pod.namespace}/{name}", name) for name in names]


@dataclass(slots=True)
class _Restricted(OneByOne):
    state: ClusterState
    disks: tuple[PodVolume, ...]
    in_use: bool

    def reject(self, position: int) -> Rejection | None:
        if self.disks:
            for pod in self.state.special_pods(self.state.table.names[position]):
                if any(_same_disk(disk, other) for disk in self.disks for other in pod.spec.volumes):
                    return _DISK
        return _ONE_POD_ONLY if self.in_use else None


def volume_restrictions(state: ClusterState, pod: Pod) -> Prepared:
    """VolumeRestrictions: disks that only one pod may mount, and claims that only one pod may use."""
    in_use = False
    for claim in claims_of(state, pod):
        if isinstance(claim, str):
            return _not_found("VolumeRestrictions", "persistentvolumeclaim", claim)
        if ONE_POD in claim.access_modes and state.claim_users(claim.namespace, claim.name):
            in_use = True
    disks = tuple(volume for volume in pod.spec.volumes if volume.disk)
    return _Restricted(state, disks, in_use) if disks or in_use else None


def _same_disk(one: PodVolume, other: PodVolume) -> bool:
    """Whether two volumes are one disk that both pods cannot mount (volumerestrictions: isVolumeConflict).

    A disk is (kind, identity, ...); Ceph RBD's is ("rbd", pool, image, monitor, ...), and one monitor in common will
    do. Two read-only mounts agree with each other, except of Amazon's disks.
    """
    if not other.disk or one.disk[0] != other.disk[0]:
        return False
    if one.disk[0] == "rbd":
        same = one.disk[1:3] == other.disk[1:3] and not set(one.disk[3:]).isdisjoint(other.disk[3:])
    else:
        same = one.disk == other.disk
    return same and (one.disk[0] == AMAZON or not (one.read_only and other.read_only))


@dataclass(slots=True)
class _Limited(OneByOne):
    state: ClusterState
    wanted: dict[str, frozenset[str]]

    def reject(self, position: int) -> Rejection | None:
        node = self.state.table.names[position]
        known = self.state.csi_nodes.get(node)
        if known is None:
            return None
        for driver, handles in self.wanted.items():
            limit = known.limits.get(driver)
            if limit is None:
                continue
            attached = self.state.attached_volumes(node).get(driver, frozenset())
            new = len(handles - attached)
            if new and len(attached) + new > limit:
                return _TOO_MANY
        return None

    def narrow(self, positions: Positions) -> Positions:
        # Most nodes have slots for all of them; the others may hold some of them already.
        short = np.zeros(len(self.state.table.nodes), dtype=np.bool_)
        for driver, handles in self.wanted.items():
            short |= self.state.free_slots(driver) < len(handles)
        short[[p for p in np.flatnonzero(short).tolist() if self.reject(p) is None]] = False
        return positions[~short[positions]]


def node_volume_limits(state: ClusterState, pod: Pod) -> Prepared:
    """NodeVolumeLimits, counting the volumes of placed pods. Attachments that no pod uses any more are not seen."""
    if not pod.spec.volumes or not any(known.limits for known in state.csi_nodes.values()):
        return None
    wanted: dict[str, set[str]] = {}
    for driver, handle in state.csi_volumes(pod):
        wanted.setdefault(driver, set()).add(handle)
    if not wanted:
        return None
    return _Limited(state, {driver: frozenset(handles) for driver, handles in wanted.items()})


@dataclass(slots=True)
class _Bound(OneByOne):
    state: ClusterState
    volumes: tuple[PersistentVolume, ...]

    def reject(self, position: int) -> Rejection | None:
        labels = self.state.table.nodes[position].labels
        for volume in self.volumes:
            # The scheduler asks without the node's name, so match fields decide nothing (storage/volume helpers).
            if volume.node_affinity is not None and not volume.node_affinity.matches(labels, ""):
                return _WRONG_NODE
        return None

    def narrow(self, positions: Positions) -> Positions:
        required = [volume.node_affinity for volume in self.volumes if volume.node_affinity is not None]
        if any(term.match_fields for selector in required for term in selector.terms):
            return OneByOne.narrow(self, positions)
        for selector in required:
            positions = positions[self.state.table.selected(selector)[positions]]
        return positions


def volume_binding(state: ClusterState, pod: Pod) -> Prepared:
    """VolumeBinding of claims that are bound. One that is not cannot be judged from here and holds the pod back."""
    claims = claims_of(state, pod)
    for claim in claims:
        if isinstance(claim, str):
            return _not_found("VolumeBinding", "persistentvolumeclaim", claim)
        if claim.deleting:
            reason = f'persistentvolumeclaim "{claim.name}" is being deleted'
            return Rejection(plugin="VolumeBinding", reasons=(reason,), unresolvable=True)
    if any(not claim.volume for claim in claims if not isinstance(claim, str)):
        return _UNBOUND
    volumes = tuple(volume for volume in _volumes(state, claims) if volume.node_affinity is not None)
    return _Bound(state, volumes) if volumes else None


@dataclass(slots=True)
class _Zoned(OneByOne):
    state: ClusterState
    zones: tuple[tuple[str, frozenset[str]], ...]

    def reject(self, position: int) -> Rejection | None:
        labels = self.state.table.nodes[position].labels
        if not any(key in labels for key in TOPOLOGY_LABELS):
            return None
        for key, values in self.zones:
            if labels.get(key, labels.get(NEW_NAMES.get(key, key))) not in values:
                return _WRONG_ZONE
        return None


def volume_zone(state: ClusterState, pod: Pod) -> Prepared:
    """VolumeZone: zone and region labels of bound volumes."""
    claims = claims_of(state, pod)
    for claim in claims:
        if not isinstance(claim, str) and state.volumes and claim.volume not in state.volumes:
            return _not_found("VolumeZone", "persistentvolume", claim.volume)
    zones = []
    for volume in _volumes(state, claims):
        for key in TOPOLOGY_LABELS:
            values = [value.strip() for value in volume.labels.get(key, "").split("__")]
            if all(values):
                zones.append((key, frozenset(values)))
    return _Zoned(state, tuple(zones)) if zones else None


def _volumes(state: ClusterState, claims: Iterable[PersistentVolumeClaim | str]) -> list[PersistentVolume]:
    """The volumes behind claims, as far as they are known."""
    names = [claim.volume for claim in claims if not isinstance(claim, str)]
    return [state.volumes[name] for name in names if name in state.volumes]


def _not_found(plugin: str, kind: str, name: str) -> Rejection:
    return Rejection(plugin=plugin, reasons=(f'{kind} "{name}" not found',), unresolvable=True)
