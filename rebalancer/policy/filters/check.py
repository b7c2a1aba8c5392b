"""What a filter is made of: a question about one pod, prepared once and then asked node by node."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.verdict import Rejection

Positions = NDArray[np.intp]
"""Nodes by their positions in the state's NodeTable, ascending."""


class Check(Protocol):
    """One plugin's Filter for one pod (its PreFilter has run). Both methods agree: `narrow` is `reject` in bulk."""

    def reject(self, position: int) -> Rejection | None:
        """Why the node at this position cannot take the pod, None where it can."""
        ...

    def narrow(self, positions: Positions) -> Positions:
        """Those of the given nodes that can take the pod, in their order."""
        ...


Prepared = Check | Rejection | None
"""What PreFilter comes to: a check to ask each node, a rejection by all nodes, or nothing to ask (Skip)."""


class OneByOne:
    """`narrow` for filters that so few pods need that asking every node in turn will do."""

    def reject(self, position: int) -> Rejection | None:
        raise NotImplementedError

    def narrow(self, positions: Positions) -> Positions:
        return np.array([p for p in positions.tolist() if self.reject(p) is None], dtype=np.intp)
