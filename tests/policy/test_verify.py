"""What the judge of plans lets pass, and what it says to the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import (
    ZONE,
    cluster,
    launcher,
    migration,
    move,
    node,
    node_term,
    pod,
    required_nodes,
    spread,
    term,
    vmi,
    wave,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Bound, Move, Plan, Solver, State, Wave
from rebalancer.domain.pod import Affinity
from rebalancer.domain.resources import CPU
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Hotspot, Trigger
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.load import PolicyParams, Thresholds, overloaded
from rebalancer.policy.overview import Overview
from rebalancer.policy.verify import verify

DB = {"app": "db"}
PARAMS = PolicyParams()
NO_HEADROOM = PolicyParams(thresholds=Thresholds(cpu_high=100, cpu_low=100))

HOT = (node("n1", cpu=10), vmi("a", on="n1", cpu=4), vmi("b", on="n1", cpu=4.5))
"""A node at 85 %: one of its VMs has to go."""


def pair(cpu: float = 1) -> list[Any]:
    return [vmi(name, on="n1", cpu=cpu, labels=DB, apart_from=DB) for name in "ab"]


GOOD: dict[str, tuple[list[Any], list[Wave]]] = {
    "nothing": ([*HOT, node("n2", cpu=10)], []),
    "a hotspot cured": ([*HOT, node("n2", cpu=10)], [wave(move("a", "n1", "n2"))]),
    "up to low exactly": (
        [*HOT, node("n2", cpu=10), vmi("c", on="n2", cpu=3.5)],
        [wave(move("a", "n1", "n2"))],
    ),
    "a rule cured": ([node("n1"), node("n2"), *pair()], [wave(move("a", "n1", "n2"))]),
    "a rule cured in part, as far as there are nodes": (
        [node("n1"), node("n2"), *pair(), vmi("c", on="n1", labels=DB, apart_from=DB)],
        [wave(move("a", "n1", "n2"))],
    ),
    "two that trade places at once, with room to err": (
        [
            node("n1", cpu=10, zone="a"),
            node("n2", zone="b"),
            node("n3", zone="c"),
            *(vmi(f"h{i}", on=f"n{i}", labels=DB, spread_by=(spread(DB, 2),)) for i in (1, 2, 3)),
            vmi("big", on="n1", cpu=8, labels=DB),
            vmi("small", on="n2", cpu=0.5, labels=DB),
        ],
        [wave(move("big", "n1", "n2"), move("small", "n2", "n1"))],
    ),
    "room made first": (
        [*HOT, node("n2", cpu=6), vmi("c", on="n2", cpu=3), node("n3", cpu=6)],
        [wave(move("c", "n2", "n3")), wave(move("a", "n1", "n2"))],
    ),
    "through a third node": (
        [
            node("n1", cpu=4, labels={"tier": "new"}),
            node("n2", cpu=4, labels={"tier": "old"}),
            node("n3", cpu=4),
            vmi("a", on="n1", cpu=2.5, select={"tier": "old"}),
            vmi("b", on="n2", cpu=2.5, affinity=required_nodes(node_term("tier!=old"))),
        ],
        [wave(move("b", "n2", "n3", hop=True)), wave(move("a", "n1", "n2")), wave(move("b", "n3", "n1"))],
    ),
}

REFUSED: dict[str, tuple[list[Any], list[Wave], str]] = {
    "unknown VM": ([*HOT], [wave(move("x", "n1", "n2"))], "default/x does not exist"),
    "another VM of that name": (
        [*HOT, node("n2")],
        [wave(move("a", "n1", "n2", uid="other"))],
        "default/a does not exist, or not as the VM that was planned for",
    ),
    "unknown node": ([*HOT], [wave(move("a", "n1", "n2"))], "default/a cannot go to n2, which does not exist"),
    "wrong source": ([*HOT, node("n2")], [wave(move("a", "n2", "n1"))], "default/a is not on n2, but on n1"),
    "to where it is": ([*HOT], [wave(move("a", "n1", "n1"))], "default/a is moved to n1, where it runs"),
    "twice at a time": (
        [*HOT, node("n2"), node("n3")],
        [wave(move("a", "n1", "n2"), move("a", "n1", "n3"))],
        "default/a is moved twice at a time",
    ),
    "again from where it was to stay": (
        [*HOT, node("n2"), node("n3")],
        [wave(move("a", "n1", "n2")), wave(move("a", "n2", "n3"))],
        "wave 2: default/a is moved again from where it was to stay",
    ),
    "left on its way": (
        [*HOT, node("n2")],
        [wave(move("a", "n1", "n2", hop=True))],
        "default/a is left on n2, where it was only to pass through",
    ),
    "not migratable": (
        [node("n1", cpu=10), vmi("a", on="n1", cpu=9, migratable=False), node("n2", cpu=20)],
        [wave(move("a", "n1", "n2"))],
        "default/a must stay: ",
    ),
    "cordoned": (
        [*HOT, node("n2", cordoned=True)],
        [wave(move("a", "n1", "n2"))],
        "default/a from n1 to n2 is refused by NodeUnschedulable: node(s) were unschedulable",
    ),
    "tainted": (
        [*HOT, node("n2", taints=("reserved=gpu:NoSchedule",))],
        [wave(move("a", "n1", "n2"))],
        "refused by TaintToleration",
    ),
    "not ready": ([*HOT, node("n2", ready=False)], [wave(move("a", "n1", "n2"))], "refused by KubeVirt: "),
    "not for VMs": ([*HOT, node("n2", kubevirt=False)], [wave(move("a", "n1", "n2"))], "refused by NodeAffinity"),
    "full": (
        [*HOT, node("n2", cpu=4), pod("big", on="n2", cpu=1)],
        [wave(move("a", "n1", "n2"))],
        "refused by NodeResourcesFit: Insufficient cpu",
    ),
    "full beside the others of the wave": (
        [
            node("n1", cpu=4, labels={"tier": "new"}),
            node("n2", cpu=4, labels={"tier": "old"}),
            vmi("a", on="n1", cpu=2.5, select={"tier": "old"}),
            vmi("b", on="n2", cpu=2.5, select={"tier": "new"}),
        ],
        [wave(move("a", "n1", "n2"), move("b", "n2", "n1"))],
        "default/a from n1 to n2 is refused by NodeResourcesFit: Insufficient cpu",
    ),
    "no room for two": (
        [*HOT, node("n2", cpu=8)],
        [wave(move("a", "n1", "n2"), move("b", "n1", "n2"))],
        "is refused by NodeResourcesFit beside the wave's other moves: Insufficient cpu",
    ),
    "apart from who comes along": (
        [node("n1", cpu=2), node("n2"), *pair()],
        [wave(move("a", "n1", "n2"), move("b", "n1", "n2"))],
        "is refused by InterPodAffinity beside the wave's other moves",
    ),
    "beside who is not there yet": (
        [node("n1", cpu=2), node("n2"), vmi("a", on="n1", close_to=DB), vmi("b", on="n1", labels=DB)],
        [wave(move("a", "n1", "n2"), move("b", "n1", "n2"))],
        "default/a from n1 to n2 is refused by InterPodAffinity: node(s) didn't match pod affinity rules",
    ),
    "a new hotspot": (
        [*HOT, node("n2", cpu=10), vmi("c", on="n2", cpu=4.5)],
        [wave(move("a", "n1", "n2"))],
        "n2 would rise above its threshold while the wave lands: 8.5 CPU of at most 8",
    ),
    "above low": (
        [*HOT, node("n2", cpu=10), vmi("c", on="n2", cpu=3.6)],
        [wave(move("a", "n1", "n2"))],
        "n2 is lifted above its low threshold: 7.6 CPU of at most 7.5",
    ),
    "a new hotspot, if only one of two lands": (
        [*HOT, node("n2", cpu=10), vmi("c", on="n2", cpu=6), node("n3", cpu=10)],
        [wave(move("a", "n1", "n2"), move("c", "n2", "n3"))],
        "n2 would rise above its threshold while the wave lands",
    ),
    "a rule broken for another": (
        # The scheduler would let it pass: n2's VM got its rule after its pod had started.
        [
            *HOT,
            node("n2"),
            vmi("c", on="n2", apart_from={"app": "a"}),
            launcher(vmi("c", on="n2")),
            vmi("d", on="n1", cpu=1, labels={"app": "a"}),
        ],
        [wave(move("d", "n1", "n2"))],
        "default/d from n1 to n2 would break a rule: default/c on n2 shares kubernetes.io/hostname=n2 with default/d",
    ),
    "the mate of another taken away": (
        [*HOT, node("n2"), vmi("c", on="n1", close_to={"app": "a"}), vmi("d", on="n1", cpu=1, labels={"app": "a"})],
        [wave(move("d", "n1", "n2"))],
        "would break a rule: default/c on n1 is alone in kubernetes.io/hostname=n1",
    ),
    "the emptiest zone emptied": (
        [
            node("n1", cpu=10, zone="a"),
            node("n2", zone="b"),
            *(vmi(f"b{i}", on="n2", labels=DB, spread_by=(spread(DB),)) for i in range(2)),
            vmi("a0", on="n1", cpu=9, labels=DB),
        ],
        [wave(move("a0", "n1", "n2"))],
        "would break a rule: default/b0 on n2 is in topology.kubernetes.io/zone=b",
    ),
    "the emptiest zone emptied, if only one of two lands": (
        [
            node("n1", cpu=10, zone="a"),
            node("n2", zone="b"),
            *(vmi(f"h{i}", on=f"n{i}", labels=DB, spread_by=(spread(DB),)) for i in (1, 2)),
            vmi("big", on="n1", cpu=8, labels=DB),
            vmi("small", on="n2", cpu=0.5, labels=DB),
        ],
        [wave(move("big", "n1", "n2"), move("small", "n2", "n1"))],
        "default/big from n1 to n2 would break a rule: default/h2 on n2 is in topology.kubernetes.io/zone=b",
    ),
    "above low in the shadow of a hop": (
        [
            node("n1", cpu=10),
            *(node(name, cpu=10) for name in ("n2", "n3", "n4")),
            vmi("big", on="n1", cpu=7.6),
            vmi("b", on="n1", cpu=1),
            vmi("h", on="n2", cpu=0.3),
        ],
        [wave(move("big", "n1", "n3"), move("h", "n2", "n3", hop=True)), wave(move("h", "n3", "n4"))],
        "n3 is lifted above its low threshold: 7.6 CPU of at most 7.5",
    ),
    "gains nothing": (
        [node("n1"), node("n2"), vmi("a", on="n1")],
        [wave(move("a", "n1", "n2"))],
        "the plan gains nothing: cost rises from 0 to 1001",
    ),
    "below high is no reason": (
        [node("n1", cpu=10), node("n2", cpu=10), vmi("a", on="n1", cpu=7.8)],
        [wave(move("a", "n1", "n2"))],
        "n2 is lifted above its low threshold",
    ),
}


@pytest.mark.parametrize(("objects", "waves"), GOOD.values(), ids=GOOD)
def test_a_good_plan(objects: list[Any], waves: list[Wave]) -> None:
    assert verify(cluster(*objects), waves, PARAMS) == ()


@pytest.mark.parametrize(("objects", "waves", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_plan_that_breaks_a_promise(objects: list[Any], waves: list[Wave], sentence: str) -> None:
    problems = verify(cluster(*objects), waves, PARAMS)
    assert any(sentence in problem for problem in problems), problems


def test_all_that_is_wrong_with_a_wave_is_told_and_nothing_of_those_after_it() -> None:
    snapshot = cluster(*HOT, node("n2", cordoned=True))
    waves = [wave(move("a", "n1", "n2"), move("b", "n1", "n2")), wave(move("x", "n1", "n2"))]
    problems = verify(snapshot, waves, PARAMS)
    assert len(problems) == 2
    assert all(problem.startswith("wave 1: ") for problem in problems)


def test_a_vm_that_must_stay_for_other_reasons_stays() -> None:
    snapshot = cluster(*HOT, node("n2", cpu=10))
    problems = verify(snapshot, [wave(move("a", "n1", "n2"))], PARAMS, immovable={"default/a": "it cools down"})
    assert problems == ("wave 1: default/a must stay: it cools down",)


def plan_for(snapshot: Snapshot, *waves: Wave, hot: str) -> Plan:
    spot = Hotspot(node=hot, resource=CPU, percent=78, high=80, low=75)
    return Plan(
        id="p",
        created=0,
        resource_version=snapshot.resource_version,
        triggers=(Trigger(hotspot=spot),),
        waves=waves,
        before=State(),
        after=State(),
        left=(),
        bound=Bound(moves=1, cost=1001, gap=0, proven=True),
        solver=Solver(status="OPTIMAL", seconds=0),
    )


def test_what_a_plan_is_to_cure_is_told_by_its_triggers() -> None:
    """A node that was above high and is not yet down to low is worth a move; that is known from the trigger alone.

    Waves alone, as they are judged again before they begin, are told by their plan what it is that they cure.
    """
    snapshot = cluster(node("n1", cpu=10), node("n2", cpu=10), vmi("a", on="n1", cpu=3.8), vmi("b", on="n1", cpu=4))
    moves = wave(move("a", "n1", "n2"))
    assert verify(snapshot, plan_for(snapshot, moves, hot="n1"), PARAMS) == ()
    assert verify(snapshot, [moves], PARAMS) != ()
    assert verify(snapshot, [moves], PARAMS, hot={("n1", CPU)}) == ()


def test_the_rest_of_a_plan_need_not_gain_by_itself() -> None:
    snapshot = cluster(node("n1"), node("n2"), vmi("a", on="n1"))
    rest = [wave(move("a", "n1", "n2"))]
    assert verify(snapshot, rest, PARAMS, begun=True) == ()
    assert verify(snapshot, rest, PARAMS) != ()


def test_migrations_in_flight_hold_room_on_both_sides() -> None:
    """Another's migration leaves n2, but has not left it yet."""
    moving = vmi("c", on="n2", cpu=7)
    running = migration(moving, "n3")
    target = launcher(moving, on="n3", suffix="-2", labels=FrozenMap({"kubevirt.io/migrationJobUID": running.uid}))
    objects = [*HOT, node("n2", cpu=10), node("n3", cpu=10), moving, launcher(moving), target, running]
    problems = verify(cluster(*objects), [wave(move("a", "n1", "n2"))], PARAMS)
    assert problems == ("wave 1: default/a from n1 to n2 is refused by NodeResourcesFit: Insufficient cpu",)


