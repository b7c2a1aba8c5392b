"""Whether anything may be started in this cluster at all, whatever the plan. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from rebalancer.control import words
from rebalancer.domain.naming import PAUSED, RESUME
from rebalancer.domain.node import Node
from rebalancer.domain.report import Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration

DIRECTED_SINCE = (1, 6)
"""The first KubeVirt with spec.addedNodeSelector; before it the field is dropped, and the VM goes anywhere."""
WORKLOAD_UPDATE = "kubevirt.io/workloadUpdateMigration"
"""Annotation of the VMIMs by which KubeVirt renews the launchers of running VMs (virt-controller: workload-updater)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateParams:
    """`lost_seconds`: for how long a node that has become not ready counts as just lost; one that has been away for
    longer is the cluster's normal state.
    `lost_nodes` and `lost_share`: as many nodes just lost, and as large a part of all, are no accident of one node:
    something happens to the cluster in which nothing of ours should be under way.
    `update_seconds`: KubeVirt renews VMs a few at a time; so long after the last of them began it may go on.
    """

    lost_seconds: float = 900.0
    lost_nodes: int = 2
    lost_share: float = 0.01
    update_seconds: float = 300.0

    def __post_init__(self) -> None:
        if min(self.lost_seconds, self.update_seconds) <= 0 or self.lost_nodes < 1 or not 0 <= self.lost_share <= 1:
            raise ValueError("times must be above 0, lost_nodes at least 1, lost_share between 0 and 1")


GATE_DEFAULTS = GateParams()


def why_unfit(snapshot: Snapshot) -> str:
    """Why this cluster can carry out no migration of ours, or "".

    A version that cannot be read is let pass: an older KubeVirt refuses our VMIMs then, as they are posted with strict
    field validation.
    """
    kubevirt = snapshot.kubevirt
    if kubevirt is None:
        return "there is no readable KubeVirt resource in this cluster"
    version = re.match(r"v?(\d+)\.(\d+)", kubevirt.version)
    if version and (int(version[1]), int(version[2])) < DIRECTED_SINCE:
        return f"KubeVirt {kubevirt.version} cannot direct a migration to a node; 1.6 and later can"
    limits = (
        ("parallelMigrationsPerCluster", kubevirt.parallel_migrations_per_cluster),
        ("parallelOutboundMigrationsPerNode", kubevirt.parallel_outbound_migrations_per_node),
    )
    for name, limit in limits:
        if limit <= 0:
            return f"the KubeVirt resource allows no migration: {name} is {limit}"
    return ""


def why_unsettled(snapshot: Snapshot, params: GateParams, now: float) -> str:
    """What goes on in the cluster that ours must give way to as a whole, or "". `now` in seconds since 1970."""
    kubevirt = snapshot.kubevirt
    if kubevirt is not None and (kubevirt.infra_updating or kubevirt.phase not in ("", "Deployed")):
        return "KubeVirt is being updated" if kubevirt.infra_updating else f"KubeVirt is {kubevirt.phase}"
    # KubeVirt tries for ever to renew a VM that fits nowhere else: that is no update that will be over soon.
    updates = [m for m in snapshot.migrations.values() if WORKLOAD_UPDATE in m.annotations]
    hopeless = {m.vmi_key for m in updates if m.phase == "Failed"}
    updating = [m.vmi_key for m in updates if m.vmi_key not in hopeless and _renews(m, now - params.update_seconds)]
    # Changed CPU or memory of one running VM looks the same where VMIMs have no priority, before KubeVirt 1.9.
    if len(set(updating)) > 1:
        return f"KubeVirt is renewing running VMs, {updating[0]} among them"
    lost = [node.name for node in snapshot.nodes.values() if _just_lost(node, now - params.lost_seconds)]
    if len(lost) >= max(params.lost_nodes, math.ceil(params.lost_share * len(snapshot.nodes))):
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        return f"{len(lost)} of {len(snapshot.nodes)} nodes have just been lost: {', '.join(lost[:3])}{more}"
    return ""


def why_paused(snapshot: Snapshot, own_namespace: str) -> str:
    """By which annotation somebody has paused us, or ""."""
    for what, found in _annotated(snapshot, own_namespace):
        if found.get(PAUSED) == "true":
            return f"{what} is annotated {PAUSED}=true"
    return ""


def stopped(
    snapshot: Snapshot, own_namespace: str, *, setting: bool, signal: float | None, unsettled: str
) -> Sentence | None:
    """The first reason to start nothing, as the cycle says it; None where there is none.

    `setting` is REBALANCER_PAUSED, `signal` since when a signal has paused us (seconds since 1970), `unsettled` what
    `why_unsettled` says.
    """
    if setting:
        return words.paused("by the settings", "REBALANCER_PAUSED is false")
    if signal is not None:
        until = "SIGUSR1 comes again, or the daemon is restarted"
        return words.paused(f"by SIGUSR1 at {words.moment(signal)}", until)
    if reason := why_paused(snapshot, own_namespace):
        return words.paused(reason)
    if reason := why_unfit(snapshot):
        return words.unfit(reason)
    return words.unsettled(unsettled) if unsettled else None


def resumed(snapshot: Snapshot, own_namespace: str) -> float:
    """Failures up to this moment do not stop us any more, in seconds since 1970; 0.0 where nobody said so."""
    told = (found.get(RESUME, "") for _, found in _annotated(snapshot, own_namespace))
    return max(map(_moment, told), default=0.0)


def _annotated(snapshot: Snapshot, own_namespace: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    if snapshot.kubevirt is not None:
        yield "the KubeVirt resource", snapshot.kubevirt.annotations
    namespace = snapshot.namespaces.get(own_namespace)
    if namespace is not None:
        yield f"namespace {own_namespace}", namespace.annotations


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return found.timestamp() if found.tzinfo is not None else 0.0


def _renews(migration: Migration, since: float) -> bool:
    """Whether KubeVirt's update is at work; changes that a user made to a VM are not an update of the cluster."""
    if WORKLOAD_UPDATE not in migration.annotations or migration.priority == "user-triggered":
        return False
    return not migration.final or migration.created >= since


def _just_lost(node: Node, since: float) -> bool:
    ready = node.conditions.get("Ready")
    return ready is not None and ready.status != "True" and ready.since >= since
