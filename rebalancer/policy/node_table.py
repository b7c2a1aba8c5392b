"""What never changes about the nodes of a state: their order, their labels by key, and verdicts on them alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.node import Node

T = TypeVar("T")

MAX_REMEMBERED: Final = 4096
"""Answers about all nodes that are kept; each costs eight bytes per node, so 4,096 of them at 5,000 nodes 160 MB."""

Values = tuple[str | None, ...]
"""One label's value per node, by position; None for a node that does not count."""


class NodeTable:
    """Nodes by position. Shared by all copies of a state, and so are the answers that it remembers."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = tuple(nodes.values())
        self.names = tuple(nodes)
        self.positions = {name: position for position, name in enumerate(self.names)}
        self._remembered: dict[Hashable, object] = {}

    def values(self, key: str) -> Values:
        """The value of a label per node; None where a node does not carry it."""
        return self.remember(("label", key), lambda: tuple(node.labels.get(key) for node in self.nodes))

    def remember(self, question: Hashable, answer: Callable[[], T]) -> T:
        """The answer to a question about nodes alone, worked out once.

        The question must hold all that the answer depends on, besides the nodes.
        """
        if question not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[question] = answer()
        return cast(T, self._remembered[question])

    def in_domains(self, key: str, values: Collection[str] | None) -> NDArray[np.bool_]:
        """Whether each node's label has one of these values; with None, whether it has the label at all."""
        codes, numbers = self.remember(("codes", key), lambda: _codes(self.values(key)))
        if values is None:
            return codes >= 0
        chosen = np.zeros(len(numbers) + 1, dtype=np.bool_)
        chosen[[numbers[value] for value in values if value in numbers]] = True
        return chosen[codes]


def _codes(values: Values) -> tuple[NDArray[np.int32], dict[str, int]]:
    """A number for each node's value, -1 for none, and the number of each value."""
    numbers: dict[str, int] = {}
    for value in values:
        if value is not None:
            numbers.setdefault(value, len(numbers))
    codes = np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int32)
    return codes, numbers
