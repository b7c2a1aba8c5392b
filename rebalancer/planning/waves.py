"""The order of moves: waves in which every move may run beside the others, in any order, and any of them may fail.

A move joins a wave if budgets allow one more, if kube-scheduler would take its target pod with all sources and the
wave's other targets present, if it breaks no rule alone or together with the others, if no node rises above `high` even
before anything has left, and if the node is at `low` or below once the wave has landed. Moves that wait for each other
in a circle are broken up by temporary stops on third nodes; what cannot be ordered at all is left out and reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rebalancer.domain.pod import Pod
from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.planning.build import Built, Picture
from rebalancer.planning.pace import Tally, Trip, Trips, ranked
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.feasibility import rejection
from rebalancer.policy.target import target_guard, target_pod

ORDERS = 4
"""Orders that are tried: without stops of those that had to be left where they stopped, all over again."""
MAX_HOPS = 40
"""Temporary stops per plan: circles are rare, and each stop is a migration that gains nothing by itself."""
CIRCLES = 100
"""Waiting moves from which a circle is looked for, for one wave."""
TRIALS = 300
"""Hops that are tried for one wave: each costs a few questions to the scheduler's filters."""
STOPS = 10
"""Third nodes that are tried for one item."""
COMPANY = 4
"""Items that make way together for one that needs more room than any of them has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One item's way from a node to another; `hop` where it will move on."""

    item: int
    source: int
    target: int
    hop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Waves of steps, and the items whose moves cannot be carried out; `stranded` of them could only stop over."""

    waves: tuple[tuple[Step, ...], ...]
    stuck: tuple[int, ...]
    stranded: tuple[int, ...] = ()


def order(picture: Picture, built: Built, index: Index, at: Ints, params: PlanningParams) -> Order:
    """The moves from everyone's home to `at`, in waves."""
    barred = set[int]()
    best: Order | None = None
    for _ in range(ORDERS):
        found = _Scheduler(picture, built, index, at, params).run(barred)
        best = found if best is None or len(found.stuck) < len(best.stuck) else best
        if not found.stranded:
            break
        barred |= set(found.stranded)
    assert best is not None
    return best


