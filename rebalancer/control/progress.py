"""How far a plan has come, and what a cycle came to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rebalancer.control.gain import Promise
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Move, Plan, Wave
from rebalancer.domain.report import Held, Outcome, Sentence

Stop = tuple[str, str]
"""A move's identity within a plan: the VM and where this move takes it. A VM that hops has two."""


def stop(move: Move) -> Stop:
    """The identity of a move."""
    return move.vmi, move.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A plan in force. `wave` counts from 0; `done` are the moves that have ended, one way or another.

    `promise` is what was counted on when it was put into force.
    """

    plan: Plan
    promise: Promise = Promise()
    wave: int = 0
    done: FrozenMap[Stop, Outcome] = FrozenMap()

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves of the current wave."""
        return self.plan.waves[self.wave].moves

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What has ended so far, in the plan's order."""
        return tuple(self.done[stop(move)] for move in self.plan.moves if stop(move) in self.done)

    def with_outcome(self, outcome: Outcome) -> Progress:
        """The progress after one more move ended; unchanged if the move is not of this plan."""
        if outcome.move not in self.plan.moves and not any(stop(m) == stop(outcome.move) for m in self.plan.moves):
            return self
        return replace(self, done=FrozenMap({**self.done, stop(outcome.move): outcome}))

    @property
    def stopping_over(self) -> frozenset[str]:
        """VMs that stand where this plan has sent them for a while only."""
        return frozenset(move.vmi for move in self.plan.moves if move.hop and stop(move) in self.done)

    def next_wave(self) -> Progress | None:
        """The progress at the beginning of the next wave, None after the last."""
        return replace(self, wave=self.wave + 1) if self.wave + 1 < len(self.plan.waves) else None

    def waiting(self, flying: Mapping[str, object]) -> tuple[Move, ...]:
        """Moves of the current wave that are neither done nor under way; `flying` are the VMs that are."""
        return tuple(move for move in self.moves if stop(move) not in self.done and move.vmi not in flying)

    def remaining(self, waiting: tuple[Move, ...]) -> tuple[Wave, ...]:
        """What is still to begin, as waves: what `verify` has to agree with before anything begins."""
        first = (Wave(moves=waiting),) if waiting else ()
        return (*first, *self.plan.waves[self.wave + 1 :])

    @property
    def hot(self) -> frozenset[tuple[str, str]]:
        """The loads that it is to cure, by node and resource: below `high` again by now, perhaps, but not at `low`."""
        spots = (trigger.hotspot for trigger in self.plan.triggers)
        return frozenset((spot.node, spot.resource) for spot in spots if spot is not None)

    def failures(self) -> tuple[Outcome, ...]:
        """Moves of the current wave that did not bring their VM to its target."""
        ended = [self.done[stop(move)] for move in self.moves if stop(move) in self.done]
        return tuple(outcome for outcome in ended if outcome.result != "Succeeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one cycle came to. `more`: the next one has something to do already, and need not wait for news."""

    sentence: Sentence
    more: bool = False
    held: tuple[Held, ...] = ()
    started: tuple[Move, ...] = ()


PATIENCE_SECONDS = 30.0
PATIENCE_CAP_SECONDS = 300.0
"""A cluster that lives changes all the time, and hardly ever so that what nothing could be done about is curable now:
it is thought over again after the first, then ever less often, at least every five minutes; at once where the reasons
change, or a node comes to receive VMs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A plan that is not carried out (dry run, nothing to be done): it stands until what it was made for changes.

    `basis` is all that it was made for, `reasons` of it why it was made at all. One that does nothing stands until
    `until` (monotonic) while the reasons are the same; `fruitless` is how many of them in a row have done nothing.
    """

    plan: Plan
    basis: object
    reasons: object
    until: float = 0.0
    fruitless: int = 0

    @classmethod
    def of(cls, plan: Plan, basis: object, reasons: object, now: float, last: Decision | None) -> Decision:
        """A new one, after the last."""
        if not plan.is_noop():
            return cls(plan=plan, basis=basis, reasons=reasons)
        before = last.fruitless if last is not None and last.reasons == reasons else 0
        seconds = min(PATIENCE_SECONDS * 2.0 ** min(before, 16), PATIENCE_CAP_SECONDS)
        return cls(plan=plan, basis=basis, reasons=reasons, until=now + seconds, fruitless=before + 1)

    def stands(self, basis: object, reasons: object, now: float) -> bool:
        """Whether there is no need to think again."""
        return self.basis == basis or (self.fruitless > 0 and self.reasons == reasons and now < self.until)
