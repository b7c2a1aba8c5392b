"""What is known of a snapshot goes over to the next one, always the same as if it were looked at for the first time.

A small world changes step by step - VMs start, stop, migrate, land, fail, are relabelled and resized, pods come and go,
nodes fall silent - and after every step the overview that has followed is held against one made from nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builders import HOSTNAME, ZONE, launcher, migration, node, pod, spread, term, vmi
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition, Node
from rebalancer.domain.pod import Affinity, Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.decode import build_snapshot
from rebalancer.policy.cluster_state import MIGRATION_JOB, ClusterState
from rebalancer.policy.feasibility import feasible_nodes
from rebalancer.policy.load import PolicyParams, Thresholds, state_of
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.overview import Overview
from rebalancer.policy.rule_book import RuleBook, Spread
from rebalancer.policy.rules import violations
from rebalancer.policy.target import target_guard, target_pod
from rebalancer.policy.triggers import TriggerMemory, find, triggers

PARAMS = PolicyParams(thresholds=Thresholds(resources=("cpu", "memory")), hold_seconds=20.0)
NODES = ("n0", "n1", "n2", "n3")
A, B = {"app": "a"}, {"app": "b"}
FLAVOURS: tuple[dict[str, Any], ...] = (
    {},
    {"labels": A, "apart_from": A},
    {"labels": A, "close_to": B},
    {"labels": B, "spread_by": (spread(B),)},
    {"labels": A, "spread_by": (spread(A, topology_key=HOSTNAME), spread(A, max_skew=2))},
    {"labels": B, "select": {"tier": "gold"}, "cpu": 4},
    {"labels": B, "affinity": Affinity(anti_required=(term(A, match_label_keys=("app",)),), pod_required=(term(B),))},
    {"labels": A, "affinity": Affinity(anti_required=(term(B, ZONE), term(B)))},
)


class World:
    """Nodes, VMs and pods by key, and what can happen to them. Every event takes two numbers to choose by."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {
            name: node(name, cpu=8, memory=16, zone=f"z{number % 2}", labels={"tier": "gold"} if number else {})
            for number, name in enumerate(NODES)
        }
        self.vmis: dict[str, VMI] = {}
        self.pods: dict[str, Pod] = {}
        self.migrations: dict[str, Migration] = {}
        self.namespaces = {"default": Namespace(name="default")}
        self.number = 0

    def snapshot(self) -> Snapshot:
        return build_snapshot(
            {
                "Node": self.nodes.values(),
                "Pod": self.pods.values(),
                "VirtualMachineInstance": self.vmis.values(),
                "VirtualMachineInstanceMigration": self.migrations.values(),
                "Namespace": self.namespaces.values(),
                "KubeVirt": [KubeVirt(version="v1.9.0", phase="Deployed")],
            },
            resource_version=str(self.number),
        )

    def happen(self, event: str, one: int, other: int) -> None:
        """Lets something happen; nothing, where there is nobody that it could happen to."""
        self.number += 1
        EVENTS[event](self, one, other)

    def vm(self, one: int) -> VMI | None:
        return list(self.vmis.values())[one % len(self.vmis)] if self.vmis else None

    def launchers(self, of: VMI) -> list[Pod]:
        return [found for found in self.pods.values() if found.owner[2] == of.uid]

    def put(self, *objects: Pod | VMI | Migration) -> None:
        for found in objects:
            where: dict[str, Any] = (
                self.pods if isinstance(found, Pod) else self.vmis if isinstance(found, VMI) else self.migrations
            )
            where[found.key] = found

    def start(self, one: int, other: int) -> None:
        """A VM begins, or begins again: another one under the same name, whose old pod may still be there."""
        self.number += 1
        fresh = vmi(f"vm-{one % 6}", on=NODES[other % 4], **FLAVOURS[other % len(FLAVOURS)])
        fresh = replace(fresh, uid=f"uid-{self.number}", created=float(self.number))
        self.put(fresh, launcher(fresh, suffix=f"-{self.number}"))

    def stop(self, one: int, other: int) -> None:
        """VMI and pods go, or one of them first."""
        if (found := self.vm(one)) is None:
            return
        if other % 3 != 1:
            del self.vmis[found.key]
        if other % 3 != 2:
            for gone in self.launchers(found):
                if other % 2:
                    self.put(replace(gone, phase="Succeeded"))
                else:
                    del self.pods[gone.key]

    def migrate(self, one: int, other: int) -> None:
        """A migration begins; its target pod is bound at once, or not yet."""
        if (found := self.vm(one)) is None:
            return
        job = migration(found, NODES[other % 4], name=f"job-{self.number}")
        labels = FrozenMap({**found.labels, MIGRATION_JOB: job.uid})
        on = NODES[other % 4] if other < 6 else ""
        target = launcher(found, on=on, suffix=f"-{self.number}", labels=labels, created=float(self.number))
        self.put(job, target)

    def end(self, one: int, other: int) -> None:
        """A migration lands or fails; what is left behind goes at once, later or never."""
        running = [job for job in self.migrations.values() if not job.final]
        if not running:
            return
        job = running[one % len(running)]
        found = self.vmis.get(job.vmi_key)
        self.put(replace(job, phase="Succeeded" if other % 2 else "Failed"))
        if found is None:
            return
        target = [one for one in self.launchers(found) if one.labels.get(MIGRATION_JOB) == job.uid]
        if other % 2 and target and target[0].node:
            self.put(replace(found, node=target[0].node))
        left = [one for one in self.launchers(found) if (one in target) != bool(other % 2)]
        for gone in left if other % 4 < 3 else ():
            self.put(replace(gone, phase="Succeeded"))

    def agent(self, one: int, other: int) -> None:
        """A pod that is no VM comes, with rules of its own or without, or goes."""
        key = f"agent-{one % 3}"
        if self.pods.pop(f"default/{key}", None) is None:
            rules = {"affinity": Affinity(anti_required=(term(A),) * (1 + other % 2))} if other % 3 else {}
            self.put(pod(key, on=(*NODES, "", "gone")[other % 6], cpu=other, labels=B if other % 2 else A, **rules))

    def change_pod(self, one: int, other: int) -> None:
        if not self.pods:
            return
        found = list(self.pods.values())[one % len(self.pods)]
        changes: tuple[dict[str, Any], ...] = (
            {"labels": FrozenMap(B)},
            {"labels": FrozenMap(A)},
            {"deleting": True},
            {"ready": False},
            {"node": NODES[one % 4]},
            {"spec": replace(found.spec, requests=replace(found.spec.requests, cpu_milli=1000 * one))},
            {"phase": "Pending"},
            {},
        )
        self.put(replace(found, **changes[other]))

    def change_vm(self, one: int, other: int) -> None:
        if (found := self.vm(one)) is None:
            return
        spec = vmi("x", on="n0", **FLAVOURS[one % len(FLAVOURS)]).spec
        changes: tuple[dict[str, Any], ...] = (
            {"labels": FrozenMap(A)},
            {"labels": FrozenMap(B)},
            {"spec": spec},
            {"phase": "Scheduled"},
            {"deleting": True},
            {"node": NODES[one % 4]},
            {"annotations": FrozenMap({"kubevirt-rebalancer.io/policy": "ignore"})},
            {},
        )
        self.put(replace(found, **changes[other]))

    def change_node(self, one: int, other: int) -> None:
        name = NODES[one % 4]
        if (found := self.nodes.get(name)) is None:
            self.nodes[name] = node(name, cpu=8, memory=16, zone="z1")
            return
        changes: tuple[dict[str, Any], ...] = (
            {"conditions": FrozenMap({"Ready": Condition(status="False")})},
            {"annotations": FrozenMap({"kubevirt-rebalancer.io/cpu-high": "30"})},
            {"annotations": FrozenMap({"kubevirt-rebalancer.io/receives": "no"})},
            {"heartbeat": float(self.number)},
            {"labels": FrozenMap({**found.labels, ZONE: "z2"})},
            {"taints": node("x", taints=("reserved=gpu:NoSchedule",)).taints},
            {"allocatable": node("x", cpu=4).allocatable},
        )
        if other < len(changes):
            self.nodes[name] = replace(found, **changes[other])
        else:
            del self.nodes[name]

    def change_namespaces(self, one: int, _: int) -> None:
        self.namespaces["default"] = Namespace(name="default", labels=FrozenMap({"team": str(one)}))


