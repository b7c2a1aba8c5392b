"""Migrations of ours that are under way, and what the cluster says about each. Pure: reading and judging only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import MANAGED_BY, MANAGER, POLICY, TARGET
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.plan import Move
from rebalancer.domain.pod import Pod
from rebalancer.domain.report import Running
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.policy.cluster_state import MIGRATION_JOB
from rebalancer.policy.target import target_pod

CLEARING = "kubevirt.io/migrationTargetNodeName"
"""Label of a VMI from the hand-over of a migration until virt-handler on the target has cleared up behind it
(pkg/virt-handler/migration-target.go). A migration that is handed over in between fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineParams:
    """When a migration of ours has taken too long.

    `setup_seconds`: queueing, scheduling and preparing; KubeVirt's own limit for a target pod is 300 s.
    `bandwidth_bytes`: assumed bytes per second where the KubeVirt CR sets no limit: a tenth of a 10 Gbit/s link.
    `slack`: memory is copied more than once while the guest keeps writing.

    A MigrationPolicy may give some VMs another bandwidth or timeout. It is not read: matching policies to VMs would be
    a second copy of KubeVirt's own rules, and this limit is only the last one, for what KubeVirt's own do not end.
    Where policies make migrations much slower, raise `setup_seconds`.
    """

    setup_seconds: float = 300.0
    bandwidth_bytes: int = 128 * 2**20
    slack: float = 4.0

    def __post_init__(self) -> None:
        if self.setup_seconds <= 0 or self.bandwidth_bytes <= 0 or self.slack < 1:
            raise ValueError("setup_seconds and bandwidth_bytes must be above 0, slack at least 1")

    def seconds(self, memory_bytes: int, kubevirt: KubeVirt | None) -> float:
        """How long a migration of so much memory may take."""
        limit = kubevirt.bandwidth_per_migration_bytes if kubevirt is not None else 0
        bandwidth = min(limit, self.bandwidth_bytes) if limit > 0 else self.bandwidth_bytes
        return self.setup_seconds + self.slack * memory_bytes / bandwidth


DEADLINE_DEFAULTS = DeadlineParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One VMIM of ours that has not ended as far as we know.

    `plan` is the id of the plan that wanted it, `begun` monotonic, `started` wall time, `limit_seconds` its deadline
    counted from `begun`. `seen` is true once a watch has shown it; until then `migration` is the API server's answer
    to our POST, and it is read by name so many `unseen_seconds` after it began. `withdrawn` is why we deleted it,
    at `withdrawn_at` (monotonic). `unplaced` is what the scheduler said when its target pod fitted nowhere: KubeVirt
    deletes that pod, and does not repeat it.
    """

    move: Move
    migration: Migration
    plan: str
    begun: float
    started: float
    limit_seconds: float
    seen: bool = False
    unseen_seconds: float = 1.0
    withdrawn: str = ""
    withdrawn_at: float = 0.0
    overdue: bool = False
    unplaced: str = ""

    @property
    def key(self) -> str:
        return migration_key(self.migration)


def migration_key(migration: Migration) -> str:
    """The key of a migration in a snapshot."""
    return f"{migration.namespace}/{migration.name}"


def is_ours(migration: Migration) -> bool:
    """By label, so that a successor recognises what its predecessor started."""
    return migration.labels.get(MANAGED_BY) == MANAGER


def target_name(migration: Migration, nodes: FrozenMap[str, Node]) -> str:
    """The node that a directed migration goes to; "" where nothing says so."""
    if name := migration.annotations.get(TARGET) or migration.state.target_node:
        return name
    hostname = migration.added_node_selector.get(HOSTNAME)
    if not hostname:
        return ""
    return next((name for name, node in nodes.items() if node.labels.get(HOSTNAME) == hostname), "")


def finalised_own(migrations: Iterable[Migration], vmi_key: str) -> int:
    """How many of our migrations of a VMI have ended; a part of the next one's name."""
    return sum(1 for found in migrations if found.vmi_key == vmi_key and is_ours(found) and found.final)


def overlay(snapshot: Snapshot, flights: Iterable[Flight]) -> Snapshot:
    """The snapshot with what we know to be on its way and no watch has shown yet: we read our own writes.

    Those are VMIMs just made, and the target pods that KubeVirt and the scheduler will make and bind of them: their
    room is taken from the moment of our POST.
    """
    migrations = {f.key: f.migration for f in flights if not f.seen and f.key not in snapshot.migrations}
    pods = {pod.key: pod for flight in flights if (pod := _expected_pod(flight, snapshot)) is not None}
    if not migrations and not pods:
        return snapshot
    return replace(
        snapshot,
        migrations=FrozenMap(sorted({**snapshot.migrations, **migrations}.items())),
        pods=FrozenMap(sorted({**snapshot.pods, **pods}.items())),
    )


def _expected_pod(flight: Flight, snapshot: Snapshot) -> Pod | None:
    """The target pod of a migration that has none bound yet; None where it has, or where nothing can be said."""
    vmi = snapshot.vmis.get(flight.move.vmi)
    if vmi is None or vmi.node == flight.move.target or flight.move.target not in snapshot.nodes or flight.withdrawn:
        return None
    source = None
    for pod in launchers(vmi, snapshot):
        if pod.labels.get(MIGRATION_JOB) == flight.migration.uid and pod.node:
            return None
        if pod.node == vmi.node:
            source = pod
    if source is None:
        return None
    target = target_pod(vmi, source, snapshot.nodes.get(vmi.node), snapshot.kubevirt or KubeVirt())
    labels = FrozenMap({**target.labels, MIGRATION_JOB: flight.migration.uid})
    name = f"expected-{flight.migration.name}"
    return replace(target, name=name, uid=name, labels=labels, node=flight.move.target)


