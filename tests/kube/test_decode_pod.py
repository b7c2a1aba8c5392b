"""Pods: effective requests as kube-scheduler sums them, and everything else that decides where one may run."""

from __future__ import annotations

from typing import Any

import pytest
from kube.wires import (
    CREATED,
    CREATED_SECONDS,
    GIB,
    PREFERRED,
    REQUIRED,
    container,
    pod_json,
    read_pod,
    requests,
    sidecar,
    text,
    vmi_json,
)

from rebalancer.domain.pod import (
    Affinity,
    HostPort,
    PodAffinityTerm,
    PodVolume,
    Toleration,
    TopologySpreadConstraint,
)
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import NodeSelector, label_selector, node_selector_term
from rebalancer.kube.decode import (
    decode_object,
)


@pytest.mark.parametrize(
    ("spec", "cpu_milli"),
    [
        ({}, 0),
        ({"containers": [container("1"), container("500m")]}, 1500),
        ({"containers": [container("0.1m"), container("0.1m")]}, 1),  # summed exactly, rounded up once
        ({"containers": [container("1")], "initContainers": [container("3")]}, 3000),
        ({"containers": [container("1")], "initContainers": [container("3"), sidecar("1")]}, 3000),
        ({"containers": [container("1")], "initContainers": [sidecar("1"), container("3")]}, 4000),
        ({"containers": [container("4")], "initContainers": [sidecar("1"), container("3"), sidecar("1")]}, 6000),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, 1250),
        ({"containers": [container(limits={"cpu": "2"})]}, 2000),  # a limit alone is a request
        ({"containers": [container("1", limits={"cpu": "2"})]}, 1000),
        ({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}, 3000),
        ({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "1"}}, 4000),
        ({"containers": [container("1")], "resources": {"limits": {"cpu": "3"}}}, 1000),
        ({"containers": [container()], "resources": {"limits": {"cpu": "3"}}}, 3000),
        ({"containers": [container(" 1 ")]}, 1000),
        ({"containers": [{"resources": {"requests": {"cpu": 1.5}}}, {"resources": None}, {}]}, 1500),
        ({"containers": [container("9223372036854775807")]}, 2**63 - 1),
    ],
)
def test_effective_requests_are_kube_schedulers(spec: dict[str, Any], cpu_milli: int) -> None:
    assert requests(spec).cpu_milli == cpu_milli


def test_every_resource_counts_that_kube_scheduler_counts() -> None:
    amounts = {
        "memory": "1Gi",
        "ephemeral-storage": "1k",
        "hugepages-2Mi": "4Mi",
        "devices.kubevirt.io/kvm": "1",
        "example.com/zero": "0",
        "storage": "5",
        "requests.example.com/x": "5",
    }
    assert requests({"containers": [{"resources": {"requests": amounts}}]}) == Resources(
        memory_bytes=GIB,
        storage_bytes=1000,
        scalars=(("devices.kubevirt.io/kvm", 1), ("hugepages-2Mi", 4 * 2**20)),
    )


@pytest.mark.parametrize(
    ("wanted", "in_force", "allocated", "infeasible", "cpu_milli"),
    [
        ("3", "1", "1", False, 3000),
        ("1", "3", "1", False, 3000),
        ("1", "2", "3", False, 3000),
        ("3", "1", "2", True, 2000),
    ],
)
def test_a_container_that_is_being_resized_holds_the_most_of_its_states(
    wanted: str, in_force: str, allocated: str, infeasible: bool, cpu_milli: int
) -> None:
    state = {"name": "c", "resources": {"requests": {"cpu": in_force}}, "allocatedResources": {"cpu": allocated}}
    conditions = [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}] if infeasible else []
    spec = {"containers": [container(wanted)]}
    assert requests(spec, containerStatuses=[state], conditions=conditions).cpu_milli == cpu_milli


