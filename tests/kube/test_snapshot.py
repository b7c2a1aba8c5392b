"""From objects to a Snapshot: whatever their order, and with a warning where they contradict each other."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from builders import NOW, cluster, launcher, migration, node, pod, vmi
from kube.wires import DUMP

from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import SnapshotBuilder, build_snapshot
from rebalancer.kube.dump import read_dump


def objects_of(snapshot: Snapshot) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {
        "Node": list(snapshot.nodes.values()),
        "Pod": list(snapshot.pods.values()),
        "VirtualMachineInstance": list(snapshot.vmis.values()),
        "VirtualMachineInstanceMigration": list(snapshot.migrations.values()),
        "Namespace": list(snapshot.namespaces.values()),
        "PersistentVolume": list(snapshot.volumes.values()),
        "PersistentVolumeClaim": list(snapshot.claims.values()),
        "CSINode": list(snapshot.csi_nodes.values()),
    }
    return {**found, "KubeVirt": [snapshot.kubevirt] if snapshot.kubevirt else []}


def warnings(*objects: Any) -> list[str]:
    snapshot = cluster(*objects)
    return [entry.sentence() for entry in build_snapshot(objects_of(snapshot)).set_aside]


VM = vmi("bank/db", on="n1")


def test_a_snapshot_does_not_depend_on_the_order_of_its_objects() -> None:
    whole = read_dump(DUMP)
    for seed in range(3):
        objects = objects_of(whole)
        chance = random.Random(seed)
        for found in objects.values():
            chance.shuffle(found)
        again = build_snapshot(objects, resource_version=whole.resource_version, taken=whole.taken)
        assert again == whole
        assert list(again.pods) == sorted(whole.pods)
        assert repr(again) == repr(whole)


def test_what_fits_together_gives_no_warning() -> None:
    pods = [pod("a", on="n1"), pod("b", phase="Pending")]
    assert warnings(node("n1"), node("n2"), VM, migration(VM, to="n2"), *pods) == []


@pytest.mark.parametrize(
    ("objects", "warning"),
    [
        ([pod("a", on="gone")], "Pod default/a is set aside: is on node gone, which is unknown"),
        ([pod("a")], "Pod default/a is set aside: runs, but on no node"),
        (
            [VM, launcher(VM, phase="Succeeded")],
            "VirtualMachineInstance bank/db is set aside: runs without a launcher pod",
        ),
        (
            [replace(VM, node=""), launcher(VM)],
            "VirtualMachineInstance bank/db is set aside: runs, but on no node",
        ),
        (
            [replace(VM, node="gone"), launcher(VM, on="n1")],
            "VirtualMachineInstance bank/db is set aside: is on node gone, which is unknown",
        ),
        (
            [migration(VM, to="n1")],
            "VirtualMachineInstanceMigration bank/to-n1 is set aside: its VM bank/db is unknown",
        ),
    ],
)
def test_objects_that_contradict_each_other(objects: list[Any], warning: str) -> None:
    assert warnings(node("n1"), *objects) == [warning]


@pytest.mark.parametrize("ended", [pod("a", on="gone", phase="Succeeded"), migration(VM, to="n1", phase="Failed")])
def test_what_has_ended_gives_no_warning(ended: Any) -> None:
    assert warnings(node("n1"), ended) == []


def test_of_two_objects_with_one_key_the_newer_counts_in_whatever_order() -> None:
    old, new = node("n1", cpu=4), node("n1", cpu=8)
    for order in ([(old, "9"), (new, "10")], [(new, "10"), (old, "9")]):
        builder = SnapshotBuilder()
        for value, version in order:
            builder.add("Node", value, version)
        snapshot = builder.build()
        assert snapshot.nodes["n1"] == new
        assert [entry.sentence() for entry in snapshot.set_aside] == [
            "Node n1 is set aside: stands twice in the input; the newer one counts"
        ]
    by_age = [replace(old, created=1.0), replace(new, created=2.0)]
    assert build_snapshot({"Node": by_age}).nodes == build_snapshot({"Node": by_age[::-1]}).nodes
    assert build_snapshot({"Node": by_age}).nodes["n1"].created == 2.0


def test_the_same_object_twice_is_once() -> None:
    assert build_snapshot({"Node": [node("n1"), node("n1")]}).set_aside == ()


def test_of_two_vmis_with_one_uid_the_second_is_set_aside() -> None:
    first, second = vmi("bank/a", on="n1"), replace(vmi("bank/b", on="n1"), uid=vmi("bank/a", on="n1").uid)
    snapshot = build_snapshot({"VirtualMachineInstance": [second, first], "Node": [node("n1")]})
    assert list(snapshot.vmis) == ["bank/a"]
    assert "VirtualMachineInstance bank/b is set aside: has the same uid as bank/a" in [
        entry.sentence() for entry in snapshot.set_aside
    ]


def test_a_pod_of_unknown_load_blurs_its_node_until_it_ends() -> None:
    blurred = replace(pod("a", on="n1"), load_known=False)
    nodes = [node("n1"), node("n2")]
    snapshot = build_snapshot({"Node": nodes, "Pod": [blurred]})
    assert [found.capacity_known for found in snapshot.nodes.values()] == [False, True]
    assert len(snapshot.set_aside) == 1
    ended = build_snapshot({"Node": nodes, "Pod": [replace(blurred, phase="Failed")]})
    assert [found.capacity_known for found in ended.nodes.values()] == [True, True]


@pytest.mark.parametrize(
    ("heartbeat", "silent"),
    [
        (NOW, False),
        (NOW - 299, False),
        (NOW - 301, True),
        (0.0, True),  # there is one, but it cannot be read
        (None, False),  # KubeVirt, too, takes no word for no bad word
    ],
)
def test_a_heartbeat_much_older_than_others_is_silence(heartbeat: float | None, silent: bool) -> None:
    nodes = [node("n1", heartbeat=NOW), node("n2", heartbeat=heartbeat), node("n3"), node("n4", heartbeat=NOW + 30)]
    for taken in (NOW, NOW - 9_999, NOW + 9_999):  # our clock may be wrong
        snapshot = build_snapshot({"Node": nodes}, taken=taken)
        assert [name for name, found in snapshot.nodes.items() if found.silent] == (["n2"] if silent else [])


def test_one_clock_that_is_wrong_silences_nobody_else() -> None:
    nodes = [node("n1", heartbeat=NOW), node("n2", heartbeat=NOW + 9_999), node("n3", heartbeat=NOW - 60)]
    assert not any(found.silent for found in build_snapshot({"Node": nodes}).nodes.values())
