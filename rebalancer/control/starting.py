"""Begins what may begin of a wave: windows, back-off and budget decide, the executor acts."""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.control import words
from rebalancer.control.backoff import Backoff
from rebalancer.control.clock import Clock
from rebalancer.control.executor import LOST, OUTDATED, WAITING, Executor, NotStarted
from rebalancer.control.flight import Flight
from rebalancer.control.flights import REFUSED, Flights
from rebalancer.domain.plan import Move
from rebalancer.domain.report import Held, Outcome, Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy import budget
from rebalancer.policy.windows import Calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingParams:
    """`forbidden_seconds`: how long nothing is tried after the API server has said that we may not.

    `lost_seconds`: how long after a POST without an answer, of which nothing was found. It may still be on its way, and
    what would begin meanwhile could be one too many.
    `picture_seconds`: how long a look at the cluster is good for. Where the API server is slow, others may have begun
    migrations since, and the budget is asked again before the next POST.
    """

    limits: budget.Limits = budget.Limits()
    calendar: Calendar = Calendar()
    forbidden_seconds: float = 60.0
    lost_seconds: float = 30.0
    picture_seconds: float = 2.0


@dataclass(slots=True, kw_only=True)
class Begun:
    """What became of the moves that were to begin. `refused` are over for this plan.

    `outdated` is why the whole plan is, `forbidden` why nothing could be begun; "" where neither is so. `more`: some
    were put off until the cluster has been looked at again.
    """

    started: list[Move]
    held: list[Held]
    refused: list[Outcome]
    outdated: str = ""
    forbidden: str = ""
    more: bool = False


class Starter:
    """Starts moves for one cycle after the other; remembers when the API server wants to be asked again."""

    def __init__(self, executor: Executor, clock: Clock, params: StartingParams) -> None:
        self._executor = executor
        self._clock = clock
        self.params = params
        self._not_before = 0.0
        self._why_not = ""

    async def begin(
        self, waiting: tuple[Move, ...], plan: str, snapshot: Snapshot, flights: Flights, backoff: Backoff
    ) -> Begun:
        """Starts as many of `waiting` as may begin now, in their order."""
        admitted, held = self._admit(waiting, snapshot, flights, backoff)
        begun = Begun(started=[], held=held, refused=[])
        looked = self._clock.monotonic()
        for move in admitted:
            if self._clock.monotonic() - looked > self.params.picture_seconds:
                begun.more = True
                break
            result = await self._executor.start(move, plan, snapshot)
            if isinstance(result, Flight):
                flights.begin(result)
                begun.started.append(move)
            elif result.kind == OUTDATED:
                begun.outdated = result.message
                break
            elif result.kind == WAITING:
                begun.held.append(self._held(move, result))
                if not result.alone:
                    break
            else:
                begun.refused.append(self._refused(move, result))
                if not self._goes_on(move, result, begun, backoff):
                    break
        return begun

    def _goes_on(self, move: Move, result: NotStarted, begun: Begun, backoff: Backoff) -> bool:
        """Takes note of a move that is over. Whether others may be tried."""
        if result.kind == LOST:
            backoff.refused(move.vmi, result.message)
            self._wait(self.params.lost_seconds, f"a request for {move.vmi} was not answered")
            return False
        if result.reason == "Forbidden":
            backoff.refused(move.vmi, result.message)
            self._wait(self.params.forbidden_seconds, result.message)
            begun.forbidden = result.message
            return False
        backoff.rejected(move.vmi, f"{move.vmi}: {result.message}")
        return True

    def _wait(self, seconds: float, why: str) -> None:
        """Lets nothing begin for so long."""
        self._not_before, self._why_not = self._clock.monotonic() + seconds, why

    def _admit(
        self, waiting: tuple[Move, ...], snapshot: Snapshot, flights: Flights, backoff: Backoff
    ) -> tuple[tuple[Move, ...], list[Held]]:
        """What the calendar, the target nodes' back-off, the budget and the API server's own wish allow now."""
        if (closed := self.params.calendar.closed(self._clock.now())) is not None:
            return (), list(closed.held(waiting))
        now = self._clock.monotonic()
        if now < self._not_before:
            until = wall(self._clock, self._not_before)
            return (), [Held(vmi=m.vmi, reason="Throttled", message=self._why_not, until=until) for m in waiting]
        held, open_moves, shunned = [], [], backoff.nodes()
        for move in waiting:
            wait = shunned.get(move.target)
            if wait is None:
                open_moves.append(move)
                continue
            until = wall(self._clock, wait.until)
            message = f"{move.target} receives nothing ({wait.message})"
            held.append(Held(vmi=move.vmi, reason="TargetBackoff", message=message, until=until))
        now, starts = api_now(self._clock), flights.starts()
        admission = budget.admit(open_moves, snapshot, self.params.limits, now, starts)
        return admission.admitted, [*held, *admission.held]

    def _held(self, move: Move, result: NotStarted) -> Held:
        seconds = result.retry_after_seconds
        if seconds and not result.alone:
            self._wait(seconds, result.message)
        until = self._clock.now() + seconds if seconds else 0.0
        return Held(vmi=move.vmi, reason=result.reason, message=result.message, until=until)

    def _refused(self, move: Move, result: NotStarted) -> Outcome:
        """A move that the API server will not have, or about which it said nothing."""
        return Outcome(
            move=move,
            migration="",
            result="Lost" if result.kind == LOST else REFUSED,
            message=result.message,
            finished=self._clock.now(),
        )


def said(begun: Begun, number: int, waves: int, moves: int, flying: int) -> Sentence:
    """What became of them in a sentence: of wave `number` with so many `moves`, of which `flying` were under way."""
    if begun.forbidden:
        return words.refused(begun.forbidden)
    if begun.started:
        sentence = words.started(begun.started, number, waves, begun.held)
    elif flying or not begun.held:
        sentence = words.wave_running(number, waves, flying, moves - flying - len(begun.held), moves)
    else:
        sentence = words.held(number, waves, begun.held)
    return words.not_begun(sentence, begun.refused)


def wall(clock: Clock, monotonic: float) -> float:
    """A monotonic moment as wall time."""
    return clock.now() + monotonic - clock.monotonic()


def api_now(clock: Clock) -> float:
    """Wall time as budgets count it. The API cuts its times to whole seconds, so that what began 3599.2 s ago may read
    as 3600: one second less, and no window is left too early."""
    return clock.now() - 1.0
