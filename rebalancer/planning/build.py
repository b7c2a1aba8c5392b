"""From a snapshot to a placement problem: names become indices, quantities integers, rules counts by domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.plan import State
from rebalancer.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, PODS, Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import NODE_AFFINITY, TAINTS, Trigger, Violation
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.problem import Problem
from rebalancer.planning.classes import Classes
from rebalancer.planning.rules import Between
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import Conflict
from rebalancer.policy.load import PolicyParams, hotspots, judged, limit, node_loads
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.overview import Overview
from rebalancer.policy.returns import left_lately
from rebalancer.policy.rule_book import RuleBook, tenant_name
from rebalancer.policy.rules import is_judged
from rebalancer.policy.score import migration_cost, preference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What planning looks at: the cluster as it is, as it settles, its rules, and what is wrong with it.

    `conflicts` are rules that no plan can keep: told, and never in the way of the rest. `immovable` is why each VM
    stays that was asked about; it grows while a problem is built. `left` are nodes that VMs are not brought back to,
    as we have just taken them away from there. `overview` is where most of it comes from; what is
    worked out here about nodes ends with the picture.
    """

    overview: Overview
    snapshot: Snapshot
    real: ClusterState
    settled: ClusterState
    book: RuleBook
    conflicts: tuple[Conflict, ...]
    params: PolicyParams
    triggers: tuple[Trigger, ...]
    immovable: dict[str, str]
    left: Mapping[str, frozenset[str]]

    @classmethod
    def of(  # noqa: PLR0913 - what is known besides the snapshot
        cls,
        snapshot: Snapshot,
        triggers: tuple[Trigger, ...],
        params: PolicyParams,
        immovable: Mapping[str, str],
        overview: Overview | None = None,
        *,
        now: float,
    ) -> Picture:
        """`overview` is the snapshot's, by the same params, for callers that have it already. `now` since 1970."""
        overview = overview or Overview.of(snapshot, params)
        overview.state.counts.prepare()
        settled = overview.state.detached()
        return cls(
            overview=overview,
            snapshot=snapshot,
            real=settled.unsettled(snapshot),
            settled=settled,
            book=overview.book,
            conflicts=overview.conflicts,
            params=params,
            triggers=triggers,
            immovable=dict(immovable),
            left=left_lately(snapshot, now),
        )

    @property
    def kubevirt(self) -> KubeVirt:
        return self.snapshot.kubevirt or KubeVirt()

    @property
    def hot(self) -> frozenset[tuple[str, str]]:
        """(node, resource) of the hotspots that are triggers."""
        return frozenset((t.hotspot.node, t.hotspot.resource) for t in self.triggers if t.hotspot is not None)

    @property
    def broken(self) -> tuple[Violation, ...]:
        """The violations that are triggers."""
        return tuple(trigger.violation for trigger in self.triggers if trigger.violation is not None)

    def state(self, state: ClusterState, left: tuple[Violation, ...]) -> State:
        """`load.state_of`, where the violations are known already."""
        thresholds = self.params.thresholds
        return State(
            nodes=node_loads(state, thresholds),
            hotspots=hotspots(state, thresholds),
            violations=left,
        )

    def why_stays(self, key: str) -> str | None:
        """Why a VM must stay, None where it may move; asked once."""
        if key not in self.immovable:
            reason = why_immovable(self.snapshot.vmis[key], self.snapshot, self.real)
            if reason is None:
                return None
            self.immovable[key] = reason
        return self.immovable[key]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """A problem, and whom its indices stand for."""

    problem: Problem
    vmis: tuple[str, ...]
    nodes: tuple[str, ...]


def neighbourhood(picture: Picture) -> frozenset[str]:
    """The VMs that a plan is likely to move: those on hot nodes, and those that share a broken rule."""
    hot = {node for node, _ in picture.hot}
    chosen = {key for key, pod in picture.settled.active_pods.items() if pod.node in hot}
    texts = {violation.rule for violation in picture.broken}
    chosen |= {violation.vmi for violation in picture.broken}
    for rule in picture.book.rules:
        if rule.text in texts:
            chosen.update(rule.holders)
            chosen.update(tenant_name(pod) for pod in picture.settled.counts.members(rule.group))
    return frozenset(key for key in chosen if key in picture.settled.active_pods)


ROOMY = 150
"""Nodes whose VMs may make way for others, where a plan without that is not good enough."""


def wider(picture: Picture, built: Built, chosen: Collection[str]) -> frozenset[str]:
    """The chosen VMs, and those on the nodes with most room, where the least has to make way for a large VM."""
    problem = built.problem
    open_to_some = set(np.flatnonzero(problem.allowed.any(axis=0)).tolist())
    room = (problem.ceiling - problem.start)[:, : problem.counted].min(axis=1)
    order = [node for node in np.lexsort((np.arange(problem.nodes), -room)).tolist() if node in open_to_some]
    roomy = {built.nodes[node] for node in order[:ROOMY]}
    return frozenset(chosen) | {key for key, pod in picture.settled.active_pods.items() if pod.node in roomy}


