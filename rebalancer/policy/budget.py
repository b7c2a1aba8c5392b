"""How many migrations may start now: counted from the VMIMs that exist, ours and others', and from what we remember.

A restart or a new leader forgets nothing that the API still knows. It does not know everything: KubeVirt keeps the
newest five VMIMs that have ended of each VMI (pkg/virt-controller/watch/migration, garbage collection), none of a VMI
that is gone (they have an ownerReference to it), and none that was deleted, as ours are when they give way. Of our own
starts those are counted all the same, as long as this process remembers them; after a restart what exists is all that
is known. Others' that are gone are not seen. Windows and blackouts are not judged here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import TARGET
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.plan import Move
from rebalancer.domain.report import Held
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration

HOUR = 3600.0
DAY = 24 * HOUR
KEPT_BY_KUBEVIRT = 5
"""VMIMs of a VMI that have ended and are still there to be counted."""

MIGRATING = "Migrating"
COOLDOWN = "Cooldown"
PER_DAY = "PerVMAndDay"
PER_HOUR = "PerHour"
PER_CLUSTER = "PerCluster"
PER_SOURCE = "PerSource"
PER_TARGET = "PerTarget"
PER_NAMESPACE = "PerNamespace"
REASONS = (MIGRATING, COOLDOWN, PER_DAY, PER_HOUR, PER_CLUSTER, PER_SOURCE, PER_TARGET, PER_NAMESPACE)
"""Every reason that a move can be held for here: a bounded metric label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may go on at a time, and how much within an hour or a day. Raises ValueError with field and bounds.

    per_cluster     unfinished migrations at a time; the KubeVirt CR's parallelMigrationsPerCluster less drain_reserve
                    is the most in any case, but one where it allows any
    drain_reserve   slots of the CR's limit left to drains and people: ours run at the lowest priority, but do not yield
                    a slot that they have
    per_source      unfinished migrations off a node; the CR's parallelOutboundMigrationsPerNode is the most
    per_target      unfinished migrations onto a node. KubeVirt has no such limit, and several streams into a node
                    lengthen all of them
    per_namespace   unfinished migrations of a namespace's VMs, 0 for no limit
    per_hour        migrations that began within an hour in the cluster
    per_vm_day      migrations of a VM that began within 24 hours; KubeVirt keeps five to count, and alerts at 12
    cooldown        seconds that a VM rests after a migration; twice as long after each further one within 24 hours,
                    up to cooldown_max, and shorter again as they grow older than that
    """

    per_cluster: int = 5
    drain_reserve: int = 1
    per_source: int = 2
    per_target: int = 1
    per_namespace: int = 0
    per_hour: int = 30
    per_vm_day: int = 4
    cooldown_seconds: float = 900.0
    cooldown_max_seconds: float = 6 * HOUR

    def __post_init__(self) -> None:
        for name, least, most in (
            ("per_cluster", 1, math.inf),
            ("drain_reserve", 0, math.inf),
            ("per_source", 1, math.inf),
            ("per_target", 1, math.inf),
            ("per_namespace", 0, math.inf),
            ("per_hour", 1, math.inf),
            ("per_vm_day", 1, KEPT_BY_KUBEVIRT),
            ("cooldown_seconds", 0, DAY),
            ("cooldown_max_seconds", self.cooldown_seconds, DAY),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                bound = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
                raise ValueError(f"{name} = {value:g}: must be {bound}")

    def at_a_time(self, kubevirt: KubeVirt) -> int:
        """Unfinished migrations in the cluster, others' among them, beside which we start none."""
        allowed = kubevirt.parallel_migrations_per_cluster
        return min(self.per_cluster, max(allowed - self.drain_reserve, min(allowed, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A migration of ours that began, whether or not its VMIM is still there.

    `migration` is the VMIM's UID, `vmi` the VMI's key and `uid` its UID: another VM of the same name has no history.
    `begun` in seconds since 1970, on the clock that `now` is of.
    """

    migration: str
    vmi: str
    uid: str
    begun: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What of a wave may start now, and what must wait, both in the wave's order."""

    admitted: tuple[Move, ...]
    held: tuple[Held, ...]


def admit(
    moves: Iterable[Move], snapshot: Snapshot, limits: Limits, now: float, starts: Collection[Start] = ()
) -> Admission:
    """Which of these moves may start now, each counted against the next. `now` in seconds since 1970.

    `starts` are those of ours that are remembered; one whose VMIM exists counts once.
    """
    usage = _Usage.of(snapshot, now, starts)
    kubevirt = snapshot.kubevirt or KubeVirt()
    rests = resting(snapshot, limits, now, starts)
    admitted: list[Move] = []
    held: list[Held] = []
    for move in moves:
        reason = usage.why_not(move, limits, kubevirt, rests)
        if reason is None:
            admitted.append(move)
            usage.start(move, now)
        else:
            held.append(reason)
    return Admission(admitted=tuple(admitted), held=tuple(held))


def resting(snapshot: Snapshot, limits: Limits, now: float, starts: Collection[Start] = ()) -> FrozenMap[str, Held]:
    """The VMs that must not migrate yet, by key: cooling down, or moved often enough for a day. In flight they are not.

    A planner that leaves them out does not wait for them later. Of `starts` whose VMIM is gone only the number counts.
    """
    recent: dict[str, list[Migration]] = {}
    begun: dict[str, dict[str, float]] = {}
    for migration in snapshot.migrations.values():
        if now - migration.created < DAY:
            recent.setdefault(migration.vmi_key, []).append(migration)
            begun.setdefault(migration.vmi_key, {})[migration.uid] = migration.created
    for start in starts:
        vmi = snapshot.vmis.get(start.vmi)
        if vmi is not None and vmi.uid == start.uid and now - start.begun < DAY:
            known = begun.setdefault(start.vmi, {})
            known[start.migration] = max(known.get(start.migration, 0.0), start.begun)
    found = ((key, _rest(key, sorted(begun[key].values()), recent.get(key, ()), limits, now)) for key in sorted(begun))
    return FrozenMap((key, rest) for key, rest in found if rest is not None)


def cooldown(migrations: int, limits: Limits) -> float:
    """How long a VM rests after the last of so many migrations within 24 hours, in seconds."""
    doubled = math.ldexp(limits.cooldown_seconds, min(migrations, 64) - 1)
    return min(doubled, limits.cooldown_max_seconds)


def _rest(key: str, starts: list[float], recent: Iterable[Migration], limits: Limits, now: float) -> Held | None:
    """`starts` of a VM within a day, in order; `recent` are those whose VMIMs are there."""
    if len(starts) >= limits.per_vm_day:
        until = starts[-limits.per_vm_day] + DAY
        message = f"{key} has migrated {len(starts)} times within 24 hours, {limits.per_vm_day} are allowed"
        return Held(vmi=key, reason=PER_DAY, message=message, until=until)
    ended = [_ended(migration) for migration in recent if migration.final]
    if not ended:
        return None
    until = max(ended) + cooldown(len(starts), limits)
    if until <= now:
        return None
    times = "time" if len(starts) == 1 else "times"
    message = f"{key} cools down after migrating {len(starts)} {times} within 24 hours"
    return Held(vmi=key, reason=COOLDOWN, message=message, until=until)


def _ended(migration: Migration) -> float:
    """When a migration ended, as well as can be told."""
    return migration.phase_times.get(migration.phase, 0.0) or migration.state.ended or migration.created


@dataclass(slots=True)
class _Usage:
    """What goes on, and what began within the last hour."""

    vmis: set[str] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    namespaces: Counter[str] = field(default_factory=Counter)
    running: int = 0
    begun: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, snapshot: Snapshot, now: float, starts: Collection[Start]) -> _Usage:
        usage = cls()
        ends_of = _ends(snapshot)
        begun = {start.migration: start.begun for start in starts}
        for migration in snapshot.migrations.values():
            uid = migration.uid
            begun[uid] = max(migration.created, begun.get(uid, 0.0))
            if migration.final:
                continue
            usage._count(migration.vmi_key, *ends_of(migration))
        usage.begun.extend(moment for moment in begun.values() if now - moment < HOUR)
        return usage

    def start(self, move: Move, now: float) -> None:
        """Count a move that is admitted."""
        self._count(move.vmi, move.source, move.target)
        self.begun.append(now)

    def _count(self, vmi: str, source: str, target: str) -> None:
        self.vmis.add(vmi)
        self.running += 1
        self.sources[source] += 1
        self.targets[target] += 1
        self.namespaces[vmi.partition("/")[0]] += 1

    def why_not(self, move: Move, limits: Limits, kubevirt: KubeVirt, rests: Mapping[str, Held]) -> Held | None:
        """The first limit that a move would go beyond; those that only time can lift come first."""
        if move.vmi in self.vmis:
            return Held(vmi=move.vmi, reason=MIGRATING, message=f"{move.vmi} is migrating already")
        if move.vmi in rests:
            return rests[move.vmi]
        if len(self.begun) >= limits.per_hour:
            until = sorted(self.begun)[-limits.per_hour] + HOUR
            message = f"{len(self.begun)} migrations began within an hour, {limits.per_hour} are allowed"
            return Held(vmi=move.vmi, reason=PER_HOUR, message=message, until=until)
        namespace = move.vmi.partition("/")[0]
        outbound = min(limits.per_source, kubevirt.parallel_outbound_migrations_per_node)
        for reason, where, count, most in (
            (PER_CLUSTER, "in the cluster", self.running, limits.at_a_time(kubevirt)),
            (PER_SOURCE, f"off {move.source}", self.sources[move.source], outbound),
            (PER_TARGET, f"onto {move.target}", self.targets[move.target], limits.per_target),
            (PER_NAMESPACE, f"in namespace {namespace}", self.namespaces[namespace], limits.per_namespace or math.inf),
        ):
            if count >= most:
                going = "migration goes" if count == 1 else "migrations go"
                allowed = f"{most:g} at a time {'is' if most == 1 else 'are'} allowed"
                message = f"{count} {going} on {where}, {allowed}"
                return Held(vmi=move.vmi, reason=reason, message=message)
        return None


def _ends(snapshot: Snapshot) -> Callable[[Migration], tuple[str, str]]:
    """Finds the nodes that an unfinished migration leaves and goes to, "" where nobody can tell yet."""
    by_hostname = {node.labels.get(HOSTNAME, name): name for name, node in snapshot.nodes.items()}

    def ends(migration: Migration) -> tuple[str, str]:
        vmi = snapshot.vmis.get(migration.vmi_key)
        # Until it has ended, the VMI knows more of a migration than the VMIM, once it is handed over to virt-handler.
        if vmi is not None and vmi.migration_state.migration_uid == migration.uid:
            return vmi.migration_state.source_node, vmi.migration_state.target_node
        added = by_hostname.get(migration.added_node_selector.get(HOSTNAME, ""), "")
        target = migration.state.target_node or migration.annotations.get(TARGET, added)
        return migration.state.source_node or (vmi.node if vmi is not None else ""), target

    return ends
