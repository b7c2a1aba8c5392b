"""Who is compared: each takes an instance and gives its moves, in the waves in which they would be carried out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.peers.default_scheduler import choose
from bench.peers.environment import UnavailableError, run
from bench.peers.first_fit import first_fit
from bench.peers.given import given
from bench.peers.judge import Step, in_chunks
from bench.peers.low_node_utilization import Params, Standing, evictions, launchers
from bench.peers.numbers import Numbers
from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.target import target_guard, target_pod
from rebalancer.policy.triggers import TriggerMemory, find

THRESHOLDS = Thresholds(cpu_high=80, cpu_low=80)
POLICY = PolicyParams(hold_seconds=0, thresholds=THRESHOLDS)
AT_ONCE, OUT_OF_ONE = 5, 2
"""KubeVirt's own limits: migrations at a time, and off one node. Plans without an order of their own go by them."""
CYCLES = 24
"""Rounds that the descheduler is given: two hours of its default of one in five minutes."""
PROGRAM_SECONDS = 60.0
"""The limit of the integer program, however long others may search."""
BUILD_SECONDS = 60.0
"""What a program that runs elsewhere may take beside its limit, to put its model together and to start."""
MEMORY_LIMIT_MIB = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An instance as everybody needs it, read once. `seconds` is the limit for others' search."""

    snapshot: Snapshot
    numbers: Numbers
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a contestant would do. `took` are seconds of wall and CPU from the instance in memory to the plan.

    `proven`: whether it says that no other plan is better. `note` is for a footnote; `failed` tells why there is none.
    """

    waves: Sequence[Sequence[Step]] = ()
    took: tuple[float, float] = (0.0, 0.0)
    proven: bool = False
    note: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A row of the table."""

    name: str
    solve: Callable[[Case], Answer]


@dataclass(slots=True)
class _Watch:
    """Wall and CPU time of this process."""

    started: float = field(default_factory=time.perf_counter)
    used: float = field(default_factory=time.process_time)

    def took(self) -> tuple[float, float]:
        return time.perf_counter() - self.started, time.process_time() - self.used


def ours(case: Case) -> Answer:
    """The planner with its default limits, as the daemon asks it."""
    snapshot = case.snapshot
    triggers, _ = find(snapshot, POLICY, TriggerMemory(), snapshot.taken)
    watch = _Watch()
    plan = decide(snapshot, triggers, PlanningParams(policy=POLICY), now=snapshot.taken, clock=time.perf_counter)
    took = watch.took()
    vms = {key: number for number, key in enumerate(case.numbers.vms)}
    nodes = {name: number for number, name in enumerate(case.numbers.nodes)}
    waves = [[(vms[move.vmi], nodes[move.target]) for move in wave.moves] for wave in plan.waves]
    note = f"bound {plan.bound.moves} moves, gap {100 * plan.bound.gap:.2g} %"
    return Answer(waves=waves, proven=plan.bound.proven, note=note, took=took)


def greedy(case: Case) -> Answer:
    """First fit."""
    watch = _Watch()
    steps = first_fit(case.numbers)
    return Answer(waves=in_chunks(steps, AT_ONCE), took=watch.took())


def descheduler(params: Params) -> Callable[[Case], Answer]:
    """LowNodeUtilization and the default scheduler, round after round until a round evicts nothing."""

    def solve(case: Case) -> Answer:
        watch = _Watch()
        world = _Evicted(case)
        waves: list[list[Step]] = []
        for cycle in range(CYCLES):
            gone = evictions(world.state, replace(params, seed=cycle), standing=world.standing)
            if not gone:
                break
            waves += [steps for steps in world.carried_out(gone) if steps]
        rounds = f"quiet after {cycle} of its rounds" if not gone else f"still at it after {CYCLES} of its rounds"
        failed = f", {world.failed} evicted without a place to go" if world.failed else ""
        return Answer(waves=waves, note=f"{rounds}{failed}" if waves else "evicts nothing", took=watch.took())

    return solve


