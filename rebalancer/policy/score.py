"""The objective in plain Python: what a solver's values must equal, stage by stage, to the last integer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rebalancer.domain.node import Node
from rebalancer.domain.plan import Move
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Violation
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, Thresholds, counted, limit, overloaded, permille
from rebalancer.policy.rule_book import RuleBook
from rebalancer.policy.rules import violations

GIB = 2**30

Load = tuple[str, str]
"""A node and one of its counted resources."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Score:
    """Lexicographic, smaller is better: scores compare field by field in this order.

    violations   sum of the degrees of the violations left, of the kinds that are a reason to move (rules.violations)
    over_high    sum over nodes and counted resources of what is requested above `high`, in permille of allocatable,
                 each rounded up; all nodes count, with and without VMs
    over_low     the same above `low`, over those loads only that the plan was to cure
    cost         sum of `migration_cost` over all moves, hops included
    preferred    weight of preferred node affinity lost by the moves: per VM, what its first node met less what its
                 last one meets. Negative where VMs gain. Preferred rules between pods and ScheduleAnyway are left to
                 the scheduler of new pods: they would change with every other move, for a tie-break.
    evenness     sum over nodes and counted resources of the square of the load in whole percent, rounded down
    """

    violations: int = 0
    over_high: int = 0
    over_low: int = 0
    cost: int = 0
    preferred: int = 0
    evenness: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """What the scores of one snapshot's plans have in common. `hot` are the loads that a plan is to cure."""

    snapshot: Snapshot
    params: PolicyParams
    hot: Collection[Load]
    book: RuleBook

    def score(self, state: ClusterState, moves: Iterable[Move], known: Iterable[Violation] | None = None) -> Score:
        """The score of `state`, which the snapshot has come to by these moves, settled; `known` are its violations."""
        moves = tuple(moves)
        if known is None:
            known = violations(state, self.snapshot, self.params.kinds, self.book)
        thresholds = self.params.thresholds
        over_high, over_low = overload(state, thresholds, self.hot)
        return Score(
            violations=sum(violation.degree for violation in known),
            over_high=over_high,
            over_low=over_low,
            cost=sum(move.cost for move in moves),
            preferred=_preference_lost(self.snapshot, moves),
            evenness=evenness(state, thresholds),
        )


def score(
    state: ClusterState,
    snapshot: Snapshot,
    moves: Iterable[Move],
    params: PolicyParams,
    *,
    hot: Collection[Load] | None = None,
) -> Score:
    """`Scale.score` for once; `hot` None means the loads above `high` in the settled snapshot, built for it."""
    if hot is None:
        hot = overloaded(ClusterState.of(snapshot, settled=True), params.thresholds)
    book = RuleBook(state, snapshot, params.kinds)
    return Scale(snapshot=snapshot, params=params, hot=hot, book=book).score(state, moves)


def migration_cost(vmi: VMI, pod: Pod, params: PolicyParams) -> int:
    """A constant per migration, and the memory that it copies in GiB, rounded up: the guest's, or else the pod's."""
    memory = vmi.spec.guest_memory_bytes or pod.spec.requests.memory_bytes
    return params.move_cost + params.gib_cost * -(-memory // GIB)


def overload(state: ClusterState, thresholds: Thresholds, hot: Collection[Load]) -> tuple[int, int]:
    """`over_high` and `over_low` of a score."""
    high = low = 0
    for node, resource, amount in counted(state, thresholds):
        capacity = node.allocatable.get(resource)
        high += permille(max(0, amount - limit(node, resource, "high", thresholds)), capacity)
        if (node.name, resource) in hot:
            low += permille(max(0, amount - limit(node, resource, "low", thresholds)), capacity)
    return high, low


def evenness(state: ClusterState, thresholds: Thresholds) -> int:
    """Smaller is more even: moving load from a fuller node to an emptier one of the same size lowers it."""
    return sum(
        (100 * amount // node.allocatable.get(resource)) ** 2 for node, resource, amount in counted(state, thresholds)
    )


def preference(vmi: VMI, node: Node) -> int:
    """The weight of the preferred node affinity terms that a node meets; more is better (NodeAffinity.Score)."""
    preferred = vmi.spec.affinity.node_preferred
    return sum(weight for weight, term in preferred if term.matches(node.labels, node.name))


def _preference_lost(snapshot: Snapshot, moves: Iterable[Move]) -> int:
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for move in moves:
        first.setdefault(move.vmi, move.source)
        last[move.vmi] = move.target
    return sum(
        preference(snapshot.vmis[key], snapshot.nodes[source])
        - preference(snapshot.vmis[key], snapshot.nodes[last[key]])
        for key, source in first.items()
    )
