"""The order of moves: what may run together, what must wait, and circles."""

from __future__ import annotations

from builders import cluster, node, vmi
from planning.plans import moves, planned

from rebalancer.policy.load import PolicyParams, Thresholds

FULL = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=100, cpu_low=100))


def gold(name: str, **fields: object) -> object:
    return node(name, cpu=10, labels={"tier": "gold"}, **fields)  # type: ignore[arg-type]


def test_two_out_of_a_node_and_one_into_a_node_at_a_time() -> None:
    snapshot = cluster(
        node("n0", cpu=10, taints=("gone=yes:NoSchedule",)),
        *(node(f"n{number}", cpu=10) for number in range(1, 5)),
        *(vmi(f"v{number}", on="n0", cpu=1) for number in range(4)),
    )
    plan = planned(snapshot)
    assert [len(wave.moves) for wave in plan.waves] == [2, 2]


def test_a_move_waits_for_the_room_that_another_one_makes() -> None:
    """The gold node is full until the VM that does not need it has left."""
    snapshot = cluster(
        gold("g"),
        node("a", cpu=10),
        node("b", cpu=10),
        vmi("tenant", on="g", cpu=8),
        vmi("picky", on="a", cpu=7, select={"tier": "gold"}),
    )
    plan = planned(snapshot, FULL)
    assert moves(plan) == ["tenant g>b", "picky a>g"]
    assert len(plan.waves) == 2
    assert plan.waves[0].moves[0].reasons == ("makes room on g for default/picky",)


def test_a_swap_that_fits_with_both_sides_reserved_is_one_wave() -> None:
    snapshot = cluster(
        gold("g"),
        node("s", cpu=10, labels={"tier": "silver"}),
        vmi("a", on="s", cpu=4, select={"tier": "gold"}),
        vmi("b", on="g", cpu=4, select={"tier": "silver"}),
    )
    plan = planned(snapshot, FULL)
    assert sorted(moves(plan)) == ["a s>g", "b g>s"]
    assert plan.after.violations == ()


def test_a_circle_is_broken_by_a_stop_on_a_third_node() -> None:
    snapshot = cluster(
        gold("g"),
        node("s", cpu=10, labels={"tier": "silver"}),
        node("z", cpu=10, labels={"tier": "gold", "tier2": "x"}, cordoned=True),
        gold("spare", taints=("later=yes:NoSchedule",)),
        vmi("a", on="s", cpu=7, select={"tier": "gold"}, tolerate=("later",)),
        vmi("b", on="g", cpu=7, select={"tier": "silver"}),
        vmi("c", on="spare", cpu=2, tolerate=("later",), select={"tier": "gold"}, migratable=False),
    )
    plan = planned(snapshot, FULL)
    assert plan.after.violations == ()
    assert plan.moves[0].vmi == "default/a"


def test_a_circle_without_a_way_out_is_reported_and_not_begun() -> None:
    snapshot = cluster(
        gold("g"),
        node("s", cpu=10, labels={"tier": "silver"}),
        vmi("a", on="s", cpu=7, select={"tier": "gold"}),
        vmi("b", on="g", cpu=7, select={"tier": "silver"}),
    )
    plan = planned(snapshot, FULL)
    assert plan.is_noop()
    assert [warning.partition(",")[0] for warning in plan.warnings] == ["default/a stays", "default/b stays"]
    assert len(plan.left) == 2
