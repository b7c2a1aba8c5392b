"""Why each move, and why what is left is left: in plain English, with numbers and witnesses."""

from __future__ import annotations

import numpy as np

from rebalancer.domain.plan import Left, State, Wave
from rebalancer.domain.resources import CPU
from rebalancer.domain.verdict import NODE_AFFINITY, TAINTS, Hotspot, Trigger, Violation
from rebalancer.placement.groups import Ints
from rebalancer.planning.build import Built, Picture
from rebalancer.planning.waves import Step
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import survey
from rebalancer.policy.load import hotspot
from rebalancer.policy.target import target_guard, target_pod

MAX_SURVEYS = 50
"""Triggers left for which every node is asked why; beyond that, the VMs' own reasons must do."""
MAX_WHY = 5
"""Reasons told for one trigger that is left."""

LABELS = {CPU: "CPU"}


class Reasons:
    """The reasons of one solution's moves."""

    def __init__(self, picture: Picture, built: Built, at: Ints) -> None:
        self._built = built
        self._at = at
        self._violations: dict[str, list[Violation]] = {}
        self._witnessed: dict[str, list[Violation]] = {}
        for violation in picture.broken:
            self._violations.setdefault(violation.vmi, []).append(violation)
            for witness in violation.witnesses:
                self._witnessed.setdefault(witness, []).append(violation)
        self._relief = self._hot_nodes(picture)
        moved = np.flatnonzero(at != built.problem.home).tolist()
        self._arrivals: dict[int, list[str]] = {}
        for item in moved:
            self._arrivals.setdefault(int(at[item]), []).append(built.vmis[item])

    def of(self, step: Step) -> tuple[str, ...]:
        """Why a step is made: what it cures, else for whom it makes room."""
        key = self._built.vmis[step.item]
        home = self._built.nodes[int(self._built.problem.home[step.item])]
        reasons = [_broken_here(violation) for violation in self._violations.get(key, ())]
        if not reasons:
            reasons += [f"parts from {v.vmi}: {v.message}" for v in self._witnessed.get(key, ())[:2]]
        reasons += self._relief.get(home, ())
        if not reasons:
            comers = self._arrivals.get(int(self._built.problem.home[step.item]), [])
            reasons.append(f"makes room on {home} for {', '.join(comers[:3]) or 'others'}")
        if step.hop:
            onward = self._built.nodes[int(self._at[step.item])]
            reasons.insert(0, f"stops over on the way to {onward}, so that other moves can go first")
        return tuple(reasons)

    def _hot_nodes(self, picture: Picture) -> dict[str, list[str]]:
        """Node → what the plan brings it down to, of each resource that made it a hotspot."""
        problem = self._built.problem
        load = problem.load(self._at)
        found: dict[str, list[str]] = {}
        position = {name: number for number, name in enumerate(self._built.nodes)}
        for node, resource in sorted(picture.hot):
            column = picture.params.thresholds.resources.index(resource)
            at = position[node]
            scale = max(int(problem.scale[at, column]), 1)
            first, last = (100 * int(amount[at, column]) / scale for amount in (problem.start, load))
            text = f"brings {node} from {first:.1f} % to {last:.1f} % {LABELS.get(resource, resource)}"
            found.setdefault(node, []).append(text)
        return found


def _broken_here(violation: Violation) -> str:
    if violation.kind == TAINTS:
        return f"{violation.node} has {violation.rule} that the VM does not tolerate"
    if violation.kind == NODE_AFFINITY:
        return f"{violation.node} is outside the VM's {violation.rule}"
    return violation.message


def left_over(picture: Picture, settled: ClusterState, after: State, waves: tuple[Wave, ...]) -> tuple[Left, ...]:
    """The triggers that are still there when all waves have landed, and why."""
    degrees = {(violation.vmi, violation.rule): violation.degree for violation in after.violations}
    explain = _Explain(picture, settled, {move.vmi for wave in waves for move in wave.moves})
    left = []
    for trigger in picture.triggers:
        if trigger.violation is not None:
            violation = trigger.violation
            if (violation.vmi, violation.rule) in degrees:
                left.append(Left(trigger=trigger, why=explain.violation(trigger, violation)))
        elif trigger.hotspot is not None:
            spot = hotspot(settled, trigger.hotspot.node, trigger.hotspot.resource, picture.params.thresholds)
            if spot.percent > spot.low:
                left.append(Left(trigger=trigger, why=explain.hotspot(spot)))
    return tuple(left)


class _Explain:
    """Why a trigger could not be cured, looked at in the settled state after the plan."""

    def __init__(self, picture: Picture, settled: ClusterState, moved: set[str]) -> None:
        self.picture, self.settled, self.moved = picture, settled, moved
        self.surveys = MAX_SURVEYS

    def violation(self, trigger: Trigger, violation: Violation) -> tuple[str, ...]:
        """The conflicts that no plan could cure, then of the VM itself, then of those it is broken with."""
        parties = [violation.vmi, *violation.witnesses]
        why = [conflict.message for conflict in self.picture.conflicts if violation.vmi in conflict.vmis]
        why += [text for key in parties if (text := self._stays(key))]
        return tuple(why[:MAX_WHY]) or (f"no set of movable VMs was found that cures this: {trigger.message}",)

    def hotspot(self, spot: Hotspot) -> tuple[str, ...]:
        """Of the VMs that are on the node still."""
        label = LABELS.get(spot.resource, spot.resource)
        keys = sorted(key for key, pod in self.settled.active_pods.items() if pod.node == spot.node)
        staying = [(key, reason) for key in keys if (reason := self.picture.why_stays(key)) is not None]
        why = [f"no set of movable VMs was found that brings {spot.node} below {spot.percent:.1f} % {label}"]
        if not keys:
            return (f"{spot.node} runs no VMs any more: what is left on it is not ours to move",)
        if len(staying) == len(keys):
            why = [f"none of the {len(keys)} VMs on {spot.node} may move"]
        else:
            stuck = min(
                (key for key in keys if self.picture.why_stays(key) is None),
                key=lambda key: (self.settled.active_pods[key].spec.requests.cpu_milli, key),
            )
            why.append(self._no_receiver(stuck))
        why += [f"{key} stays: {reason}" for key, reason in staying]
        return tuple(why[:MAX_WHY])

    def _stays(self, key: str) -> str:
        """Why a VM stays where it is; "" for what is no VM."""
        if key not in self.settled.active_pods:
            return ""
        reason = self.picture.why_stays(key)
        return f"{key} stays: {reason}" if reason is not None else self._no_receiver(key)

    def _no_receiver(self, key: str) -> str:
        """The scheduler's verdict on all nodes, or what else keeps a VM from those that it would take."""
        if self.surveys <= 0:
            return f"{key} stays: no receiver was found"
        self.surveys -= 1
        vmi, source = self.picture.snapshot.vmis[key], self.settled.active_pods[key]
        node = self.settled.nodes[source.node]
        pod = target_pod(vmi, source, node, self.picture.kubevirt)
        found = survey(self.settled, pod, target_guard(vmi, node))
        if not found.feasible:
            return f"{key} stays: {found.message()}"
        fitting, left = len(found.feasible), self.picture.left.get(key, frozenset()).intersection(found.feasible)
        stays = f"{key} stays: {fitting} node{'s' * (fitting != 1)} would take it"
        if len(left) == fitting:
            return f"{stays}, but we took it away from there less than a day ago"
        lately = f", {len(left)} of which it has just left" if left else ""
        one = "one" if fitting - len(left) == 1 else "each"
        return f"{stays}{lately}, but then {one} would be above its low threshold, or another rule broken"