class _Evicted:
    """A cluster in which KubeVirt makes a migration of every eviction, and kube-scheduler chooses where to."""

    def __init__(self, case: Case) -> None:
        self.snapshot, self.state = case.snapshot, ClusterState.of(case.snapshot)
        self.kubevirt = case.snapshot.kubevirt or KubeVirt()
        self.vm = {key: number for number, key in enumerate(case.numbers.vms)}
        self.keys = {pod.uid: key for key, pod in self.state.active_pods.items()}
        self.movable = {key for key, movable in zip(case.numbers.vms, case.numbers.movable, strict=True) if movable}
        self.failed = 0
        self._made = 0

    def standing(self, pod: Pod) -> Standing | None:
        return launchers(pod) if self.keys.get(pod.uid) in self.movable else None

    def carried_out(self, pods: Sequence[Pod]) -> Iterator[list[Step]]:
        """The migrations in the waves that KubeVirt's limits allow, in the order of the evictions."""
        queue = list(pods)
        while queue:
            taken: list[Pod] = []
            sources: Counter[str] = Counter()
            for pod in queue:
                if len(taken) < AT_ONCE and sources[pod.node] < OUT_OF_ONE:
                    taken.append(pod)
                    sources[pod.node] += 1
            chosen = {pod.uid for pod in taken}
            queue = [pod for pod in queue if pod.uid not in chosen]
            yield self._wave(taken)

    def _wave(self, pods: Sequence[Pod]) -> list[Step]:
        """Every target is placed while all sources are still there; then they go."""
        landing: list[tuple[str, Pod]] = []
        for pod in pods:
            key = self.keys[pod.uid]
            vmi = replace(self.snapshot.vmis[key], node=pod.node)
            source = self.snapshot.nodes[pod.node]
            self._made += 1
            target = target_pod(vmi, pod, source, self.kubevirt)
            target = replace(target, uid=f"{target.uid}:{self._made}")
            node = choose(self.state, target, guard=target_guard(vmi, source))
            if node is None:
                self.failed += 1
                continue
            self.state.add(target.on(node))
            landing.append((key, target.on(node)))
        for key, target in landing:
            self.state.remove(target)
            self.state.move(key, target, target.node)
            self.keys[target.uid] = key
        positions = self.state.table.positions
        return [(self.vm[key], positions[target.node]) for key, target in landing]


def integer_program(case: Case) -> Answer:
    """A variable per VM and node, all at once."""
    return _elsewhere("integer_program", replace(case, seconds=min(case.seconds, PROGRAM_SECONDS)), {})


def meta(case: Case) -> Answer:
    """Meta's Rebalancer, with the two kinds of move that served it best here."""
    return _elsewhere("meta_rebalancer", case, {"move_types": ["single", "swap"]})


def _elsewhere(worker: str, case: Case, more: dict[str, object]) -> Answer:
    asked = {**given(case.numbers, case.seconds), "memory_limit_mib": MEMORY_LIMIT_MIB, **more}
    try:
        told = run(worker, asked, seconds=case.seconds + BUILD_SECONDS)
    except UnavailableError as problem:
        return Answer(failed=str(problem))
    took = (told["seconds"], told["cpu_seconds"])
    if "at" not in told:
        said = f"CBC on {told['variables']:,} variables: {told['said']}"
        return Answer(failed=f"{said} (model built in {told['built_seconds']:.0f} s)", took=took)
    steps = _steps(case.numbers, told)
    return Answer(
        waves=steps, proven=told["end"] == "proven", note=f"built in {told['built_seconds']:.1f} s", took=took
    )


def _steps(numbers: Numbers, told: dict[str, Any]) -> list[list[Step]]:
    """Moves in a program's own order where it tells one: each VM once, to where it ends, when it is last moved."""
    at = np.array(told["at"], dtype=np.int64)
    if at.shape != numbers.home.shape or at.min() < 0 or at.max() >= len(numbers.nodes):
        raise ValueError("an answer that is no placement of these VMs")
    moved = np.flatnonzero(at != numbers.home).tolist()
    order = {vm: position for position, step in enumerate(told.get("steps", ())) for vm, _ in step}
    moved.sort(key=lambda vm: (order.get(vm, len(order)), vm))
    return in_chunks([(vm, int(at[vm])) for vm in moved], AT_ONCE)


def _on_workers(params: Params) -> Params:
    """Told of the nodes that KubeVirt runs VMs on, and of no others."""
    return replace(params, node_selector=FrozenMap({"kubevirt.io/schedulable": "true"}))


CONTESTANTS = (
    Contestant(name="rebalancer", solve=ours),
    Contestant(name="LowNodeUtilization 50/80", solve=descheduler(_on_workers(Params.of_cpu(50, 80)))),
    Contestant(
        name="LowNodeUtilization, 10 around the mean",
        solve=descheduler(_on_workers(Params.of_cpu(10, 10, deviation=True))),
    ),
    Contestant(name="first fit", solve=greedy),
    Contestant(name="integer program (PuLP, CBC)", solve=integer_program),
    Contestant(name="Meta's Rebalancer 1.0.4", solve=meta),
)
