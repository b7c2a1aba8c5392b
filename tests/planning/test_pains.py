"""What hurts the users of other balancers, each as a test by that name."""

from __future__ import annotations

from dataclasses import replace

from builders import cluster, launcher, migration, node, pod, vmi
from planning.plans import NO_HYSTERESIS, moves, planned

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.snapshot import Snapshot


def nodes(count: int, **fields: object) -> list[object]:
    return [node(f"n{number}", cpu=10, **fields) for number in range(1, count + 1)]  # type: ignore[arg-type]


def test_moves_without_gain() -> None:
    """Uneven, but nothing is too full and no rule is broken: nothing moves."""
    plan = planned(cluster(*nodes(3), *(vmi(f"v{i}", on="n1", cpu=2) for i in range(4))))
    assert plan.is_noop()
    assert plan.solver.status == "UNCHANGED"


def test_moves_without_gain_when_nothing_can_be_cured() -> None:
    """Every move would only carry the heat elsewhere."""
    plan = planned(cluster(*nodes(2), vmi("a", on="n1", cpu=9), vmi("b", on="n2", cpu=4)))
    assert plan.is_noop()
    assert [left.why[0] for left in plan.left] == ["no set of movable VMs was found that brings n1 below 90.0 % CPU"]


def test_satisfied_rule_made_broken() -> None:
    """The emptiest node holds the VM's twin, from which it must stay apart: it goes to the other one."""
    db = {"app": "db"}
    snapshot = cluster(
        *nodes(3),
        vmi("db-0", on="n1", cpu=4, labels=db, apart_from=db),
        vmi("other", on="n1", cpu=5, migratable=False),
        vmi("db-1", on="n2", cpu=1, labels=db, apart_from=db),
        vmi("filler", on="n3", cpu=3),
    )
    assert moves(planned(snapshot)) == ["db-0 n1>n3"]


def test_target_hot_after_the_move() -> None:
    """The large VM would lift any node over its threshold; two small ones go instead."""
    snapshot = cluster(
        *nodes(2),
        vmi("large", on="n1", cpu=7),
        vmi("s1", on="n1", cpu=1),
        vmi("s2", on="n1", cpu=1),
        vmi("b", on="n2", cpu=4),
    )
    plan = planned(snapshot, NO_HYSTERESIS)
    assert [move.vmi for move in plan.moves] in (["default/s1"], ["default/s2"])
    assert all(load.cpu <= 80 for load in plan.after.nodes.values())


def test_ping_pong_between_two_hosts() -> None:
    """What a plan has done, the next one does not undo: after it there is nothing to do."""
    first = cluster(*nodes(2), *(vmi(f"v{i}", on="n1", cpu=2, memory=1 + i) for i in range(5)))
    plan = planned(first)
    assert sorted(moves(plan)) == ["v0 n1>n2", "v1 n1>n2"]
    where = {move.vmi.removeprefix("default/"): move.target for move in plan.moves}
    second = cluster(*nodes(2), *(vmi(f"v{i}", on=where.get(f"v{i}", "n1"), cpu=2) for i in range(5)))
    assert planned(second).is_noop()


def test_one_unmigratable_vm() -> None:
    """It stays, is explained, and does not keep the others from being cured."""
    snapshot = cluster(
        node("n1", cpu=10, taints=("reserved=gpu:NoSchedule",)),
        *nodes(4)[1:],
        vmi("pinned", on="n1", cpu=2, migratable=False),
        vmi("free", on="n1", cpu=2),
        vmi("a", on="n2", cpu=5),
        vmi("b", on="n2", cpu=4),
    )
    plan = planned(snapshot)
    assert sorted(move.vmi for move in plan.moves) == ["default/b", "default/free"]
    assert [left.why for left in plan.left] == [("default/pinned stays: KubeVirt says it cannot be live-migrated",)]


def test_overcommitted_ignored_vm() -> None:
    """Nobody may touch the VM that fills its node; the node's other VM goes, as far as that helps, and that is said."""
    snapshot = cluster(
        *nodes(2),
        vmi("ignored", on="n1", cpu=11, annotations={"kubevirt-rebalancer.io/policy": "ignore"}),
        vmi("other", on="n1", cpu=2),
    )
    plan = planned(snapshot)
    assert moves(plan) == ["other n1>n2"]
    assert plan.left[0].why[0] == "none of the 1 VMs on n1 may move"
    assert "policy=ignore" in plan.left[0].why[1]


def test_group_larger_than_hosts() -> None:
    """Four that must stay apart on three hosts: as many as can are parted, and the rest is explained."""
    db = {"app": "db"}
    snapshot = cluster(*nodes(3), *(vmi(f"db-{i}", on="n1", cpu=1, labels=db, apart_from=db) for i in range(4)))
    plan = planned(snapshot)
    assert len(plan.moves) == 2
    assert sum(violation.degree for violation in plan.after.violations) == 2
    assert all("must be apart" in left.why[0] and "didn't" in left.why[1] for left in plan.left)


def test_rule_added_to_running_vms() -> None:
    """The pods know nothing of the rule that the VMs' specs have got: it counts all the same."""
    db = {"app": "db"}
    snapshot = cluster(*nodes(3), *(vmi(f"db-{i}", on="n1", cpu=1, labels=db, apart_from=db) for i in range(3)))
    old = cluster(*nodes(3), *(vmi(f"db-{i}", on="n1", cpu=1, labels=db) for i in range(3)))
    plan = planned(_with_pods_of(snapshot, old))
    assert len(plan.moves) == 2
    assert plan.after.violations == ()
    assert plan.bound.proven