def test_an_overview_that_is_lent_stays_as_it_is() -> None:
    snapshot = cluster(*HOT, node("n2", cpu=10))
    overview = Overview.of(snapshot, PARAMS)
    assert verify(snapshot, [wave(move("a", "n1", "n2"))], PARAMS, overview=overview) == ()
    assert overview.state.active_pods["default/a"].node == "n1"
    assert overview.state.requested("n2").cpu_milli == 0


@st.composite
def greedy_plans(draw: st.DrawFn) -> tuple[Snapshot, list[Wave]]:
    """A cluster with one node too full, and the first single moves that cure it, if any do."""
    zones = ("a", "b", "c")
    nodes = [node(f"n{i}", cpu=10, zone=zones[i % 3]) for i in range(draw(st.integers(2, 5)))]
    rules = st.sampled_from(
        [Affinity(), Affinity(anti_required=(term(DB),)), Affinity(anti_required=(term(DB, ZONE),))]
    )
    sizes = st.sampled_from([0.5, 1.0, 2.0])
    hot = [vmi(f"h{i}", on="n0", cpu=2, labels=DB if i == 0 else {}, affinity=draw(rules)) for i in range(5)]
    rest = [
        vmi(
            f"v{i}",
            on=f"n{draw(st.integers(1, len(nodes) - 1))}",
            cpu=draw(sizes),
            labels=draw(st.sampled_from([{}, DB])),
        )
        for i in range(draw(st.integers(0, 8)))
    ]
    snapshot = cluster(*nodes, *hot, *rest)
    waves: list[Wave] = []
    for vm in hot:
        for target in nodes[1:]:
            tried = [*waves, wave(move(vm.name, "n0", target.name))]
            if verify(snapshot, tried, PARAMS) == ():
                waves = tried
                break
    return snapshot, waves


