"""The scenarios that can be simulated, by name: a cluster, what happens to it, and what the daemon is to make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rebalancer.sim.chance import Dice
from rebalancer.sim.life import LifeParams
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import FailingShare, Mishaps, NodePlaneParams
from rebalancer.sim.shapes import Shape, build, node, running, vmi
from rebalancer.sim.world import read_list

RECORDING = Path(__file__).parent / "kubevirt-12x130.json.gz"
"""Our own recording of a real control plane: 12 workers, 130 VMs, six hot nodes and many broken rules."""

HOUR = 3600.0

MOVES, NONE, ANY = "moves", "none", "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario. `items` makes the cluster from a seed; `seconds` of virtual time at most.

    `migrations`: MOVES where there must be some, NONE where there must be none, ANY where that depends.
    `cures`: at the end nothing may be left that could be cured. `until_calm`: it ends once nothing has moved for
    `calm_seconds`, which must outlast what the daemon may be waiting for; otherwise it lasts its full time.
    `drain_at`: node to the second at which it is drained. `crash_at`: seconds at which the leader is gone.
    """

    name: str
    about: str
    items: Callable[[int], list[Obj]]
    seconds: float
    active: bool = True
    migrations: str = MOVES
    cures: bool = True
    until_calm: bool = True
    calm_seconds: float = 900.0
    life: LifeParams | None = None
    nodes: NodePlaneParams = field(default_factory=NodePlaneParams)
    mishaps: Callable[[int], Mishaps] = lambda _: Mishaps()
    drain_at: dict[str, float] = field(default_factory=dict)
    crash_at: tuple[float, ...] = ()
    replicas: int = 1


def _recorded(_: int) -> list[Obj]:
    return read_list(RECORDING)


def _balanced(seed: int) -> list[Obj]:
    return build(Shape(fill=0.62), seed)


def _small(seed: int) -> list[Obj]:
    return build(Shape(workers=4, control_planes=1, cpu=16, memory_gib=128, fill=0.97, packed=2), seed)


def _nothing_curable(seed: int) -> list[Obj]:
    """A hot node whose VMs cannot move, and one whose VMs fit nowhere else."""
    items = build(Shape(workers=0, control_planes=1, most=0), seed)
    items += [node(f"w-{number}", cpu=16, memory_gib=256, zone=f"z{number}") for number in range(3)]
    for number in range(7):
        stuck = vmi("bank", f"stuck-{number}", vcpus=2, memory_gib=4)
        items += running(stuck, "w-0", migratable=False)
        wide = vmi("shop", f"wide-{number}", vcpus=2, memory_gib=4)
        items += running(wide, "w-1")
    for number in range(3):
        items += running(vmi("ci", f"filler-{number}", vcpus=4, memory_gib=4), "w-2")
    return items


def _failing(seed: int) -> Mishaps:
    return FailingShare(Dice(seed), transfers=0.2, pods=0.1)


ALL = (
    Scenario(
        name="real-12x130",
        about="our recording of a real cluster: six hot nodes, broken rules, a taint, a cordon",
        items=_recorded,
        seconds=4 * HOUR,
    ),
    Scenario(
        name="small",
        about="four workers, two of them hot",
        items=_small,
        seconds=HOUR,
    ),
    Scenario(
        name="dry-run",
        about="the recording again, but the daemon may only say what it would do",
        items=_recorded,
        seconds=HOUR,
        active=False,
        migrations=NONE,
        cures=False,
        until_calm=False,
    ),
    Scenario(
        name="balanced-24h",
        about="a balanced cluster of 12 workers for a day: nothing may move",
        items=_balanced,
        seconds=24 * HOUR,
        migrations=NONE,
        until_calm=False,
    ),
    Scenario(
        name="nothing-curable",
        about="two hot nodes: one's VMs cannot move, the other's fit nowhere",
        items=_nothing_curable,
        seconds=2 * HOUR,
        migrations=NONE,
        cures=False,
        until_calm=False,
    ),
    Scenario(
        name="living",
        about="the recording with life in it: VMs start and stop, nodes are cordoned, people migrate VMs",
        items=_recorded,
        seconds=6 * HOUR,
        life=LifeParams(start=400, stop=400, cordon=5400, migrate=1800),
        cures=False,
        until_calm=False,
    ),
    Scenario(
        name="failing",
        about="the recording where every fifth transfer and every tenth target pod fails",
        items=_recorded,
        seconds=12 * HOUR,
        calm_seconds=2 * HOUR,
        mishaps=_failing,
        cures=False,  # a VM that has failed four times rests for a day
    ),
    Scenario(
        name="drain",
        about="the recording, and a node is drained while the first waves run",
        items=_recorded,
        seconds=6 * HOUR,
        drain_at={"w-02": 45.0},
    ),
    Scenario(
        name="crashes",
        about="the recording, and the daemon dies in the middle of waves",
        items=_recorded,
        seconds=4 * HOUR,
        crash_at=(22.0, 41.5, 63.0, 120.0),
    ),
    Scenario(
        name="two-replicas",
        about="two daemons, and the leader is cut off in mid-wave",
        items=_recorded,
        seconds=4 * HOUR,
        crash_at=(45.0,),
        replicas=2,
    ),
)

BY_NAME = {scenario.name: scenario for scenario in ALL}
