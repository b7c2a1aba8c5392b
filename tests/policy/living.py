"""A small world: VMs start, stop, migrate, land, fail, are relabelled and resized, and pods and nodes change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builders import ZONE, launcher, migration, node, pod, spread, term, vmi
from hypothesis import strategies as st

from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Condition, Node
from rebalancer.domain.pod import Affinity, Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.assembly import Assembly, Stored
from rebalancer.kube.decode import build_snapshot
from rebalancer.policy.cluster_state import MIGRATION_JOB

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
        self._assembly = Assembly.of({}, ())
        self._assembled: dict[str, dict[str, Any]] = {}

    @classmethod
    def begun(cls) -> World:
        """With four VMs, one on each node."""
        world = cls()
        for number in range(4):
            world.start(number, number)
        return world

    def objects(self) -> dict[str, dict[str, Any]]:
        """All there is, by kind and key."""
        return {
            "Node": dict(self.nodes),
            "Pod": dict(self.pods),
            "VirtualMachineInstance": dict(self.vmis),
            "VirtualMachineInstanceMigration": dict(self.migrations),
            "Namespace": dict(self.namespaces),
            "KubeVirt": {"KubeVirt": KubeVirt(version="v1.9.0", phase="Deployed")},
        }

    def stored(self) -> dict[str, Stored]:
        """What has been stored and taken away since the last time, by kind and key; at times more than has changed."""
        now, before = self.objects(), self._assembled
        self._assembled = now
        return {
            kind: Stored(
                {
                    key: found.get(key)
                    for number, key in enumerate({**found, **before.get(kind, {})})
                    if found.get(key) is not before.get(kind, {}).get(key) or number % 5 == self.number % 5
                }
            )
            for kind, found in now.items()
        }

    def snapshot(self) -> Snapshot:
        """As it is, made of the one before it or of everything."""
        self._assembly = self._assembly.advance(self.stored(), (), resource_version=str(self.number))
        if self.number % 3:
            return self._assembly.snapshot
        objects = {kind: found.values() for kind, found in self.objects().items()}
        return build_snapshot(objects, resource_version=str(self.number))

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
            terms = (term(A),) * (other % 3)
            on, labels = (*NODES, "", "gone")[other % 6], B if other % 2 else A
            self.put(pod(key, on=on, cpu=other, labels=labels, affinity=Affinity(anti_required=terms)))

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

    def go_wrong(self, one: int, other: int) -> None:
        """What no cluster should have."""
        vms, pods = list(self.vmis.values()), list(self.pods.values())
        if not vms or not pods:
            return
        vm, there = vms[one % len(vms)], pods[one % len(pods)]
        strange: tuple[Pod | VMI | Migration, ...] = (
            replace(vm, uid=vms[0].uid),
            replace(vm, uid=""),
            replace(vm, node="gone"),
            replace(vm, node=""),
            replace(there, load_known=False),
            replace(there, owner=(there.owner[0], "somebody", there.owner[2])),
            replace(there, node="gone"),
            migration(vmi(f"nobody-{one}", on="n0"), "n1", name=f"stray-{one}"),
        )
        self.put(strange[other])


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
    "go wrong": World.go_wrong,
}
COMMON = ("start", "start", "migrate", "end", *EVENTS)
happenings = st.tuples(st.sampled_from(COMMON), st.integers(0, 7), st.integers(0, 7))
stories = st.lists(st.lists(happenings, min_size=1, max_size=3), min_size=6, max_size=20)
"""What happens from one look at the world to the next."""

Story = list[list[tuple[str, int, int]]]
