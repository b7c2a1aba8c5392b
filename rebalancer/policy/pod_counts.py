"""How many placed pods of a group stand in each topology domain, kept up to date from pod to pod."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rebalancer.domain.cluster import Namespace
from rebalancer.domain.frozen import EMPTY, Labels
from rebalancer.domain.pod import Pod, PodAffinityTerm
from rebalancer.domain.selectors import LabelSelector
from rebalancer.policy.node_table import NodeTable, Values

K = TypeVar("K", bound=Hashable)

FEW_PODS: Final = 8
"""Groups of at most so many candidates are counted when asked for: most rules concern a handful of pods, and the
rule that keeps a migration's target off its source's node concerns one pod per VM."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The namespaces of a rule. `unknown` also takes in namespaces that no Namespace object is known for."""

    names: frozenset[str]
    everything: bool = False
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The pods that one term selects: of these namespaces, with these labels."""

    scope: Scope
    selector: LabelSelector


@dataclass(frozen=True, slots=True)
class Group:
    """Pods that match every selection; `staying` leaves out pods that are terminating (as PodTopologySpread does)."""

    selections: tuple[Selection, ...]
    staying: bool = False


class Tally:
    """The pods of one group per node, and summed up by each topology that was asked for."""

    __slots__ = ("by_node", "by_topology", "group", "owner")

    def __init__(self, owner: object, group: Group) -> None:
        self.owner = owner
        self.group = group
        self.by_node: dict[int, int] = {}
        self.by_topology: dict[Hashable, tuple[Values, dict[str, int]]] = {}

    def count(self, position: int, pods: int) -> None:
        """Add `pods` (negative: take away) at a node."""
        _bump(self.by_node, position, pods)
        for values, sums in self.by_topology.values():
            value = values[position]
            if value is not None:
                _bump(sums, value, pods)

    def sums(self, topology: Hashable, values: Values) -> Mapping[str, int]:
        """Pods by topology value, without zeros. `topology` names the values."""
        found = self.by_topology.get(topology)
        if found is None:
            sums: dict[str, int] = {}
            for position, pods in self.by_node.items():
                value = values[position]
                if value is not None:
                    _bump(sums, value, pods)
            found = self.by_topology[topology] = (values, sums)
        return found[1]

    def copy(self, owner: object) -> Tally:
        twin = Tally(owner, self.group)
        twin.by_node = dict(self.by_node)
        twin.by_topology = {key: (values, dict(sums)) for key, (values, sums) in self.by_topology.items()}
        return twin


@dataclass(frozen=True, slots=True)
class ExistingTerm:
    """A required anti-affinity term of placed pods: whom it keeps away, and from which domains of theirs."""

    selection: Selection
    topology_key: str


class PodCounts:
    """Counts for rules between pods. Nothing is counted before it is asked for.

    Anti-affinity of placed pods and groups that are counted are found through one label that their selectors require,
    so a pod meets only the rules that could select it. `copy` shares what neither side changes.
    """

    def __init__(self, table: NodeTable, namespaces: Mapping[str, Namespace], pods: Mapping[str, Mapping[str, Pod]]):
        self._table = table
        self._namespaces = namespaces
        self._pods = pods
        self._token: object = object()
        self._tallies: dict[Group, Tally] = {}
        self._groups: Directory[Group] = Directory()
        self._terms: dict[ExistingTerm, Tally] | None = None
        self._term_directory: Directory[ExistingTerm] = Directory()
        self._by_label: dict[str, dict[str, tuple[Pod, ...]]] = {}
        self._own_labels: set[str] = set()

    def copy(self, pods: Mapping[str, Mapping[str, Pod]], table: NodeTable) -> PodCounts:
        """Counts that are equal to these and follow `pods` from here on.

        `table`: the same nodes. Where it is another one, these counts never hear of what the copy will count.
        """
        twin = PodCounts(table, self._namespaces, pods)
        self._token = object()  # what was ours is shared from now on
        self._own_labels = set()
        twin._tallies = dict(self._tallies)
        alone = table is not self._table
        twin._groups = self._groups.copy() if alone else self._groups
        twin._terms = None if self._terms is None else dict(self._terms)
        twin._term_directory = self._term_directory.copy() if alone else self._term_directory
        twin._by_label = dict(self._by_label)
        return twin

    def add(self, pod: Pod) -> None:
        self._change(pod, 1)
        for key in self._by_label:
            if key in pod.labels:
                members = self._label_members(key)
                members[pod.labels[key]] = (*members.get(pod.labels[key], ()), pod)

    def remove(self, pod: Pod) -> None:
        self._change(pod, -1)
        for key in self._by_label:
            if key in pod.labels:
                members = self._label_members(key)
                others = tuple(o for o in members[pod.labels[key]] if o.uid != pod.uid)
                if others:
                    members[pod.labels[key]] = others
                else:
                    del members[pod.labels[key]]

    def sums(self, group: Group, topology: Hashable, values: Values) -> Mapping[str, int]:
        """Pods of a group by topology value, without zeros; pods on nodes without a value are left out."""
        return self._tally(group).sums(topology, values)

    def keeping_away(self, pod: Pod) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Topology key, and placed pods by its values, of each required anti-affinity term that keeps `pod` away."""
        terms = self._known_terms()
        for term in self._term_directory.candidates(pod.labels):
            tally = terms.get(term)
            if tally is not None and tally.by_node and self.selects(term.selection, pod):
                yield term.topology_key, tally.sums(term.topology_key, self._table.values(term.topology_key))

    def prepare(self) -> None:
        """Work out now what copies would else work out each for itself: the anti-affinity of placed pods."""
        self._known_terms()

    def _known_terms(self) -> dict[ExistingTerm, Tally]:
        if self._terms is None:
            self._terms = {}
            for placed in self._every():
                self._count_terms(self._terms, placed, 1)
        return self._terms

    def selects(self, selection: Selection, pod: Pod) -> bool:
        """Whether one selection takes in a pod."""
        scope = selection.scope
        inside = (
            scope.everything
            or pod.namespace in scope.names
            or (scope.unknown and pod.namespace not in self._namespaces)
        )
        return inside and selection.selector.matches(pod.labels)

    def members(self, group: Group) -> tuple[Pod, ...]:
        """The placed pods of a group, in no order that means anything."""
        candidates: Iterable[Pod] | None = self._candidates(group)
        if candidates is None:
            on = (self._pods[self._table.names[position]] for position in self._tally(group).by_node)
            candidates = (pod for pods in on for pod in pods.values())
        return tuple(pod for pod in candidates if self.takes_in(group, pod))

    def takes_in(self, group: Group, pod: Pod) -> bool:
        """Whether a group takes in a pod; a group without selections takes in none."""
        if group.staying and pod.deleting:
            return False
        for selection in group.selections:  # asked very often: a generator would take most of the time
            if not self.selects(selection, pod):
                return False
        return bool(group.selections)

    def incoming(self, term: PodAffinityTerm, namespace: str) -> Selection | None:
        """What a term of a pod that is to be placed selects; None where it selects nothing.

        kube-scheduler 1.36 resolves the namespace selector against the namespaces it knows, but then forgets to
        drop the selector, which it goes on to ask about no labels at all: a selector that holds for no labels
        (NotIn, DoesNotExist, empty) takes in every namespace (interpodaffinity: mergeAffinityTermNamespacesIfNotEmpty).
        """
        if term.selector is None:
            return None
        scope = self._scope(term, namespace)
        if scope.unknown:
            scope = Scope(scope.names, everything=True)
        return Selection(scope, term.selector)

    def keeps_away(self, placed: Pod, pod: Pod) -> Iterator[str]:
        """The topology keys by which a placed pod's own anti-affinity keeps `pod` away."""
        for term in placed.spec.affinity.anti_required:
            if term.selector is None:
                continue
            if self.selects(Selection(self._scope(term, placed.namespace), term.selector), pod):
                yield term.topology_key

    def _scope(self, term: PodAffinityTerm, namespace: str) -> Scope:
        chosen = term.namespace_selector
        if chosen is None:
            return Scope(frozenset(term.namespaces or (namespace,)))
        matching = (name for name, known in self._namespaces.items() if chosen.matches(known.labels))
        return Scope(frozenset((*term.namespaces, *matching)), unknown=chosen.matches(EMPTY))

    def _tally(self, group: Group) -> Tally:
        known = self._tallies.get(group)
        if known is not None:
            return known
        tally = Tally(self._token, group)
        candidates = self._candidates(group)
        if candidates is None or len(candidates) > FEW_PODS:
            self._tallies[group] = tally
            self._groups.add(group.selections[0].selector, group)
        for pod in self._every() if candidates is None else candidates:
            if self.takes_in(group, pod):
                tally.count(self._table.positions[pod.node], 1)
        return tally

    def _candidates(self, group: Group) -> tuple[Pod, ...] | None:
        """The pods that could be of a group, found by a label that it requires; None where it requires none."""
        if not group.selections:
            return ()
        required = group.selections[0].selector.required
        if required is None:
            return None
        key, values = required
        if key not in self._by_label:
            self._own_labels.add(key)
            members: dict[str, list[Pod]] = {}
            for pod in self._every():
                if key in pod.labels:
                    members.setdefault(pod.labels[key], []).append(pod)
            self._by_label[key] = {value: tuple(pods) for value, pods in members.items()}
        return tuple(pod for value in values for pod in self._by_label[key].get(value, ()))

    def _change(self, pod: Pod, sign: int) -> None:
        position = self._table.positions[pod.node]
        for group in self._groups.candidates(pod.labels):
            tally = self._tallies.get(group)
            if tally is not None and self.takes_in(group, pod):
                if tally.owner is not self._token:
                    tally = self._tallies[group] = tally.copy(self._token)
                tally.count(position, sign)
        if self._terms is not None:
            self._count_terms(self._terms, pod, sign)

    def _count_terms(self, terms: dict[ExistingTerm, Tally], pod: Pod, sign: int) -> None:
        for required in pod.spec.affinity.anti_required:
            if required.selector is None:
                continue
            selection = Selection(self._scope(required, pod.namespace), required.selector)
            term = ExistingTerm(selection, required.topology_key)
            tally = terms.get(term)
            if tally is None:
                tally = terms[term] = Tally(self._token, Group((selection,)))
                self._term_directory.add(required.selector, term)
            elif tally.owner is not self._token:
                tally = terms[term] = tally.copy(self._token)
            tally.count(self._table.positions[pod.node], sign)

    def _label_members(self, key: str) -> dict[str, tuple[Pod, ...]]:
        if key not in self._own_labels:
            self._by_label[key] = dict(self._by_label[key])
            self._own_labels.add(key)
        return self._by_label[key]

    def _every(self) -> Iterable[Pod]:
        return (pod for pods in self._pods.values() for pod in pods.values())


