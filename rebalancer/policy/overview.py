"""What is known about a snapshot, and how to know as much about the next one from it without starting again.

overview = Overview.of(snapshot, params)
overview = overview.advance(later)      # equal to Overview.of(later, params), at the cost of what has changed
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import NodeLoad, State
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, Hotspot, Violation
from rebalancer.policy.changes import Changes
from rebalancer.policy.cluster_state import ClusterState, Step
from rebalancer.policy.conflicts import Conflict
from rebalancer.policy.conflicts import find as find_conflicts
from rebalancer.policy.load import PolicyParams, hotspot, node_load, node_loads, overloaded, overloads
from rebalancer.policy.rule_book import RuleBook
from rebalancer.policy.rules import in_order, is_judged, vm_violations

WORTH: Final = 0.2
"""The share of all objects that may change before a new start is quicker."""
LASTING: Final = 1_000
"""Changes after which a small overview is made anew; a large one after as many as it has objects."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Overview:
    """The settled state of a snapshot with its rules, how full its nodes are, and which rules are broken.

    `state` and `book` are for everyone to read; who wants to change the state takes a copy. `loads` are all nodes',
    `over` those loads that are above `high`. `breaches` are the violations of each rule that has any, by its number,
    `misplaced` those of rules between a VM and its node, by the VM; of all kinds, and of VMs that are not judged, too.
    `changes` are those since the overview that this one was made of, None for the first one; `age` is how many there
    were since one was made from nothing: what is given up on the way is kept until then. `known_conflicts` are the
    conflicts between rules where they are known already.
    """

    snapshot: Snapshot
    params: PolicyParams
    state: ClusterState
    book: RuleBook
    loads: FrozenMap[str, NodeLoad]
    over: frozenset[tuple[str, str]]
    breaches: Mapping[int, tuple[Violation, ...]]
    misplaced: Mapping[str, tuple[Violation, ...]]
    changes: Changes | None = None
    age: int = 0
    known_conflicts: tuple[Conflict, ...] | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, params: PolicyParams, state: ClusterState | None = None) -> Overview:
        """From nothing. `state` is the snapshot's settled one, where somebody has it already."""
        state = state or ClusterState.of(snapshot, settled=True)
        book = RuleBook(state, snapshot, KINDS)
        return cls(
            snapshot=snapshot,
            params=params,
            state=state,
            book=book,
            loads=node_loads(state, params.thresholds),
            over=overloaded(state, params.thresholds),
            breaches={r.number: found for r in book.rules if (found := tuple(r.breaches(state)))},
            misplaced=vm_violations(state, snapshot, state.active_pods),
        )

    def advance(self, snapshot: Snapshot) -> Overview:
        """The overview of another snapshot, made of this one where that is quicker. This one stays as it is."""
        if snapshot is self.snapshot:
            return self
        changes = Changes.between(self.snapshot, snapshot)
        age = self.age + len(changes)
        objects = len(snapshot.pods) + len(snapshot.vmis)
        if age > max(LASTING, objects) or len(changes) > max(LASTING, WORTH * objects):
            return self._again(snapshot, changes)
        step = self.state.advance(self.snapshot, snapshot, changes)
        if step is None:
            return self._again(snapshot, changes)
        book, touched = self.book.advance(self.snapshot, snapshot, step)
        breaches = {number: found for number, found in self.breaches.items() if number not in touched}
        for number in touched:
            rule = book.rule(number)
            if rule is not None and (found := tuple(rule.breaches(step.state))):
                breaches[number] = found
        misplaced = {key: found for key, found in self.misplaced.items() if key not in step.vms}
        loads, over = self._loads(step, changes)
        return replace(
            self,
            snapshot=snapshot,
            state=step.state,
            book=book,
            loads=loads,
            over=over,
            breaches=breaches,
            misplaced=misplaced | vm_violations(step.state, snapshot, step.vms),
            changes=changes,
            age=age,
            known_conflicts=None if touched or _other_vms(step, changes) else self._conflicts_so_far(),
        )

    def _again(self, snapshot: Snapshot, changes: Changes) -> Overview:
        return replace(Overview.of(snapshot, self.params), changes=changes)

    @cached_property
    def real(self) -> ClusterState:
        """The state in which migrations in flight hold room on both sides."""
        return self.state.unsettled(self.snapshot)

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """`conflicts.find`: worked out when somebody asks, and again only when rules or those under them change."""
        known = self.known_conflicts
        return find_conflicts(self.state, self.snapshot, self.book) if known is None else known

    def _conflicts_so_far(self) -> tuple[Conflict, ...] | None:
        found: tuple[Conflict, ...] | None = vars(self).get("conflicts", self.known_conflicts)
        return found

    @cached_property
    def violations(self) -> tuple[Violation, ...]:
        """`rules.violations` of the kinds that count."""
        found = [one for ones in (*self.breaches.values(), *self.misplaced.values()) for one in ones]
        return in_order(found, self.snapshot, self.params.kinds)

    def violations_after(self, state: ClusterState, moved: Collection[str]) -> tuple[Violation, ...]:
        """`rules.violations` of a state to which this one has come by moves of these VMs alone, settled."""
        touched: set[int] = set()
        for key in moved:
            pods = (self.state.active_pods[key], state.active_pods[key])
            touched.update(rule.number for rule in self.book.touching(key, pods, state))
        kept = [ones for number, ones in self.breaches.items() if number not in touched]
        kept += [ones for key, ones in self.misplaced.items() if key not in moved]
        again = (rule for number in sorted(touched) if (rule := self.book.rule(number)) is not None)
        kept += [tuple(rule.breaches(state)) for rule in again]
        kept += vm_violations(state, self.snapshot, moved).values()
        return in_order((one for ones in kept for one in ones), self.snapshot, self.params.kinds)

    @cached_property
    def hotspots(self) -> tuple[Hotspot, ...]:
        """`load.hotspots`."""
        spots = (load for load in sorted(self.over) if self.hosts(load[0]))
        return tuple(hotspot(self.state, *spot, self.params.thresholds) for spot in spots)

    def hosts(self, node: str) -> bool:
        """Whether VMs run on a node."""
        return node in self.loads and self.loads[node].vmis > 0

    def told(self) -> State:
        """`load.state_of`."""
        return State(nodes=self.loads, hotspots=self.hotspots, violations=self.violations)

    def _loads(self, step: Step, changes: Changes) -> tuple[FrozenMap[str, NodeLoad], frozenset[tuple[str, str]]]:
        """`loads` and `over` after a step."""
        arrived: dict[str, int] = dict.fromkeys(_nodes(step, changes), 0)
        for before, after in step.vms.values():
            for pod, sign in ((before, -1), (after, 1)):
                if pod is not None:
                    arrived[pod.node] = arrived.get(pod.node, 0) + sign
        state, thresholds = step.state, self.params.thresholds
        loads = {
            name: node_load(state, state.nodes[name], thresholds, self.loads[name].vmis + more)
            for name, more in arrived.items()
        }
        over = {load for load in self.over if load[0] not in arrived}
        over.update(load for name in arrived for load in overloads(state, state.nodes[name], thresholds))
        return FrozenMap({**self.loads, **loads}) if loads else self.loads, frozenset(over)


def _other_vms(step: Step, changes: Changes) -> bool:
    """Whether there are other VMs than before, or any that ask for something else."""
    for before, after in step.vms.values():
        if before is None or after is None or before.spec.requests != after.spec.requests:
            return True
    vmis = (pair for pair in changes.vmis.values())
    return any(
        old is None or new is None or old.spec != new.spec or is_judged(old) != is_judged(new) for old, new in vmis
    )


def _nodes(step: Step, changes: Changes) -> Iterable[str]:
    return (*changes.nodes, *(pod.node for pod in step.left), *(pod.node for pod in step.came))
