"""What one cycle saw, decided and did: the one value that log, Events, metrics and page are rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Move, Plan, State
from rebalancer.domain.snapshot import SetAside
from rebalancer.domain.verdict import Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A move or migration that must wait: for what, and until when (seconds since 1970, 0 where no time is known)."""

    vmi: str
    reason: str
    message: str
    until: float = 0.0

    def sentence(self) -> str:
        """Why, and until when."""
        if not self.until:
            return self.message
        return f"{self.message}, until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A migration in flight, ours or somebody else's. `move` is None where it is not of the current plan."""

    vmi: str
    migration: str
    phase: str
    source: str
    target: str
    started: float
    deadline: float = 0.0
    ours: bool = True


RESULTS = ("Succeeded", "Failed", "Withdrawn", "Refused", "Lost")
"""How a move can end (a metric label)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a move of ours ended; `result` is one of RESULTS, `message` says why."""

    move: Move
    migration: str
    result: str
    message: str = ""
    finished: float = 0.0
    landed_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """The cycle in one sentence; `kind` is bounded (a metric label): one of SENTENCES."""

    kind: str
    text: str


SENTENCES = (
    "NotSynced",
    "Standby",
    "Balanced",
    "Planned",
    "DryRun",
    "Started",
    "Running",
    "Held",
    "Dropped",
    "Finished",
    "Stuck",
    "Paused",
    "Unfit",
    "Unsettled",
    "Broken",
    "Failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One cycle. `plan` is the plan in force or just made, `done` the outcomes of its moves so far.

    `holder` is who leads, "" where nobody is known to.
    """

    cycle: int
    time: float
    mode: str
    sentence: Sentence
    leader: bool = False
    holder: str = ""
    synced: bool = False
    state: State = State()
    triggers: tuple[Trigger, ...] = ()
    plan: Plan | None = None
    wave: int = 0
    running: tuple[Running, ...] = ()
    done: tuple[Outcome, ...] = ()
    held: tuple[Held, ...] = ()
    started: tuple[Move, ...] = ()
    cooldowns: FrozenMap[str, float] = FrozenMap()
    set_aside: tuple[SetAside, ...] = ()
    seconds: float = 0.0
    cache_age_seconds: float = 0.0