@given(greedy_plans())
def test_a_plan_that_passes_makes_nothing_worse(case: tuple[Snapshot, list[Wave]]) -> None:
    snapshot, waves = case
    state = ClusterState.of(snapshot)
    before = overloaded(state, PARAMS.thresholds)
    for one in (one for step in waves for one in step.moves):
        state.move(one.vmi, replace(state.active_pods[one.vmi], uid=f"{one.vmi}@{one.target}"), one.target)
        assert overloaded(state, PARAMS.thresholds) <= before
        assert state.requested(one.target).cpu_milli <= 7500


CORRUPTIONS = ("wrong source", "cordoned", "tainted", "full", "unknown VM", "doubled", "back again", "unknown node")


@given(greedy_plans(), st.sampled_from(CORRUPTIONS), st.data())
def test_a_good_plan_that_is_corrupted_is_refused(
    case: tuple[Snapshot, list[Wave]], how: str, data: st.DataObject
) -> None:
    snapshot, waves = case
    assume(waves)
    at = data.draw(st.integers(0, len(waves) - 1))
    (good,) = waves[at].moves
    if how in ("cordoned", "tainted", "full"):
        spoiled = {
            "cordoned": replace(snapshot.nodes[good.target], unschedulable=True),
            "tainted": replace(snapshot.nodes[good.target], taints=node("x", taints=("no:NoExecute",)).taints),
            "full": replace(snapshot.nodes[good.target], pods=0),
        }[how]
        snapshot = replace(snapshot, nodes=FrozenMap({**snapshot.nodes, good.target: spoiled}))
        assert verify(snapshot, waves, PARAMS) != ()
        return
    bad: dict[str, list[Move]] = {
        "wrong source": [replace(good, source=good.target, target=good.source)],
        "unknown VM": [replace(good, vmi="default/nobody")],
        "doubled": [good, good],
        "back again": [replace(good, target=good.source)],
        "unknown node": [replace(good, target="n99")],
    }
    assert verify(snapshot, [*waves[:at], wave(*bad[how]), *waves[at + 1 :]], PARAMS) != ()


@given(greedy_plans())
def test_nothing_is_always_allowed(case: tuple[Snapshot, list[Wave]]) -> None:
    assert verify(case[0], [], PARAMS) == ()


def test_the_order_of_waves_matters() -> None:
    """Room has to be made before it is used."""
    objects, waves = GOOD["room made first"]
    snapshot = cluster(*objects)
    assert verify(snapshot, waves, PARAMS) == ()
    assert verify(snapshot, waves[::-1], PARAMS) != ()
    assert verify(snapshot, [wave(*(one for step in waves for one in step.moves))], NO_HEADROOM) != ()