def test_a_pod_with_everything() -> None:
    cores = {"key": "cores", "operator": "Gt", "values": ["8"]}
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"}
    spec = {
        "nodeSelector": {"disk": "ssd"},
        "affinity": {
            "nodeAffinity": {
                REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [cores]}]},
                PREFERRED: [{"weight": 5, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}],
            },
            "podAffinity": {REQUIRED: [{**term, "namespaces": ["b", "a"], "namespaceSelector": {}}]},
            "podAntiAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": {**term, "matchLabelKeys": ["v"]}}]},
        },
        "tolerations": [{"key": "k", "effect": "NoSchedule"}, {"operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "hostNetwork": True,
        "hostUsers": False,
        "containers": [{"ports": [{"containerPort": 80}, {"containerPort": 1, "hostPort": 2, "protocol": "UDP"}]}],
        "initContainers": [{"ports": [{"hostPort": 7}]}, {**sidecar("1"), "ports": [{"hostPort": 9, "hostIP": "::"}]}],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "disk-1", "readOnly": True}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "fast", "csi": {"driver": "d.example.com"}},
            {"name": "old", "rbd": {"monitors": ["m2", "m1"], "pool": "p", "image": "i"}},
            {"name": "pd", "gcePersistentDisk": {"pdName": "pd-1"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "resourceClaims": [{"name": "gpu"}],
        "schedulingGates": [{"name": "wait"}],
        "priorityClassName": "high",
    }
    owner = {"kind": "VirtualMachineInstance", "name": "vm", "uid": "u1", "controller": True}
    found = pod_json(
        spec,
        conditions=[
            {"type": "Ready", "status": "True"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ],
    )
    found["metadata"] |= {
        "deletionTimestamp": CREATED,
        "labels": {"app": "db"},
        "annotations": {"kubevirt.io/domain": "vm", "foreign.example.com/x": "y"},
        "ownerReferences": [{"kind": "Other", "name": "o", "uid": "u0"}, owner],
    }
    pod = read_pod(found)

    assert (pod.key, pod.node, pod.phase, pod.ready, pod.deleting) == ("ns/a", "n1", "Running", True, True)
    assert (pod.owner, pod.unschedulable, pod.created) == (
        ("VirtualMachineInstance", "vm", "u1"),
        "0/3 nodes",
        CREATED_SECONDS,
    )
    assert (pod.labels, pod.annotations) == ({"app": "db"}, {"kubevirt.io/domain": "vm"})
    db = label_selector({"app": "db"})
    assert pod.spec.affinity == Affinity(
        node_required=NodeSelector(terms=(node_selector_term([("cores", "Gt", ("8",))]),)),
        node_preferred=((5, node_selector_term([("a", "Exists", ())])),),
        pod_required=(
            PodAffinityTerm(
                selector=db, topology_key="zone", namespaces=("a", "b"), namespace_selector=label_selector()
            ),
        ),
        anti_preferred=((100, PodAffinityTerm(selector=db, topology_key="zone", match_label_keys=("v",))),),
    )
    assert pod.spec.tolerations == (Toleration(key="k", effect="NoSchedule"), Toleration(operator="Exists"))
    assert pod.spec.spread == (
        TopologySpreadConstraint(
            max_skew=2, topology_key="zone", selector=None, when_unsatisfiable="ScheduleAnyway", min_domains=1
        ),
    )
    assert pod.spec.host_ports == (HostPort(port=9, ip="::"), HostPort(port=80), HostPort(port=2, protocol="UDP"))
    assert pod.spec.volumes == (
        PodVolume(name="data", claim="disk-1", read_only=True),
        PodVolume(name="scratch", claim="a-scratch"),
        PodVolume(name="fast", csi_driver="d.example.com"),
        PodVolume(name="old", disk=("rbd", "p", "i", "m1", "m2")),
        PodVolume(name="pd", disk=("gcePersistentDisk", "pd-1")),
    )
    assert (pod.spec.node_selector, pod.spec.priority_class_name) == ({"disk": "ssd"}, "high")
    assert (pod.spec.resource_claims, pod.spec.scheduling_gates) == (("gpu",), ("wait",))
    assert pod.spec.scheduler_name == "default-scheduler"
    assert pod.spec.required_features == ("UserNamespacesHostNetworkSupport",)


def test_equal_specs_and_labels_are_one_object_whatever_their_order_on_the_wire() -> None:
    first = pod_json({"nodeSelector": {"a": "1", "b": "2"}})
    second = pod_json({"nodeSelector": {"b": "2", "a": "1"}})
    first["metadata"]["labels"], second["metadata"]["labels"] = {"x": "1", "y": "2"}, {"y": "2", "x": "1"}
    one, other = read_pod(first), read_pod(second)
    assert one.spec is other.spec
    assert one.labels is other.labels


def test_nothing_is_kept_that_may_be_secret() -> None:
    found = pod_json({"containers": [{**container("1"), "env": [{"name": "PASSWORD", "value": "s3cret"}]}]})
    found["metadata"]["managedFields"] = [{"manager": "s3cret"}]
    machine = vmi_json({"volumes": [{"name": "c", "cloudInitNoCloud": {"userData": "s3cret"}}]})
    assert "s3cret" not in repr((read_pod(found), decode_object("VirtualMachineInstance", text(machine))))
