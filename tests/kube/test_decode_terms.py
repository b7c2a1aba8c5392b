"""Terms and amounts that no API server would have stored: the object is set aside, and what is known of it counts."""

from __future__ import annotations

from typing import Any

import pytest
from kube.wires import PREFERRED, REQUIRED, container, node_json, page, pod_json, sidecar, vmi_json

from rebalancer.domain.pod import (
    Pod,
)
from rebalancer.kube.decode import (
    build_snapshot,
)

_TERM = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"}
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}


def anti(**changes: Any) -> dict[str, Any]:
    return {"affinity": {"podAntiAffinity": {REQUIRED: [{**_TERM, **changes}]}}}


def nodes(expression: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}


def spread(**changes: Any) -> dict[str, Any]:
    return {"topologySpreadConstraints": [{**_SPREAD, **changes}]}


_PODS = f"spec.affinity.podAntiAffinity.{REQUIRED}[0]"
_NODES = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
_NODE = f"{_NODES}[0].matchExpressions[0]"
_SPREADS = "spec.topologySpreadConstraints"
MALFORMED = [
    (anti(topologyKey=""), f"{_PODS}.topologyKey: must not be empty"),
    (anti(topologyKey="a b"), f"{_PODS}.topologyKey: 'a b' is not a label key"),
    (anti(topologyKey=7), f"{_PODS}.topologyKey: expected `str`, got `int`"),
    (anti(namespaces=["UP"]), f"{_PODS}.namespaces[0]: 'UP' is not a namespace's name"),
    (anti(labelSelector=None, matchLabelKeys=["a"]), f"{_PODS}.matchLabelKeys: must not be set without labelSelector"),
    (
        anti(matchLabelKeys=["v"], mismatchLabelKeys=["v"]),
        f"{_PODS}.matchLabelKeys[0]: 'v' is one of mismatchLabelKeys too",
    ),
    (
        anti(labelSelector={"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        f"{_PODS}.labelSelector.matchExpressions[0].operator: 'Near' is not a selector operator",
    ),
    (
        anti(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        f"{_PODS}.namespaceSelector.matchExpressions[0].values: must be empty when operator is Exists",
    ),
    (
        {"affinity": {"podAffinity": {PREFERRED: [{"weight": 101, "podAffinityTerm": _TERM}]}}},
        f"spec.affinity.podAffinity.{PREFERRED}[0].weight: must be in the range 1-100",
    ),
    (
        nodes({"key": "a", "operator": "in"}),
        f"{_NODE}.operator: 'in' is not a selector operator",
    ),
    (
        nodes({"key": "a", "operator": "In"}),
        f"{_NODE}.values: must not be empty when operator is In",
    ),
    ({"affinity": {"nodeAffinity": {REQUIRED: {}}}}, f"{_NODES}: must not be empty"),
    ({"affinity": [1]}, "spec.affinity: expected `object | null`, got `array`"),
    ({"nodeSelector": {"a": 1}}, "spec.nodeSelector[...]: expected `str`, got `int`"),
    ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator: must be Exists when key is empty"),
    (
        {"tolerations": [{"key": "a", "operator": "Like"}]},
        "spec.tolerations[0].operator: 'Like' is not a toleration operator",
    ),
    ({"tolerations": [{"key": "a", "effect": "No"}]}, "spec.tolerations[0].effect: 'No' is not a taint effect"),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]},
        "spec.tolerations[0].value: must be empty when operator is Exists",
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Gt", "value": "x"}]},
        "spec.tolerations[0].value: must be an integer when operator is Gt",
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]},
        "spec.tolerations[0].effect: must be NoExecute where tolerationSeconds is set",
    ),
    ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector: 'a b' is not a label key"),
    ({"nodeSelector": {"a": "b c"}}, "spec.nodeSelector: 'b c' is not a label value"),
    (spread(nodeAffinityPolicy=""), f"{_SPREADS}[0].nodeAffinityPolicy: '' is not Honor or Ignore"),
    (spread(maxSkew=0), f"{_SPREADS}[0].maxSkew: must be greater than 0"),
    (spread(topologyKey=""), f"{_SPREADS}[0].topologyKey: must not be empty"),
    (spread(whenUnsatisfiable="Maybe"), f"{_SPREADS}[0].whenUnsatisfiable: 'Maybe' is neither of its two values"),
    (spread(minDomains=0), f"{_SPREADS}[0].minDomains: must be greater than 0"),
    (spread(nodeTaintsPolicy="No"), f"{_SPREADS}[0].nodeTaintsPolicy: 'No' is not Honor or Ignore"),
    (
        {"topologySpreadConstraints": [_SPREAD, _SPREAD]},
        f"{_SPREADS}[0].{{topologyKey, whenUnsatisfiable}}: another constraint has the same",
    ),
]


