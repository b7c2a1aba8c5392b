"""Clusters in which nothing of ours may be under way: what is fit and settled as a table, and what the daemon does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from control.harness import MIGRATIONS, SLOW, Story, hot_pair, nodes, tell, vms

from rebalancer.control.gate import GateParams, resumed, why_unfit, why_unsettled
from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition, Node
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration
from rebalancer.sim.objects import Obj

NOW = 1_000_000.0
READY = KubeVirt(version="v1.8.3", phase="Deployed")


def lost(count: int, of: int, seconds: float = 60.0) -> dict[str, Any]:
    """A cluster of which some nodes became not ready so long ago."""
    found = {}
    for index in range(of):
        ready = Condition(status="Unknown" if index < count else "True", since=NOW - seconds)
        found[f"n{index}"] = Node(name=f"n{index}", uid=f"n{index}", conditions=FrozenMap({"Ready": ready}))
    return {"nodes": FrozenMap(found)}


def updates(*phases: str, priority: str = "", seconds: float = 0.0, each: int = 1) -> dict[str, Any]:
    """VMIMs of KubeVirt's workload updater, so many of `each` VM, begun so long ago."""
    found = {
        f"bank/u{index}": Migration(
            namespace="bank",
            name=f"u{index}",
            uid=f"u{index}",
            vmi=f"v{index // each}",
            phase=phase,
            priority=priority,
            annotations=FrozenMap({"kubevirt.io/workloadUpdateMigration": ""}),
            created=NOW - seconds,
        )
        for index, phase in enumerate(phases)
    }
    return {"migrations": FrozenMap(found)}


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        ({}, ""),
        ({"kubevirt": replace(READY, phase="")}, ""),
        ({"kubevirt": replace(READY, infra_updating=True)}, "KubeVirt is being updated"),
        ({"kubevirt": replace(READY, phase="Deploying")}, "KubeVirt is Deploying"),
        (lost(1, of=3), ""),
        (lost(2, of=3), "2 of 3 nodes have just been lost: n0, n1"),
        (lost(2, of=3, seconds=901), ""),
        (lost(2, of=200), "2 of 200 nodes have just been lost: n0, n1"),
        (lost(4, of=500), ""),
        (lost(5, of=500), "5 of 500 nodes have just been lost: n0, n1, n2 and 2 more"),
        (updates("Running"), ""),
        (updates("Running", "Pending"), "KubeVirt is renewing running VMs, bank/v0 among them"),
        (updates("Running", "Pending", priority="user-triggered"), ""),
        (updates("Succeeded", "Succeeded", seconds=299), "KubeVirt is renewing running VMs, bank/v0 among them"),
        (updates("Succeeded", "Succeeded", seconds=301), ""),
        # Two VMs that fit nowhere else, tried again and again: an update that is never over.
        (updates("Failed", "Pending", "Failed", "Pending", each=2), ""),
    ],
)
def test_a_cluster_is_settled_or_says_why_not(cluster: dict[str, Any], why: str) -> None:
    assert why_unsettled(Snapshot(**{"kubevirt": READY, **cluster}), GateParams(), NOW) == why


