"""What a simulation came to: its verdict, and the ledger of what happened that the verdict is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rebalancer.sim.check_conduct import MANAGED_BY, MANAGER
from rebalancer.sim.check_picture import broken_rules, loads, take
from rebalancer.sim.check_reading import amount
from rebalancer.sim.checkers import Bounds, Broken
from rebalancer.sim.objects import TERMINAL, key_of, labels_of, phase, status
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.store import ADDED, MODIFIED, Change, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A cycle's sentence at its first saying; `time` in seconds since the scenario began."""

    time: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a scenario went. `unmet` says what of its expectations did not come true, `broken` which promises.

    `migrations` and `failed` are ours, `others` everybody else's; `moved` counts the arrivals of each VM.
    `left`: what is wrong with the cluster at the end, as the checkers see it.
    `digest` is of every change to the cluster: equal runs have equal digests.
    """

    scenario: str
    seed: int
    broken: tuple[Broken, ...]
    unmet: tuple[str, ...]
    migrations: int
    failed: int
    others: int
    moved: Mapping[str, int]
    left: tuple[str, ...]
    said: tuple[Said, ...]
    requests: int
    virtual_seconds: float
    real_seconds: float
    digest: str
    life: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.broken and not self.unmet

    @property
    def speed(self) -> float:
        """Virtual over real seconds."""
        return self.virtual_seconds / max(self.real_seconds, 1e-9)

    def text(self) -> str:
        """For people, a few lines."""
        lines = [
            f"{self.scenario}, seed {self.seed}: {'as promised' if self.good else 'NOT AS PROMISED'}",
            f"  {self.migrations} migrations of ours, {self.failed} of them failed, {self.others} of others; "
            f"{len(self.broken)} promises broken; {self.requests} requests",
            f"  {self.virtual_seconds:.0f} s of its time in {self.real_seconds:.1f} s: {self.speed:.0f} times faster",
            f"  last said: {self.said[-1].text if self.said else 'nothing'}",
        ]
        lines += [f"  left: {text}" for text in self.left[:10]]
        lines += [f"  unmet: {text}" for text in self.unmet]
        lines += [f"  {broken.sentence()}" for broken in self.broken[:20]]
        return "\n".join(lines) + "\n"


class Ledger:
    """Counts what happens; subscribe `change` to the store. Objects that are cleaned up stay counted."""

    def __init__(self) -> None:
        self.ours = 0
        self.failed = 0
        self.others = 0
        self.moved: Counter[str] = Counter()
        self.last_move = 0.0

    def change(self, change: Change) -> None:
        """The cluster has changed."""
        if change.resource == MIGRATIONS:
            ours = labels_of(change.object).get(MANAGED_BY) == MANAGER
            if change.type == ADDED:
                self.last_move = change.time
                self.ours += ours
                self.others += not ours
            elif change.previous is not None and phase(change.object) in TERMINAL:
                fresh = change.type == MODIFIED and phase(change.previous) not in TERMINAL
                self.failed += ours and fresh and phase(change.object) == "Failed"
                self.last_move = change.time
        elif change.resource == VMIS and change.type == MODIFIED and change.previous is not None:
            before, after = status(change.previous).get("nodeName"), status(change.object).get("nodeName")
            if before and after and before != after:
                self.moved[key_of(change.object)] += 1


def whats_left(store: Store, bounds: Bounds) -> list[str]:
    """Every node above its threshold and every broken rule, in sentences."""
    picture = take(store.items)
    found = []
    for resource, percent in bounds.high.items():
        for name, load in loads(picture, resource).items():
            offered = amount(picture.nodes[name]["status"]["allocatable"][resource])
            if offered and load * 100 > offered * round(percent):
                found.append(f"{name}: {resource} at {float(load / offered * 100):.1f} %")
    return found + list(broken_rules(picture).values())
