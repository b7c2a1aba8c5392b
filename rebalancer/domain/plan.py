"""A plan: waves of moves with reasons, what they cure, what is left, and how good that is provably."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.verdict import Hotspot, Trigger, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One VM from a node to another. `hop` marks a temporary stop on the way to where the plan wants it."""

    vmi: str
    uid: str
    source: str
    target: str
    cost: int
    reasons: tuple[str, ...]
    memory_bytes: int = 0
    seconds: float = 0.0
    hop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Moves that may run together: they fit with source and target both reserved, and break no rule on the way."""

    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """Requests over allocatable, in percent."""

    cpu: float
    memory: float
    cpu_high: float
    memory_high: float
    vmis: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The cluster before or after the plan, in the terms that the plan is about."""

    nodes: FrozenMap[str, NodeLoad] = FrozenMap()
    hotspots: tuple[Hotspot, ...] = ()
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A trigger that the plan does not cure, and why not."""

    trigger: Trigger
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Proven lower bounds on moves and cost of any plan that cures as much.

    `gap` is (cost - bound) / cost; 0.0 without moves.
    """

    moves: int
    cost: int
    gap: float
    proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the lexicographic objective: its value, the best proven bound on it, and the time it took."""

    name: str
    value: int
    bound: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """How the plan was found. `seconds` are a measurement and no part of a plan's identity."""

    status: str
    seconds: float
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do and why. `id` is a digest of snapshot, settings and waves, so equal input gives an equal id.

    `quiet_seconds` is the estimated time until the last wave has landed, if waves follow each other at once.
    """

    id: str
    created: float
    resource_version: str
    triggers: tuple[Trigger, ...]
    waves: tuple[Wave, ...]
    before: State
    after: State
    left: tuple[Left, ...]
    bound: Bound
    solver: Solver
    settings: FrozenMap[str, str] = FrozenMap()
    warnings: tuple[str, ...] = ()
    quiet_seconds: float = 0.0

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(move for wave in self.waves for move in wave.moves)

    def is_noop(self) -> bool:
        return not self.waves
