"""Thresholds, limits, and which nodes are hotspots."""

from __future__ import annotations

from typing import Any

import pytest
from builders import cluster, node, pod, vmi

from rebalancer.domain.node import Node
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import (
    PolicyParams,
    Thresholds,
    hotspots,
    limit,
    node_loads,
    node_thresholds,
    state_of,
    threshold_warnings,
)

BOTH = (CPU, MEMORY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpu_high": 101}, "cpu_high = 101: must be above 0 and at most 100 (percent)"),
        ({"cpu_low": 0}, "cpu_low = 0: must be above 0 and at most 100 (percent)"),
        ({"memory_low": float("nan")}, "memory_low = nan: must be above 0 and at most 100 (percent)"),
        ({"cpu_high": 70}, "cpu_high = 70: must be at least cpu_low = 75"),
        ({"resources": ()}, "resources = : must be one or both of cpu, memory"),
        ({"resources": ("cpu", "cpu")}, "resources = cpu,cpu: must be one or both of cpu, memory"),
        ({"resources": ("disk",)}, "resources = disk: must be one or both of cpu, memory"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as refused:
        Thresholds(**fields)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "fields",
    [{"kinds": ("Weather",)}, {"hold_seconds": -1}, {"hold_seconds": float("inf")}, {"move_cost": 0}, {"gib_cost": -1}],
)
def test_policy_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        PolicyParams(**fields)


@pytest.mark.parametrize(
    ("annotations", "expected", "warnings"),
    [
        ({}, (80, 75), 0),
        ({"cpu-high": "70"}, (70, 65), 0),  # low keeps its distance
        ({"cpu-high": "90.5%"}, (90.5, 85.5), 0),
        ({"cpu-high": "3"}, (3, 3), 0),  # but stays above 0
        ({"cpu-low": "60"}, (80, 60), 0),
        ({"cpu-high": "70", "cpu-low": "50"}, (70, 50), 0),
        ({"cpu-high": "lots"}, (80, 75), 1),
        ({"cpu-high": "nan"}, (80, 75), 1),
        ({"cpu-high": "-5", "cpu-low": "60"}, (80, 60), 1),
        ({"cpu-high": "50", "cpu-low": "60"}, (80, 75), 1),
        ({"cpu-low": "95"}, (80, 75), 1),
        ({"memory-high": "40"}, (80, 75), 0),
    ],
)
def test_a_node_overrides_thresholds_by_annotations(
    annotations: dict[str, str], expected: tuple[float, float], warnings: int
) -> None:
    annotated = node("n1", annotations={f"kubevirt-rebalancer.io/{key}": value for key, value in annotations.items()})
    chosen, said = node_thresholds(annotated, Thresholds())
    assert (chosen.cpu_high, chosen.cpu_low) == expected
    assert len(said) == warnings
    assert threshold_warnings(cluster(annotated), Thresholds()) == said
    assert all(sentence.startswith("node n1: ") for sentence in said)


def test_limits_are_exact_and_rounded_down() -> None:
    assert limit(node("n1", cpu=63.5), CPU, "high", Thresholds()) == 50_800
    assert limit(node("n1", cpu=0.007), CPU, "high", Thresholds(cpu_high=80.1)) == 5
    assert limit(node("n1", memory=1), MEMORY, "low", Thresholds()) == 2**30 * 85 // 100


@pytest.mark.parametrize(
    ("cpu", "hot"),
    [(3.2, []), (3.201, ["n1"])],
    ids=["at the threshold", "a millicore above it"],
)
def test_a_hotspot_is_above_the_threshold_not_at_it(cpu: float, hot: list[str]) -> None:
    state = ClusterState.of(cluster(node("n1", cpu=4), vmi("a", on="n1", cpu=cpu)))
    assert [spot.node for spot in hotspots(state, Thresholds())] == hot


@pytest.mark.parametrize(
    ("where", "hot"),
    [
        (node("n1", cpu=4), True),
        (node("n1", cpu=4, taints=("node-role.kubernetes.io/control-plane:NoSchedule",)), True),
        (node("n1", cpu=4, cordoned=True), True),
        (node("n1", cpu=4, capacity_known=False), False),
        (node("n1", cpu=0), False),
    ],
    ids=["worker", "control plane that hosts VMs", "cordoned", "capacity unknown", "no capacity"],
)
def test_which_full_nodes_are_hotspots(where: Node, hot: bool) -> None:
    state = ClusterState.of(cluster(where, vmi("a", on="n1", cpu=4, migratable=False)))
    assert bool(hotspots(state, Thresholds())) == hot


def test_a_node_without_vms_is_no_hotspot_whatever_fills_it() -> None:
    state = ClusterState.of(cluster(node("cp", cpu=4), pod("kube-system/apiserver", on="cp", cpu=4)))
    assert hotspots(state, Thresholds()) == ()
    assert node_loads(state, Thresholds())["cp"].cpu == 100.0


def test_memory_counts_only_where_it_is_asked_for() -> None:
    state = ClusterState.of(cluster(node("n1", cpu=4, memory=16), vmi("a", on="n1", cpu=1, memory=15)))
    assert hotspots(state, Thresholds()) == ()
    (spot,) = hotspots(state, Thresholds(resources=BOTH))
    assert (spot.resource, spot.percent, spot.high, spot.low) == (MEMORY, 93.75, 90.0, 85.0)


def test_a_state_tells_loads_hotspots_and_violations() -> None:
    snapshot = cluster(
        node("n1", cpu=4), node("n2"), vmi("a", on="n1", cpu=3.5, memory=32, select={"tier": "gold"}), vmi("b", on="n1")
    )
    told = state_of(ClusterState.of(snapshot), snapshot, PolicyParams())
    assert (told.nodes["n1"].cpu, told.nodes["n1"].memory, told.nodes["n1"].vmis) == (112.5, 100 * 33 / 256, 2)
    assert (told.nodes["n2"].cpu, told.nodes["n2"].vmis) == (0.0, 0)
    assert [spot.node for spot in told.hotspots] == ["n1"]
    assert [violation.vmi for violation in told.violations] == ["default/a"]
