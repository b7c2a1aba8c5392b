"""The order of moves: waves in which every move may run beside the others, in any order, and any of them may fail.

A move joins a wave if kube-scheduler would take its target pod with all sources and the wave's other targets present,
if it breaks no rule alone or together with the others, if no node rises above `high` even before anything has left,
and if the node is at `low` or below once the wave has landed. Moves that wait for each other in a circle are broken up
by a temporary stop on a third node; what cannot be ordered at all is left out and reported.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from rebalancer.domain.plan import Wave
from rebalancer.domain.pod import Pod
from rebalancer.placement.assignment import Assignment
from rebalancer.placement.groups import Ints
from rebalancer.placement.index import Index
from rebalancer.planning.build import Built, Picture
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.feasibility import rejection
from rebalancer.policy.target import target_guard, target_pod

MAX_HOPS = 20
"""Temporary stops per plan: circles are rare, and each stop is a migration that gains nothing by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One item's way from a node to another; `hop` where it will move on."""

    item: int
    source: int
    target: int
    hop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Waves of steps, and the items whose moves cannot be carried out."""

    waves: tuple[tuple[Step, ...], ...]
    stuck: tuple[int, ...]


def order(picture: Picture, built: Built, index: Index, at: Ints, params: PlanningParams) -> Order:
    """The moves from everyone's home to `at`, in waves."""
    return _Scheduler(picture, built, index, at, params).run()


def seconds(memory_bytes: int, params: PlanningParams) -> float:
    """The estimated time of one migration: its memory over the bandwidth, and what every migration takes."""
    return round(memory_bytes / 2**20 / params.bandwidth_mib + params.overhead_seconds, 1)


def quiet_seconds(waves: tuple[Wave, ...], params: PlanningParams) -> float:
    """The estimated time until all waves have landed, with as many migrations at once as the cluster allows."""
    total = 0.0
    for wave in waves:
        slots = [0.0] * params.per_cluster
        for move in sorted(wave.moves, key=lambda move: -move.seconds):
            slots[slots.index(min(slots))] += move.seconds
        total += max(slots)
    return round(total, 1)


class _Scheduler:
    """The cluster as the waves go by: `real` in pods, `settled` in indices, `ahead` with the wave in the making."""

    def __init__(self, picture: Picture, built: Built, index: Index, at: Ints, params: PlanningParams) -> None:
        self.picture, self.built, self.params = picture, built, params
        self.problem = built.problem
        self.goal = at
        self.real = picture.real.copy()
        self.settled, self.ahead = Assignment(index), Assignment(index)
        leaving = Counter(int(self.problem.home[item]) for item in self._moving(at))
        self.waiting = sorted(
            self._moving(at),
            key=lambda item: (-leaving[int(self.problem.home[item])], -int(self.problem.cost[item]), item),
        )
        self.hops = 0

    def _moving(self, at: Ints) -> list[int]:
        moving: list[int] = np.flatnonzero(at != self.problem.home).tolist()
        return moving

    def run(self) -> Order:
        waves: list[tuple[Step, ...]] = []
        while self.waiting:
            steps = self._wave() or self._together() or self._hop()
            if not steps:
                break
            self._land(steps)
            waves.append(tuple(steps))
        return Order(waves=tuple(waves), stuck=tuple(sorted(self.waiting)))

    def _wave(self) -> list[Step]:
        """The waiting moves that fit together, those from nodes with many moves first."""
        wave = _Wave(self)
        for item in self.waiting:
            step = Step(item=item, source=int(self.settled.at[item]), target=int(self.goal[item]))
            if wave.has_budget(step) and wave.takes(step):
                wave.add(step)
        wave.close()
        return wave.steps

    def _together(self) -> list[Step]:
        """A circle whose moves fit only all at once: they make room for each other as they land."""
        wave = _Wave(self)
        for item in self.waiting:
            step = Step(item=item, source=int(self.settled.at[item]), target=int(self.goal[item]))
            if wave.has_budget(step) and wave.takes(step, settled=False):
                wave.add(step)
        wave.drop_overfull()
        wave.close()
        return wave.steps

    def _hop(self) -> list[Step]:
        """One waiting move's detour over a third node, after which some other waiting move can start."""
        if self.hops >= MAX_HOPS:
            return []
        for item in self.waiting:
            source = int(self.settled.at[item])
            if source != self.problem.home[item]:
                continue
            for node in self._stops(item):
                step = Step(item=item, source=source, target=node, hop=True)
                wave = _Wave(self)
                if wave.takes(step):
                    wave.add(step)
                    if self._helps(step):
                        wave.close()
                        self.hops += 1
                        return wave.steps
                    wave.close()
        return []

    def _stops(self, item: int) -> list[int]:
        """The emptiest nodes that could hold an item for a while."""
        problem = self.problem
        mask = problem.allowed[problem.klass[item]].copy()
        mask[[int(problem.home[item]), int(self.goal[item])]] = False
        nodes = np.flatnonzero(mask)
        fill = self.settled.load[nodes, : problem.counted] / np.maximum(problem.scale[nodes], 1)
        emptiest = nodes[np.lexsort((nodes, fill.max(axis=1, initial=0)))]
        return [int(node) for node in emptiest[:10]]

    def _helps(self, step: Step) -> bool:
        """Whether another waiting move fits once this step has landed."""
        self.settled.move(step.item, step.target)
        freed = self.real.active_pods[self.built.vmis[step.item]]
        self.real.remove(freed)
        others = [item for item in self.waiting if item != step.item]
        trial = _Wave(self)
        helped = any(
            trial.takes(Step(item=item, source=int(self.settled.at[item]), target=int(self.goal[item])))
            for item in others
        )
        self.real.add(freed)
        self.settled.move(step.item, step.source)
        return helped

    def _land(self, steps: list[Step]) -> None:
        for step in steps:
            key = self.built.vmis[step.item]
            self.real.move(key, self.target(step), self.built.nodes[step.target])
            self.settled.move(step.item, step.target)
            self.ahead.move(step.item, step.target)
        done = {step.item for step in steps if not step.hop}
        self.waiting = [item for item in self.waiting if item not in done]

    def target(self, step: Step) -> Pod:
        """The target pod of a step, with an identity of its own."""
        vmi = self.picture.snapshot.vmis[self.built.vmis[step.item]]
        source = self.real.active_pods[vmi.key]
        node = self.picture.real.nodes[source.node]
        pod = target_pod(vmi, source, node, self.picture.kubevirt)
        return replace(pod, uid=f"{pod.uid}:{step.target}")


class _Wave:
    """One wave under construction: its targets stand in the scheduler's real state until it is closed."""

    def __init__(self, scheduler: _Scheduler) -> None:
        self.of = scheduler
        scheduler.settled.reference = scheduler.ahead.reference = scheduler.settled.at.copy()
        self.steps: list[Step] = []
        self._arriving: dict[int, Ints] = {}
        self._sources: Counter[int] = Counter()
        self._targets: Counter[int] = Counter()
        self._placed: list[Pod] = []

    def has_budget(self, step: Step) -> bool:
        """Whether source and target may still take part in a migration."""
        params = self.of.params
        return self._sources[step.source] < params.per_source and self._targets[step.target] < params.per_target

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
        self._sources[step.source] += 1
        self._targets[step.target] += 1
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