def build(picture: Picture, chosen: Collection[str]) -> Built:
    """The problem in which the chosen VMs are items and everything else stands still."""
    snapshot, settled = picture.snapshot, picture.settled
    nodes = tuple(settled.nodes)
    position = {name: number for number, name in enumerate(nodes)}
    keys = tuple(sorted(chosen))
    pods = [settled.active_pods[key] for key in keys]
    movable = np.array([picture.why_stays(key) is None for key in keys], dtype=bool)
    classes = Classes(picture.real, picture.kubevirt)
    klass = np.zeros(len(keys), dtype=np.int64)
    requests: list[Resources] = []
    for item, (key, pod) in enumerate(zip(keys, pods, strict=True)):
        if movable[item]:
            row, wanted = classes.of(snapshot.vmis[key], pod)
            klass[item] = classes.without(row, picture.left[key]) if key in picture.left else row
            requests.append(wanted)
        else:
            requests.append(pod.spec.requests)
    allowed = classes.allowed()
    names = _resources(picture.params, requests)
    demand = _table([_amounts(amount, names, 1) for amount in requests], names)
    home = np.array([position[pod.node] for pod in pods], dtype=np.int64)
    base = _table([_amounts(settled.requested(name), names, len(settled.pods_on(name))) for name in nodes], names)
    resting = _table([_amounts(pod.spec.requests, names, 1) for pod in pods], names)
    np.subtract.at(base, home, resting)
    low, high, hot, scale = _thresholds(picture, nodes)
    taste, liking = _preferences(picture, keys)
    between = Between(picture, keys, nodes)
    problem = Problem(
        capacity=_capacity(picture, nodes, names),
        base=base,
        low=low,
        high=high,
        hot=hot,
        scale=scale,
        demand=demand,
        resting=resting,
        home=home,
        cost=np.array(
            [migration_cost(snapshot.vmis[k], p, picture.params) for k, p in zip(keys, pods, strict=True)],
            dtype=np.int64,
        ),
        movable=movable,
        klass=klass,
        allowed=allowed,
        misplaced=_misplaced(picture, keys),
        judged=np.array([is_judged(snapshot.vmis[key]) for key in keys], dtype=bool),
        taste=taste,
        preference=liking,
        exclusions=between.exclusions(),
        attractions=between.attractions(),
        spreads=between.spreads(),
        bystanders=_bystanders(picture, chosen, names),
    )
    return Built(problem=problem, vmis=keys, nodes=nodes)


def _bystanders(picture: Picture, chosen: Collection[str], names: tuple[str, ...]) -> Ints:
    """What the VMs that are no items ask for and what it would cost to move them, each kind once."""
    vmis, inside = picture.snapshot.vmis, frozenset(chosen)
    kinds: dict[tuple[int, int], tuple[int, ...]] = {}
    for key, pod in picture.settled.active_pods.items():
        if key not in inside:
            vmi = vmis[key]
            kind = (id(pod.spec), id(vmi.spec))
            if kind not in kinds:
                cost = migration_cost(vmi, pod, picture.params)
                kinds[kind] = (*_amounts(pod.spec.requests, names, 1), cost)
    return np.array(sorted(set(kinds.values())), dtype=np.int64).reshape(-1, len(names) + 1)


def _resources(params: PolicyParams, requests: list[Resources]) -> tuple[str, ...]:
    """Counted ones first, then whatever else limits how much a node takes."""
    counted = params.thresholds.resources
    basic = (name for name in (CPU, MEMORY, PODS, EPHEMERAL_STORAGE) if name not in counted)
    return (*counted, *basic, *sorted({name for amount in requests for name, _ in amount.scalars}))


def _amounts(amount: Resources, names: tuple[str, ...], pods: int) -> tuple[int, ...]:
    return tuple(pods if name == PODS else amount.get(name) for name in names)


def _table(rows: list[tuple[int, ...]], names: tuple[str, ...]) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(names))


def _capacity(picture: Picture, nodes: tuple[str, ...], names: tuple[str, ...]) -> Ints:
    known = [picture.settled.nodes[name] for name in nodes]
    rows = [_amounts(n.allocatable, names, n.pods) if n.capacity_known else (0,) * len(names) for n in known]
    return _table(rows, names)


def _thresholds(picture: Picture, nodes: tuple[str, ...]) -> tuple[Ints, Ints, Bools, Ints]:
    """low, high, hot and scale [N, C]; all 0 where no load can be told."""
    thresholds, hot_loads = picture.params.thresholds, picture.hot
    low, high, hot, scale = [], [], [], []
    for name in nodes:
        node = picture.settled.nodes[name]
        told = [resource if judged(node, resource) else "" for resource in thresholds.resources]
        low.append([limit(node, r, "low", thresholds) if r else 0 for r in told])
        high.append([limit(node, r, "high", thresholds) if r else 0 for r in told])
        scale.append([node.allocatable.get(r) if r else 0 for r in told])
        hot.append([(name, r) in hot_loads for r in told])
    shape = (len(nodes), len(thresholds.resources))
    numbers = (np.array(rows, dtype=np.int64).reshape(shape) for rows in (low, high, scale))
    lows, highs, scales = numbers
    return lows, highs, np.array(hot, dtype=bool).reshape(shape), scales


def _misplaced(picture: Picture, keys: tuple[str, ...]) -> Ints:
    """How many rules about nodes each VM breaks, of those that are triggers."""
    numbers: dict[str, int] = {}
    for violation in picture.broken:
        if violation.kind in (NODE_AFFINITY, TAINTS):
            numbers[violation.vmi] = numbers.get(violation.vmi, 0) + violation.degree
    return np.array([numbers.get(key, 0) for key in keys], dtype=np.int64)


def _preferences(picture: Picture, keys: tuple[str, ...]) -> tuple[Ints, Ints]:
    """taste[I] and preference[P, N] by preferred node affinity; row 0 is for VMs without any."""
    nodes = tuple(picture.settled.nodes.values())
    rows = [np.zeros(len(nodes), dtype=np.int64)]
    known: dict[object, int] = {(): 0}
    taste = []
    for key in keys:
        vmi = picture.snapshot.vmis[key]
        terms = vmi.spec.affinity.node_preferred
        if terms not in known:
            known[terms] = len(rows)
            rows.append(np.array([preference(vmi, node) for node in nodes], dtype=np.int64))
        taste.append(known[terms])
    return np.array(taste, dtype=np.int64), np.array(rows)