class Directory(Generic[K]):
    """Finds the items whose selectors could match given labels, by one label that each selector requires.

    Counts that are copies of each other share theirs, which then only grows: an item that one side no longer counts is
    passed over by the asker.
    """

    def __init__(self) -> None:
        self._by_label: dict[tuple[str, str], dict[K, None]] = {}
        self._anywhere: dict[K, None] = {}
        self._own: set[tuple[str, str]] = set()

    def copy(self) -> Directory[K]:
        """An independent directory that finds the same."""
        twin: Directory[K] = Directory()
        self._own.clear()
        twin._by_label, twin._anywhere = dict(self._by_label), dict(self._anywhere)
        return twin

    def add(self, selector: LabelSelector, item: K) -> None:
        for label in _labels_of(selector):
            self._bucket(label)[item] = None

    def discard(self, selector: LabelSelector, item: K) -> None:
        """Takes an item away that was added with this selector."""
        for label in _labels_of(selector):
            bucket = self._bucket(label)
            bucket.pop(item, None)
            if not bucket and label is not None:
                del self._by_label[label]

    def candidates(self, labels: Labels) -> list[K]:
        found = list(self._anywhere)
        if self._by_label:
            for label in labels.items():
                found += self._by_label.get(label, ())
        return found

    def _bucket(self, label: tuple[str, str] | None) -> dict[K, None]:
        if label is None:
            return self._anywhere
        if label not in self._own:
            self._by_label[label] = dict(self._by_label.get(label, {}))
            self._own.add(label)
        return self._by_label.setdefault(label, {})


def _labels_of(selector: LabelSelector) -> list[tuple[str, str] | None]:
    """The labels by one of which everything is found that a selector could match; None for anything."""
    required = selector.required
    return [None] if required is None else [(required[0], value) for value in required[1]]


def _bump(counts: dict[K, int], key: K, by: int) -> None:
    """Add to a counter and drop it at zero."""
    pods = counts.get(key, 0) + by
    if pods:
        counts[key] = pods
    else:
        counts.pop(key, None)