class _Scheduler:
    """The cluster as the waves go by: `real` in pods, `settled` in indices, `ahead` with the wave in the making."""

    def __init__(self, picture: Picture, built: Built, index: Index, at: Ints, params: PlanningParams) -> None:
        self.picture, self.built = picture, built
        self.problem = built.problem
        self.goal = at
        self._trips = Trips(picture, built, params)
        self.budgets = self._trips.budgets
        self.real = picture.real.copy()
        self.settled, self.ahead = Assignment(index), Assignment(index)
        self.waiting = [trip.item for trip in ranked(self._trips.to(at), self.budgets)]
        self.hops = self.trials = 0
        self._targets: dict[tuple[str, int], Pod] = {}
        self.barred: frozenset[int] = frozenset()

    def run(self, barred: Collection[int]) -> Order:
        """All waves; the barred items make no stops."""
        self.barred = frozenset(barred)
        waves: list[tuple[Step, ...]] = []
        while self.waiting:
            if steps := self._wave() or self._circle():
                self._land(steps)
                waves.append(tuple(steps))
            elif hops := self._stop_overs():
                self._land(hops)
                waves.append(tuple(hops))
            elif company := self._make_way():
                waves.extend((hop,) for hop in company)
            else:
                break
        stuck = set(self.waiting)
        stranded = {step.item for wave in waves for step in wave if step.hop} & stuck
        for number, wave in enumerate(waves):
            if any(step.hop and step.item in stuck for step in wave):
                # Nobody is left where it was only to pass through, so what came after that falls, too.
                stuck |= {step.item for later in waves[number:] for step in later}
                waves = waves[:number]
                break
        return Order(waves=tuple(waves), stuck=tuple(sorted(stuck)), stranded=tuple(sorted(stranded)))

    def trip(self, step: Step) -> Trip:
        """What a step means for budgets and time."""
        return self._trips.of(step.item, step.source, step.target)

    def _next(self, item: int) -> Step:
        """The last step of an item, from where it is to where it is to be."""
        return Step(item=item, source=int(self.settled.at[item]), target=int(self.goal[item]))

    def _wave(self) -> list[Step]:
        """The waiting moves that fit together, in their order."""
        wave = _Wave(self)
        for item in self.waiting:
            if wave.tally.full:
                break
            step = self._next(item)
            if wave.tally.admits(self.trip(step)) and wave.takes(step):
                wave.add(step)
        wave.close()
        return wave.steps

    def _circle(self) -> list[Step]:
        """Moves that fit only all at once: each makes room for the one before when they land."""
        for seed in self.waiting[:CIRCLES]:
            wave, chain = _Wave(self), [seed]
            for item in chain:
                step = self._next(item)
                if wave.tally.admits(self.trip(step)) and wave.takes(step, settled=False):
                    wave.add(step)
                    chain += [
                        other for other in self.waiting if self.settled.at[other] == step.target and other not in chain
                    ]
            wave.drop_overfull()
            wave.close()
            if wave.steps:
                return wave.steps
        return []

    def _stop_overs(self) -> list[Step]:
        """Hops that may run together, each of which lets some waiting move of another circle start."""
        self.trials = TRIALS
        wave, opened = _Wave(self), set[int]()
        circle = self._circles()
        for item in self.waiting:
            if wave.tally.full or self.hops >= MAX_HOPS:
                break
            if circle[item] not in opened and (hop := self._stop_over(item, wave)):
                wave.add(hop)
                opened.add(circle[item])
                self.hops += 1
        wave.close()
        return wave.steps

    def _stop_over(self, item: int, wave: _Wave) -> Step | None:
        """A hop of one other item that fits into a wave and lets an item start."""
        for blocker in self._in_the_way(item):
            source = int(self.settled.at[blocker])
            for node in self._stops(blocker):
                hop = Step(item=blocker, source=source, target=node, hop=True)
                if self.trials > 0 and wave.tally.admits(self.trip(hop)) and wave.takes(hop):
                    self.trials -= 1
                    pod = self._land([hop])[0]
                    helps = self._fits(item)
                    self._return(hop, pod)
                    if helps:
                        return hop
        return None

    def _circles(self) -> dict[int, int]:
        """A number by waiting item, equal for those whose nodes hang together by waiting moves."""
        root = list(range(self.problem.nodes))

        def found(node: int) -> int:
            while root[node] != node:
                root[node] = node = root[root[node]]
            return node

        for item in self.waiting:
            root[found(int(self.settled.at[item]))] = found(int(self.goal[item]))
        return {item: found(int(self.goal[item])) for item in self.waiting}

    def _make_way(self) -> list[Step]:
        """Hops that have landed, one after another, so that some waiting move can start; none if there are no such."""
        self.trials = TRIALS
        for item in self.waiting:
            blockers = self._in_the_way(item)
            blockers.sort(key=lambda other: (tuple(-self.problem.resting[other]), other))
            for size in range(2, 1 + min(COMPANY, len(blockers), MAX_HOPS - self.hops)):
                if hops := self._cleared(item, blockers[:size]):
                    self.hops += len(hops)
                    return hops
        return []

    def _cleared(self, item: int, company: Sequence[int]) -> list[Step]:
        """Hops of the whole company, landed, after which an item can start; none and nobody has moved if that fails."""
        for hop in self._hops(company[0]):
            if len(company) > 1:
                if others := self._cleared(item, company[1:]):
                    return [hop, *others]
            elif self._fits(item):
                return [hop]
        return []

    def _in_the_way(self, item: int) -> list[int]:
        """Waiting items that may be what keeps another from its goal, the cheapest first."""
        problem, goal = self.problem, int(self.goal[item])
        fellows = self.settled.index.fellows(item)
        blockers = [
            other
            for other in self.waiting
            if other != item
            and other not in self.barred
            and self.settled.at[other] == problem.home[other]
            and (problem.home[other] == goal or other in fellows)
        ]
        return sorted(blockers, key=lambda other: (int(problem.cost[other]), other))

    def _hops(self, item: int) -> Iterator[Step]:
        """An item's hops, each landed; who asks for another one takes back the last."""
        source = int(self.settled.at[item])
        for node in self._stops(item):
            step = Step(item=item, source=source, target=node, hop=True)
            if self.trials > 0 and _Wave(self).takes(step):
                self.trials -= 1
                pod = self._land([step])[0]
                yield step
                self._return(step, pod)

    def _stops(self, item: int) -> list[int]:
        """The emptiest nodes that could hold an item for a while."""
        problem = self.problem
        mask = problem.allowed[problem.klass[item]].copy()
        mask[[int(problem.home[item]), int(self.goal[item])]] = False
        nodes = np.flatnonzero(mask)
        fill = self.settled.load[nodes, : problem.counted] / np.maximum(problem.scale[nodes], 1)
        emptiest = nodes[np.lexsort((nodes, fill.max(axis=1, initial=0)))]
        return [int(node) for node in emptiest[:STOPS]]

    def _fits(self, item: int) -> bool:
        """Whether a waiting item could go where it is to be now."""
        return _Wave(self).takes(self._next(item))

    def _land(self, steps: list[Step]) -> list[Pod]:
        """Let steps land; returns the pods that they leave."""
        left = [self.real.active_pods[self.built.vmis[step.item]] for step in steps]
        for step in steps:
            key = self.built.vmis[step.item]
            self.real.move(key, self.target(step), self.built.nodes[step.target])
            self.settled.move(step.item, step.target)
            self.ahead.move(step.item, step.target)
        done = {step.item for step in steps if not step.hop}
        self.waiting = [item for item in self.waiting if item not in done]
        return left

    def _return(self, hop: Step, pod: Pod) -> None:
        """Take back a hop that has landed, and the pod that it had left."""
        self.real.move(self.built.vmis[hop.item], pod, pod.node)
        self.settled.move(hop.item, hop.source)
        self.ahead.move(hop.item, hop.source)
        self.settled.reference = self.ahead.reference = self.settled.at.copy()

    def target(self, step: Step) -> Pod:
        """The target pod of a step, with an identity of its own."""
        vmi = self.picture.snapshot.vmis[self.built.vmis[step.item]]
        source = self.real.active_pods[vmi.key]
        known = self._targets.get((source.uid, step.target))
        if known is None:
            pod = target_pod(vmi, source, self.picture.real.nodes[source.node], self.picture.kubevirt)
            known = self._targets[source.uid, step.target] = replace(pod, uid=f"{pod.uid}:{step.target}")
        return known


