"""Scheduling terms that the API server refuses are set aside by us, at the same field; all others are read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from controlplane.kubeclient import Object
from controlplane.oracle import Oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rebalancer.kube.decode import decode

pytestmark = pytest.mark.controlplane

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
LONG = "x" * 64

Fields = st.SearchStrategy[dict[str, Any]]


def mostly(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """One of the good four times out of five."""
    return st.integers(0, 9).flatmap(lambda roll: st.sampled_from(bad if roll >= 8 else good))


def some(strategy: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=least, max_size=2)


keys = mostly(["app", "example.com/tier", "a.b_c"], ["", "a b", "/app", "Example.com/app", "-app", "a/b/c", LONG])
values = mostly(["db", "", "7"], ["a b", "-", "ü", LONG])
operators = mostly(["In", "NotIn", "Exists", "DoesNotExist"], ["Gt", "Lt", "in", "", "Near"])
expressions = st.fixed_dictionaries({"key": keys, "operator": operators}, optional={"values": some(values)})
selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": st.dictionaries(keys, values, max_size=2), "matchExpressions": some(expressions)}
)
topology_keys = mostly(["zone", "kubernetes.io/hostname"], ["", "a b", "/zone", LONG])
label_keys = some(mostly(["app", "version"], ["", "a b", "version/"]))
pod_terms: Fields = st.fixed_dictionaries(
    {"topologyKey": topology_keys},
    optional={
        "labelSelector": st.none() | selectors,
        "namespaceSelector": st.none() | selectors,
        "namespaces": some(mostly(["default", "bank"], ["", "Bank", "a.b", LONG])),
        "matchLabelKeys": label_keys,
        "mismatchLabelKeys": label_keys,
    },
)
weights = mostly([1, 100], [0, -1, 101])
weighted = st.fixed_dictionaries({"weight": weights, "podAffinityTerm": pod_terms})
pod_affinity = st.fixed_dictionaries({}, optional={REQUIRED: some(pod_terms), PREFERRED: some(weighted)})
node_expressions = st.fixed_dictionaries(
    {"key": keys, "operator": mostly(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"], ["in", "", "Near"])},
    optional={"values": some(mostly(["db", "7", ""], ["a b", LONG]))},
)
node_fields = st.fixed_dictionaries(
    {
        "key": mostly(["metadata.name"], ["", "metadata.namespace"]),
        "operator": mostly(["In", "NotIn"], ["Exists", "Gt"]),
    },
    optional={"values": some(mostly(["n1"], ["", "N1", "a b"]))},
)
node_terms = st.fixed_dictionaries(
    {}, optional={"matchExpressions": some(node_expressions), "matchFields": some(node_fields)}
)
node_selectors = st.fixed_dictionaries({}, optional={"nodeSelectorTerms": some(node_terms)})
preferred_nodes = st.fixed_dictionaries({"weight": weights, "preference": node_terms})
node_affinity = st.fixed_dictionaries({}, optional={REQUIRED: node_selectors, PREFERRED: some(preferred_nodes)})
affinity = st.fixed_dictionaries(
    {}, optional={"nodeAffinity": node_affinity, "podAffinity": pod_affinity, "podAntiAffinity": pod_affinity}
)
tolerations = st.fixed_dictionaries(
    {},
    optional={
        "key": keys,
        # Gt and Lt are known to servers with an alpha feature alone, and so are the pods that have them.
        "operator": mostly(["Exists", "Equal", ""], ["exists", "In"]),
        "value": values,
        "effect": mostly(["", "NoSchedule", "NoExecute", "PreferNoSchedule"], ["No"]),
        "tolerationSeconds": st.sampled_from([0, 30, -1]),
    },
)
spreads = st.fixed_dictionaries(
    {
        "maxSkew": mostly([1, 3], [0, -1]),
        "topologyKey": topology_keys,
        "whenUnsatisfiable": mostly(["DoNotSchedule", "ScheduleAnyway"], ["", "Maybe"]),
    },
    optional={
        "labelSelector": st.none() | selectors,
        "minDomains": mostly([1, 5], [0, -1]),
        "nodeAffinityPolicy": mostly(["Honor", "Ignore"], ["", "honor"]),
        "nodeTaintsPolicy": mostly(["Honor", "Ignore"], ["", "No"]),
        "matchLabelKeys": label_keys,
    },
)
specs: Fields = st.one_of(
    st.fixed_dictionaries({"affinity": affinity}),
    st.fixed_dictionaries({"tolerations": some(tolerations)}),
    st.fixed_dictionaries({"topologySpreadConstraints": some(spreads)}),
    st.fixed_dictionaries({"nodeSelector": st.dictionaries(keys, values, max_size=2)}),
)


FINER = (
    (re.compile(r"\.namespaces\[\d+\]$"), ".namespace"),
    (re.compile(r"(tolerations\[\d+\])\.value$"), r"\1.operator"),
    (re.compile(r"\.matchLabelKeys(\[\d+\])$"), r"\1"),
)
"""Where we name the field that is wrong, and the API server one beside it."""


def pod(spec: Object) -> Object:
    container = {"name": "main", "image": "main", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "p", "labels": {"app": "db", "version": "2"}},
        "spec": {"containers": [container], **spec},
    }


def vmi(spec: Object) -> Object:
    return {"metadata": {"name": "v", "namespace": "default", "uid": "v"}, "spec": {"domain": {"devices": {}}, **spec}}


def set_aside(kind: str, found: Object) -> str:
    """The reason, "" for none."""
    aside = decode(kind, json.dumps(found).encode()).set_aside
    return aside.reason if aside is not None else ""


def fields(reason: str) -> set[str]:
    """The path that a reason begins with, in our words and in the API server's."""
    path = reason.partition(": ")[0]
    return {path, *(pattern.sub(theirs, path) for pattern, theirs in FINER)}


@settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(specs)
def test_what_the_api_server_refuses_is_set_aside_at_the_same_field(oracle: Oracle, spec: Object) -> None:
    """Asked of the pod that is made from a VM, which is what the VM's terms are for."""
    (created,) = oracle.create([pod(spec)])
    ours = set_aside("VirtualMachineInstance", vmi(spec))
    said = [fault.message for fault in created.faults]
    assert bool(ours) == bool(said), (ours, said)
    assert not ours or fields(ours) & {fault.field for fault in created.faults}, (ours, said)
    if created.pod is not None:
        assert set_aside("Pod", created.pod) == "", "what the API server has made of it is read"


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(specs)
def test_pods_are_refused_for_the_same_reasons(spec: Object) -> None:
    of_vmi = set_aside("VirtualMachineInstance", vmi(spec))
    assert set_aside("Pod", pod(spec)) == of_vmi or "stands in labelSelector" in of_vmi
