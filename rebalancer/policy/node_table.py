"""What never changes about the nodes of a state: their order, their labels by key, and verdicts on them alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.node import Node, Taint
from rebalancer.domain.selectors import NodeSelector, NodeSelectorTerm, Requirement

T = TypeVar("T")

MAX_REMEMBERED: Final = 4096
"""Answers about all nodes that are kept; each costs eight bytes per node, so 4,096 of them at 5,000 nodes 160 MB."""

Mask = NDArray[np.bool_]
"""One answer per node, by position."""

Values = tuple[str | None, ...]
"""One label's value per node, by position; None for a node that does not count."""


class NodeTable:
    """Nodes by position. Shared by all copies of a state, and so are the answers that it remembers."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = tuple(nodes.values())
        self.names = tuple(nodes)
        self.positions = {name: position for position, name in enumerate(self.names)}
        self._remembered: dict[Hashable, object] = {}
        self._passing: dict[Hashable, object] = {}

    def seeing(self, nodes: tuple[Node, ...]) -> NodeTable:
        """The same nodes, in another condition or with other annotations, with the answers that these leave true."""
        twin = object.__new__(NodeTable)
        twin.nodes, twin.names, twin.positions = nodes, self.names, self.positions
        twin._remembered = dict(self._remembered)
        twin._passing = dict(self._passing) if nodes is self.nodes else {}
        return twin

    def values(self, key: str) -> Values:
        """The value of a label per node; None where a node does not carry it."""
        return self.remember(("label", key), lambda: tuple(node.labels.get(key) for node in self.nodes))

    def remember(self, question: Hashable, answer: Callable[[], T], *, passing: bool = False) -> T:
        """The answer to a question about nodes alone, worked out once.

        The question must hold all that the answer depends on, besides the nodes. `passing`: it depends on their
        conditions or annotations, too.
        """
        known = self._passing if passing else self._remembered
        if question not in known:
            if len(known) >= MAX_REMEMBERED:
                known.clear()
            known[question] = answer()
        return cast(T, known[question])

    def in_domains(self, key: str, values: Collection[str] | None) -> Mask:
        """Whether each node's label has one of these values; with None, whether it has the label at all."""
        codes, numbers = self._codes(key)
        if values is None:
            return codes >= 0
        chosen = np.zeros(len(numbers) + 1, dtype=np.bool_)
        chosen[[numbers[value] for value in values if value in numbers]] = True
        return chosen[codes]

    def labelled(self, labels: Mapping[str, str]) -> Mask:
        """Whether each node has all of these labels."""
        found = np.ones(len(self.nodes), dtype=np.bool_)
        for key, value in labels.items():
            found &= self.in_domains(key, (value,))
        return found

    def selected(self, selector: NodeSelector) -> Mask:
        """Whether each node satisfies a selector: `selector.matches` in bulk."""
        found = np.zeros(len(self.nodes), dtype=np.bool_)
        for term in selector.terms:
            if not term.match_expressions and not term.match_fields:
                continue
            here = np.ones(len(self.nodes), dtype=np.bool_)
            for requirement in term.match_expressions:
                here &= self._satisfying(requirement)
            if term.match_fields:
                fields = NodeSelectorTerm(match_fields=term.match_fields)
                here[[p for p in np.flatnonzero(here).tolist() if not fields.matches({}, self.names[p])]] = False
            found |= here
        return found

    def by_taints(self, passes: Callable[[tuple[Taint, ...]], bool]) -> Mask:
        """Whether each node's taints pass, asked once for each combination of taints that occurs."""
        codes, combinations = self.remember(("taints",), self._taints)
        return np.array([passes(taints) for taints in combinations], dtype=np.bool_)[codes]

    def _satisfying(self, requirement: Requirement) -> Mask:
        """Every value of the label is asked about once, and so is its absence."""
        key, operator = requirement.key, requirement.operator
        if not requirement.problem and operator in ("In", "NotIn"):
            found = self.in_domains(key, requirement.values)
            return found if operator == "In" else ~found
        codes, numbers = self._codes(key)
        answers = [requirement.matches({key: value}) for value in numbers]
        return np.array([*answers, requirement.matches({})], dtype=np.bool_)[codes]

    def _codes(self, key: str) -> tuple[NDArray[np.int32], dict[str, int]]:
        return self.remember(("codes", key), lambda: _codes(self.values(key)))

    def _taints(self) -> tuple[NDArray[np.int32], tuple[tuple[Taint, ...], ...]]:
        numbers: dict[tuple[Taint, ...], int] = {}
        codes = [numbers.setdefault(node.taints, len(numbers)) for node in self.nodes]
        return np.array(codes, dtype=np.int32), tuple(numbers)


def _codes(values: Values) -> tuple[NDArray[np.int32], dict[str, int]]:
    """A number for each node's value, -1 for none, and the number of each value."""
    numbers: dict[str, int] = {}
    for value in values:
        if value is not None:
            numbers.setdefault(value, len(numbers))
    codes = np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int32)
    return codes, numbers
