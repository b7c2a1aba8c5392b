"""The one judge of a plan: the planner asks it for every result, the executor before every wave.

What a wave promises: its moves may run together, in any order, any of them may fail, and nothing becomes worse.

- Every move is of a VM that exists, may move, and runs where the move starts.
- kube-scheduler takes every target pod on its node, with the wave's other targets there and without them, with all
  sources still there; nothing of ours or KubeVirt's speaks against the node.
- However the wave lands, no node comes to be above `high` that was not; when it has landed, every node that it made
  fuller is at `low` or below, save where a hop only passes through, and in the end there, too.
- However the wave lands - each move alone, and all together - no rule is broken worse than before it.
At the end the score must be better than that of doing nothing, unless there are no moves.

The cost is that of two states and of the moves and the rules that they touch, not of the cluster for each wave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.plan import Move, Plan, Wave
from rebalancer.domain.pod import Pod
from rebalancer.domain.resources import CPU, Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Violation
from rebalancer.policy.feasibility import rejection
from rebalancer.policy.load import PolicyParams, judged, limit, overloaded
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.overview import Overview
from rebalancer.policy.rule_book import Rule
from rebalancer.policy.rules import is_judged
from rebalancer.policy.score import Load, Scale, Score
from rebalancer.policy.target import target_guard, target_pod

Degrees = dict[tuple[str, str], Violation]
"""Violations by their identity: the VMI and the rule."""

NO_KUBEVIRT = KubeVirt()


def verify(  # noqa: PLR0913 - what a caller knows besides is told by name
    snapshot: Snapshot,
    plan: Plan | Sequence[Wave],
    params: PolicyParams,
    *,
    immovable: Mapping[str, str] | None = None,
    begun: bool = False,
    hot: Iterable[Load] = (),
    overview: Overview | None = None,
) -> tuple[str, ...]:
    """The promises that a plan breaks, a sentence each, naming move and node; empty for a good plan.

    The sentences are those of the first wave that breaks any: what comes after it stands on sand. A Plan says better
    than its waves what it is to cure: the hotspots among its triggers, besides all loads above `high`. `immovable` are
    VMs (by key) that must stay for reasons that the snapshot does not show, such as a cooldown. `begun`: the waves are
    the rest of a plan that has been carried out in part; they may not make anything worse, but need not gain alone.
    `hot` are the loads that it is to cure where waves alone are given: they may have come down below `high` by now.
    `overview` is the snapshot's, for callers that have it already; it stays as it is.
    """
    waves = plan.waves if isinstance(plan, Plan) else tuple(plan)
    if not waves:
        return ()
    overview = overview or Overview.of(snapshot, params)
    judge = _Judge(overview, params, immovable or {})
    hot = {*overloaded(judge.settled, params.thresholds), *hot}
    if isinstance(plan, Plan):
        hot |= {(t.hotspot.node, t.hotspot.resource) for t in plan.triggers if t.hotspot is not None}
    scale = Scale(snapshot=snapshot, params=params, hot=hot, book=judge.book)
    before = scale.score(judge.settled, (), overview.violations)
    for number, wave in enumerate(waves, start=1):
        problems = judge.wave(wave)
        if problems:
            return tuple(f"wave {number}: {problem}" for problem in problems)
    moves = tuple(move for wave in waves for move in wave.moves)
    unfinished = tuple(judge.unfinished())
    left = overview.violations_after(judge.settled, {move.vmi for move in moves})
    return unfinished or tuple(_not_better(before, scale.score(judge.settled, moves, left), begun))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Landing:
    """One move of a wave: the pod that it leaves, and the one that it brings, bound to its node."""

    move: Move
    source: Pod
    target: Pod

    def __str__(self) -> str:
        return f"{self.move.vmi} from {self.move.source} to {self.move.target}"


class _Judge:
    """The cluster as the waves go by.

    `real` holds migrations in flight with both their pods, as capacity does; in `settled` they have landed, as
    thresholds and rules want it. `hops` are the VMs that are on their way: key → node.
    """

    def __init__(self, overview: Overview, params: PolicyParams, immovable: Mapping[str, str]) -> None:
        self.snapshot = overview.snapshot
        self.params = params
        self.immovable = immovable
        self.settled = overview.state.detached()
        self.real = self.settled.unsettled(self.snapshot)
        self.book = overview.book
        self.hops: dict[str, str] = {}
        self._arrived: set[str] = set()
        self._at_first: dict[str, Resources] = {}
        self._landings = 0

    def wave(self, wave: Wave) -> list[str]:
        """Judge a wave and, if nothing speaks against it, let it land."""
        problems = list(self._misplanned(wave.moves))
        if problems:
            return problems
        landings = [self._landing(move) for move in wave.moves]
        problems = [*self._refused(landings), *self._overfilled(landings), *self._broken(landings)]
        if problems:
            return problems
        filled = {landing.move.target: self.settled.requested(landing.move.target) for landing in landings}
        self._at_first = {**filled, **self._at_first}
        for landing in landings:
            self.real.move(landing.move.vmi, landing.target, landing.move.target)
            self.settled.move(landing.move.vmi, landing.target, landing.move.target)
            if landing.move.hop:
                self.hops[landing.move.vmi] = landing.move.target
            else:
                self.hops.pop(landing.move.vmi, None)
                self._arrived.add(landing.move.vmi)
        passing = {landing.move.target for landing in landings if landing.move.hop}
        return list(self._above_low({name: before for name, before in filled.items() if name not in passing}))

    def unfinished(self) -> Iterator[str]:
        """What may be in between, but not in the end."""
        for key, node in self.hops.items():
            yield f"{key} is left on {node}, where it was only to pass through"
        yield from self._above_low(self._at_first)

    def _misplanned(self, moves: Iterable[Move]) -> Iterator[str]:
        """What is wrong with moves before any node is asked."""
        seen: set[str] = set()
        for move in moves:
            vmi = self.snapshot.vmis.get(move.vmi)
            pod = self.real.active_pods.get(move.vmi)
            if move.vmi in seen:
                yield f"{move.vmi} is moved twice at a time"
            elif vmi is None or vmi.uid != move.uid:
                yield f"{move.vmi} does not exist, or not as the VM that was planned for"
            elif why := self._why_immovable(move.vmi):
                yield f"{move.vmi} must stay: {why}"
            elif move.vmi in self._arrived:
                yield f"{move.vmi} is moved again from where it was to stay"
            elif pod is None or pod.node != move.source:
                yield f"{move.vmi} is not on {move.source}, but on {pod.node if pod is not None else 'no node'}"
            elif move.target not in self.snapshot.nodes:
                yield f"{move.vmi} cannot go to {move.target}, which does not exist"
            elif move.target in (move.source, vmi.node):
                yield f"{move.vmi} is moved to {move.target}, where it runs"
            seen.add(move.vmi)

    def _why_immovable(self, key: str) -> str | None:
        if key in self.immovable:
            return self.immovable[key]
        if key in self.hops:
            return None  # it was movable when it set out
        return why_immovable(self.snapshot.vmis[key], self.snapshot, self.real)

    def _landing(self, move: Move) -> _Landing:
        vmi = self.snapshot.vmis[move.vmi]
        source = self.real.active_pods[move.vmi]
        pod = target_pod(vmi, source, self.snapshot.nodes[move.source], self.snapshot.kubevirt or NO_KUBEVIRT)
        self._landings += 1  # a VM that hops has two target pods in one plan
        target = replace(pod, uid=f"{pod.uid}:{self._landings}").on(move.target)
        return _Landing(move=move, source=source, target=target)

    def _refused(self, landings: Sequence[_Landing]) -> Iterator[str]:
        """Targets that would not be taken beside all sources, with or without the other targets."""
        refused: set[str] = set()
        for landing in landings:
            node = self.snapshot.nodes[landing.move.target]
            guard = target_guard(self.snapshot.vmis[landing.move.vmi], self.snapshot.nodes[landing.move.source])
            refusal = rejection(self.real, landing.target.on(""), node.name) or guard(node)
            if refusal is not None:
                refused.add(landing.move.vmi)
                yield f"{landing} is refused by {refusal.plugin}: {'; '.join(refusal.reasons)}"
        for landing in landings:
            self.real.add(landing.target)
        for landing in landings:
            self.real.remove(landing.target)
            refusal = rejection(self.real, landing.target.on(""), landing.move.target)
            self.real.add(landing.target)
            if refusal is not None and landing.move.vmi not in refused:
                reasons = "; ".join(refusal.reasons)
                yield f"{landing} is refused by {refusal.plugin} beside the wave's other moves: {reasons}"
        for landing in landings:
            self.real.remove(landing.target)

    def _overfilled(self, landings: Sequence[_Landing]) -> Iterator[str]:
        """Nodes that would come to be above `high` if all of the wave arrived there and nothing had left yet."""
        for name, arriving in _arriving(landings).items():
            node = self.snapshot.nodes[name]
            for resource in self.params.thresholds.resources:
                if not judged(node, resource):
                    continue
                high = limit(node, resource, "high", self.params.thresholds)
                before = self.settled.requested(name).get(resource)
                peak = before + arriving.get(resource)
                if before <= high < peak:
                    amounts = _amounts(resource, peak, high)
                    yield f"{name} would rise above its threshold while the wave lands: {amounts}"

    def _above_low(self, before: Mapping[str, Resources]) -> Iterator[str]:
        """Nodes that are fuller than before, and above `low`."""
        for name, earlier in before.items():
            node = self.snapshot.nodes[name]
            for resource in self.params.thresholds.resources:
                low = limit(node, resource, "low", self.params.thresholds)
                now = self.settled.requested(name).get(resource)
                if judged(node, resource) and now > max(low, earlier.get(resource)):
                    yield f"{name} is lifted above its low threshold: {_amounts(resource, now, low)}"

    def _broken(self, landings: Sequence[_Landing]) -> Iterator[str]:
        """Rules between pods that would be broken worse, by each move alone or by all of them.

        Those between a VM and its node are the scheduler's to refuse: a target pod has all that its VMI's spec asks.
        """
        touched: dict[Rule, list[_Landing]] = {}
        for landing in landings:
            for rule in self._touched(landing):
                touched.setdefault(rule, []).append(landing)
        before = {rule: self._degrees_of(rule) for rule in touched}
        # To a rule that one move alone touches the others are nothing.
        shared = {rule: movers for rule, movers in touched.items() if len(movers) > 1}
        for landing in landings:
            alone = {rule: [landing] for rule, movers in shared.items() if landing in movers}
            if alone:
                self._land([landing])
                yield from self._worse(alone, before)
                self._return([landing])
        self._land(landings)
        yield from self._worse(touched, before)
        self._return(landings)

    def _worse(self, touched: Mapping[Rule, Sequence[_Landing]], before: Mapping[Rule, Degrees]) -> Iterator[str]:
        for rule in sorted(touched, key=lambda rule: rule.text):
            movers = touched[rule]
            names = ", ".join(str(landing) for landing in movers[:3]) + (" and others" if len(movers) > 3 else "")
            for identity, violation in self._degrees_of(rule).items():
                known = before[rule].get(identity)
                if known is None or violation.degree > known.degree:
                    yield f"{names} would break a rule: {violation.message}"

    def _touched(self, landing: _Landing) -> set[Rule]:
        return self.book.touching(landing.move.vmi, (landing.source, landing.target), self.settled)

    def _degrees_of(self, rule: Rule) -> Degrees:
        return {
            (violation.vmi, violation.rule): violation
            for violation in rule.breaches(self.settled)
            if is_judged(self.snapshot.vmis.get(violation.vmi))
        }

    def _land(self, landings: Iterable[_Landing]) -> None:
        for landing in landings:
            self.settled.move(landing.move.vmi, landing.target, landing.move.target)

    def _return(self, landings: Iterable[_Landing]) -> None:
        for landing in landings:
            self.settled.move(landing.move.vmi, landing.source, landing.move.source)


def _not_better(before: Score, after: Score, begun: bool) -> Iterator[str]:
    """Why a plan is not worth it: the first stage that gets worse, before any that gets better."""
    for stage in fields(Score):
        old, new = getattr(before, stage.name), getattr(after, stage.name)
        if new < old or (begun and stage.name == "cost"):
            return
        if new > old:
            yield f"the plan gains nothing: {stage.name} rises from {old} to {new}, and nothing that counts more falls"
            return


def _arriving(landings: Iterable[_Landing]) -> dict[str, Resources]:
    """What arrives at each node in a wave."""
    found: dict[str, Resources] = {}
    for landing in landings:
        name = landing.move.target
        found[name] = found.get(name, Resources()) + landing.target.spec.requests
    return found


def _amounts(resource: str, amount: int, most: int) -> str:
    if resource == CPU:
        return f"{amount / 1000:g} CPU of at most {most / 1000:g}"
    return f"{amount / 2**30:.1f} GiB of memory of at most {most / 2**30:.1f}"