@pytest.mark.parametrize(("spec", "message"), MALFORMED, ids=[message for _, message in MALFORMED])
def test_a_malformed_term_sets_the_object_aside_and_names_the_field(spec: dict[str, Any], message: str) -> None:
    """A pod stays as load that cannot move; a VMI is not known at all, its pod tells its load."""
    good = pod_json({"containers": [container("1")]})
    good["metadata"]["name"] = "good"
    pods = page("Pod", pod_json({**spec, "containers": [container("2")]}), good)
    broken, whole = pods.items
    assert isinstance(broken, Pod)
    assert isinstance(whole, Pod)
    assert [entry.sentence() for entry in pods.set_aside] == [f"Pod ns/a is set aside: {message}"]
    assert (broken.spec.requests.cpu_milli, broken.node, broken.load_known) == (2000, "n1", True)
    assert (broken.unreadable, whole.unreadable) == (message, "")

    vmis = page("VirtualMachineInstance", vmi_json(spec), vmi_json())
    assert len(vmis.items) == 1
    assert [entry.reason for entry in vmis.set_aside] == [message]


def test_a_key_that_is_merged_twice_is_refused_of_what_pods_are_made_from() -> None:
    """A stored pod has its matchLabelKeys in both places."""
    spec = anti(matchLabelKeys=["a"])
    assert page("Pod", pod_json({**spec, "containers": [container("1")]})).set_aside == ()
    (entry,) = page("VirtualMachineInstance", vmi_json(spec)).set_aside
    assert entry.reason == f"{_PODS}.matchLabelKeys[0]: 'a' stands in labelSelector or there again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"containers": [container("lots")]}, "spec.containers[0].resources.requests.cpu: not a quantity: 'lots'"),
        ({"containers": [container("-1")]}, "spec.containers[0].resources.requests.cpu: -1 is negative"),
        ({"containers": 5}, "spec.containers: expected `array | null`, got `int`"),
        ({"containers": [container("1"), 5]}, "spec.containers[1]: expected `object`, got `int`"),
        ({"initContainers": [sidecar("NaN")]}, "spec.initContainers[0].resources.requests.cpu: not a quantity: 'NaN'"),
        ({"overhead": {"cpu": []}}, "spec.overhead[...]: expected `int | float | str | null`, got `array`"),
    ],
)
def test_a_pod_with_unknown_requests_keeps_its_node_from_receiving(change: dict[str, Any], message: str) -> None:
    pods = page("Pod", pod_json(change))
    snapshot = build_snapshot({"Pod": pods.items, "Node": page("Node", node_json()).items}, pods.set_aside)
    assert not snapshot.pods["ns/a"].load_known
    assert not snapshot.nodes["n1"].capacity_known
    assert [(entry.name, entry.reason) for entry in snapshot.set_aside] == [
        ("n1", "what pod ns/a requests there is unknown, so it receives nothing"),
        ("ns/a", message),
    ]


def test_a_field_that_decides_no_load_leaves_it_known() -> None:
    pods = page("Pod", pod_json({"containers": [{**container("1"), "ports": "all"}]}))
    (pod,) = pods.items
    assert isinstance(pod, Pod)
    assert (pod.spec.requests.cpu_milli, pod.load_known) == (1000, True)
    assert pod.unreadable == "spec.containers[0].ports: expected `array | null`, got `str`"
