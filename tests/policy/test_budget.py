"""What may start now, counted from the migrations that exist."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from builders import NOW, cluster, migration, move, node, vmi
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration, MigrationState
from rebalancer.policy.budget import HOUR, REASONS, Limits, Start, admit, cooldown, resting

MINUTE = 60.0
NODES = tuple(node(f"n{i}") for i in range(1, 5))
A, B, C, D = (vmi(name, on="n1") for name in ("a", "b", "bank/c", "d"))
MOVES = (move("a", "n1", "n2"), move("b", "n1", "n3"), move("bank/c", "n1", "n4"), move("d", "n4", "n1"))
LOOSE = Limits(per_cluster=100, drain_reserve=0, per_source=100, per_target=100, per_hour=100, per_vm_day=5)
WIDE = KubeVirt(parallel_migrations_per_cluster=100, parallel_outbound_migrations_per_node=100)


def decided(limits: Limits, *objects: Any, kubevirt: KubeVirt = WIDE) -> list[str]:
    """Per move: "" where it may start, else the reason."""
    snapshot = cluster(*NODES, A, B, C, D, *objects, kubevirt=kubevirt)
    admission = admit(MOVES, snapshot, limits, NOW)
    reasons = {held.vmi: held.reason for held in admission.held}
    assert [one.vmi for one in admission.admitted] == [one.vmi for one in MOVES if one.vmi not in reasons]
    return [reasons.get(one.vmi, "") for one in MOVES]


def ended(of: Any, ago: float, name: str, lasting: float = MINUTE, phase: str = "Succeeded") -> Migration:
    """A migration that began so many seconds ago."""
    start = NOW - ago
    return migration(of, "n2", name=name, phase=phase, created=start, phase_times=FrozenMap({phase: start + lasting}))


ELSEWHERE = vmi("other", on="n3")

CASES: dict[str, tuple[Limits, list[Any], KubeVirt, list[str]]] = {
    "no limit reached": (LOOSE, [], WIDE, ["", "", "", ""]),
    "per source": (
        Limits(per_source=2, per_cluster=9),
        [],
        WIDE,
        ["", "", "PerSource", ""],
    ),
    "per source, as KubeVirt has it": (
        LOOSE,
        [],
        KubeVirt(parallel_migrations_per_cluster=9, parallel_outbound_migrations_per_node=1),
        ["", "PerSource", "PerSource", ""],
    ),
    "per cluster, less what is left to drains": (
        Limits(per_cluster=9, per_source=9),
        [],
        KubeVirt(parallel_migrations_per_cluster=4, parallel_outbound_migrations_per_node=9),
        ["", "", "", "PerCluster"],
    ),
    "per cluster, others' migrations count": (
        Limits(per_cluster=3, per_source=9),
        [ELSEWHERE, migration(ELSEWHERE, "n9", name="kubevirt-evacuation-x")],
        WIDE,
        ["", "", "PerCluster", "PerCluster"],
    ),
    "the last slot is ours, too": (
        Limits(drain_reserve=1),
        [],
        KubeVirt(parallel_migrations_per_cluster=1),
        ["", "PerCluster", "PerCluster", "PerCluster"],
    ),
    "migrations are switched off": (
        LOOSE,
        [],
        KubeVirt(parallel_migrations_per_cluster=0),
        ["PerCluster", "PerCluster", "PerCluster", "PerCluster"],
    ),
    "per target, another's migration is on its way there": (
        Limits(per_source=9),
        [ELSEWHERE, migration(ELSEWHERE, "n2")],
        WIDE,
        ["PerTarget", "", "", ""],
    ),
    "per namespace": (
        Limits(per_namespace=1, per_source=9),
        [],
        WIDE,
        ["", "PerNamespace", "", "PerNamespace"],
    ),
    "per hour, with those that have ended": (
        Limits(per_hour=3, per_source=9),
        [ELSEWHERE, ended(ELSEWHERE, 59 * MINUTE, "one"), ended(ELSEWHERE, 61 * MINUTE, "two")],
        WIDE,
        ["", "", "PerHour", "PerHour"],
    ),
    "migrating already": (
        Limits(per_source=9),
        [migration(A, "n4")],
        WIDE,
        ["Migrating", "", "PerTarget", ""],
    ),
    "cooling down": (Limits(per_source=9), [ended(A, 10 * MINUTE, "one")], WIDE, ["Cooldown", "", "", ""]),
    "cooled down": (Limits(per_source=9), [ended(A, 16 * MINUTE, "one")], WIDE, ["", "", "", ""]),
    "a failed migration counts, too": (
        Limits(per_source=9),
        [ended(A, 10 * MINUTE, "one", phase="Failed")],
        WIDE,
        ["Cooldown", "", "", ""],
    ),
    "often enough for a day": (
        Limits(per_source=9, cooldown_seconds=0),
        [ended(A, hours * HOUR, str(hours)) for hours in (2, 8, 16, 23)],
        WIDE,
        ["PerVMAndDay", "", "", ""],
    ),
    "the oldest was yesterday": (
        Limits(per_source=9, cooldown_seconds=0),
        [ended(A, hours * HOUR, str(hours)) for hours in (2, 8, 16, 25)],
        WIDE,
        ["", "", "", ""],
    ),
}


@pytest.mark.parametrize(("limits", "objects", "kubevirt", "expected"), CASES.values(), ids=CASES)
def test_each_limit(limits: Limits, objects: list[Any], kubevirt: KubeVirt, expected: list[str]) -> None:
    assert decided(limits, *objects, kubevirt=kubevirt) == expected


def test_without_a_kubevirt_cr_its_defaults_hold() -> None:
    snapshot = cluster(*NODES, A, B, C, D)
    assert len(admit(MOVES, snapshot, Limits(per_source=9), NOW).admitted) == 3  # two off n1, one off n4


@pytest.mark.parametrize(
    ("objects", "limits", "until", "message"),
    [
        (
            [ended(A, 10 * MINUTE, "one")],
            Limits(),
            NOW - 9 * MINUTE + 15 * MINUTE,
            "default/a cools down after migrating 1 time within 24 hours",
        ),
        (
            [ended(A, 10 * MINUTE, "one"), ended(A, 5 * HOUR, "two")],
            Limits(),
            NOW - 9 * MINUTE + 30 * MINUTE,
            "default/a cools down after migrating 2 times within 24 hours",
        ),
        (
            [ended(A, hours * HOUR, str(hours)) for hours in (2, 8, 16, 23)],
            Limits(),
            NOW + HOUR,
            "default/a has migrated 4 times within 24 hours, 4 are allowed",
        ),
        (
            [ELSEWHERE, ended(ELSEWHERE, 50 * MINUTE, "one"), ended(ELSEWHERE, 40 * MINUTE, "two")],
            Limits(per_hour=2),
            NOW + 10 * MINUTE,
            "2 migrations began within an hour, 2 are allowed",
        ),
        (
            [ELSEWHERE, migration(ELSEWHERE, "n2")],
            Limits(),
            0.0,
            "1 migration goes on onto n2, 1 at a time is allowed",
        ),
    ],
)
def test_what_is_held_says_why_and_until_when(objects: list[Any], limits: Limits, until: float, message: str) -> None:
    held = admit(MOVES[:1], cluster(*NODES, A, *objects), limits, NOW).held[0]
    assert (held.vmi, held.until, held.message) == ("default/a", until, message)


def test_a_cooldown_doubles_up_to_a_cap() -> None:
    assert [cooldown(n, Limits()) / MINUTE for n in (1, 2, 3, 4, 5, 6, 500)] == [15, 30, 60, 120, 240, 360, 360]


def test_a_cooldown_decays_as_migrations_grow_old() -> None:
    day = [ended(A, ago * HOUR, str(ago)) for ago in (23.9, 23.8, 0.2)]
    (fresh,) = resting(cluster(*NODES, A, *day), Limits(), NOW).values()
    (later,) = resting(cluster(*NODES, A, *day), Limits(), NOW + 0.15 * HOUR).values()
    assert fresh.until - later.until == 30 * MINUTE


def test_what_the_vmi_says_of_its_migration_is_heeded() -> None:
    """Once the guest has moved, the VMI is on the target, though its migration has not ended."""
    landed = vmi("late", on="n2", migration_state=MigrationState(migration_uid="m", source_node="n1", target_node="n2"))
    snapshot = cluster(*NODES, A, B, C, D, landed, migration(landed, "n2", uid="m", state=MigrationState()))
    held = {one.vmi: one.reason for one in admit(MOVES, snapshot, Limits(per_source=1), NOW).held}
    assert held == {"default/a": "PerSource", "default/b": "PerSource", "bank/c": "PerSource"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"per_cluster": 0}, "per_cluster = 0: must be at least 1"),
        ({"per_vm_day": 6}, "per_vm_day = 6: must be between 1 and 5"),
        ({"cooldown_seconds": float("nan")}, "cooldown_seconds = nan: must be between 0 and 86400"),
        (
            {"cooldown_seconds": 900, "cooldown_max_seconds": 60},
            "cooldown_max_seconds = 60: must be between 900 and 86400",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as refused:
        Limits(**fields)
    assert str(refused.value) == message


PHASES = st.sampled_from(["Pending", "Scheduling", "Running", "Succeeded", "Failed"])
FOUR = st.integers(1, 4)


@st.composite
def histories(draw: st.DrawFn) -> Snapshot:
    vms = [vmi(f"{draw(st.sampled_from(['x', 'y']))}/v{i}", on=f"n{draw(FOUR)}") for i in range(8)]
    past = [
        migration(
            draw(st.sampled_from(vms)),
            f"n{draw(FOUR)}",
            name=f"m{i}",
            phase=draw(PHASES),
            created=NOW - draw(st.floats(-60, 30 * HOUR)),
        )
        for i in range(draw(st.integers(0, 12)))
    ]
    limit = KubeVirt(
        parallel_migrations_per_cluster=draw(st.integers(0, 6)), parallel_outbound_migrations_per_node=draw(FOUR)
    )
    return cluster(*NODES, *vms, *past, kubevirt=limit)


LIMITS = st.builds(
    Limits,
    per_cluster=st.integers(1, 6),
    drain_reserve=st.integers(0, 2),
    per_source=FOUR,
    per_target=FOUR,
    per_namespace=st.integers(0, 3),
    per_hour=st.integers(1, 8),
    per_vm_day=st.integers(1, 5),
)


@given(histories(), LIMITS, st.lists(st.tuples(st.integers(0, 7), FOUR), max_size=12))
def test_no_history_makes_the_budget_admit_above_a_limit(
    snapshot: Snapshot, limits: Limits, wanted: list[tuple[int, int]]
) -> None:
    keys = list(snapshot.vmis)
    moves = [move(keys[i], snapshot.vmis[keys[i]].node, f"n{to}") for i, to in wanted]
    admission = admit(moves, snapshot, limits, NOW)
    assert len(admission.admitted) + len(admission.held) == len(moves)
    assert {held.reason for held in admission.held} <= set(REASONS)
    if not admission.admitted:
        return
    kubevirt = snapshot.kubevirt or KubeVirt()
    going = [m for m in snapshot.migrations.values() if not m.final]
    started = admission.admitted
    assert len(going) + len(started) <= min(limits.per_cluster, kubevirt.parallel_migrations_per_cluster)
    recent = sum(NOW - m.created < HOUR for m in snapshot.migrations.values())
    assert recent + len(started) <= limits.per_hour
    outbound = Counter(snapshot.vmis[m.vmi_key].node for m in going) + Counter(one.source for one in started)
    inbound = Counter(m.state.target_node for m in going) + Counter(one.target for one in started)
    spaces = Counter(m.namespace for m in going) + Counter(one.vmi.partition("/")[0] for one in started)
    for one in started:
        assert outbound[one.source] <= min(limits.per_source, kubevirt.parallel_outbound_migrations_per_node)
        assert inbound[one.target] <= limits.per_target
        assert not limits.per_namespace or spaces[one.vmi.partition("/")[0]] <= limits.per_namespace
        own = [m for m in snapshot.migrations.values() if m.vmi_key == one.vmi]
        assert all(m.final for m in own)
        assert sum(NOW - m.created < 24 * HOUR for m in own) < limits.per_vm_day
    assert len({one.vmi for one in started}) == len(started)


GONE = Start(migration="gone", vmi="default/gone", uid="gone", begun=NOW - 50 * MINUTE)


def of_a(name: str, ago: float, uid: str = A.uid) -> Start:
    """A start of default/a's that is remembered."""
    return Start(migration=name, vmi="default/a", uid=uid, begun=NOW - ago)


