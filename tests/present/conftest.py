"""One small plan by hand, with one of everything, and golden files.

UPDATE_GOLDEN=1 writes the golden files anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Bound, Left, Move, NodeLoad, Plan, Solver, Stage, State, Wave
from rebalancer.domain.verdict import NODE_AFFINITY, POD_ANTI_AFFINITY, Hotspot, Trigger, Violation

GIB = 2**30
NOW = 1_795_000_000.0


def load(cpu: float, memory: float, vmis: int) -> NodeLoad:
    return NodeLoad(cpu=cpu, memory=memory, cpu_high=80.0, memory_high=90.0, vmis=vmis)


HOT = Hotspot(node="w-00", resource="cpu", percent=93.75, high=80.0, low=75.0)
APART = Violation(
    kind=POD_ANTI_AFFINITY,
    rule="not with app=db on one kubernetes.io/hostname",
    vmi="bank/db-1",
    node="w-00",
    witnesses=("bank/db-0",),
    message="bank/db-1 shares w-00 with bank/db-0",
)
MISPLACED = Violation(
    kind=NODE_AFFINITY,
    rule="node selector tier=gold",
    vmi="shop/cart",
    node="w-01",
    message="shop/cart needs tier=gold, w-01 has none",
)
BUSY, SPREAD, GOLD = Trigger(hotspot=HOT), Trigger(violation=APART), Trigger(violation=MISPLACED)


@pytest.fixture
def plan() -> Plan:
    """Two waves cure a hotspot and a broken rule; one rule cannot be kept, and one object could not be read."""
    first = Move(
        vmi="bank/db-1",
        uid="uid-1",
        source="w-00",
        target="w-01",
        cost=1004,
        reasons=("bank/db-1 shares w-00 with bank/db-0", "w-00 is above 80.0 % of CPU"),
        memory_bytes=4 * GIB,
        seconds=41.0,
        hop=True,
    )
    second = Move(
        vmi="bank/db-1", uid="uid-1", source="w-01", target="w-02", cost=1004, reasons=("w-01 was a stop",), seconds=41
    )
    third = Move(
        vmi="web/front", uid="uid-2", source="w-00", target="w-02", cost=1002, reasons=("makes room",), memory_bytes=GIB
    )
    return Plan(
        id="3f9a2c71",
        created=NOW,
        resource_version="4711",
        triggers=(BUSY, SPREAD, GOLD),
        waves=(Wave(moves=(first,)), Wave(moves=(second, third))),
        before=State(
            nodes=FrozenMap({"w-00": load(93.75, 61.2, 9), "w-01": load(40, 30, 4), "w-02": load(12.5, 20, 1)}),
            hotspots=(HOT,),
            violations=(APART, MISPLACED),
        ),
        after=State(
            nodes=FrozenMap({"w-00": load(68.75, 45, 7), "w-01": load(40, 30, 4), "w-02": load(37.5, 36.2, 3)}),
            violations=(MISPLACED,),
        ),
        left=(
            Left(trigger=GOLD, why=("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",)),
        ),
        bound=Bound(moves=2, cost=2006, gap=0.3335, proven=False),
        solver=Solver(
            status="FEASIBLE", seconds=0.5, stages=(Stage(name="violations", value=1, bound=1, seconds=0.25),)
        ),
        settings=FrozenMap({"cpu.high": "80.0"}),
        warnings=("Pod bank/odd is set aside: memory is not a quantity",),
    )


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares text with a file under golden/."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