class _Wave:
    """One wave under construction: its targets stand in the scheduler's real state until it is closed."""

    def __init__(self, scheduler: _Scheduler) -> None:
        self.of = scheduler
        scheduler.settled.reference = scheduler.ahead.reference = scheduler.settled.at.copy()
        self.steps: list[Step] = []
        self.tally = Tally(scheduler.budgets)
        self._arriving: dict[int, Ints] = {}
        self._placed: list[Pod] = []

    def takes(self, step: Step, *, settled: bool = True) -> bool:
        """Whether a step may join; `settled` False leaves out how full the target is in the end."""
        of = self.of
        problem = of.problem
        counted = problem.counted
        arriving = self._arriving.get(step.target, 0) + problem.demand[step.item, :counted]
        before = of.settled.load[step.target, :counted]
        high = problem.high[step.target]
        if ((before <= high) & (before + arriving > high) & (problem.scale[step.target] > 0)).any():
            return False
        if settled and not step.hop:
            after = before + arriving
            if (after > np.maximum(problem.low[step.target], before))[problem.demand[step.item, :counted] > 0].any():
                return False
        alone = of.settled.receivers_by_rule(step.item)[step.target]
        together = not self.steps or of.ahead.receivers_by_rule(step.item)[step.target]
        return bool(alone and together) and self._scheduler_takes(step)

    def _scheduler_takes(self, step: Step) -> bool:
        of = self.of
        pod, node = of.target(step), of.built.nodes[step.target]
        vmi = of.picture.snapshot.vmis[of.built.vmis[step.item]]
        source = of.picture.real.nodes[of.built.nodes[step.source]]
        return rejection(of.real, pod, node) is None and target_guard(vmi, source)(of.picture.real.nodes[node]) is None

    def add(self, step: Step) -> None:
        """Let a step join, its target beside its source."""
        of = self.of
        self.steps.append(step)
        self.tally.count(of.trip(step))
        demand = of.problem.demand[step.item, : of.problem.counted]
        self._arriving[step.target] = self._arriving.get(step.target, 0) + demand
        pod = of.target(step).on(of.built.nodes[step.target])
        of.real.add(pod)
        of.ahead.move(step.item, step.target)
        self._placed.append(pod)

    def drop_overfull(self) -> None:
        """Leave out steps, last first, until every target is at low, or as it was, once all have landed."""
        problem, counted = self.of.problem, self.of.problem.counted
        while self.steps:
            load = self.of.settled.load[:, :counted].copy()
            for step in self.steps:
                load[step.source] -= problem.taken(step.item, step.source)[:counted]
                load[step.target] += problem.taken(step.item, step.target)[:counted]
            first = np.maximum(problem.low, self.of.settled.load[:, :counted])
            overfull = {step.target for step in self.steps if (load[step.target] > first[step.target]).any()}
            if not overfull:
                return
            position = max(number for number, step in enumerate(self.steps) if step.target in overfull)
            dropped = self.steps.pop(position)
            self.of.ahead.move(dropped.item, dropped.source)
            self.of.real.remove(self._placed.pop(position))

    def close(self) -> None:
        """Take the targets out again: landing is the scheduler's business."""
        for step, pod in zip(self.steps, self._placed, strict=True):
            self.of.real.remove(pod)
            self.of.ahead.move(step.item, step.source)
        self._placed.clear()