EVENTS: dict[str, Callable[[World, int, int], None]] = {
    "start": World.start,
    "stop": World.stop,
    "migrate": World.migrate,
    "end": World.end,
    "agent": World.agent,
    "change pod": World.change_pod,
    "change vm": World.change_vm,
    "change node": World.change_node,
    "change namespaces": World.change_namespaces,
}
COMMON = ("start", "start", "migrate", "end", *EVENTS)
events = st.tuples(st.sampled_from(COMMON), st.integers(0, 7), st.integers(0, 7))


def on_nodes(state: ClusterState) -> object:
    return {name: ({p.key: p for p in state.pods_on(name)}, state.requested(name)) for name in state.nodes}


def judged(state: ClusterState, snapshot: Snapshot) -> object:
    """What the filters and `movable` make of a state."""
    found: dict[str, object] = {}
    for key, source in state.active_pods.items():
        one, home = snapshot.vmis[key], state.nodes[source.node]
        target = target_pod(one, source, home, snapshot.kubevirt or KubeVirt())
        found[key] = (feasible_nodes(state, target, target_guard(one, home)), why_immovable(one, snapshot, state))
    return found


def written(book: RuleBook) -> list[object]:
    """A book's rules, in their order."""
    return [
        (rule.text, rule.holders, [p.key for p in rule.fixed], rule.targets if isinstance(rule, Spread) else {})
        for rule in book.rules
    ]