@pytest.mark.parametrize(
    ("objects", "starts", "reason", "until"),
    [
        ([], [GONE, replace(GONE, migration="gone, too", begun=NOW - 40 * MINUTE)], "PerHour", NOW + 10 * MINUTE),
        ([], [GONE, replace(GONE, migration="an hour ago", begun=NOW - HOUR)], "", 0.0),
        ([ended(A, HOUR - 1, "one")], [GONE, of_a(ended(A, 0, "one").uid, HOUR - 1)], "PerHour", NOW + 1),
        ([ended(A, 2 * HOUR, "one")], [GONE, of_a(ended(A, 0, "one").uid, 30 * MINUTE)], "PerHour", NOW + 10 * MINUTE),
        ([], [of_a(str(number), (number + 2) * HOUR) for number in range(4)], "PerVMAndDay", NOW + 19 * HOUR),
        ([], [of_a(str(number), (number + 2) * HOUR, "another") for number in range(4)], "", 0.0),
        ([ended(A, 40 * MINUTE, "one")], [of_a("gone", 2 * HOUR)], "", 0.0),
        ([ended(A, 20 * MINUTE, "one")], [of_a("gone", 2 * HOUR)], "Cooldown", NOW + 11 * MINUTE),
    ],
    ids=[
        "of VMs that are gone", "too long ago", "counts once", "the clock has jumped ahead", "deleted",
        "of another VM of that name", "rested", "lengthens the rest",
    ],
)  # fmt: skip
def test_starts_of_ours_count_whether_or_not_their_migrations_are_there(
    objects: list[Any], starts: list[Start], reason: str, until: float
) -> None:
    limits = replace(LOOSE, per_hour=2, per_vm_day=4)
    admission = admit(MOVES[:1], cluster(*NODES, A, *objects, kubevirt=WIDE), limits, NOW, starts)
    assert [(held.reason, held.until) for held in admission.held] == ([(reason, until)] if reason else [])


def test_a_failed_migration_whose_deletion_waits_for_ever_is_not_under_way() -> None:
    stuck = migration(A, "n2", phase="Failed", deleting=True, created=NOW - 2 * HOUR)
    limits = replace(LOOSE, per_cluster=1, per_source=1, per_target=1, cooldown_seconds=0, cooldown_max_seconds=0)
    assert admit(MOVES[:1], cluster(*NODES, A, stuck, kubevirt=WIDE), limits, NOW).held == ()
