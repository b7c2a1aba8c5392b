"""The demo cluster: real TCP, hurried time, and a view for people."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from rebalancer.sim.demo import Demo, View, run_demo
from rebalancer.sim.objects import Obj
from rebalancer.sim.virtualtime import ScaledLoop


def test_the_view_follows_what_happens() -> None:
    async def main(demo: Demo) -> tuple[View, View, View, Obj]:
        first = demo.view()
        async with aiohttp.ClientSession(demo.url) as session:
            migration: Obj = {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstanceMigration",
                "metadata": {"name": "by-hand"},
                "spec": {"vmiName": "vm-017", "addedNodeSelector": {"kubernetes.io/hostname": "w-07"}},
            }
            namespace = next(key for key in demo.world.places() if key.endswith("/vm-017")).partition("/")[0]
            path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstancemigrations"
            async with session.post(path, json=migration) as response:
                answer: Obj = await response.json()
        await asyncio.sleep(2)
        middle = demo.view()
        demo.world.cordon("w-08")
        await asyncio.sleep(120)
        return first, middle, demo.view(), answer

    first, middle, last, answer = run_demo(main, speed=200)
    assert answer["kind"] == "VirtualMachineInstanceMigration", answer
    assert (len(first.nodes), first.vms) == (15, 130)
    loads = {node.name: node for node in first.nodes}
    assert loads["w-00"].cpu_percent == pytest.approx(99.2, abs=0.1)
    assert loads["w-11"].cordoned
    assert not loads["cp-0"].worker
    assert all(node.ready for node in first.nodes)
    (running,) = middle.migrations
    assert (running.vmi.partition("/")[2], running.target, running.ours) == ("vm-017", "w-07", False)
    texts = [text for _, text in last.events]
    assert any("vm-017" in text and "→ w-07" in text for text in texts), texts
    assert any("by-hand succeeded" in text for text in texts)
    assert "node w-08 is cordoned" in texts
    assert last.seconds > 120


def test_speed_is_a_promise_about_the_loop() -> None:
    async def main(demo: Demo) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ScaledLoop)
        return loop.speed

    assert run_demo(main, speed=50.0) == 50.0