def same(followed: Overview, snapshot: Snapshot) -> None:
    """An overview that has followed changes is that of the snapshot."""
    fresh = Overview.of(snapshot, PARAMS)
    state = ClusterState.of(snapshot, settled=True)
    assert followed.snapshot is snapshot
    assert list(followed.state.active_pods.items()) == list(state.active_pods.items())
    assert followed.state.launchers == state.launchers
    assert followed.state.in_flight == state.in_flight
    assert on_nodes(followed.state) == on_nodes(state)
    assert written(followed.book) == written(fresh.book)
    assert followed.told() == fresh.told() == state_of(state, snapshot, PARAMS)
    assert followed.violations == violations(state, snapshot)
    assert followed.over == fresh.over
    assert judged(followed.state.copy(), snapshot) == judged(state, snapshot)
    real = ClusterState.of(snapshot)
    assert list(followed.real.active_pods.items()) == list(real.active_pods.items())
    assert on_nodes(followed.real) == on_nodes(real)
    assert judged(followed.real.copy(), snapshot) == judged(real, snapshot)


@given(st.lists(st.lists(events, min_size=1, max_size=3), min_size=6, max_size=20))
@settings(max_examples=40)
def test_following_is_the_same_as_looking_for_the_first_time(story: list[list[tuple[str, int, int]]]) -> None:
    world = World()
    for one in range(4):
        world.start(one, one)
    earlier = [Overview.of(world.snapshot(), PARAMS)]
    memory = again = TriggerMemory()
    for now, happenings in enumerate(story):
        for happening in happenings:
            world.happen(*happening)
        snapshot = world.snapshot()
        followed = earlier[-1].advance(snapshot)
        same(followed, snapshot)
        found, memory = triggers(followed, memory, 10.0 * now)
        expected, again = find(snapshot, PARAMS, again, 10.0 * now)
        assert (found, memory) == (expected, again)
        earlier.append(followed)
    for overview in earlier:  # whoever still holds one finds it as it was
        same(overview, overview.snapshot)
