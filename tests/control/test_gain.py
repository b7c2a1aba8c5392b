"""Whether a plan brought what it promised: what the daemon says and does when it did not."""

from __future__ import annotations

import re
from dataclasses import replace

import anyio
import pytest
from control.harness import PLANE, SLOW, Story, annotate, hot_pair, tell, vms

from rebalancer.control import gain
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.plan import Bound, Move, NodeLoad, Plan, Solver, State
from rebalancer.domain.pod import Pod, PodSpec
from rebalancer.domain.resources import Resources
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Hotspot
from rebalancer.domain.vmi import VMI
from rebalancer.sim.shapes import namespace

MOVE = Move(vmi="bank/v0", uid="v0", source="a", target="b", cost=1, reasons=())


def load(cpu: float) -> NodeLoad:
    return NodeLoad(cpu=cpu, memory=10.0, cpu_high=80.0, memory_high=90.0)


PLAN = Plan(
    id="p",
    created=0.0,
    resource_version="1",
    triggers=(),
    waves=(),
    before=State(
        nodes=FrozenMap({"a": load(90.0)}),
        hotspots=(Hotspot(node="a", resource="cpu", percent=90.0, high=80.0, low=75.0),),
    ),
    after=State(nodes=FrozenMap({"a": load(70.0)})),
    left=(),
    bound=Bound(moves=1, cost=1, gap=0.0, proven=True),
    solver=Solver(status="optimal", seconds=0.0),
)


def pod(name: str, node: str, cpu: int = 2000, owner: str = "", phase: str = "Running") -> Pod:
    return Pod(
        namespace="bank",
        name=name,
        uid=name,
        node=node,
        phase=phase,
        owner=("VirtualMachineInstance", "v0", owner) if owner else ("", "", ""),
        spec=PodSpec(requests=Resources(cpu_milli=cpu, memory_bytes=2**30)),
    )


def cluster(*pods: Pod, vmi: VMI | None = None, cpu: int = 10_000) -> Snapshot:
    vmi = vmi or VMI(namespace="bank", name="v0", uid="v0", node="b", phase="Running")
    node = Node(name="a", uid="a", allocatable=Resources(cpu_milli=cpu))
    return Snapshot(
        nodes=FrozenMap({"a": node}),
        pods=FrozenMap((found.key, found) for found in pods),
        vmis=FrozenMap({vmi.key: vmi}),
    )


ROOMS = gain.Promise(rooms=FrozenMap({"bank/v0": Resources(cpu_milli=2000, memory_bytes=2**30)}))


@pytest.mark.parametrize(
    ("snapshot", "told"),
    [
        (cluster(pod("t", "b", owner="v0")), gain.KEPT),
        (cluster(pod("t", "b", owner="v0"), pod("s", "a", owner="v0", phase="Succeeded")), gain.KEPT),
        (cluster(pod("t", "b", 2150, owner="v0")), gain.KEPT),
        (
            cluster(pod("s", "a", owner="v0"), pod("t", "b", owner="v0")),
            ("bank/v0 has left a, but its pod s there has not ended", False),
        ),
        (
            cluster(pod("t", "b", 4000, owner="v0")),
            ("bank/v0 reserves 4 CPU and 1 GiB on b, 2 CPU and 1 GiB were counted on", True),
        ),
        (cluster(vmi=VMI(namespace="bank", name="v0", uid="v0", node="c")), gain.KEPT),
        (cluster(vmi=VMI(namespace="bank", name="v0", uid="another", node="b")), gain.KEPT),
        (cluster(vmi=VMI(namespace="bank", name="other", uid="other")), gain.KEPT),
    ],
    ids=["kept", "its old pod ended", "a larger launcher", "old pod", "grown", "moved on", "another VM", "gone"],
)
def test_a_move_brought_its_room_or_what_is_wrong(snapshot: Snapshot, told: gain.Disappointment) -> None:
    assert gain.broken((MOVE,), ROOMS, snapshot) == told


BEFORE = {"x": Resources(cpu_milli=2000, memory_bytes=2**30)}
A = FrozenMap({"a": gain.Known(allocatable=Resources(cpu_milli=10_000), pods=FrozenMap(BEFORE))})


@pytest.mark.parametrize(
    ("percent", "snapshot", "told"),
    [
        (70.9, cluster(pod("x", "a")), gain.KEPT),
        (60.0, cluster(pod("x", "a"), pod("y", "a")), gain.KEPT),
        (
            78.0,
            cluster(pod("x", "a"), pod("y", "a")),
            ("a reserves 78 % of its CPU where 70 % were promised: bank/y has come since", True),
        ),
        (
            85.0,
            cluster(pod("x", "a", 3000)),
            ("a reserves 85 % of its CPU where 70 % were promised: bank/x has grown since", True),
        ),
        (
            85.0,
            cluster(pod("x", "a"), cpu=8000),
            ("a reserves 85 % of its CPU where 70 % were promised: its capacity has changed", True),
        ),
        (
            85.0,
            cluster(pod("x", "a"), pod("y", "a", phase="Failed"), pod("z", "b")),
            ("a reserves 85 % of its CPU where 70 % were promised, and nothing else has come", False),
        ),
    ],
    ids=["kept", "better", "a pod came", "a pod grew", "a smaller node", "nothing explains it"],
)
def test_a_node_is_as_cool_as_promised_or_who_explains_it(
    percent: float, snapshot: Snapshot, told: gain.Disappointment
) -> None:
    state = State(nodes=FrozenMap({"a": load(percent)}))
    assert gain.shortfall(PLAN, gain.Promise(nodes=A), state, snapshot) == told


def test_a_pod_that_stays_behind_stops_everything_and_the_annotation_goes_on() -> None:
    """Every move takes room twice here; the next one would, too."""

    async def scenario(story: Story) -> None:
        report = await story.until("Broken")
        assert re.search(
            r": bank/v\d has left a, but its pod virt-launcher-v\d-\w+ there has not ended$", story.texts("Dropped")[0]
        )
        text = re.fullmatch(
            r"A plan did not bring what it had promised: bank/v\d has left a, but its pod \S+ there has not ended. "
            r"Nothing is started before 2026-11-20 22:\d\d:\d\d UTC; to resume sooner: "
            r"kubectl annotate --overwrite namespace kubevirt-rebalancer kubevirt-rebalancer.io/(resume=\S+Z)",
            report.sentence.text,
        )
        assert text is not None
        await anyio.sleep(600)
        assert story.kinds[-1] == "Broken"
        assert len(story.migrations()) == 1
        annotate(story, "namespaces", "", "kubevirt-rebalancer", **dict([text[1].split("=")]))
        await anyio.sleep(30)
        assert story.kinds[-1] != "Broken"

    stuck = replace(PLANE, source_exit=(1e6, 1e6))
    tell([*hot_pair(), namespace("kubevirt-rebalancer")], scenario, plane=stuck)


def test_others_who_take_what_was_won_are_named_and_blamed_for_nothing() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Started")
        for item in vms("a", "late", vcpus=1):
            story.world.store.create("pods" if item["kind"] == "Pod" else "virtualmachineinstances", item)
        await story.until("Finished")
        assert re.search(
            r"1 hotspot and 0 broken rules left; a reserves 83 % of its CPU where 71 % were promised: "
            r"bank/virt-launcher-late-\w+ has come since$",
            story.texts("Finished")[0],
        )
        await anyio.sleep(600)
        assert "Broken" not in story.kinds

    tell(hot_pair(), scenario, plane=SLOW)
