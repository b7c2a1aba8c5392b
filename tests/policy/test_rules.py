"""Which rules running VMs break, how badly, and with whom."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from builders import (
    ZONE,
    cluster,
    keyed,
    launcher,
    migration,
    namespace,
    node,
    node_term,
    pod,
    required_nodes,
    spread,
    term,
    vmi,
)
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.pod import Affinity
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, NODE_AFFINITY, POD_AFFINITY, POD_ANTI_AFFINITY, TAINTS, TOPOLOGY_SPREAD
from rebalancer.kube.dump import read_dump
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import rejection
from rebalancer.policy.rules import violations
from rebalancer.policy.target import target_pod

DB = {"app": "db"}
WEB = {"app": "web"}
RECORDING = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"

ZONES = (node("a1", zone="a"), node("a2", zone="a"), node("b1", zone="b"), node("c1", zone="c"))


def found(snapshot: Snapshot, **options: Any) -> dict[tuple[str, str], int]:
    """(VMI, kind) → sum of degrees."""
    broken: dict[tuple[str, str], int] = {}
    for violation in violations(ClusterState.of(snapshot, settled=True), snapshot, **options):
        key = violation.vmi.removeprefix("default/"), violation.kind
        broken[key] = broken.get(key, 0) + violation.degree
    return broken


def apart(*terms: Any) -> Affinity:
    return Affinity(anti_required=terms)


def together(*terms: Any) -> Affinity:
    return Affinity(pod_required=terms)


BROKEN = {
    "node selector": (
        [node("n1"), vmi("a", on="n1", select={"tier": "gold"})],
        {("a", NODE_AFFINITY): 1},
    ),
    "required node affinity": (
        [node("n1"), vmi("a", on="n1", affinity=required_nodes(node_term("rack in r1,r2"), node_term("tier")))],
        {("a", NODE_AFFINITY): 1},
    ),
    "untolerated taint, once for each": (
        [
            node("n1", taints=("reserved=gpu:NoSchedule", "old:NoExecute", "slow:PreferNoSchedule")),
            vmi("a", on="n1"),
            vmi("b", on="n1", tolerate=("reserved=gpu:NoSchedule",)),
            vmi("c", on="n1", tolerate=("reserved", "old")),
        ],
        {("a", TAINTS): 2, ("b", TAINTS): 1},
    ),
    "anti-affinity among equals counts every ordered pair": (
        [node("n1"), *(vmi(name, on="n1", labels=DB, apart_from=DB) for name in "abc")],
        {(name, POD_ANTI_AFFINITY): 2 for name in "abc"},
    ),
    "anti-affinity is broken by him who has no such rule, too": (
        [node("n1"), vmi("shy", on="n1", apart_from=DB), vmi("db", on="n1", labels=DB)],
        {("shy", POD_ANTI_AFFINITY): 1, ("db", POD_ANTI_AFFINITY): 1},
    ),
    "anti-affinity with a pod that is no VM": (
        [node("n1"), vmi("shy", on="n1", apart_from=DB), pod("agent", on="n1", labels=DB)],
        {("shy", POD_ANTI_AFFINITY): 1},
    ),
    "anti-affinity of a pod that is no VM": (
        [node("n1"), vmi("db", on="n1", labels=DB), pod("agent", on="n1", affinity=apart(term(DB)))],
        {("db", POD_ANTI_AFFINITY): 1},
    ),
    "anti-affinity over zones": (
        [*ZONES, vmi("a", on="a1", labels=DB, affinity=apart(term(DB, ZONE))), vmi("b", on="a2", labels=DB)],
        {("a", POD_ANTI_AFFINITY): 1, ("b", POD_ANTI_AFFINITY): 1},
    ),
    "anti-affinity in another namespace": (
        [
            node("n1"),
            vmi("a", on="n1", affinity=apart(term(DB, namespaces=("bank",)))),
            vmi("bank/b", on="n1", labels=DB),
        ],
        {("a", POD_ANTI_AFFINITY): 1, ("bank/b", POD_ANTI_AFFINITY): 1},
    ),
    "anti-affinity within a revision": (
        [
            node("n1"),
            *(
                vmi(name, on="n1", labels={**DB, "rev": rev}, affinity=apart(term(DB, match_label_keys=("rev",))))
                for name, rev in (("a", "1"), ("b", "1"), ("c", "2"))
            ),
        ],
        {("a", POD_ANTI_AFFINITY): 1, ("b", POD_ANTI_AFFINITY): 1},
    ),
    "pod affinity with nobody there": (
        [*ZONES, vmi("a", on="a1", close_to=WEB), vmi("b", on="a2", labels=WEB)],
        {("a", POD_AFFINITY): 1},
    ),
    "pod affinity to each other, scattered": (
        [*ZONES, vmi("a", on="a1", labels=WEB, close_to=WEB), vmi("b", on="b1", labels=WEB, close_to=WEB)],
        {("a", POD_AFFINITY): 1, ("b", POD_AFFINITY): 1},
    ),
    "pod affinity to one whom all terms select": (
        [
            node("n1"),
            vmi("a", on="n1", affinity=together(term(WEB), term(DB))),
            vmi("b", on="n1", labels=WEB),
            vmi("c", on="n1", labels=DB),
        ],
        {("a", POD_AFFINITY): 1},
    ),
    "pod affinity on a node without the topology": (
        [node("n1"), vmi("a", on="n1", labels=WEB, affinity=together(term(WEB, ZONE)))],
        {("a", POD_AFFINITY): 1},
    ),
    "spread: everyone in the overfull zone, by the skew above the maximum": (
        [
            *ZONES,
            *(vmi(f"a{i}", on="a1", labels=WEB, spread_by=(spread(WEB),)) for i in range(3)),
            vmi("b", on="b1", labels=WEB, spread_by=(spread(WEB),)),
        ],
        {(f"a{i}", TOPOLOGY_SPREAD): 2 for i in range(3)},
    ),
    "spread over fewer domains than asked for": (
        [
            *ZONES,
            *(vmi(at, on=at, labels=WEB, spread_by=(spread(WEB, min_domains=4),)) for at in ("a1", "a2", "b1", "c1")),
        ],
        {("a1", TOPOLOGY_SPREAD): 1, ("a2", TOPOLOGY_SPREAD): 1},
    ),
    "spread on a node without the topology": (
        [*ZONES, node("n1"), vmi("a", on="n1", labels=WEB, spread_by=(spread(WEB),))],
        {("a", TOPOLOGY_SPREAD): 1},
    ),
}

KEPT = {
    "cordoned": [node("n1", cordoned=True), vmi("a", on="n1")],
    "not ready": [node("n1", taints=("node.kubernetes.io/not-ready:NoExecute",)), vmi("a", on="n1")],
    "drained by KubeVirt": [node("n1", taints=("kubevirt.io/drain:NoSchedule",)), vmi("a", on="n1")],
    "node that KubeVirt does not schedule to": [node("n1", kubevirt=False), vmi("a", on="n1")],
    "alone with its own rule": [node("n1"), vmi("a", on="n1", labels=DB, apart_from=DB)],
    "same labels, other namespace": [node("n1"), vmi("a", on="n1", apart_from=DB), vmi("bank/b", on="n1", labels=DB)],
    "anti-affinity without the topology": [
        node("n1"),
        *(vmi(name, on="n1", labels=DB, affinity=apart(term(DB, ZONE))) for name in "ab"),
    ],
    "first of its group": [node("n1"), vmi("a", on="n1", labels=WEB, close_to=WEB)],
    "spread level": [*ZONES, *(vmi(at, on=at, labels=WEB, spread_by=(spread(WEB),)) for at in ("a1", "b1", "c1"))],
    "spread within the maximum": [*ZONES, vmi("a", on="a1", labels=WEB, spread_by=(spread(WEB),))],
    "spread that may be broken": [
        *ZONES,
        *(
            vmi(f"{i}", on="a1", labels=WEB, spread_by=(spread(WEB, when_unsatisfiable="ScheduleAnyway"),))
            for i in "12"
        ),
    ],
    "ended pods": [
        node("n1"),
        vmi("a", on="n1", apart_from=DB),
        pod("done", on="n1", labels=DB, phase="Succeeded"),
    ],
    "not running yet": [node("n1"), vmi("a", on="n1", select={"tier": "gold"}, phase="Scheduled")],
    "on its way out": [node("n1"), vmi("a", on="n1", select={"tier": "gold"}, deleting=True)],
}


@pytest.mark.parametrize(("objects", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule(objects: list[Any], expected: dict[tuple[str, str], int]) -> None:
    snapshot = cluster(*objects)
    assert found(snapshot) == expected
    for kind in KINDS:
        assert found(snapshot, kinds=(kind,)) == {key: n for key, n in expected.items() if key[1] == kind}


@pytest.mark.parametrize("objects", KEPT.values(), ids=KEPT)
def test_a_kept_rule(objects: list[Any]) -> None:
    assert found(cluster(*objects)) == {}


def test_rules_are_the_vmis_not_the_running_pods() -> None:
    """A directed migration leaves a hostname on the pod, and a rule that was added later is not on it."""
    changed = vmi("a", on="n1", labels=DB, apart_from=DB)
    as_started = launcher(vmi("a", on="n1", labels=DB, select={"kubernetes.io/hostname": "n9"}))
    assert found(cluster(node("n1"), changed, as_started, vmi("b", on="n1", labels=DB))) == {
        ("a", POD_ANTI_AFFINITY): 1,
        ("b", POD_ANTI_AFFINITY): 1,
    }


def test_a_migration_in_flight_has_landed() -> None:
    moving, still = (vmi(name, on="n1", labels=DB, apart_from=DB) for name in "ab")
    running = migration(moving, "n2")
    target = launcher(moving, on="n2", suffix="-2", labels=keyed({**DB, "kubevirt.io/migrationJobUID": running.uid}))
    snapshot = cluster(node("n1"), node("n2"), moving, still, launcher(moving), target, running)
    assert found(snapshot) == {}


def test_a_namespace_selector_finds_namespaces_by_their_labels() -> None:
    rule = term(DB, namespace_selector=term({"team": "x"}).selector)
    objects = [node("n1"), vmi("a", on="n1", affinity=apart(rule)), vmi("bank/b", on="n1", labels=DB)]
    assert found(cluster(*objects)) == {}
    assert ("a", POD_ANTI_AFFINITY) in found(cluster(*objects, namespace("bank", {"team": "x"})))


def test_a_violation_names_rule_place_and_witnesses() -> None:
    snapshot = cluster(node("n1"), *(vmi(f"bank/db-{i}", on="n1", labels=DB, apart_from=DB) for i in range(6)))
    first = violations(ClusterState.of(snapshot), snapshot)[0]
    assert first.vmi == "bank/db-0"
    assert first.node == "n1"
    assert first.rule == "pod anti-affinity to app=db in bank by kubernetes.io/hostname"
    assert first.witnesses == tuple(f"bank/db-{i}" for i in range(1, 6))
    assert first.message == (
        "bank/db-0 on n1 shares kubernetes.io/hostname=n1 with bank/db-1, bank/db-2, bank/db-3 and 2 more, "
        "against pod anti-affinity to app=db in bank by kubernetes.io/hostname"
    )


def test_the_recording() -> None:
    """The node selector of w-01's gold VMs, two of four groups of databases, and all VMs on tainted w-03."""
    snapshot = read_dump(RECORDING)
    broken = violations(ClusterState.of(snapshot, settled=True), snapshot)
    gold = [(v.vmi, v.node) for v in broken if v.kind == NODE_AFFINITY]
    assert gold == [(f"{vm}", "w-01") for vm in ("bank/vm-054", "ci/vm-020", "ci/vm-105", "shop/vm-088")]
    apart_ = {v.vmi: v.degree for v in broken if v.kind == POD_ANTI_AFFINITY}
    assert apart_ == {
        **{f"bank/db-2-{i}": 1 for i in (1, 2)},
        **{f"bank/db-3-{i}": 2 for i in range(3)},
    }
    on_w03 = {key for key, vm in snapshot.vmis.items() if vm.node == "w-03"}
    assert {v.vmi for v in broken if v.kind == TAINTS} == on_w03
    assert {v.kind for v in broken} == {NODE_AFFINITY, POD_ANTI_AFFINITY, TAINTS}


