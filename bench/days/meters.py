"""What is measured in a world, from its record of changes: full nodes, migrations by who asked for them, ping-pongs."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.days.agenda import DAY
from rebalancer.domain.quantity import milli_value
from rebalancer.sim.objects import TERMINAL, Obj, labels_of, phase, status
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.shapes import SIDECAR_MILLI
from rebalancer.sim.store import ADDED, DELETED, Change, Store

OURS, THEIRS, DRAINS, UPDATES, PEOPLE = "ours", "descheduler", "drains", "updates", "people"
HIGH_PERCENT = 80


def whose(migration: Obj) -> str:
    """Who asked for a migration."""
    if labels_of(migration).get("app.kubernetes.io/managed-by") == "kubevirt-rebalancer":
        return OURS
    name = str(migration["metadata"]["name"])
    if name.startswith("kubevirt-evacuation-"):
        return THEIRS if migration["spec"].get("priority") == "system-maintenance" else DRAINS
    return UPDATES if name.startswith("kubevirt-workload-update-") else PEOPLE


@dataclass(slots=True)
class _Node:
    """How full a node is, and since when that has been so."""

    capacity: int
    used: int = 0
    since: float = 0.0


@dataclass(slots=True)
class Meters:
    """Subscribe `change` to the store before the world begins; `turn` at the end of each day."""

    store: Store
    began: float
    nodes: dict[str, _Node] = field(default_factory=dict)
    homes: dict[str, tuple[str, int]] = field(default_factory=dict)
    above_seconds: float = 0.0
    excess: float = 0.0
    days: list[dict[str, Any]] = field(default_factory=list)
    issued: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    pingpongs: Counter[str] = field(default_factory=Counter)
    today: Counter[str] = field(default_factory=Counter)
    per_day: Counter[int] = field(default_factory=Counter)
    most: int = 0
    moved_at: list[float] = field(default_factory=list)
    _uids: dict[str, str] = field(default_factory=dict)
    _history: dict[str, deque[tuple[float, str, str, str]]] = field(default_factory=dict)
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _totals: tuple[float, float, int] = (0.0, 0.0, 0)

    def begin(self) -> None:
        """Takes in what is there already."""
        now = self.store.now()
        for node in self.store.items("nodes"):
            if "node-role.kubernetes.io/worker" in labels_of(node):
                capacity = milli_value(node["status"]["allocatable"]["cpu"])
                self.nodes[node["metadata"]["name"]] = _Node(capacity=capacity, since=now)
        for vmi in self.store.items(VMIS):
            self._place(f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}", vmi)

    def change(self, change: Change) -> None:
        """The world has changed."""
        if change.resource == MIGRATIONS:
            self._migration(change)
        elif change.resource == VMIS:
            key = f"{change.namespace}/{change.name}"
            if change.type == DELETED or phase(change.object) in TERMINAL:
                self._leave(key)
                return
            before, after = self.homes.get(key, ("", 0))[0], str(status(change.object).get("nodeName") or "")
            if after and before != after:
                self._place(key, change.object)
                if before:
                    self._landed(key, change.object, before, after)

    # Load: what VMs reserve where they run; a migration's other half is left out

    def _place(self, key: str, vmi: Obj) -> None:
        node = str(status(vmi).get("nodeName") or "")
        self._leave(key)
        if node in self.nodes:
            milli = milli_value(vmi["spec"]["domain"]["resources"]["requests"]["cpu"]) + SIDECAR_MILLI
            self.homes[key] = (node, milli)
            self._add(node, milli)

    def _leave(self, key: str) -> None:
        node, milli = self.homes.pop(key, ("", 0))
        if node:
            self._add(node, -milli)

    def _add(self, name: str, milli: int) -> None:
        node = self.nodes[name]
        self._account(node)
        node.used += milli

    def _account(self, node: _Node) -> None:
        now = self.store.now()
        seconds, node.since = now - node.since, now
        above = node.used - node.capacity * HIGH_PERCENT / 100
        if above > 0:
            self.above_seconds += seconds
            self.excess += seconds * above

    # Migrations

    def _migration(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type == ADDED:
            who = self._uids[uid] = whose(change.object)
            self.issued[who] += 1
            if who in (OURS, THEIRS):
                self._count(f"{change.namespace}/{change.object['spec'].get('vmiName')}")
        elif change.type == DELETED:
            self._uids.pop(uid, None)
        elif phase(change.object) == "Failed" and change.previous and phase(change.previous) != "Failed":
            self.failed[self._uids.get(uid, PEOPLE)] += 1

    def _count(self, key: str) -> None:
        now = self.store.now()
        self.today[key] += 1
        self.moved_at.append(now - self.began)
        recent = self._recent.setdefault(key, deque())
        recent.append(now)
        while now - recent[0] >= DAY:
            recent.popleft()
        self.most = max(self.most, len(recent))

    def _landed(self, key: str, vmi: Obj, source: str, target: str) -> None:
        """A ping-pong is a VM that the same hand brings back within a day, having taken it away."""
        state, now, uid = status(vmi).get("migrationState") or {}, self.store.now(), vmi["metadata"]["uid"]
        who = self._uids.get(state.get("migrationUid", ""), PEOPLE)
        history = self._history.setdefault(uid, deque(maxlen=8))
        if any(
            other == who and start == target and end == source and now - moment < DAY
            for moment, other, start, end in history
        ):
            self.pingpongs[who] += 1
        history.append((now, who, source, target))

    # Days

    def turn(self, vms: int, **more: Any) -> None:
        """The day is over; `vms` were there at its end."""
        for node in self.nodes.values():
            self._account(node)
        moves = sum(self.today.values())
        above, excess, _ = self._totals
        self.days.append(
            {
                "above": (self.above_seconds - above) / DAY / len(self.nodes),
                "excess_cpu_hours": (self.excess - excess) / 3.6e6,
                "moves": moves,
                "vms": vms,
                "fill": sum(node.used for node in self.nodes.values())
                / sum(node.capacity for node in self.nodes.values()),
            }
            | more
        )
        self._totals = (self.above_seconds, self.excess, moves)
        self.per_day.update(self.today.values())
        self.per_day[0] += vms - len(self.today)
        self.today.clear()
        now = self.store.now()
        alive = {vmi["metadata"]["uid"] for vmi in self.store.items(VMIS)}
        self._history = {uid: history for uid, history in self._history.items() if uid in alive}
        self._recent = {key: times for key, times in self._recent.items() if now - times[-1] < DAY}

    def figures(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "days": self.days,
            "issued": dict(self.issued),
            "failed": dict(self.failed),
            "pingpongs": dict(self.pingpongs),
            "per_vm_day": {str(count): times for count, times in sorted(self.per_day.items())},
            "most_in_24h": self.most,
            "moved_at": [round(moment) for moment in self.moved_at],
        }


def process() -> dict[str, Any]:
    """What this process holds: resident MiB, blocks of Python's allocator, open files."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "blocks": sys.getallocatedblocks(),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }
