"""The cycle: one look at the cluster, at most one thing done, one sentence said.

It plans or acts, never both, so that acting always starts from a fresh snapshot and a plan that was verified on it.
The order of reasons is the order of the methods: not synced, not leading, settle, paused, broken, plan or act.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from rebalancer.control import gain, words
from rebalancer.control.backoff import BACKOFF_DEFAULTS, Backoff, BackoffParams
from rebalancer.control.clock import Clock
from rebalancer.control.executor import Executor
from rebalancer.control.flight import running
from rebalancer.control.flights import FAILED, SUCCEEDED, Flights
from rebalancer.control.gate import GATE_DEFAULTS, GateParams, resumed, stopped, why_unsettled
from rebalancer.control.offload import Offload
from rebalancer.control.progress import Decision, Progress, Step
from rebalancer.control.recall import endings, learn
from rebalancer.control.starting import Starter, StartingParams, api_now, said, wall
from rebalancer.control.switch import Switch
from rebalancer.control.view import View, decided, identities, look
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Move, Plan
from rebalancer.domain.report import Outcome, Report, Sentence
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.kube.cache import Cache
from rebalancer.kube.lease import Leadership
from rebalancer.kube.outcome import ApiError
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy import budget
from rebalancer.policy.load import PolicyParams
from rebalancer.policy.verify import verify
from rebalancer.policy.windows import Calendar

DRY_RUN = "dry-run"
ACTIVE = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleParams:
    """`mode`: dry-run says what it would do, active does it; `paused`: it starts nothing new.

    `forbidden_seconds`: how long nothing is tried after the API server has said that we may not.
    `history`: outcomes that are kept for people to look at.
    `own_namespace`: its annotations pause and resume us.
    """

    mode: str = DRY_RUN
    paused: bool = False
    planning: PlanningParams = PlanningParams()
    limits: budget.Limits = budget.Limits()
    calendar: Calendar = Calendar()
    gate: GateParams = GATE_DEFAULTS
    backoff: BackoffParams = BACKOFF_DEFAULTS
    forbidden_seconds: float = 60.0
    history: int = 500
    own_namespace: str = "kubevirt-rebalancer"

    def __post_init__(self) -> None:
        if self.mode not in (DRY_RUN, ACTIVE):
            raise ValueError(f"mode = {self.mode}: must be {DRY_RUN} or {ACTIVE}")

    @property
    def starting(self) -> StartingParams:
        """What decides whether a move may begin."""
        return StartingParams(limits=self.limits, calendar=self.calendar, forbidden_seconds=self.forbidden_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the cycle reaches the world through. `decide` is planning's, unless a test has its own mind.

    `stopwatch` ends searches in time; None where time is virtual, and searches are bounded by counted work alone.
    `switch` is what a signal pauses us by.
    """

    cache: Cache
    leadership: Leadership
    executor: Executor
    clock: Clock
    offload: Offload
    decide: Callable[..., Plan] = decide
    stopwatch: Callable[[], float] | None = None
    switch: Switch | None = None


