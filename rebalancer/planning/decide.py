"""The decision: a snapshot and its triggers become a plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Bound, Move, Plan, Solver, Stage, State, Wave
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger
from rebalancer.placement.index import Index
from rebalancer.placement.solve import UNCHANGED, Solution, solve
from rebalancer.placement.stop import Stop
from rebalancer.planning.build import Built, Picture, build, neighbourhood, wider
from rebalancer.planning.params import PlanningParams
from rebalancer.planning.reasons import Reasons, left_over
from rebalancer.planning.waves import Order, Step, order, quiet_seconds, seconds
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import sentences
from rebalancer.policy.load import threshold_warnings
from rebalancer.policy.score import Scale, Score
from rebalancer.policy.target import target_pod
from rebalancer.policy.verify import verify

WHOLE = 3_000
"""VMs up to which all are items of the problem; in larger clusters only those that are likely to move."""


GOOD = 0.001
"""The gap up to which VMs on nodes that nothing is wrong with are left out of account in large clusters."""
RETRIES = 2
"""New searches when some moves find no safe order: without those who got stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A solution with those of its waves that may be issued; `whole` where that is all of it."""

    solution: Solution
    waves: tuple[Wave, ...]
    whole: bool
    settled: ClusterState
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
) -> Plan:
    """The plan that cures the triggers as far as possible with the fewest, cheapest moves; never worse than no plan.

    `immovable` are VMs (by key) that must stay for reasons that the snapshot does not show, with the reason. `clock`
    gives seconds that do not go backwards: without it `params.seconds` is kept by counted work alone, and the plan
    tells no times. `stop` ends the search early.
    """
    picture = Picture.of(snapshot, triggers, params.policy, immovable or {})
    return _Planner(picture, params, now, stop or Stop(params.seconds, clock)).plan()


class _Planner:
    """One decision in the making."""

    def __init__(self, picture: Picture, params: PlanningParams, now: float, stop: Stop) -> None:
        self.picture, self.params, self.now, self.stop = picture, params, now, stop
        snapshot = picture.snapshot
        self.held = dict(picture.immovable)
        self.scale = Scale(snapshot=snapshot, params=params.policy, hot=self.picture.hot, book=self.picture.book)
        self.before = picture.state(picture.settled)
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
        attempt = self._attempt(built)
        if not small and attempt.solution.gap > GOOD and not self.stop:
            roomier = build(self.picture, wider(self.picture, built, chosen))
            second = self._attempt(roomier)
            if second.score < attempt.score:
                built, attempt = roomier, second
        best, first = attempt, True
        for _ in range(RETRIES):
            if attempt.whole or self.stop:
                break
            # Whoever did not get where it was to go stays this time, and others may do instead.
            done = {move.vmi for wave in attempt.waves for move in wave.moves}
            moved = attempt.solution.at != built.problem.home
            failed = [bool(moved[item]) and key not in done for item, key in enumerate(built.vmis)]
            movable = built.problem.movable & ~np.array(failed, dtype=bool)
            built = replace(built, problem=replace(built.problem, movable=movable))
            attempt = self._attempt(built)
            if attempt.score < best.score:
                best, first = attempt, False
        solution = best.solution
        stages = tuple(
            Stage(name=stage.name, value=stage.value, bound=stage.bound, seconds=round(stage.seconds, 3))
            for stage in solution.stages
        )
        certain = best.whole and first
        status = solution.status if certain else "REPAIRED"
        return self._finished(best, _bound(solution, best.waves, whole=certain), status, stages)

    def _attempt(self, built: Built) -> _Attempt:
        """Solve, bring into order, and keep what the judge approves of."""
        solution = solve(built.problem, self.stop, self.params.seed)
        ordered = order(self.picture, built, Index(built.problem), solution.at, self.params)
        warnings = [
            f"{built.vmis[item]} stays, though {built.nodes[int(solution.at[item])]} would be better for it: "
            "no safe order of moves brings it there"
            for item in ordered.stuck
        ]
        waves = self._waves(built, ordered, solution)
        kept, problems = self._verified(waves)
        settled = self._settled(kept)
        score = self.scale.score(settled, [move for wave in kept for move in wave.moves])
        whole = kept == waves and not ordered.stuck
        if whole:
            warnings += self._compare(solution, kept, score)
        warnings += problems
        return _Attempt(solution=solution, waves=kept, whole=whole, settled=settled, score=score, warnings=warnings)

    def _waves(self, built: Built, ordered: Order, solution: Solution) -> tuple[Wave, ...]:
        reasons = Reasons(self.picture, built, solution.at)
        return tuple(Wave(moves=tuple(self._move(built, step, reasons) for step in steps)) for steps in ordered.waves)

    def _move(self, built: Built, step: Step, reasons: Reasons) -> Move:
        vmi = self.picture.snapshot.vmis[built.vmis[step.item]]
        pod = self.picture.settled.active_pods[vmi.key]
        memory = vmi.spec.guest_memory_bytes or pod.spec.requests.memory_bytes
        return Move(
            vmi=vmi.key,
            uid=vmi.uid,
            source=built.nodes[step.source],
            target=built.nodes[step.target],
            cost=int(built.problem.cost[step.item]),
            reasons=reasons.of(step),
            memory_bytes=memory,
            seconds=seconds(memory, self.params),
            hop=step.hop,
        )

    def _verified(self, waves: tuple[Wave, ...]) -> tuple[tuple[Wave, ...], list[str]]:
        """The longest part of the plan, from its start, of which the judge approves: nothing else is ever issued."""
        picture, warnings = self.picture, list[str]()
        for count in range(len(waves), 0, -1):
            part = waves[:count]
            draft = self._draft(part)
            problems = verify(picture.snapshot, draft, picture.params, immovable=self.held, state=picture.real)
            if not problems:
                return part, warnings
            warnings += [f"the plan is cut short before its wave {count}: {problem}" for problem in problems[:3]]
        return (), warnings

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

    def _finished(self, best: _Attempt | None, bound: Bound, status: str, stages: tuple[Stage, ...]) -> Plan:
        waves = best.waves if best is not None else ()
        warnings = best.warnings if best is not None else []
        settled = best.settled if best is not None else self.picture.settled
        snapshot = self.picture.snapshot
        after = self.picture.state(settled) if waves else self.before
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
            solver=Solver(status=status, seconds=round(self.stop.elapsed(), 3), stages=stages),
            settings=told,
            warnings=tuple(dict.fromkeys([*self.warnings, *warnings])),
            quiet_seconds=quiet_seconds(waves, self.params),
        )


def _bound(solution: Solution, waves: tuple[Wave, ...], *, whole: bool) -> Bound:
    """The solution's bounds, beside what the plan costs; a plan that was cut cures less and has none."""
    cost = sum(move.cost for wave in waves for move in wave.moves)
    if not whole:
        return Bound(moves=0, cost=0, gap=1.0 if cost else 0.0, proven=False)
    gap = max(0.0, (cost - solution.cost_bound) / cost) if cost else 0.0
    return Bound(
        moves=solution.moves_bound,
        cost=solution.cost_bound,
        gap=round(gap, 6),
        proven=solution.proven and cost == solution.values.cost,
    )


def _digest(
    snapshot: Snapshot, settings: FrozenMap[str, str], triggers: tuple[Trigger, ...], waves: tuple[Wave, ...]
) -> str:
    """Sixteen hexadecimal digits: equal for equal snapshots, settings and waves, and fit for a label's value."""
    moves = [[(move.vmi, move.uid, move.source, move.target, move.hop) for move in wave.moves] for wave in waves]
    content = (snapshot.resource_version, sorted(settings.items()), [trigger.message for trigger in triggers], moves)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
