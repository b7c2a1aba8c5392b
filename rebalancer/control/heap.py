"""The garbage collector in a process that holds a large cluster: a million objects, nearly all of them alive for long.

Left to itself, the collector walks over all of them again and again, and finds nothing: what is replaced is freed by
its count of references. Each walk holds up every thread, the event loop's too, for a quarter of a second and more. Here
it walks over what is young as ever; what has lived for longer it sees once, between two cycles, and never again.
"""

from __future__ import annotations

import gc
from types import TracebackType

YOUNG = (5_000, 10)
"""Objects that are made before the youngest are looked at, and looks at them before one at all that are young: at most
50,000 objects, which takes 5 ms."""
NEVER = 2**31 - 1
DUE = 5
"""Looks at all that are young before what they have left over is looked at, too: 250,000 objects, 25 ms."""


class Heap:
    """Entered for as long as the daemon runs; `tidy` is called when nothing is being worked out. Outside it does
    nothing."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._begun = False

    def __enter__(self) -> Heap:
        self._before = gc.get_threshold()
        gc.set_threshold(*YOUNG, NEVER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
        self._before, self._begun = None, False

    def tidy(self, *, settled: bool) -> None:
        """Frees circles that nobody refers to, where there may be some; what is left over counts as lasting.

        `settled`: the cluster has been listed and looked at. Before that, all that grows is what is going to stay.
        """
        if self._before is None or not settled:
            return
        if not self._begun:
            self._begun = True
            gc.freeze()
        elif gc.get_count()[2] >= DUE:
            gc.collect()
            gc.freeze()
