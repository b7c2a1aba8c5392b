"""The bench's judge on cases counted by hand, and what is read from a snapshot for it."""

from __future__ import annotations

import numpy as np
import pytest
from builders import cluster, node, pod, spread, vmi

from bench.peers.judge import Step, broken, in_chunks, judge
from bench.peers.numbers import NotSayableError, Numbers, numbers
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.load import Thresholds

AT_80 = Thresholds(cpu_high=80, cpu_low=80)


def read(*objects: object) -> Numbers:
    return numbers(cluster(*objects), AT_80)


def steps(given: Numbers, *moves: str) -> list[Step]:
    """ "a→n2" by numbers."""
    pairs = [move.split("→") for move in moves]
    return [(given.vms.index(f"default/{vm}"), given.nodes.index(name)) for vm, name in pairs]


def test_a_hot_node_is_cured_and_another_is_made_hot() -> None:
    given = read(
        node("n1", cpu=10),
        node("n2", cpu=10),
        vmi("a", on="n1", cpu=5),
        vmi("b", on="n1", cpu=4),
        vmi("c", on="n2", cpu=6),
    )
    before, after = judge(given, ()), judge(given, [steps(given, "b→n2")])
    assert (before.hot, before.made_hot, before.moves, before.waves) == (1, 0, 0, 0)
    assert (after.hot, after.made_hot, after.moves, after.waves, after.unfit) == (1, 1, 1, 1, 0)


def test_what_runs_beside_vms_is_load_that_nobody_moves() -> None:
    given = read(node("n1", cpu=10), pod("agent", on="n1", cpu=3), vmi("a", on="n1", cpu=5.5))
    assert given.limit.tolist() == [5000]
    assert judge(given, ()).hot == 1


def test_a_swap_in_one_wave_fits_only_where_both_have_room_for_one_more() -> None:
    def swapped(cpu: int) -> int:
        given = read(
            *(node(name, cpu=cpu) for name in ("n1", "n2")), vmi("a", on="n1", cpu=5), vmi("b", on="n2", cpu=4)
        )
        return judge(given, [steps(given, "a→n2", "b→n1")]).unfit

    assert (swapped(8), swapped(9)) == (1, 0)


def test_one_after_the_other_it_is_the_second_that_may_not_fit() -> None:
    given = read(
        *(node(name, cpu=9) for name in ("n1", "n2", "n3")), vmi("a", on="n1", cpu=5), vmi("b", on="n2", cpu=5)
    )
    there, back = steps(given, "a→n3"), steps(given, "b→n3")
    assert judge(given, [there, back]).unfit == 1
    assert judge(given, [there, steps(given, "b→n1")]).unfit == 0


@pytest.mark.parametrize(
    ("wave", "why"),
    [
        (("a→n1",), "it is there already"),
        (("a→n2", "a→n3"), "it is moved twice at once"),
        (("a→n4",), "nobody may go to a cordoned node"),
        (("a→n5",), "the taint is not tolerated"),
        (("pinned→n2",), "it cannot be migrated"),
        (("a→n6",), "there is no memory"),
    ],
)
def test_a_wave_that_cannot_be_carried_out_does_not_fit(wave: tuple[str, ...], why: str) -> None:
    given = read(
        *(node(name) for name in ("n1", "n2", "n3")),
        node("n4", cordoned=True),
        node("n5", taints=("reserved=gpu:NoSchedule",)),
        node("n6", memory=1),
        vmi("a", on="n1", memory=2),
        vmi("pinned", on="n1", migratable=False),
    )
    assert judge(given, [steps(given, *wave)]).unfit == 1, why


def test_members_beyond_what_a_host_may_hold_are_counted_and_a_rule_broken_anew_is_told() -> None:
    db = {"app": "db"}
    given = read(
        *(node(name) for name in ("n1", "n2", "n3")),
        *(vmi(f"db-{number}", on=on, labels=db, apart_from=db) for number, on in enumerate(("n1", "n1", "n2"))),
    )
    assert judge(given, ()).broken == 1
    cured = judge(given, [steps(given, "db-1→n3")])
    assert (cured.broken, cured.newly_broken, cured.unfit) == (0, 0, 0)
    worse = judge(given, [steps(given, "db-2→n1")])
    assert (worse.broken, worse.newly_broken, worse.unfit) == (2, 1, 1)


def test_a_member_arrives_only_when_the_one_before_it_has_left() -> None:
    db = {"app": "db"}
    given = read(
        *(node(name) for name in ("n1", "n2", "n3")),
        *(vmi(f"db-{number}", on=on, labels=db, apart_from=db) for number, on in enumerate(("n1", "n2"))),
    )
    first, second = steps(given, "db-0→n3"), steps(given, "db-1→n1")
    assert judge(given, [[*first, *second]]).unfit == 1
    assert judge(given, [first, second]).unfit == 0


def test_spread_over_zones_is_a_most_and_a_least() -> None:
    web = {"app": "web"}
    given = read(
        *(node(f"n{number}", zone=f"z{number}") for number in range(3)),
        *(vmi(f"web-{n}", on=f"n{n % 3}", labels=web, spread_by=(spread(web),)) for n in range(4)),
    )
    (group,) = given.groups
    assert (group.most, group.least, len(group.members)) == (2, 1, 4)
    assert broken(given, given.home) == {}
    crowded = given.home.copy()
    crowded[given.vms.index("default/web-1")] = 0
    assert sum(broken(given, crowded).values()) == 2, "one too many in z0, none in z1"


def test_rules_of_a_vm_alone_are_broken_where_its_node_does_not_satisfy_them() -> None:
    given = read(node("n1"), node("n2", labels={"tier": "gold"}), vmi("a", on="n1", select={"tier": "gold"}))
    assert judge(given, ()).broken == 1
    assert judge(given, [steps(given, "a→n2")]).broken == 0
    assert given.may_go(0).tolist() == [False, True]


def test_a_rule_that_concerns_others_than_its_holders_cannot_be_said() -> None:
    shy: Snapshot = cluster(
        node("n1"), vmi("shy", on="n1", apart_from={"app": "db"}), vmi("db", on="n1", labels={"app": "db"})
    )
    with pytest.raises(NotSayableError, match="shy"):
        numbers(shy, AT_80)


def test_chunks_keep_the_order() -> None:
    assert in_chunks([(number, 0) for number in range(7)], 5) == [[(n, 0) for n in range(5)], [(5, 0), (6, 0)]]


def test_numbers_are_by_node_and_vm() -> None:
    given = read(node("n1", cpu=10, memory=8), vmi("a", on="n1", cpu=2, memory=3))
    assert np.array_equal(given.size, [[2000, 3 * 2**30]])
    assert np.array_equal(given.room, [[10_000, 8 * 2**30]])
    assert given.limit.tolist() == [8000]
