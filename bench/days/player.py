"""Lets the agenda happen to a world, and does what VirtualMachine objects do: what is to run is started again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from bench.days.agenda import Agenda, Happening, Vm
from bench.days.cluster import order
from rebalancer.sim import admission
from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import TERMINAL, Obj, deleting, phase
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS
from rebalancer.sim.store import DELETED, Change
from rebalancer.sim.world import World

RESTART_SECONDS = 5.0
DRAIN_AGAIN_SECONDS = 60.0
VERSION = "v1.9.1"


class Player:
    """`run` until the agenda is done; subscribe `change` to the store."""

    def __init__(self, world: World, agenda: Agenda) -> None:
        self._world = world
        self._agenda = agenda
        self._wanted: dict[str, Vm] = {vm.key: vm for vm in agenda.vms if not vm.office}
        self._known = {vm.key: vm for vm in (*agenda.vms, *agenda.born)}
        self._drained: set[str] = set()

    async def run(self) -> None:
        """Everything at its time."""
        loop = asyncio.get_running_loop()
        for happening in self._agenda.happenings:
            await asyncio.sleep(max(0.0, happening.time - loop.time()))
            self._happen(happening)

    async def drain(self) -> None:
        """kubectl drain asks again for the eviction of what is still there."""
        while True:
            await asyncio.sleep(DRAIN_AGAIN_SECONDS)
            for node in sorted(self._drained):
                for pod in self._world.launchers(node):
                    self._world.evict(pod)

    def change(self, change: Change) -> None:
        """A VM that is to run and does not is made anew once what is left of it has gone."""
        if change.resource != VMIS:
            return
        key = f"{change.namespace}/{change.name}"
        loop = asyncio.get_running_loop()
        if change.type == DELETED:
            loop.call_later(RESTART_SECONDS, self._start, key)
        elif phase(change.object) in TERMINAL and not deleting(change.object):
            loop.call_later(RESTART_SECONDS, self._stop, key)

    def _start(self, key: str) -> None:
        vm = self._wanted.get(key)
        if vm is not None and self._world.store.find(VMIS, vm.namespace, vm.name) is None:
            self._world.start_vm(order(vm))

    def _stop(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        if self._world.store.find(VMIS, namespace, name) is not None:
            self._world.stop_vm(namespace, name)

    def _happen(self, happening: Happening) -> None:
        if happening.vm:
            self._happen_to_vm(happening)
        elif happening.node:
            self._happen_to_node(happening.what, happening.node)
        elif happening.what == "install":
            self._world.announce(VERSION, "Deploying")
        else:
            self._world.announce(VERSION, "Deployed")
            self._world.outdate()

    def _happen_to_vm(self, happening: Happening) -> None:
        vm = happening.vm
        match happening.what:
            case "start":
                self._wanted[vm] = self._known[vm]
                self._start(vm)
            case "stop":
                self._wanted.pop(vm, None)
                self._stop(vm)
            case "resize":
                self._resize(vm, happening.vcpus)
                self._stop(vm)
            case "plug":
                self._plug(vm, happening.vcpus)
            case "migrate":
                self._migrate(vm)
            case other:
                raise AssertionError(f"nobody knows how to {other} a VM")

    def _happen_to_node(self, what: str, node: str) -> None:
        world = self._world
        match what:
            case "cordon":
                world.cordon(node)
            case "drain":
                self._drained.add(node)
                world.drain(node)
            case "open":
                self._drained.discard(node)
                world.cordon(node, on=False)
            case "lose":
                world.lose(node)
            case "regain":
                world.regain(node)
            case other:
                raise AssertionError(f"nobody knows how to {other} a node")

    def _resize(self, key: str, vcpus: int) -> None:
        self._known[key] = replace(self._known[key], vcpus=vcpus)
        if key in self._wanted:
            self._wanted[key] = self._known[key]

    def _plug(self, key: str, vcpus: int) -> None:
        """Into the running VM, or at its next start where it does not run."""
        self._resize(key, vcpus)
        namespace, _, name = key.partition("/")
        found = self._world.store.find(VMIS, namespace, name)
        if found is not None and phase(found) == "Running" and not deleting(found):
            self._world.resize_vm(namespace, name, vcpus)

    def _migrate(self, key: str) -> None:
        """By hand, to wherever the scheduler likes."""
        namespace, _, name = key.partition("/")
        kind = BY_STORAGE[MIGRATIONS]
        item: Obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": namespace},
            "spec": {"vmiName": name},
        }
        admission.mutate_migration(item)
        with suppress(ApiError):  # it is under way already, or cannot move
            admission.admit_migration(self._world.store, item, "a person")
            self._world.store.create(MIGRATIONS, item, actor="user")