NODES = st.sampled_from(["a1", "a2", "b1", "c1"])
LABELS = st.sampled_from([{}, DB, WEB])
AFFINITIES = st.sampled_from(
    [
        Affinity(),
        apart(term(DB)),
        apart(term(DB, ZONE)),
        together(term(WEB, ZONE)),
        together(term(WEB, ZONE), term({}, ZONE)),
        required_nodes(node_term(f"{ZONE} in a,b")),
    ]
)
SPREADS = st.sampled_from([(), (spread(WEB),), (spread(WEB, 2), spread(DB, 1, "kubernetes.io/hostname"))])


@st.composite
def clusters(draw: st.DrawFn) -> list[Any]:
    """Objects of a small cluster with zones, taints and all kinds of rules."""
    taints = draw(st.sampled_from([(), ("reserved:NoSchedule",)]))
    nodes = [*ZONES[:-1], node("c1", zone="c", taints=taints), node("off", kubevirt=False)]
    vmis = [
        vmi(f"v{i}", on=draw(NODES), labels=draw(LABELS), affinity=draw(AFFINITIES), spread_by=draw(SPREADS))
        for i in range(draw(st.integers(1, 7)))
    ]
    return [*nodes, *vmis, pod("agent", on="a1", labels=DB)]


@given(clusters(), st.integers())
def test_the_order_of_objects_does_not_matter(objects: list[Any], seed: int) -> None:
    snapshot = cluster(*objects)
    shuffled = list(objects)
    random.Random(seed).shuffle(shuffled)
    other = cluster(*shuffled)
    expected = violations(ClusterState.of(snapshot), snapshot)
    assert violations(ClusterState.of(other), other) == expected
    assert len({(v.vmi, v.rule) for v in expected}) == len(expected)


@given(clusters())
def test_a_vm_breaks_a_rule_exactly_where_the_scheduler_would_not_place_it_again(objects: list[Any]) -> None:
    """With its own pod left out, and all launcher pods as their VMIs want them: the filters and the rules agree."""
    snapshot = cluster(*objects)
    state = ClusterState.of(snapshot)
    broken = {violation.vmi for violation in violations(state, snapshot)}
    for key, vm in snapshot.vmis.items():
        own = state.active_pods[key]
        state.remove(own)
        target = target_pod(vm, own, state.nodes[own.node], KubeVirt())
        assert (key in broken) == (rejection(state, target, own.node) is not None), key
        state.add(own)
