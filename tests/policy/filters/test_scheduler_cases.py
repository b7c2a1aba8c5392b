"""kube-scheduler's own unit-test tables of 2022 (1.23), judged by our filters: 160 of 164 cases."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebalancer.domain.cluster import Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Rejection
from rebalancer.kube.decode import decode
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.filters import between, node, resources, spread

CASES = Path(__file__).parents[4] / "shared" / "data" / "oracles" / "kube-scheduler"

PLUGINS = {
    "interpodaffinity": between.inter_pod_affinity,
    "nodeaffinity": node.node_alone,
    "nodename": node.node_alone,
    "nodeports": resources.ports,
    "noderesources": resources.fit,
    "nodeunschedulable": node.node_alone,
    "podtopologyspread": spread.pod_topology_spread,
    "tainttoleration": node.node_alone,
}

SINCE_THEN = {
    "node(s) had taint {dedicated: user1}, that the pod didn't tolerate": "node(s) had untolerated taint(s)",
    "node(s) had taint {foo: bar}, that the pod didn't tolerate": "node(s) had untolerated taint(s)",
}
"""What 1.36 says instead of 1.23. Beyond that: NodeAffinity's PreFilter now rules out all nodes that metadata.name does
not name, and NodeResourcesFit's verdict is final where the node is too small even when empty."""
BY_FILE = {
    "nodename": "node(s) didn't match the requested node name",
    "nodeports": "node(s) didn't have free ports for the requested pod ports",
}
"""The tables of two plugins name the constant that holds the reason instead of the reason."""
NOT_NAMED = "node(s) didn't satisfy plugin(s) [NodeAffinity]"
NOT_SELECTED = "node(s) didn't match Pod's node affinity/selector"

EXCLUDED = {
    "Doesn't match added affinity": "the profile's addedAffinity, which nobody outside the scheduler can see",
    "skip checking ignored extended resource": "the profile's ignoredResources",
    "skip checking ignored extended resource via resource groups": "the profile's ignoredResourceGroups",
    "ephemeral local storage request is ignored due to disabled feature gate": "a gate that is locked on today",
}
"""Cases about a scheduler that is configured otherwise, and by what: they have no meaning for the default profile."""
TEAMS = {"subteam1.team1": "team1", "subteam2.team1": "team1", "subteam1.team2": "team2", "subteam2.team2": "team2"}


def every_case() -> Iterator[tuple[str, dict[str, Any]]]:
    """Plugin and case, as they stand in the tables."""
    for name in PLUGINS:
        path = CASES / f"{name}.jsonl.gz"
        text = gzip.decompress(path.read_bytes()).decode() if path.exists() else ""
        yield from ((name, json.loads(line)) for line in text.splitlines())


def cases() -> Iterator[Any]:
    for name, case in every_case():
        if case["name"] not in EXCLUDED:
            yield pytest.param(name, case, id=f"{name}: {case['name']}")


def objects(case: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The case's nodes and the pods on them."""
    made = {"metadata": {"name": case.get("nodeName") or "n", "labels": case.get("labels")}}
    nodes = case.get("nodes") or [case.get("node") or made]
    for one in nodes:
        one["metadata"].setdefault("name", "n")
    pods = [*(case.get("pods") or case.get("existingPods") or ()), *((case.get("nodeInfo") or {}).get("pods") or ())]
    if len(nodes) == 1:  # the tables leave out the node where there is only one
        for one in pods:
            one["spec"]["nodeName"] = nodes[0]["metadata"]["name"]
    return nodes, pods


def read_pod(raw: dict[str, Any], name: str) -> Pod | None:
    """The pod, or None where the API server would never have taken it."""
    raw["metadata"] |= {"name": name, "uid": name, "namespace": raw["metadata"].get("namespace") or "default"}
    found = decode("Pod", json.dumps(raw).encode())
    assert isinstance(found.value, Pod)
    return None if found.set_aside else found.value


def read_node(raw: dict[str, Any]) -> Node:
    found = decode("Node", json.dumps(raw).encode()).value
    assert isinstance(found, Node)
    return found


def expected(case: dict[str, Any], nodes: tuple[str, ...]) -> list[tuple[bool, bool | None, tuple[str, ...] | None]]:
    """(fits, unresolvable, reasons) per node, None where the table does not say."""
    if "wantStatusCode" in case:
        codes = [case["wantStatusCode"].get(name, 0) for name in nodes]
        return [(code == 0, code == 3 if code else None, None) for code in codes]
    wanted = case["wantStatuses"] if "wantStatuses" in case else [case["wantStatus"]]
    return [
        (one is None, one["code"].endswith("Unresolvable") if one else None, tuple(one["reasons"]) if one else ())
        for one in wanted
    ]


@pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not here")
@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_case(name: str, case: dict[str, Any]) -> None:
    raw_nodes, raw_pods = objects(case)
    nodes = [read_node(raw) for raw in raw_nodes]
    placed = [read_pod(raw, f"placed-{index}") for index, raw in enumerate(raw_pods)]
    incoming = read_pod(case["pod"], "incoming")
    wanted = expected(case, tuple(one.name for one in nodes))
    if incoming is None:
        assert all(not fits and unresolvable for fits, unresolvable, _ in wanted)
        return
    namespaces = {one: Namespace(name=one, labels=FrozenMap({"team": team})) for one, team in TEAMS.items()}
    state = ClusterState.of(
        Snapshot(
            nodes=FrozenMap({one.name: one for one in nodes}),
            pods=FrozenMap({one.key: one for one in placed if one is not None}),
            namespaces=FrozenMap(namespaces),
        )
    )
    check = PLUGINS[name](state, incoming)
    for position, (fits, unresolvable, reasons) in enumerate(wanted):
        said = check if isinstance(check, Rejection) or check is None else check.reject(position)
        assert (said is None) == fits, (position, said)
        if said is None:
            continue
        if name != "noderesources":
            assert said.unresolvable == unresolvable
        if reasons is not None:
            translated = tuple(SINCE_THEN.get(reason, BY_FILE.get(name, reason)) for reason in reasons)
            assert tuple(sorted(said.reasons)) == translated or (
                said.reasons == (NOT_NAMED,) and translated == (NOT_SELECTED,)
            )


@pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not here")
def test_all_cases_are_there() -> None:
    found = [case for _, case in every_case()]
    verdicts = sum(len(case.get("wantStatuses") or case.get("nodes") or [None]) for case in found)
    assert (len(found), verdicts) == (164, 236)
    assert len(list(cases())) == 160
    assert {case["name"] for case in found} >= EXCLUDED.keys()
