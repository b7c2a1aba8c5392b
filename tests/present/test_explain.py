"""Where one VM may go, and why not elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from builders import cluster, migration, node, vmi

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import MANAGED_BY, MANAGER
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.load import PolicyParams
from rebalancer.present.explain import NoSuchNodeError, NoSuchVMError, document, explain, text


@pytest.fixture
def snapshot() -> Snapshot:
    """A VM with one node to go to, one that would be too full, one with a taint and one that is cordoned."""
    return cluster(
        node("here", cpu=8),
        node("free", cpu=8),
        node("busy", cpu=8),
        node("gpu", cpu=8, taints=("reserved=gpu:NoSchedule",)),
        node("shut", cpu=8, cordoned=True),
        vmi("bank/db-0", on="here", cpu=2),
        vmi("bank/big", on="busy", cpu=5),
        vmi("bank/stays", on="here", cpu=1, annotations={"kubevirt-rebalancer.io/policy": "ignore"}),
    )


def told(snapshot: Snapshot, key: str, node: str = "") -> str:
    return text(explain(snapshot, key, PolicyParams()), node=node)


def test_a_vm_that_may_move(snapshot: Snapshot) -> None:
    assert told(snapshot, "bank/db-0").splitlines()[:5] == [
        "bank/db-0 runs on here and may move.",
        "1/5 nodes could take it:",
        "  free  reserves 25.0 % of its CPU with it",
        "kube-scheduler would accept it on 1 node that would be too full then:",
        "  busy  would reserve 87.5 % of its CPU, above 75.0 %",
    ]


def test_a_vm_that_has_to_stay_is_explained_all_the_same(snapshot: Snapshot) -> None:
    first, second, *_ = told(snapshot, "bank/stays").splitlines()
    assert first.startswith("bank/stays runs on here and has to stay: ")
    assert second == "2/5 nodes could take it:"
    assert "could go to free, but it has to stay: " in told(snapshot, "bank/stays", "free")


@pytest.mark.parametrize(
    ("node", "answer"),
    [
        ("free", "bank/db-0 could go to free; reserves 25.0 % of its CPU with it.\n"),
        ("busy", "bank/db-0 is not sent to busy: would reserve 87.5 % of its CPU, above 75.0 %.\n"),
        ("gpu", "bank/db-0 cannot go to gpu: TaintToleration: node(s) had untolerated taint(s).\n"),
        ("shut", "bank/db-0 cannot go to shut: NodeUnschedulable: node(s) were unschedulable.\n"),
    ],
)
def test_one_nodes_verdict(snapshot: Snapshot, node: str, answer: str) -> None:
    assert told(snapshot, "bank/db-0", node) == answer


def test_rules_that_cannot_hold_are_told() -> None:
    db = {"app": "db"}
    pair = [vmi(f"bank/db-{number}", on="n1", labels=db, apart_from=db) for number in range(2)]
    snapshot = cluster(node("n1"), *pair)
    message = "bank/db-0, bank/db-1 must be apart, but only 1 domain of kubernetes.io/hostname can take them"
    assert f"Its rules cannot all hold: {message}." in told(snapshot, "bank/db-1").splitlines()
    assert document(explain(snapshot, "bank/db-0", PolicyParams()))["conflicts"] == [message]


def test_where_we_have_taken_it_away_from_is_told_apart() -> None:
    ours: dict[str, Any] = {"phase": "Succeeded", "labels": FrozenMap({MANAGED_BY: MANAGER})}
    came = migration(vmi("bank/db-0", on="free", cpu=2), "here", **ours)
    found = cluster(node("here", cpu=8), node("free", cpu=8), node("other", cpu=8), vmi("bank/db-0", on="here"), came)
    assert told(found, "bank/db-0").splitlines()[1:4] == [
        "1/3 nodes could take it:",
        "  other  reserves 12.5 % of its CPU with it",
        "It is not brought back within a day to where we took it away: free.",
    ]
    assert told(found, "bank/db-0", "free").startswith("bank/db-0 is not sent to free. It is not brought back")
    assert document(explain(found, "bank/db-0", PolicyParams()))["nodes"]["free"]["leftLately"]


def test_unknown_names_are_told_with_what_is_near(snapshot: Snapshot) -> None:
    with pytest.raises(NoSuchVMError, match="did you mean bank/db-0"):
        explain(snapshot, "bank/db-1", PolicyParams())
    with pytest.raises(NoSuchVMError, match="NAMESPACE/NAME"):
        explain(snapshot, "xyz", PolicyParams())
    with pytest.raises(NoSuchNodeError, match="the nodes are busy, free, gpu, here and shut"):
        told(snapshot, "bank/db-0", "nowhere")


def test_as_json(snapshot: Snapshot) -> None:
    found = document(explain(snapshot, "bank/db-0", PolicyParams()))
    assert (found["movable"], found["node"], found["targets"]) == (True, "here", ["free"])
    assert found["nodes"]["gpu"]["plugin"] == "TaintToleration"
    assert found["nodes"]["busy"]["threshold"]
    assert not found["nodes"]["busy"]["fits"]
