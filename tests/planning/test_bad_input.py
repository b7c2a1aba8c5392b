"""Input that makes no sense, or nearly none: each has an answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
from builders import cluster, node, vmi
from planning.plans import moves, planned

from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.load import PolicyParams, Thresholds

NOTHING = node("n1", cpu=0, memory=0, pods=0)
CURABLE = cluster(node("n1", cpu=10), node("n2", cpu=10), vmi("a", on="n1", cpu=5), vmi("b", on="n1", cpu=4))


def hot(name: str, **fields: Any) -> list[object]:
    """A node of 10 CPUs, 9 of which a VM has."""
    return [node(name, cpu=10, **fields), vmi(f"vm-{name}", on=name, cpu=9)]


@pytest.mark.parametrize(
    ("snapshot", "triggers"),
    [
        pytest.param(cluster(), 0, id="nothing"),
        pytest.param(cluster(node("n1")), 0, id="no VM"),
        pytest.param(cluster(*hot("n1")), 1, id="one node"),
        pytest.param(cluster(*hot("n1"), node("n2", cpu=10, cordoned=True)), 1, id="no receiver: cordoned"),
        pytest.param(cluster(*hot("n1"), node("n2", cpu=10, ready=False)), 1, id="no receiver: not ready"),
        pytest.param(cluster(*hot("n1"), node("n2", cpu=10, kubevirt=False)), 1, id="no receiver: no KubeVirt"),
        pytest.param(cluster(*hot("n1"), node("n2", cpu=8)), 1, id="no receiver: too small"),
        pytest.param(cluster(*hot("n1"), *hot("n2"), *hot("n3")), 3, id="all nodes hot"),
        pytest.param(
            cluster(*hot("n1"), node("n2", cpu=0, memory=0, pods=0)), 1, id="the receiver has a capacity of 0"
        ),
        pytest.param(cluster(*hot("n1"), node("n2", cpu=10, pods=0)), 1, id="the receiver takes no pods"),
        pytest.param(cluster(NOTHING, node("n2"), vmi("a", on="n1", cpu=9)), 0, id="a VM on a capacity of 0"),
        pytest.param(cluster(NOTHING, vmi("a", on="n1", cpu=9)), 0, id="nothing but a capacity of 0"),
        pytest.param(cluster(node("n1"), vmi("a", on="gone", cpu=9)), 0, id="a VM on a node that is not there"),
        pytest.param(cluster(vmi("a", on="gone", cpu=9)), 0, id="a VM and no node at all"),
    ],
)
def test_where_nothing_can_be_done_nothing_is_and_why_is_told(snapshot: Snapshot, triggers: int) -> None:
    plan = planned(snapshot)
    assert plan.is_noop()
    assert len(plan.triggers) == len(plan.left) == triggers
    assert all(left.why for left in plan.left)
    assert (plan.bound.moves, plan.bound.cost, plan.bound.gap) == (0, 0, 0.0)
    assert plan.solver.status == "UNCHANGED"
    assert (plan.before, plan.quiet_seconds) == (plan.after, 0.0)


def test_a_limit_of_0_seconds_gives_the_first_plan() -> None:
    assert moves(planned(CURABLE, seconds=0)) == ["b n1>n2"]


def test_all_nodes_are_hot_and_one_less_so_than_it_could_be() -> None:
    """Nobody can be cured, but everybody may be helped: nothing is, as whoever receives anything ends at low."""
    snapshot = cluster(*hot("n1"), vmi("s", on="n1", cpu=0.5), node("n2", cpu=10), vmi("b", on="n2", cpu=8.1))
    assert planned(snapshot).is_noop()


def test_of_nodes_with_a_capacity_of_0_among_others_nothing_is_wanted() -> None:
    """Division by it, that is; the others are cured."""
    plan = planned(cluster(NOTHING, *CURABLE.nodes.values(), node("n3", cpu=10), *CURABLE.vmis.values()))
    assert len(plan.moves) <= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cpu_high": 101.0}, "cpu_high = 101: must be above 0 and at most 100"),
        ({"cpu_high": math.nan}, "cpu_high = nan: must be above 0 and at most 100"),
        ({"memory_high": 1e9}, "memory_high = 1e\\+09: must be above 0 and at most 100"),
        ({"cpu_low": 0.0}, "cpu_low = 0: must be above 0 and at most 100"),
        ({"cpu_low": -5.0}, "cpu_low = -5: must be above 0 and at most 100"),
        ({"cpu_high": 60.0, "cpu_low": 70.0}, "cpu_high = 60: must be at least cpu_low = 70"),
        ({"memory_high": 60.0, "memory_low": 70.0}, "memory_high = 60: must be at least memory_low = 70"),
        ({"resources": ()}, "resources = : must be one or both of cpu, memory"),
        ({"resources": ("disk",)}, "resources = disk: must be one or both of cpu, memory"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Thresholds(**fields)


@pytest.mark.parametrize("seconds", [-1.0, 3601.0, math.nan, math.inf])
def test_a_limit_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"seconds = .*: must be between 0 and 3600"):
        PlanningParams(seconds=seconds)


@pytest.mark.parametrize(
    "annotations",
    [{"cpu-high": "120"}, {"cpu-high": "60", "cpu-low": "70"}, {"cpu-low": "95"}, {"cpu-high": "much"}],
    ids=["above 100", "high below low", "low above the default high", "no number"],
)
def test_a_node_whose_own_thresholds_make_no_sense_has_the_defaults_and_that_is_told(
    annotations: dict[str, str],
) -> None:
    ours = {f"kubevirt-rebalancer.io/{name}": value for name, value in annotations.items()}
    plan = planned(cluster(node("n1", cpu=10, annotations=ours), node("n2", cpu=10), *CURABLE.vmis.values()))
    assert moves(plan) == ["b n1>n2"]
    assert len([warning for warning in plan.warnings if warning.startswith("node n1:")]) == 1


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_thresholds_of_100_leave_only_what_does_not_fit(resource: str) -> None:
    """An overcommitted node is above 100 %, a full one is not."""
    full = PolicyParams(
        hold_seconds=0,
        thresholds=Thresholds(cpu_high=100, cpu_low=100, memory_high=100, memory_low=100, resources=(resource,)),
    )

    def plan(amount: int) -> Plan:
        small = {"cpu": 1.0, "memory": 1.0, resource: 2.0}
        large = {"cpu": 1.0, "memory": 1.0, resource: float(amount)}
        return planned(
            cluster(
                *(node(name, cpu=10, memory=10) for name in ("n1", "n2")),
                *(vmi("large", on="n1", **large), vmi("small", on="n1", **small)),  # type: ignore[arg-type]
            ),
            full,
        )

    assert plan(8).is_noop()
    assert len(plan(9).moves) == 1
