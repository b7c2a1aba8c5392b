"""What is going on in the cluster right now, and what it means for who may go where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import NOW, ZONE, cluster, launcher, migration, node, pod, spread, term, vmi

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Condition
from rebalancer.domain.pod import Affinity
from rebalancer.policy.cluster_state import MIGRATION_JOB, ClusterState
from rebalancer.policy.feasibility import feasible_nodes, survey
from rebalancer.policy.target import target_guard, target_pod

DB = {"app": "db"}


def reasons(*objects: Any, settled: bool = False) -> dict[str, str]:
    """Why each node does not take default/db, "" where it does."""
    snapshot = cluster(*objects)
    state = ClusterState.of(snapshot, settled=settled)
    one = snapshot.vmis["default/db"]
    assert snapshot.kubevirt is not None
    target = target_pod(one, state.active_pods[one.key], snapshot.nodes[one.node], snapshot.kubevirt)
    guard = target_guard(one, snapshot.nodes[one.node])
    found = survey(state, target, guard)
    assert feasible_nodes(state, target, guard) == found.feasible
    return {name: "; ".join(found.rejections[name].reasons) if name in found.rejections else "" for name in state.nodes}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"silent": True}, "node(s) had no recent heartbeat of virt-handler"),
        ({"conditions": FrozenMap({"Ready": Condition(status="Unknown")})}, "node(s) were not ready"),
        ({"conditions": FrozenMap({"Ready": Condition(status="False")})}, "node(s) were not ready"),
        ({"conditions": FrozenMap()}, "node(s) were not ready"),
    ],
)
def test_who_is_not_heard_of_receives_nothing(fields: dict[str, Any], why: str) -> None:
    there = replace(node("there"), **fields)
    assert reasons(node("home"), there, vmi("db", on="home"))["there"] == why


def test_a_migration_in_flight_takes_room_on_both_sides_and_then_on_one() -> None:
    """`web` is on its way from n1 to n2; either has room for one VM only."""
    web = vmi("web", on="n1", cpu=6)
    job = migration(web, "n2")
    arriving = launcher(web, on="n2", suffix="-target", created=NOW, labels=FrozenMap({MIGRATION_JOB: job.uid}))
    nodes = [node("home", cpu=8), node("n1", cpu=8), node("n2", cpu=8)]
    objects = [*nodes, vmi("db", on="home", cpu=4), web, launcher(web), arriving, job]
    full = "Insufficient cpu"
    assert reasons(*objects) | {"home": ""} == {"home": "", "n1": full, "n2": full}
    assert reasons(*objects, settled=True) | {"home": ""} == {"home": "", "n1": "", "n2": full}


def test_a_migration_in_flight_keeps_others_away_on_both_sides() -> None:
    web = vmi("web", on="n1", labels=DB)
    job = migration(web, "n2")
    own = FrozenMap({**DB, MIGRATION_JOB: job.uid})
    arriving = launcher(web, on="n2", suffix="-target", created=NOW, labels=own)
    objects = [node("home"), node("n1"), node("n2"), vmi("db", on="home", apart_from=DB), web, launcher(web), arriving]
    apart = "node(s) didn't match pod anti-affinity rules"
    assert reasons(*objects, job) == {"home": apart, "n1": apart, "n2": apart}
    assert reasons(*objects, job, settled=True) == {"home": apart, "n1": "", "n2": apart}


@pytest.mark.parametrize(
    ("asks", "why"),
    [
        ({"cpu": 4}, "Insufficient cpu"),
        ({"apart_from": DB}, "node(s) didn't match pod anti-affinity rules"),
        ({"affinity": Affinity(anti_required=(term(DB, ZONE),))}, "node(s) didn't match pod anti-affinity rules"),
        # Only spreads look beyond those who are on their way out (podtopologyspread: countPodsMatchSelector).
        ({"spread_by": (spread(DB),), "labels": DB}, ""),
    ],
)
def test_a_terminating_pod_is_there_until_it_is_gone(asks: dict[str, Any], why: str) -> None:
    leaving = replace(pod("old", on="there", cpu=6, labels=DB), deleting=True)
    nodes = [node("home", cpu=8, zone="a"), node("there", cpu=8, zone="b")]
    assert reasons(*nodes, vmi("db", on="home", **asks), leaving)["there"] == why
    assert reasons(*nodes, vmi("db", on="home", **asks))["there"] == ""
