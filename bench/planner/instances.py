"""What the planner is measured on: recordings, other people's instances, and seeded clusters, from small to large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.planner import btrplace, bytedance, circles, synthetic
from bench.planner.synthetic import Shape
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.policy.load import PolicyParams, Thresholds

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
DUMP = ROOT / "tests" / "data" / "kubevirt-12x130.json.gz"

DEFAULTS = PolicyParams(hold_seconds=0)
"""80 % down to 75 %."""


def at(percent: float) -> PolicyParams:
    """One threshold, without hysteresis, as peers and older measurements have it."""
    return PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=percent, cpu_low=percent))


SIZES = ((100, "100x2,000", 2), (1_000, "1,000x20,000", 1), (5_000, "5,000x100,000", 1))
"""Synthetic clusters: nodes, name, seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A cluster by name, and when a node of it is too full."""

    name: str
    read: Callable[[], Snapshot]
    policy: PolicyParams = DEFAULTS


def instances() -> Iterator[Instance]:
    """All, in the table's order; `missing` are left out."""
    yield Instance(name="recorded 12x130", read=partial(read_dump, DUMP))
    small = Shape(nodes=12, mean=0.67, spread=0.086, crowded=0.2, broken=0.2, cpu=48, memory=160)
    yield Instance(name="loose 12x130", read=partial(synthetic.cluster, small, 4), policy=at(80))
    small = replace(small, mean=0.74, spread=0.015, crowded=0.25)
    yield Instance(name="tight 12x130", read=partial(synthetic.cluster, small, 4), policy=at(80))
    small = replace(small, mean=0.78)
    yield Instance(name="overfull 12x130", read=partial(synthetic.cluster, small, 4), policy=at(80))
    for nodes, size, seed in SIZES:
        yield Instance(name=f"loose {size}", read=partial(synthetic.cluster, Shape.loose(nodes), seed), policy=at(80))
        yield Instance(name=f"tight {size}", read=partial(synthetic.cluster, Shape.tight(nodes), seed), policy=at(80))
    yield from _circles()
    yield from _others()


def _circles() -> Iterator[Instance]:
    yield Instance(name="swaps: 1 pair", read=partial(circles.swaps, 1, 1))
    yield Instance(name="swaps: 10 pairs", read=partial(circles.swaps, 10, 1))
    yield Instance(name="ring of 3", read=partial(circles.rings, [3], 1))
    yield Instance(name="ring of 10", read=partial(circles.rings, [10], 1))
    yield Instance(name="ring of 10, kept apart", read=partial(circles.rings, [10], 1, apart=True))
    yield Instance(name="ring of 10, two for one", read=partial(circles.rings, [10], 1, halves=True, spares=2))
    yield Instance(name="rings of 3, 4, 5 and 10", read=partial(circles.rings, [3, 4, 5, 10], 1))
    yield Instance(name="20 rings of 5, 20 spares", read=partial(circles.rings, [5] * 20, 1, spares=20))


def _others() -> Iterator[Instance]:
    for file in ("li3", "li4", "li5", "li6", "nr3", "nr4"):
        path = DATA / "btrplace" / f"{file}.gz"
        for rules in (False, True):
            name = f"BtrPlace {file}{' with rules' if rules else ''}"
            if path.exists():
                yield Instance(name=name, read=partial(_btrplace, path, rules=rules), policy=at(100))
    path = DATA / "bytedance" / "clear2.json.gz"
    for number in (0, 1):
        if path.exists():
            yield Instance(name=f"ByteDance {number + 1}", read=partial(_bytedance, path, number), policy=at(98))


def missing() -> list[str]:
    """Files that other people's instances would be read from, and that are not there."""
    files = [f"btrplace/{name}.gz" for name in ("li3", "li4", "li5", "li6", "nr3", "nr4")]
    return [file for file in (*files, "bytedance/clear2.json.gz") if not (DATA / file).exists()]


def _btrplace(path: Path, *, rules: bool) -> Snapshot:
    return btrplace.cluster(btrplace.read(path), rules=rules)


def _bytedance(path: Path, number: int) -> Snapshot:
    return bytedance.clusters(path)[number]