@pytest.mark.parametrize(
    ("kubevirt", "why"),
    [
        (READY, ""),
        (replace(READY, version=""), ""),
        (replace(READY, version="devel"), ""),
        (replace(READY, version="v1.6.0-rc.1"), ""),
        (replace(READY, version="2.0.0"), ""),
        (replace(READY, version="1.5.9"), "KubeVirt 1.5.9 cannot direct a migration to a node; 1.6 and later can"),
        (replace(READY, version="v0.59.0"), "KubeVirt v0.59.0 cannot direct a migration to a node; 1.6 and later can"),
        (
            replace(READY, parallel_migrations_per_cluster=0),
            "the KubeVirt resource allows no migration: parallelMigrationsPerCluster is 0",
        ),
        (
            replace(READY, parallel_outbound_migrations_per_node=0),
            "the KubeVirt resource allows no migration: parallelOutboundMigrationsPerNode is 0",
        ),
        (None, "there is no readable KubeVirt resource in this cluster"),
    ],
)
def test_a_kubevirt_is_fit_or_says_why_not(kubevirt: KubeVirt | None, why: str) -> None:
    assert why_unfit(Snapshot(kubevirt=kubevirt)) == why


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-12T13:46:40Z", NOW),
        ("1970-01-12T14:46:40+01:00", NOW),
        ("1970-01-12T13:46:40", 0.0),
        ("now", 0.0),
        ("", 0.0),
    ],
)
def test_a_moment_that_forgives_has_a_zone(text: str, moment: float) -> None:
    own = Namespace(name="own", annotations=FrozenMap({"kubevirt-rebalancer.io/resume": text}))
    assert resumed(Snapshot(namespaces=FrozenMap({"own": own})), "own") == moment
    assert resumed(Snapshot(namespaces=FrozenMap({"own": own})), "other") == 0.0


@pytest.mark.parametrize(
    "wrong", [{"lost_seconds": 0.0}, {"update_seconds": 0.0}, {"lost_nodes": 0}, {"lost_share": 2.0}]
)
def test_params_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        GateParams(**wrong)


def upgrade(story: Story) -> None:
    """KubeVirt's operator has been told to roll out another version."""

    def change(item: Obj) -> None:
        item["status"] |= {"observedDeploymentID": "old", "targetDeploymentID": "new"}

    story.world.store.modify("kubevirts", "kubevirt", "kubevirt", change)


def upgraded(story: Story) -> None:
    def change(item: Obj) -> None:
        item["status"]["observedDeploymentID"] = "new"

    story.world.store.modify("kubevirts", "kubevirt", "kubevirt", change)


def lose_two(story: Story) -> None:
    story.world.lose("y")
    story.world.lose("z")


def regain_two(story: Story) -> None:
    story.world.regain("y")
    story.world.regain("z")


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (upgrade, upgraded, "KubeVirt is being updated"),
        (lose_two, regain_two, "2 of 5 nodes have just been lost: y, z"),
    ],
    ids=["an upgrade of KubeVirt", "nodes lost in numbers"],
)
def test_what_runs_is_withdrawn_nothing_begins_and_afterwards_it_goes_on(
    begins: Callable[[Story], None], ends: Callable[[Story], None], words: str
) -> None:
    async def scenario(story: Story) -> None:
        await story.until("Started")
        await anyio.sleep(10)
        begins(story)
        await story.until("Unsettled", 300)
        assert story.last.sentence.text == (
            f"The cluster is not settled: {words}. Migrations of ours give way, and none is started until it is over"
        )
        await anyio.sleep(300)
        withdrawn = {outcome.result: outcome.message for report in story.reports for outcome in report.done}
        assert withdrawn == {"Withdrawn": words}
        assert [entry.method for entry in story.writes() if entry.user == "a"] == ["POST", "DELETE"]
        assert [m for m in story.migrations() if m["status"]["phase"] not in ("Failed", "Succeeded")] == []
        ends(story)
        await story.until("Finished", 7200)
        told = {event["reason"] for event in story.world.store.items("events")}
        assert "Unsettled" in told

    items = [*nodes("a", "b", "c", "y", "z"), *vms("a", "v0", "v1", "v2", "v3")]
    tell(items, scenario, plane=SLOW)


def test_a_user_who_changes_one_vm_stops_nobody_else() -> None:
    """Changed CPU or memory of a running VM comes into effect by one migration of KubeVirt's own."""

    async def scenario(story: Story) -> None:
        metadata = {
            "namespace": "bank",
            "name": "kubevirt-workload-update-x",
            "annotations": {"kubevirt.io/workloadUpdateMigration": ""},
            "labels": {"kubevirt.io/vmi-name": "w0"},
        }
        story.world.store.create(MIGRATIONS, {"metadata": metadata, "spec": {"vmiName": "w0"}})
        await story.until("Finished")

    tell([*hot_pair(), *vms("b", "w0", vcpus=1)], scenario)
