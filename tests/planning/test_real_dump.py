"""The real recording of 12 workers and 130 VMs, with the defaults."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from planning.plans import AT_ONCE, planned

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.placement.solve import OPTIMAL

DUMP = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return read_dump(DUMP)


@pytest.fixture(scope="module")
def plan(snapshot: Snapshot) -> Plan:
    return planned(snapshot)


def test_no_hotspot_and_no_violation_is_left(plan: Plan) -> None:
    assert (len(plan.before.hotspots), len(plan.before.violations)) == (6, 30)
    assert (plan.after.hotspots, plan.after.violations, plan.left) == ((), (), ())


def test_the_number_of_moves_is_proven_minimal(plan: Plan) -> None:
    assert (len(plan.moves), plan.bound.moves, plan.bound.gap, plan.bound.proven) == (37, 37, 0.0, True)
    assert plan.solver.status == OPTIMAL
    assert [(stage.name, stage.value) for stage in plan.solver.stages[:3]] == [
        ("violations", 0),
        ("over_high", 0),
        ("over_low", 0),
    ]


def test_vms_that_cannot_be_migrated_stay(plan: Plan) -> None:
    assert not {"ci/vm-004", "hr/vm-031", "shop/vm-077"} & {move.vmi for move in plan.moves}


def test_nothing_goes_where_nothing_may(plan: Plan) -> None:
    assert not {move.target for move in plan.moves} & {"w-11", "w-03", "cp-0", "cp-1", "cp-2"}


def test_no_node_is_lifted_above_low(plan: Plan) -> None:
    for name, load in plan.after.nodes.items():
        assert load.cpu <= max(75.0, plan.before.nodes[name].cpu)


def test_moves_say_why(plan: Plan) -> None:
    reasons = {move.vmi: move.reasons for move in plan.moves}
    assert reasons["shop/vm-107"] == (
        "w-03 has taint reserved=gpu:NoSchedule that the VM does not tolerate",
        "brings w-03 from 97.7 % to 1.4 % CPU",
    )
    assert reasons["ci/vm-105"][0] == "w-01 is outside the VM's node selector tier=gold"
    assert any("anti-affinity" in reason for reason in reasons["bank/db-3-1"])


def test_waves_take_an_estimated_time(plan: Plan) -> None:
    assert all(move.seconds > 20 for move in plan.moves)
    assert plan.quiet_seconds >= max(move.seconds for move in plan.moves)


def test_the_same_plan_in_ten_runs(snapshot: Snapshot, plan: Plan) -> None:
    assert {planned(snapshot).id for _ in range(9)} == {plan.id}
    assert planned(snapshot) == plan


def test_the_same_plan_whatever_the_order_of_nodes_and_vms(snapshot: Snapshot, plan: Plan) -> None:
    """The order of a snapshot's maps is sorted by its makers; a plan must not hang on that for VMs and pods."""
    chance = random.Random(7)

    def shuffled(objects: FrozenMap[str, object]) -> FrozenMap[str, object]:
        return FrozenMap(chance.sample(sorted(objects.items(), key=lambda entry: entry[0]), len(objects)))

    mixed = replace(snapshot, pods=shuffled(snapshot.pods), vmis=shuffled(snapshot.vmis))  # type: ignore[arg-type]
    assert planned(mixed).waves == plan.waves


def test_a_vm_that_cools_down_stays_and_is_told(snapshot: Snapshot) -> None:
    plan = planned(snapshot, AT_ONCE, immovable={"shop/vm-107": "it cools down for 10 minutes"})
    assert "shop/vm-107" not in {move.vmi for move in plan.moves}
    assert [left.why for left in plan.left] == [("shop/vm-107 stays: it cools down for 10 minutes",)]
    assert plan.bound.proven