def test_three_moved_where_one_suffices() -> None:
    snapshot = cluster(*nodes(2), *(vmi(f"s{i}", on="n1", cpu=1) for i in range(5)), vmi("m", on="n1", cpu=4))
    plan = planned(snapshot)
    assert moves(plan) == ["m n1>n2"]
    assert (plan.bound.moves, plan.bound.proven) == (1, True)


def test_single_target_swamped_by_an_evacuation() -> None:
    """Eight VMs must leave a tainted node: they are spread, and no target takes in more than one at a time."""
    snapshot = cluster(
        node("n0", cpu=10, taints=("reserved=gpu:NoSchedule",)),
        *nodes(4),
        *(vmi(f"v{i}", on="n0", cpu=1) for i in range(8)),
    )
    plan = planned(snapshot)
    assert len(plan.moves) == 8
    for wave in plan.waves:
        targets = [move.target for move in wave.moves]
        assert len(set(targets)) == len(targets) <= 2
    arrived = [move.target for move in plan.moves]
    assert {arrived.count(target) for target in set(arrived)} == {2}


def test_lands_on_the_same_node_again() -> None:
    """The emptiest node for what must leave a hot one is often the hot one itself, once it has left."""
    snapshot = cluster(*nodes(2), *(vmi(f"v{i}", on="n1", cpu=3) for i in range(3)), vmi("w", on="n2", cpu=4))
    plan = planned(snapshot)
    assert [(move.source, move.target) for move in plan.moves] == [("n1", "n2")]


def test_large_pod_overloads_every_node_it_lands_on() -> None:
    """Nobody has room for it, so it stays, and nothing is moved about in vain."""
    snapshot = cluster(*nodes(3), vmi("large", on="n1", cpu=8.5), vmi("a", on="n2", cpu=3), vmi("b", on="n3", cpu=3))
    assert planned(snapshot).is_noop()


def test_ten_evictable_where_one_fits() -> None:
    """Ten VMs have to leave their node, and the only receiver takes one more."""
    snapshot = cluster(
        node("n0", cpu=10, taints=("reserved=gpu:NoSchedule",)),
        *nodes(1),
        *(vmi(f"v{i}", on="n0", cpu=0.7) for i in range(10)),
        vmi("tenant", on="n1", cpu=6.5, migratable=False),
    )
    plan = planned(snapshot)
    assert len(plan.moves) == 1
    assert len(plan.left) == 9
    assert plan.bound.proven


def test_pinned_for_ever_by_the_selector_of_a_directed_migration() -> None:
    """A VM that was sent to a node keeps that node's hostname as a selector on its pod; its own rules have none."""
    vm = vmi("sent", on="n1", cpu=5)
    stale = launcher(vm)
    stale = replace(stale, spec=replace(stale.spec, node_selector=FrozenMap({HOSTNAME: "n1"})))
    plan = planned(cluster(*nodes(2), vm, stale, vmi("other", on="n1", cpu=4, migratable=False)))
    assert moves(plan) == ["sent n1>n2"]


def test_one_eviction_per_vm_and_day_on_a_balanced_cluster() -> None:
    """However the loads differ, as long as nothing is above its threshold: no move, ever."""
    snapshot = cluster(
        *nodes(4),
        *(vmi(f"full-{i}", on="n1", cpu=2) for i in range(4)),
        *(vmi(f"half-{i}", on="n2", cpu=2) for i in range(2)),
        vmi("one", on="n3", cpu=1),
    )
    assert all(planned(snapshot).is_noop() for _ in range(3))


def test_target_filled_by_a_migration_in_flight() -> None:
    """The emptiest node is about to receive a VM: what is on its way counts as if it were there."""
    coming = vmi("coming", on="n4", cpu=5)
    moving, pod_ = migration(coming, "n2"), launcher(coming)
    labels = FrozenMap({**pod_.labels, "kubevirt.io/migrationJobUID": moving.uid})
    arriving = launcher(coming, on="n2", suffix="-target", created=1.0, labels=labels)
    snapshot = cluster(
        *(*nodes(3), node("n4", cpu=10, cordoned=True), coming, pod_, arriving, moving),
        *(vmi("a", on="n1", cpu=5), vmi("b", on="n1", cpu=4, migratable=False), vmi("c", on="n3", cpu=1)),
    )
    plan = planned(snapshot)
    assert moves(plan) == ["a n1>n3"]


def test_one_broken_rule_that_nobody_can_mend_stops_everything() -> None:
    """A solver that must keep every rule finds no plan at all; ours keeps those that hold and mends those it can."""
    db = {"app": "db"}
    snapshot = cluster(
        *nodes(2),
        *(vmi(f"db-{i}", on="n1", cpu=1, labels=db, apart_from=db, migratable=False) for i in range(2)),
        vmi("a", on="n1", cpu=4),
        vmi("b", on="n1", cpu=3),
    )
    plan = planned(snapshot)
    assert moves(plan) == ["b n1>n2"]
    assert len(plan.left) == 2


def _with_pods_of(snapshot: Snapshot, other: Snapshot) -> Snapshot:
    return cluster(*snapshot.nodes.values(), *snapshot.vmis.values(), *other.pods.values())


def test_a_pod_that_is_no_vm_is_load_that_stays() -> None:
    snapshot = cluster(*nodes(2), pod("agent", on="n1", cpu=5), vmi("a", on="n1", cpu=2), vmi("b", on="n1", cpu=3))
    assert moves(planned(snapshot)) == ["b n1>n2"]