def launchers(vmi: VMI, snapshot: Snapshot) -> tuple[Pod, ...]:
    """The pods of a VMI that have not ended."""
    return tuple(pod for pod in snapshot.pods.values() if pod.owner[2] == vmi.uid and not pod.terminal)


def arrived(snapshot: Snapshot, vmi_key: str, node: str) -> bool:
    """Whether the snapshot shows a VMI and its pod on a node, none of it elsewhere, and nothing to be cleared up; also
    true where it shows no such VMI any more."""
    vmi = snapshot.vmis.get(vmi_key)
    if vmi is None:
        return True
    return vmi.node == node and CLEARING not in vmi.labels and {p.node for p in launchers(vmi, snapshot)} == {node}


def adopted(migration: Migration, snapshot: Snapshot) -> Move:
    """The move behind a VMIM of a predecessor."""
    vmi = snapshot.vmis.get(migration.vmi_key)
    return Move(
        vmi=migration.vmi_key,
        uid=vmi.uid if vmi else "",
        source=migration.state.source_node or (vmi.node if vmi else ""),
        target=target_name(migration, snapshot.nodes),
        cost=0,
        reasons=("started by an earlier leader",),
        memory_bytes=vmi.spec.guest_memory_bytes if vmi else 0,
    )


def why_withdraw(flight: Flight, snapshot: Snapshot, elapsed_seconds: float, unsettled: str = "") -> str:
    """Why a migration of ours must give way, or "". `elapsed_seconds` since it began, `unsettled` why all must."""
    if elapsed_seconds > flight.limit_seconds:
        return f"it passed its deadline of {flight.limit_seconds:.0f} s"
    if unsettled:
        return unsettled
    vmi = snapshot.vmis.get(flight.move.vmi)
    if vmi is None:
        return ""  # unreadable or gone; KubeVirt ends the migration of a VMI that is gone
    return why_yield(vmi, snapshot, flight.key) or why_no_receiver(snapshot.nodes.get(flight.move.target))


def why_yield(vmi: VMI, snapshot: Snapshot, own_migration: str = "") -> str:
    """Why a VM is not ours to move now: a drain, somebody's migration, an opt-out. "" where nothing is in the way."""
    if vmi.evacuation_node and vmi.evacuation_node == vmi.node:
        return f"{vmi.key} is being evacuated from {vmi.evacuation_node}"
    namespace = snapshot.namespaces.get(vmi.namespace)
    if vmi.annotations.get(POLICY) == "ignore" or (namespace and namespace.annotations.get(POLICY) == "ignore"):
        return f"{vmi.key} has been opted out"
    for key, migration in snapshot.migrations.items():
        if key != own_migration and migration.vmi_key == vmi.key and not migration.final:
            return f"{vmi.key} has another migration, {migration.name}"
    return ""


def why_no_receiver(node: Node | None) -> str:
    """Why a target that was fine when the plan was made takes nothing any more."""
    if node is None or node.deleting:
        return "the target node is gone"
    if node.unschedulable:
        return f"target {node.name} is cordoned"
    ready = node.conditions.get("Ready")
    if ready is not None and ready.status != "True":
        return f"target {node.name} is not ready"
    return ""


def unplaced(flight: Flight, snapshot: Snapshot) -> str:
    """What the scheduler says of the target pod of a migration, where it finds no node; else what it said last."""
    vmi = snapshot.vmis.get(flight.move.vmi)
    targets = launchers(vmi, snapshot) if vmi is not None else ()
    words = (pod.unschedulable for pod in targets if pod.labels.get(MIGRATION_JOB) == flight.migration.uid)
    return next(words, flight.unplaced)


def failure_message(migration: Migration | None, unplaced: str = "") -> str:
    """Why a migration failed: KubeVirt's own words as far as it has any, else the scheduler's."""
    if migration is None:
        return "the migration disappeared before it ended"
    if migration.state.failure_reason:
        return migration.state.failure_reason
    told = [found.message for found in migration.conditions.values() if found.status == "True" and found.message]
    if told or not unplaced:
        return told[0] if told else "KubeVirt gives no reason; see the events of the VMIM"
    return f"its target pod found no node: {unplaced}"


def running(snapshot: Snapshot, flights: Iterable[Flight], now: float, monotonic: float) -> tuple[Running, ...]:
    """Every unfinished migration in the cluster, oldest first."""
    own = {flight.key: flight for flight in flights}
    found = []
    for key, migration in snapshot.migrations.items():
        if migration.final:
            continue
        flight = own.get(key)
        vmi = snapshot.vmis.get(migration.vmi_key)
        found.append(
            Running(
                vmi=migration.vmi_key,
                migration=migration.name,
                phase=migration.phase or "Pending",
                source=flight.move.source if flight else migration.state.source_node or (vmi.node if vmi else ""),
                target=flight.move.target if flight else target_name(migration, snapshot.nodes),
                started=migration.created,
                deadline=now + flight.begun + flight.limit_seconds - monotonic if flight else 0.0,
                ours=flight is not None or is_ours(migration),
            )
        )
    return tuple(sorted(found, key=lambda entry: (entry.started, entry.vmi)))
