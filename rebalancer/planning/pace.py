"""How fast a plan goes: what may run together, how long a migration takes, and which order is quiet soonest.

Waves follow one another, and each lasts as long as its longest migration. So migrations of one length belong together,
the long ones first (as in scheduling jobs on machines by batches), and nodes that have most to send or to take in must
begin early. No rule of thumb wins always; a packing that asks only for budgets is quick and tells which does this time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.plan import Wave
from rebalancer.domain.pod import Pod
from rebalancer.domain.vmi import VMI
from rebalancer.placement.groups import Ints
from rebalancer.planning.build import Built, Picture
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import Limits

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """One migration, as far as its pace goes: the item's number, its nodes, its namespace, and how long it takes."""

    item: int
    source: int
    target: int
    namespace: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """How many migrations of a wave may share the cluster, a source, a target, a namespace (0: no limit)."""

    cluster: int
    source: int
    target: int
    namespace: int = 0

    @classmethod
    def of(cls, params: PlanningParams, kubevirt: KubeVirt) -> Budgets:
        """Our limits, and KubeVirt's where they are tighter; at least one of each, so that there is a plan to show."""
        limits = Limits(per_cluster=params.per_cluster, drain_reserve=params.drain_reserve)
        return cls(
            cluster=max(1, limits.at_a_time(kubevirt)),
            source=max(1, min(params.per_source, kubevirt.parallel_outbound_migrations_per_node)),
            target=params.per_target,
            namespace=params.per_namespace,
        )


class Trips:
    """The trips of a problem's items, and the budgets that they share."""

    def __init__(self, picture: Picture, built: Built, params: PlanningParams) -> None:
        self._picture, self._built, self._params = picture, built, params
        self.budgets = Budgets.of(params, picture.kubevirt)
        self._known: dict[int, tuple[str, float]] = {}

    def of(self, item: int, source: int, target: int) -> Trip:
        """An item's migration from a node to another."""
        if item not in self._known:
            vmi = self._picture.snapshot.vmis[self._built.vmis[item]]
            memory = copied_bytes(vmi, self._picture.settled.active_pods[vmi.key])
            self._known[item] = vmi.namespace, seconds(memory, self._params, self._picture.kubevirt)
        namespace, length = self._known[item]
        return Trip(item=item, source=source, target=target, namespace=namespace, seconds=length)

    def to(self, at: Ints) -> list[Trip]:
        """The migrations from everyone's home to a placement."""
        home = self._built.problem.home
        return [self.of(item, int(home[item]), int(at[item])) for item in np.flatnonzero(at != home).tolist()]


class Tally:
    """What a wave in the making has used of the budgets."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._total = 0
        self._sources: Counter[int] = Counter()
        self._targets: Counter[int] = Counter()
        self._namespaces: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether nothing more may join."""
        return self._total >= self._budgets.cluster

    def admits(self, trip: Trip) -> bool:
        """Whether source, target, namespace and cluster may take part in one more migration."""
        budgets = self._budgets
        return (
            not self.full
            and self._sources[trip.source] < budgets.source
            and self._targets[trip.target] < budgets.target
            and (not budgets.namespace or self._namespaces[trip.namespace] < budgets.namespace)
        )

    def count(self, trip: Trip, by: int = 1) -> None:
        """Let a migration join (or, by -1, leave again)."""
        self._total += by
        self._sources[trip.source] += by
        self._targets[trip.target] += by
        self._namespaces[trip.namespace] += by


def copied_bytes(vmi: VMI, pod: Pod) -> int:
    """The memory that a migration copies: the guest's, or else the pod's."""
    return vmi.spec.guest_memory_bytes or pod.spec.requests.memory_bytes


def seconds(memory_bytes: int, params: PlanningParams, kubevirt: KubeVirt) -> float:
    """The estimated time of one migration: its memory over the bandwidth, and what every migration takes.

    The bandwidth is what the links are expected to give, or what the KubeVirt CR allows a migration if that is less.
    """
    bandwidth = params.bandwidth_mib
    if kubevirt.bandwidth_per_migration_bytes > 0:
        bandwidth = min(bandwidth, kubevirt.bandwidth_per_migration_bytes / MIB)
    return round(memory_bytes / MIB / bandwidth + params.overhead_seconds, 1)


def quiet_seconds(waves: Iterable[Wave]) -> float:
    """The estimated time until all waves have landed: each is as long as its longest migration."""
    return round(sum(max((move.seconds for move in wave.moves), default=0.0) for wave in waves), 1)


def ranked(trips: Sequence[Trip], budgets: Budgets) -> list[Trip]:
    """The trips in the order of the rule by which their waves are quiet soonest, if nothing but budgets binds."""
    busy = _busy(trips, budgets)
    leaving = Counter(trip.source for trip in trips)
    rules = (
        sorted(trips, key=lambda trip: (-busy[trip.item], -trip.seconds, trip.item)),
        sorted(trips, key=lambda trip: (-trip.seconds, -busy[trip.item], trip.item)),
        sorted(trips, key=lambda trip: (-leaving[trip.source], -trip.seconds, trip.item)),
    )
    return min(rules, key=lambda order: packed_seconds(order, budgets))


def packed_seconds(order: Sequence[Trip], budgets: Budgets) -> float:
    """How long it takes if each wave is filled in this order as the budgets allow."""
    waiting, total = list(order), 0.0
    while waiting:
        tally, longest = Tally(budgets), 0.0
        later: list[Trip] = []
        for position, trip in enumerate(waiting):
            if tally.full:
                later.extend(waiting[position:])
                break
            if tally.admits(trip):
                tally.count(trip)
                longest = max(longest, trip.seconds)
            else:
                later.append(trip)
        waiting, total = later, total + longest
    return total


def least_seconds(trips: Iterable[Trip], budgets: Budgets) -> float:
    """No order takes less: waves of as many as the cluster allows, long ones together."""
    return sum(sorted((trip.seconds for trip in trips), reverse=True)[:: budgets.cluster])


def _busy(trips: Sequence[Trip], budgets: Budgets) -> dict[int, float]:
    """By item: the time that its source or its target is busy at least, whichever is longer."""
    out: defaultdict[int, float] = defaultdict(float)
    into: defaultdict[int, float] = defaultdict(float)
    for trip in trips:
        out[trip.source] += trip.seconds
        into[trip.target] += trip.seconds
    return {trip.item: max(out[trip.source] / budgets.source, into[trip.target] / budgets.target) for trip in trips}
