"""The model of LowNodeUtilization against the evictions that the descheduler's own tests observe."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from builders import cluster, node, pod, vmi

from bench.peers.low_node_utilization import Measured, Params, Standing, evictions
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.quantity import milli_value, value
from rebalancer.kube.decode import decode_object
from rebalancer.policy.cluster_state import ClusterState

CASES = Path(__file__).parents[3] / "shared" / "data" / "oracles" / "descheduler" / "nodeutilization.json.gz"
NUMBER = 43
"""34 of TestLowNodeUtilization itself, 4 with taints, 5 with Prometheus."""
CRITICAL = 2_000_000_000
HALF_TO_80 = Params.of_cpu(50, 80)

Case = dict[str, Any]


@cache
def cases() -> tuple[Case, ...]:
    if not CASES.exists():
        return ()
    with gzip.open(CASES) as file:
        return tuple(case for case in json.load(file) if case["id"].startswith("TestLowNodeUtilization"))


def test_all_cases_of_the_plugin_are_here() -> None:
    if not cases():
        pytest.skip(f"{CASES} is missing: the model is not held to the descheduler's own cases")
    assert len(cases()) == NUMBER
    assert sum("TestLowNodeUtilization/" in case["id"] for case in cases()) == 34


@pytest.mark.parametrize("case", cases(), ids=[case["id"].partition("LowNodeUtilization")[2] for case in cases()])
def test_the_descheduler_would_evict_the_same(case: Case) -> None:
    """As many pods, none that may not be evicted, and lower priorities first.

    Which of several equal pods go first is chance with the real one, too: it lists them from a map.
    """
    found = run(case)
    observed = [eviction["name"] for eviction in case["evictions"] or ()]
    assert len(found) == case["expected_evicted_count"] == len(observed)
    raw = {p["metadata"]["name"]: p for p in case["pods"]}
    assert [rank(raw[gone.name]) for gone in found] == [rank(raw[name]) for name in observed]


@pytest.mark.parametrize("case", cases(), ids=[case["id"].partition("LowNodeUtilization")[2] for case in cases()])
def test_whichever_of_equal_pods_go_first_the_number_is_the_same(case: Case) -> None:
    assert {len(run(case, seed)) for seed in range(1, 9)} == {case["expected_evicted_count"]}


def vms(name: str, cpu: int, count: int) -> Any:
    machines = [vmi(f"{name}-{number}", on=name, cpu=1) for number in range(count)]
    return node(name, cpu=cpu), *machines


def evicted(*objects: Any, params: Params = HALF_TO_80, pending: frozenset[str] = frozenset()) -> list[str]:
    found = evictions(ClusterState.of(cluster(*objects)), params, pending=pending)
    return [gone.node for gone in found]


def test_a_node_is_relieved_down_to_the_target_and_no_further() -> None:
    assert evicted(*vms("n1", 10, 10), *vms("n2", 10, 2)) == ["n1"] * 2


def test_without_an_underutilized_node_nothing_is_evicted_however_full_others_are() -> None:
    assert evicted(*vms("n1", 10, 10), *vms("n2", 10, 6)) == []


def test_pods_that_are_no_vms_are_left_alone() -> None:
    agents = [pod(f"agent-{number}", on="n1", cpu=1) for number in range(9)]
    assert evicted(node("n1", cpu=10), *agents, vmi("a", on="n1", cpu=1), *vms("n2", 10, 0)) == ["n1"]


def test_nodes_that_are_not_selected_do_not_exist() -> None:
    nodes = [*vms("n1", 10, 10), node("n2", cpu=10, labels={"idle": "true"})]
    assert evicted(*nodes) == ["n1"] * 2
    busy = replace(HALF_TO_80, node_selector=FrozenMap({"kubernetes.io/hostname": "n1"}))
    assert evicted(*nodes, params=busy) == []


def test_limits_hold_per_node_and_in_all() -> None:
    full = [*vms("n1", 10, 10), *vms("n2", 10, 10), *vms("n3", 10, 0)]
    assert sorted(evicted(*full)) == ["n1", "n1", "n2", "n2"]
    assert sorted(evicted(*full, params=replace(HALF_TO_80, per_node=1))) == ["n1", "n2"]
    assert len(evicted(*full, params=replace(HALF_TO_80, total=3))) == 3


def test_what_is_being_evicted_counts_for_the_limits_and_is_not_evicted_again() -> None:
    full = [*vms("n1", 10, 10), *vms("n2", 10, 0)]
    first = evictions(ClusterState.of(cluster(*full)), HALF_TO_80)
    pending = frozenset(gone.uid for gone in first)
    assert len(first) == 2
    assert evicted(*full, pending=pending) == []
    assert evicted(*full, params=replace(HALF_TO_80, total=2), pending=frozenset({first[1].uid})) == ["n1"]


def test_deviation_takes_from_nodes_above_the_mean_though_none_is_hot() -> None:
    nodes = [*vms("n1", 10, 7), *vms("n2", 10, 3)]
    assert evicted(*nodes) == []
    assert evicted(*nodes, params=Params.of_cpu(10, 10, deviation=True)) == ["n1"]


def run(case: Case, seed: int = 0) -> tuple[Pod, ...]:
    arguments, limits = case["plugin"]["args"], case.get("limits") or {}
    params = Params(
        thresholds=FrozenMap(arguments["thresholds"]),
        targets=FrozenMap(arguments["targetThresholds"]),
        deviation=arguments.get("useDeviationThresholds", False),
        per_source=(arguments.get("evictionLimits") or {}).get("node"),
        per_node=limits.get("maxPodsToEvictPerNode"),
        total=limits.get("maxPodsToEvictTotal"),
        excluded_namespaces=frozenset((arguments.get("evictableNamespaces") or {}).get("exclude", ())),
        seed=seed,
    )
    raw = {f"{p['metadata']['namespace']}/{p['metadata']['name']}": p for p in case["pods"]}
    return evictions(
        state(case), params, standing=lambda placed: standing(raw[placed.key]), measured=measured(case, params)
    )


def state(case: Case) -> ClusterState:
    nodes = {}
    for raw in case["nodes"]:
        decoded = decode_object("Node", json.dumps(raw).encode())
        assert isinstance(decoded, Node)
        nodes[decoded.name] = decoded
    found = ClusterState(nodes=nodes, namespaces={}, volumes={}, claims={}, csi_nodes={})
    for raw in case["pods"]:
        placed = decode_object("Pod", json.dumps(raw).encode())
        assert isinstance(placed, Pod)
        found.add(placed)
    return found


def standing(raw: Case) -> Standing | None:
    """What the descheduler protects by default: mirrors, daemons, critical pods, local storage, orphans."""
    meta, spec = raw["metadata"], raw["spec"]
    owners = [owner["kind"] for owner in meta.get("ownerReferences", ())]
    local = any("hostPath" in volume or "emptyDir" in volume for volume in spec.get("volumes", ()))
    mirrored = "kubernetes.io/config.mirror" in meta.get("annotations", {})
    if not owners or "DaemonSet" in owners or local or mirrored or spec.get("priority", 0) >= CRITICAL:
        return None
    return Standing(priority=spec.get("priority"), quality=quality(raw))


def quality(raw: Case) -> int:
    """No container of a case has limits, so none is guaranteed."""
    requests = [container["resources"].get("requests", {}) for container in raw["spec"]["containers"]]
    return int(any(value(amount) for asked in requests for amount in asked.values()))


def rank(raw: Case) -> tuple[int, int]:
    return raw["spec"].get("priority", -1), quality(raw)


def measured(case: Case, params: Params) -> Measured | None:
    """What a metrics server or Prometheus told. Of pods, the cases hold no measurement: the tests' own is 401 mCPU."""
    source = case["plugin"]["args"].get("metricsUtilization", {}).get("source")
    if source is None:
        return None
    usage = (case.get("classify") or {"usage": {n["metadata"]["name"]: {} for n in case["nodes"]}})["usage"]
    nodes = {name: {kind: amount(kind, text) for kind, text in of.items()} for name, of in usage.items()}
    if source == "Prometheus":
        return Measured(nodes=nodes)
    each = 801.0 if "different_evictions" in case["id"] else 401.0
    keys = [f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in case["pods"]]
    return Measured(nodes=nodes, pods={key: {"cpu": each, "memory": 0.0, "pods": 1.0} for key in keys})


def amount(kind: str, text: str) -> float:
    return float(milli_value(text) if kind == "cpu" else value(text))
