"""Which receiver an item is given, and which items choose first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Bools, Ints
from rebalancer.placement.index import Index

Fit = Literal["best", "worst"]
"""The fullest receiver that takes an item, or the emptiest: the first packs better, the second evens out the load."""


def sizes(index: Index) -> Ints:
    """size[I] in millionths of a mean node, by the counted resource of which an item takes the larger share."""
    problem = index.problem
    mean = np.maximum(problem.capacity.mean(axis=0), 1)
    counted = problem.counted
    share: Ints = (problem.demand[:, :counted] / mean[:counted] * 1e6).max(axis=1, initial=0).astype(np.int64)
    return share


def choose(state: Assignment, item: int, mask: Bools, fit: Fit) -> int:
    """The receiver among the masked nodes: most preferred, then fullest or emptiest after the move."""
    problem = state.problem
    nodes = np.flatnonzero(mask)
    liking = problem.preference[problem.taste[item], nodes]
    nodes = nodes[liking == liking.max()]
    counted = problem.counted
    after = state.load[nodes, :counted] + problem.demand[item, :counted]
    fill = (after / np.maximum(problem.scale[nodes], 1)).max(axis=1)
    return int(nodes[int(fill.argmax() if fit == "best" else fill.argmin())])