class Cycle:
    """Call `step` again and again. What it remembers can be lost at any moment: the cluster holds the truth."""

    def __init__(self, ports: Ports, params: CycleParams) -> None:
        self._ports = ports
        self._params = params
        self._flights = Flights(ports.executor, ports.clock)
        self._backoff = Backoff(ports.clock.monotonic, params.backoff)
        self._starter = Starter(ports.executor, ports.clock, params.starting)
        self._view = View()
        self._progress: Progress | None = None
        self._decision: Decision | None = None
        self._ended: tuple[Outcome, ...] = ()
        self._shown: Progress | None = None
        self._patience: float | None = None
        self._number = 0
        self._took_over = False
        self._overruled = ""
        self.warnings: tuple[SetAside, ...] = ()
        self.more = False
        self.history: deque[Outcome] = deque(maxlen=params.history)

    async def step(self) -> Report:
        """One cycle. Raises what a bug raises; nothing that the cluster does."""
        begun = self._ports.clock.monotonic()
        self._number += 1
        self._ended = ()
        self._shown = self._progress
        step = await self._step()
        self.more = step.more
        return self._report(step, begun)

    def failed(self, error: BaseException) -> Report:
        """The report of a cycle that raised. What raised may have been about the plan, or about what is known of the
        cluster: both are given up."""
        self._progress = self._decision = self._view.overview = None
        self.more = False
        return self._report(Step(sentence=words.failed(error)), self._ports.clock.monotonic())

    def adopt(self, params: CycleParams) -> None:
        """Goes on by other settings. The plan in force was made by the old ones: the next cycle drops it."""
        self._took_over = self._took_over and params.mode == self._params.mode
        self._params = params
        self._backoff.params = params.backoff
        self._starter.params = params.starting
        self._view = View(memory=self._view.memory)
        self._decision = self._patience = None
        self._overruled = "the settings have changed"

    @property
    def watched(self) -> Snapshot:
        """The cluster as the last cycle saw it; empty where it did not look, as on a replica that stands by."""
        return self._view.watched

    @property
    def _active(self) -> bool:
        return self._params.mode == ACTIVE

    @property
    def _policy(self) -> PolicyParams:
        return self._params.planning.policy

    async def _step(self) -> Step:
        problems = self._ports.cache.problems()
        if problems:
            return Step(sentence=words.not_synced(problems))
        if self._ports.leadership.fence() <= 0.0:
            self._stand_down()
            leadership = self._ports.leadership
            return Step(sentence=words.standby(leadership.holder, leadership.problem))
        watched = await self._ports.cache.fresh(self._ports.offload)
        if not self._took_over:
            try:
                await self._take_over(watched)
            except ApiError as error:
                return Step(sentence=words.not_synced((f"our own migrations cannot be read: {error}",)))
        unsettled = why_unsettled(watched, self._params.gate, self._ports.clock.now())
        self._note(await self._flights.settle(watched, act=self._active, unsettled=unsettled))
        await self._look(watched)
        if self._flights.unwithdrawn:
            flight, reason, problem = self._flights.unwithdrawn[0]
            return Step(sentence=words.unwithdrawn(flight.move, reason, problem))
        if self._active and (sentence := self._stopped(unsettled)) is not None:
            return Step(sentence=sentence)
        if awaited := self._flights.awaited(watched):
            return Step(sentence=words.settling(awaited))
        if self._progress is None:
            return await self._plan()
        if self._overruled:
            return self._drop(self._overruled)
        return await self._act(self._progress)

    async def _take_over(self, watched: Snapshot) -> None:
        """Learns what we, or a predecessor, did before. Raises ApiError."""
        known = (*watched.migrations.values(), *(await self._flights.take_over(watched) if self._active else ()))
        self._backoff = Backoff(self._ports.clock.monotonic, self._params.backoff)
        learn(self._backoff, endings(known, watched, self._ports.clock.now()))
        self._took_over = True

    def _stopped(self, unsettled: str) -> Sentence | None:
        """Why nothing may be started at all."""
        snapshot, params, clock, switch = self._view.snapshot, self._params, self._ports.clock, self._ports.switch
        since = switch.since if switch is not None else None
        told = stopped(snapshot, params.own_namespace, setting=params.paused, signal=since, unsettled=unsettled)
        if told is not None:
            return told
        forgiven = clock.monotonic() + resumed(snapshot, params.own_namespace) - clock.now()
        if (breaker := self._backoff.breaker(forgiven)) is not None:
            self._progress = None
            since, until = wall(clock, breaker.since), wall(clock, breaker.until)
            return words.broken(breaker, since, until, params.own_namespace)
        return None

    def _stand_down(self) -> None:
        """Somebody else leads: what we know is theirs to find out anew."""
        self._flights.forget()
        self._progress = self._decision = self._shown = self._patience = None
        self._view = View()
        self._took_over = False

    def _note(self, ended: tuple[Outcome, ...]) -> None:
        """Learns from migrations that have ended."""
        self._ended += ended
        for outcome in ended:
            self.history.append(outcome)
            if self._progress is not None:
                self._progress = self._shown = self._progress.with_outcome(outcome)
            if outcome.result == SUCCEEDED:
                self._backoff.succeeded(outcome.move.vmi, outcome.move.target)
            elif outcome.result == FAILED:
                self._backoff.failed(outcome.move.vmi, outcome.move.target, f"{outcome.move.vmi}: {outcome.message}")

    async def _look(self, watched: Snapshot) -> None:
        """Judges the cluster; not again while nothing has changed and no hold time runs."""
        view, overlay = self._view, partial(self._flights.overlay, watched)
        snapshot = await self._ports.offload(overlay) if self._flights.all() else watched
        if snapshot is not view.snapshot or view.soon_hot():
            now = self._ports.clock.monotonic()
            view.take(await self._ports.offload(partial(look, view.overview, snapshot, self._policy, view.memory, now)))
        view.watched, view.snapshot = watched, snapshot
        view.resting = budget.resting(snapshot, self._params.limits, api_now(self._ports.clock), self._flights.starts())

    def _immovable(self) -> Mapping[str, str]:
        """VMs that must stay for reasons that the snapshot does not show, with the reason."""
        reasons = {vmi: held.sentence() for vmi, held in self._view.resting.items()}
        for vmi, wait in self._backoff.vmis().items():
            until = words.moment(wall(self._ports.clock, wait.until))
            reasons[vmi] = f"its last migration failed ({wait.message}); it is left alone until {until}"
        return reasons

    async def _plan(self) -> Step:
        view = self._view
        if flying := self._flights.all():
            return Step(sentence=words.earlier([flight.move.vmi for flight in flying]))
        if not view.triggers:
            self._decision = self._patience = None
            return Step(sentence=words.balanced(view.snapshot, view.state))
        if gathering := self._held_back():
            return Step(sentence=gathering)
        self._patience = None
        plan = await self._decide()
        if plan.is_noop():
            return Step(sentence=words.stuck(plan))
        if not self._active:
            return Step(sentence=words.planned(plan, dry_run=True))
        if (closed := self._params.calendar.closed(self._ports.clock.now())) is not None:
            # Not put into force: when the time comes, the plan is one for the cluster as it is then.
            return Step(sentence=words.closed(plan, closed), held=closed.held(plan.moves))
        promise = await self._ports.offload(partial(gain.promise, plan, view.snapshot))
        self._progress = self._shown = Progress(plan=plan, promise=promise)
        self._overruled = ""
        self._decision = None
        return Step(sentence=words.planned(plan, dry_run=False), more=True)

    def _held_back(self) -> Sentence | None:
        """A broken rule waits for the nodes that are above their threshold but not for long enough yet, once for the
        hold time: one plan for both takes fewer moves than one for each."""
        now, hold = self._ports.clock.monotonic(), self._policy.hold_seconds
        if self._patience is None:
            self._patience = now + hold
        soon = self._view.soon_hot()
        if soon and now < self._patience and self._decision is None:
            return words.gathering(self._view.triggers, soon, self._patience - now)
        return None

    async def _decide(self) -> Plan:
        """A plan for what the view shows: the last one, if it was made for the same."""
        view, immovable = self._view, self._immovable()
        shunned = frozenset(self._backoff.nodes())
        reasons, now = (shunned, identities(view.triggers), view.receivers), self._ports.clock.monotonic()
        basis = (view.version, frozenset(immovable), reasons)
        if self._decision is None or not self._decision.stands(basis, reasons, now):
            work = partial(
                decided,
                self._ports.decide,
                view,
                shunned,
                self._params.planning,
                now=self._ports.clock.now(),
                immovable=immovable,
                clock=self._ports.stopwatch,
            )
            plan = await self._ports.offload(work)
            self._decision = Decision.of(plan, basis, reasons, now, self._decision)
        return self._decision.plan

    async def _act(self, progress: Progress) -> Step:
        flying = {flight.move.vmi: flight for flight in self._flights.all()}
        strangers = [flight for flight in flying.values() if flight.plan != progress.plan.id]
        if strangers:
            return self._drop(f"{strangers[0].move.vmi} is migrating by another plan of ours ({strangers[0].plan})")
        waiting = progress.waiting(flying)
        if not flying and (reason := self._why_not_go_on(progress)):
            return self._drop(reason)
        if waiting:
            return await self._start(progress, waiting, len(flying))
        number, waves = progress.wave + 1, len(progress.plan.waves)
        if flying:
            done = len(progress.moves) - len(flying)
            sentence = words.wave_running(number, waves, len(flying), done, len(progress.moves))
            return Step(sentence=words.giving_way(sentence, {f.move.vmi: f.withdrawn for f in flying.values()}))
        if failures := progress.failures():
            return self._drop(words.ended(failures[0]))
        kept = partial(gain.broken, progress.moves, progress.promise, self._view.snapshot)
        if (disappointment := await self._ports.offload(kept)) != gain.KEPT:
            return self._disappointed(*disappointment)
        following = progress.next_wave()
        if following is None:
            return await self._finish(progress)
        self._progress = self._shown = following
        return await self._start(following, following.waiting({}), 0)

    def _why_not_go_on(self, progress: Progress) -> str:
        """Why a plan of which nothing is under way is better made anew, or ""."""
        if progress.waiting({}) and (closed := self._params.calendar.closed(self._ports.clock.now())) is not None:
            return closed.message
        if not progress.done and not self._view.triggers:
            return "what it was made for has gone"
        return ""

    async def _finish(self, progress: Progress) -> Step:
        work = partial(gain.shortfall, progress.plan, progress.promise, self._view.state, self._view.snapshot)
        less, explained = await self._ports.offload(work)
        if not explained:
            return self._disappointed(less, explained)
        self._progress = None
        return Step(sentence=words.finished(progress.plan, progress.outcomes, self._view.state, less), more=True)

    def _disappointed(self, what: str, explained: bool) -> Step:
        """A plan did not bring what it had promised. Unless others explain it, the next one would be no better."""
        if not explained:
            self._backoff.disappointed(what)
        return self._drop(what)

    async def _start(self, progress: Progress, waiting: tuple[Move, ...], flying: int) -> Step:
        """Begins what may begin of the current wave, after the judge has agreed to all that is still to come."""
        snapshot, stopping_over = self._view.snapshot, progress.stopping_over
        # Who stops over rests before it moves on, and the plan with it: the budget holds it, and does not end the plan.
        immovable = {vmi: why for vmi, why in self._immovable().items() if vmi not in stopping_over}
        rest, hot = progress.remaining(waiting), progress.hot
        known = self._view.overview
        work = partial(verify, snapshot, rest, self._policy, immovable=immovable, hot=hot, overview=known)
        if problems := await self._ports.offload(work):
            return self._drop(problems[0])
        begun = await self._starter.begin(waiting, progress.plan.id, snapshot, self._flights, self._backoff)
        self._note(tuple(begun.refused))
        if begun.outdated:
            return replace(self._drop(begun.outdated), started=tuple(begun.started))
        if begun.refused and not (begun.forbidden or begun.started or begun.held or flying):
            return self._drop(words.ended(begun.refused[0]))
        sentence = said(begun, progress.wave + 1, len(progress.plan.waves), len(progress.moves), flying)
        return Step(sentence=sentence, held=tuple(begun.held), started=tuple(begun.started), more=begun.more)

    def _drop(self, reason: str) -> Step:
        assert self._progress is not None
        plan = self._progress.plan
        self._progress = None
        return Step(sentence=words.dropped(plan, reason), more=True)

    def _report(self, step: Step, begun: float) -> Report:
        clock, cache, view, shown = self._ports.clock, self._ports.cache, self._view, self._progress or self._shown
        plan = shown.plan if shown is not None else self._decision.plan if self._decision is not None else None
        done = shown.outcomes if shown is not None else ()
        monotonic = clock.monotonic()
        return Report(
            cycle=self._number,
            time=clock.now(),
            mode=self._params.mode,
            sentence=step.sentence,
            leader=self._ports.leadership.fence() > 0.0,
            holder=self._ports.leadership.holder,
            synced=cache.synced,
            state=view.state,
            triggers=view.triggers,
            plan=plan,
            wave=shown.wave + 1 if shown is not None else 0,
            running=running(view.watched, self._flights.all(), clock.now(), monotonic),
            done=(*done, *(outcome for outcome in self._ended if outcome not in done)),
            held=step.held,
            started=step.started,
            cooldowns=FrozenMap((vmi, held.until) for vmi, held in view.resting.items()),
            set_aside=(*self.warnings, *view.watched.set_aside),
            seconds=monotonic - begun,
            cache_age_seconds=cache.age_seconds(),
        )
