"""The decision: a snapshot and its triggers become a plan."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Bound, Move, Plan, Solver, Stage, State, Wave
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger, Violation
from rebalancer.placement.index import Index
from rebalancer.placement.objective import STAGES, Values
from rebalancer.placement.problem import Problem
from rebalancer.placement.relaxed import cost_bound
from rebalancer.placement.solve import FEASIBLE, OPTIMAL, UNCHANGED, Solution, StageValue, solve
from rebalancer.placement.stop import Stop
from rebalancer.planning.build import Built, Picture, build, neighbourhood, wider
from rebalancer.planning.exchange import shorter
from rebalancer.planning.pace import Trips, copied_bytes, quiet_seconds, seconds
from rebalancer.planning.params import PlanningParams
from rebalancer.planning.reasons import Reasons, left_over
from rebalancer.planning.waves import Order, Step, order
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import sentences
from rebalancer.policy.load import threshold_warnings
from rebalancer.policy.overview import Overview
from rebalancer.policy.score import Scale, Score
from rebalancer.policy.target import target_pod
from rebalancer.policy.verify import verify

WHOLE = 3_000
"""VMs up to which all are items of the problem; in larger clusters only those that are likely to move."""


GOOD = 0.001
"""The gap up to which VMs on nodes that nothing is wrong with are left out of account in large clusters."""
REPAIRED = "REPAIRED"
"""The status of a plan that is not the best of all placements, as no safe order of moves leads there."""
RETRIES = 4
"""New searches when some moves find no safe order: without those who got stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A solution with those of its waves that may be issued; `whole` where that is all of it."""

    solution: Solution
    waves: tuple[Wave, ...]
    whole: bool
    settled: ClusterState
    left: tuple[Violation, ...]
    score: Score
    warnings: list[str]


def decide(  # noqa: PLR0913  # what is wrong, how to plan, and what the caller brings along
    snapshot: Snapshot,
    triggers: tuple[Trigger, ...],
    params: PlanningParams,
    *,
    now: float,
    immovable: Mapping[str, str] | None = None,
    clock: Callable[[], float] | None = None,
    stop: Stop | None = None,
    overview: Overview | None = None,
) -> Plan:
    """The plan that cures the triggers as far as possible with the fewest, cheapest moves; never worse than no plan.

    `immovable` are VMs (by key) that must stay for reasons that the snapshot does not show, with the reason. `clock`
    gives seconds that do not go backwards: `params.seconds` is kept by counted work, the clock only cuts what takes
    many times as long, and without it the plan tells no times. `stop` ends the search early. `overview` is the
    snapshot's, by the same policy, where it is known already.
    """
    picture = Picture.of(snapshot, triggers, params.policy, immovable or {}, overview, now=now)
    return _Planner(picture, params, now, stop or Stop(params.seconds, clock)).plan()


class _Planner:
    """One decision in the making."""

    def __init__(self, picture: Picture, params: PlanningParams, now: float, stop: Stop) -> None:
        self.picture, self.params, self.now, self.stop = picture, params, now, stop
        snapshot = picture.snapshot
        self.held = dict(picture.immovable)
        self.scale = Scale(snapshot=snapshot, params=params.policy, hot=self.picture.hot, book=self.picture.book)
        self.before = picture.overview.told()
        self.warnings = [*threshold_warnings(snapshot, params.policy.thresholds)]
        self.warnings += [aside.sentence() for aside in snapshot.set_aside]
        self.warnings += sentences(picture.conflicts)

    def plan(self) -> Plan:
        if not self.picture.triggers:
            return self._finished(None, Bound(moves=0, cost=0, gap=0.0, proven=True), UNCHANGED, ())
        active = self.picture.settled.active_pods
        small = len(active) <= WHOLE
        chosen = frozenset(active) if small else neighbourhood(self.picture)
        built = build(self.picture, chosen)
        ideal = solve(built.problem, self.stop, self.params.seed)
        if not small and ideal.gap > GOOD and not self.stop:
            roomier = build(self.picture, wider(self.picture, built, chosen))
            second = solve(roomier.problem, self.stop, self.params.seed)
            if _gained(second) < _gained(ideal):
                built, ideal = roomier, second
        best = first = attempt = self._attempt(built, ideal)
        problem = built.problem
        for retry in range(RETRIES):
            if attempt.whole or self.stop:
                break
            built = _otherwise(built, attempt, stay=retry == RETRIES - 1)
            attempt = self._attempt(built, solve(built.problem, self.stop, self.params.seed))
            best = min(best, attempt, key=lambda one: one.score)
        certain = best is first and first.whole
        if certain and (ideal.gap <= GOOD or not small):
            bound = _bound(ideal, best.waves)
            # Hops cost what placements do not.
            status = FEASIBLE if ideal.status == OPTIMAL and not bound.proven else ideal.status
            return self._finished(best, bound, status, ideal.stages)
        return self._bounded(best, ideal, problem, FEASIBLE if certain else REPAIRED)

    def _bounded(self, best: _Attempt, ideal: Solution, problem: Problem, status: str) -> Plan:
        """A plan with the bound of all placements that cure as much, where the search has none that is worth much.

        So it is where no order of moves leads to the ideal placement, which cures more than the plan does.
        """
        constant = sum(violation.degree for violation in self.before.violations) - ideal.first.violations
        reached = Values(**{**asdict(best.score), "violations": best.score.violations - constant})
        cost = cost_bound(problem, reached, self.stop, self.params.seed)
        if _cures(reached) <= _cures(ideal.values):
            cost = max(cost, ideal.cost_bound)
        cost = min(cost, reached.cost)
        dearest = int(problem.cost[problem.movable].max(initial=1))
        bound = Bound(moves=-(-cost // dearest), cost=cost, gap=_gap(reached.cost, cost), proven=cost == reached.cost)
        stages = tuple(
            replace(stage, value=getattr(reached, stage.name), bound=cost if stage.name == "cost" else stage.bound)
            for stage in ideal.stages
        )
        optimal = bound.proven and all(stage.value <= stage.bound for stage in stages[: len(_cures(reached))])
        return self._finished(best, bound, OPTIMAL if optimal else status, stages)

    def _attempt(self, built: Built, solution: Solution) -> _Attempt:
        """Bring a solution into order, and keep what the judge approves of."""
        index = Index(built.problem)
        at = shorter(index, Trips(self.picture, built, self.params), solution.at)
        solution = replace(solution, at=at)
        ordered = order(self.picture, built, index, at, self.params)
        warnings = [
            f"{built.vmis[item]} stays, though {built.nodes[int(solution.at[item])]} would be better for it: "
            "no safe order of moves brings it there"
            for item in ordered.stuck
        ]
        waves = self._waves(built, ordered, solution)
        kept, problems = self._verified(waves, complete=not ordered.stuck)
        settled = self._settled(kept)
        moves = [move for wave in kept for move in wave.moves]
        left = self.picture.overview.violations_after(settled, {move.vmi for move in moves})
        score = self.scale.score(settled, moves, left)
        whole = kept == waves and not ordered.stuck
        if whole:
            warnings += self._compare(solution, kept, score)
        warnings += problems
        return _Attempt(
            solution=solution, waves=kept, whole=whole, settled=settled, left=left, score=score, warnings=warnings
        )

    def _waves(self, built: Built, ordered: Order, solution: Solution) -> tuple[Wave, ...]:
        reasons = Reasons(self.picture, built, solution.at)
        return tuple(Wave(moves=tuple(self._move(built, step, reasons) for step in steps)) for steps in ordered.waves)

    def _move(self, built: Built, step: Step, reasons: Reasons) -> Move:
        vmi = self.picture.snapshot.vmis[built.vmis[step.item]]
        pod = self.picture.settled.active_pods[vmi.key]
        memory = copied_bytes(vmi, pod)
        return Move(
            vmi=vmi.key,
            uid=vmi.uid,
            source=built.nodes[step.source],
            target=built.nodes[step.target],
            cost=int(built.problem.cost[step.item]),
            reasons=reasons.of(step),
            memory_bytes=memory,
            seconds=seconds(memory, self.params, self.picture.kubevirt),
            hop=step.hop,
        )

    def _verified(self, waves: tuple[Wave, ...], *, complete: bool) -> tuple[tuple[Wave, ...], list[str]]:
        """A part of the plan, from its start, of which the judge approves: nothing else is ever issued.

        What is left of a plan that is not complete need not gain anything; a wave that breaks a promise is a bug.
        """
        picture, warnings = self.picture, list[str]()
        count = len(waves)
        while count:
            draft = self._draft(waves[:count])
            problems = verify(picture.snapshot, draft, picture.params, immovable=self.held, overview=picture.overview)
            if not problems:
                break
            broken = re.match(r"wave (\d+):", problems[0])
            if broken or complete:
                warnings += [f"the plan is cut short before its wave {count}: {problem}" for problem in problems[:3]]
            count = int(broken[1]) - 1 if broken else count - 1 - count // 8
        return waves[:count], warnings

    def _draft(self, waves: tuple[Wave, ...]) -> Plan:
        return Plan(
            id="draft",
            created=self.now,
            resource_version=self.picture.snapshot.resource_version,
            triggers=self.picture.triggers,
            waves=waves,
            before=State(),
            after=State(),
            left=(),
            bound=Bound(moves=0, cost=0, gap=0.0, proven=False),
            solver=Solver(status="", seconds=0.0),
        )

    def _settled(self, waves: tuple[Wave, ...]) -> ClusterState:
        """The settled state after all waves."""
        if not waves:
            return self.picture.settled
        snapshot, state = self.picture.snapshot, self.picture.settled.copy()
        for number, wave in enumerate(waves):
            for move in wave.moves:
                source = state.active_pods[move.vmi]
                pod = target_pod(snapshot.vmis[move.vmi], source, snapshot.nodes[move.source], self.picture.kubevirt)
                state.move(move.vmi, replace(pod, uid=f"{pod.uid}:{number}"), move.target)
        return state

    def _compare(self, solution: Solution, waves: tuple[Wave, ...], score: Score) -> list[str]:
        """The solver's values must be the judge's own, to the last integer; a difference is a bug and is told."""
        hops = sum(move.cost for wave in waves for move in wave.moves if move.hop)
        broken = sum(violation.degree for violation in self.before.violations)
        expected = Score(
            violations=broken + solution.values.violations - solution.first.violations,
            over_high=solution.values.over_high,
            over_low=solution.values.over_low,
            cost=solution.values.cost + hops,
            preferred=solution.values.preferred,
            evenness=solution.values.evenness,
        )
        return (
            [] if score == expected else [f"the solver's objective is not the judge's: {expected} instead of {score}"]
        )

    def _finished(self, best: _Attempt | None, bound: Bound, status: str, stages: tuple[StageValue, ...]) -> Plan:
        waves = best.waves if best is not None else ()
        warnings = best.warnings if best is not None else []
        if self.stop.interrupted:
            warnings = [*warnings, "the search was interrupted: another time the same cluster may get another plan"]
        settled = best.settled if best is not None else self.picture.settled
        snapshot = self.picture.snapshot
        after = self.picture.state(settled, best.left) if best is not None and waves else self.before
        told = self.params.told()
        return Plan(
            id=_digest(snapshot, told, self.picture.triggers, waves),
            created=self.now,
            resource_version=snapshot.resource_version,
            triggers=self.picture.triggers,
            waves=waves,
            before=self.before,
            after=after,
            left=left_over(self.picture, settled, after, waves),
            bound=bound,
            solver=Solver(status=status, seconds=round(self.stop.elapsed(), 3), stages=_told(stages)),
            settings=told,
            warnings=tuple(dict.fromkeys([*self.warnings, *warnings])),
            quiet_seconds=quiet_seconds(waves),
        )


def _otherwise(built: Built, attempt: _Attempt, *, stay: bool) -> Built:
    """The problem in which those who found no way to where they were to go may not go there, or must stay.

    Where some of them could go elsewhere, the others may still go where nobody else waits for them.
    """
    problem = built.problem
    done = {move.vmi for wave in attempt.waves for move in wave.moves}
    at = attempt.solution.at
    failed = [item for item in np.flatnonzero(at != problem.home).tolist() if built.vmis[item] not in done]
    movable, klass = problem.movable.copy(), problem.klass.copy()
    movable[failed] &= not stay
    rows = problem.allowed[klass[failed]].copy()
    rows[np.arange(len(failed)), at[failed]] = False
    rows[np.arange(len(failed)), problem.home[failed]] = False
    flexible = rows.any(axis=1) | (not rows.any())
    rows, others = rows[flexible], np.array(failed, dtype=np.int64)[flexible]
    klass[others] = len(problem.allowed) + np.arange(len(others))
    allowed = np.concatenate([problem.allowed, rows])
    return replace(built, problem=replace(problem, movable=movable, klass=klass, allowed=allowed))


def _bound(solution: Solution, waves: tuple[Wave, ...]) -> Bound:
    """The solution's bounds, beside what the plan costs, hops included."""
    cost = sum(move.cost for wave in waves for move in wave.moves)
    return Bound(
        moves=solution.moves_bound,
        cost=solution.cost_bound,
        gap=_gap(cost, solution.cost_bound),
        proven=solution.proven and cost == solution.values.cost,
    )


def _gained(solution: Solution) -> tuple[int, ...]:
    """What a solution changes, stage by stage: comparable between problems that differ in their items alone."""
    return tuple(getattr(solution.values, stage) - getattr(solution.first, stage) for stage in STAGES)


def _cures(reached: Values) -> tuple[int, int, int]:
    return reached.violations, reached.over_high, reached.over_low


def _told(stages: tuple[StageValue, ...]) -> tuple[Stage, ...]:
    return tuple(
        Stage(name=stage.name, value=stage.value, bound=stage.bound, seconds=round(stage.seconds, 3))
        for stage in stages
    )


def _gap(cost: int, bound: int) -> float:
    return round(max(0.0, (cost - bound) / cost), 6) if cost else 0.0


def _digest(
    snapshot: Snapshot, settings: FrozenMap[str, str], triggers: tuple[Trigger, ...], waves: tuple[Wave, ...]
) -> str:
    """Sixteen hexadecimal digits: equal for equal snapshots, settings and waves, and fit for a label's value."""
    moves = [[(move.vmi, move.uid, move.source, move.target, move.hop) for move in wave.moves] for wave in waves]
    content = (snapshot.resource_version, sorted(settings.items()), [trigger.message for trigger in triggers], moves)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
