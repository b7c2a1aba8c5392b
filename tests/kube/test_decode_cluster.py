"""Nodes, volumes, KubeVirt."""

from __future__ import annotations

from typing import Any

import pytest
from kube.wires import CREATED, GIB, meta, node_json, page, text

from rebalancer.domain.cluster import CSINode, KubeVirt, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.node import Node, Taint
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import NodeSelector, node_selector_term
from rebalancer.kube.decode import decode, decode_object


def test_a_node() -> None:
    found = node_json(cpu="15500m", **{"example.com/gpu": 2})
    found["metadata"] |= {"labels": {"zone": "z"}, "annotations": {"kubevirt-rebalancer.io/cpu-high": "90"}}
    found["spec"] = {"unschedulable": True, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}
    found["status"] |= {
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": CREATED, "message": "m"}],
        "declaredFeatures": ["B", "A"],
    }
    assert decode_object("Node", text(found)) == Node(
        name="n1",
        uid="u",
        labels=decode_object("Node", text(found)).labels,  # type: ignore[union-attr]
        annotations=decode_object("Node", text(found)).annotations,  # type: ignore[union-attr]
        unschedulable=True,
        taints=(Taint(key="k", value="v", effect="NoSchedule"),),
        allocatable=Resources(cpu_milli=15_500, memory_bytes=8 * GIB, scalars=(("example.com/gpu", 2),)),
        pods=110,
        conditions=decode_object("Node", text(found)).conditions,  # type: ignore[union-attr]
        declared_features=("A", "B"),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": {}}, "status.allocatable.cpu: is missing"),
        ({"status": None}, "status.allocatable.cpu: is missing"),
        (node_json(memory="much"), "status.allocatable.memory: not a quantity: 'much'"),
        (node_json(cpu="-4"), "status.allocatable.cpu: -4 is negative"),
        (node_json(cpu={}), "status.allocatable[...]: expected `int | float | str | null`, got `object`"),
        ({"spec": {"taints": "none"}}, "spec.taints: expected `array | null`, got `str`"),
        ({"metadata": {"name": "n1", "labels": [1]}}, "metadata.labels: expected `object | null`, got `array`"),
    ],
)
def test_a_node_of_which_anything_is_unreadable_receives_nothing(change: dict[str, Any], message: str) -> None:
    found = page("Node", {**node_json(), **change})
    (node,) = found.items
    assert isinstance(node, Node)
    assert not node.capacity_known
    assert found.set_aside[0].reason.startswith(message)


@pytest.mark.parametrize(
    ("annotations", "heartbeat"),
    [
        ({}, None),
        ({"kubevirt.io/heartbeat": "2033-05-18T03:33:20Z"}, 2_000_000_000.0),
        ({"kubevirt.io/heartbeat": "yesterday"}, 0.0),
        ({"kubevirt.io/heartbeat": ""}, 0.0),
    ],
)
def test_a_heartbeat_is_read_beside_what_nodes_are_compared_by(
    annotations: dict[str, str], heartbeat: float | None
) -> None:
    beating = decode_object("Node", text(node_json() | {"metadata": {"name": "n1", "annotations": annotations}}))
    plain = decode_object("Node", text(node_json() | {"metadata": {"name": "n1"}}))
    assert isinstance(beating, Node)
    assert beating.heartbeat == heartbeat
    assert beating == plain


def test_volumes_claims_and_csi_nodes() -> None:
    zone = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}]}]}
    volume = {
        "metadata": {"name": "pv"},
        "spec": {
            "nodeAffinity": {"required": zone},
            "accessModes": ["ReadWriteMany"],
            "csi": {"driver": "d", "volumeHandle": "h"},
            "claimRef": {"namespace": "ns", "name": "pvc"},
            "storageClassName": "fast",
        },
    }
    assert decode_object("PersistentVolume", text(volume)) == PersistentVolume(
        name="pv",
        node_affinity=NodeSelector(terms=(node_selector_term([("zone", "In", ("z1",))]),)),
        access_modes=("ReadWriteMany",),
        csi=("d", "h"),
        claim=("ns", "pvc"),
        storage_class="fast",
    )
    claim = {"metadata": meta("pvc"), "spec": {"volumeName": "pv", "accessModes": ["ReadWriteMany"]}}
    assert decode_object("PersistentVolumeClaim", text(claim)) == PersistentVolumeClaim(
        namespace="ns", name="pvc", volume="pv", access_modes=("ReadWriteMany",)
    )
    drivers = [{"name": "d", "allocatable": {"count": 25}}, {"name": "e", "allocatable": None}]
    node = decode_object("CSINode", text({"metadata": {"name": "n1"}, "spec": {"drivers": drivers}}))
    assert isinstance(node, CSINode)
    assert node.limits == {"d": 25}

    volume["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": []}}  # type: ignore[index]
    broken = page("PersistentVolume", volume)
    assert broken.items == ()
    assert broken.set_aside[0].reason == "spec.nodeAffinity.required.nodeSelectorTerms: must not be empty"


def test_kubevirts_configuration_with_its_defaults() -> None:
    found = {
        "metadata": meta("kubevirt"),
        "spec": {
            "configuration": {
                "migrations": {"parallelOutboundMigrationsPerNode": 1, "bandwidthPerMigration": "64Mi"},
                "developerConfiguration": {"nodeSelectors": {"a": "b"}, "featureGates": ["B", "A"]},
                "evictionStrategy": "LiveMigrate",
                "cpuModel": "Haswell",
            }
        },
        "status": {
            "phase": "Deployed",
            "observedKubeVirtVersion": "v1.9.0",
            "observedDeploymentID": "1",
            "targetDeploymentID": "2",
        },
    }
    kubevirt = decode_object("KubeVirt", text(found))
    assert kubevirt == KubeVirt(
        parallel_outbound_migrations_per_node=1,
        bandwidth_per_migration_bytes=64 * 2**20,
        node_selectors=kubevirt.node_selectors,  # type: ignore[union-attr]
        feature_gates=("A", "B"),
        eviction_strategy="LiveMigrate",
        default_cpu_model="Haswell",
        version="v1.9.0",
        phase="Deployed",
        infra_updating=True,
    )
    found["spec"] = {"configuration": {"migrations": {"parallelMigrationsPerCluster": -1, "progressTimeout": "x"}}}
    assert decode("KubeVirt", text(found)).key == "KubeVirt"
    broken = page("KubeVirt", found)
    assert broken.items[0].parallel_migrations_per_cluster == 5  # type: ignore[union-attr]
    assert len(broken.set_aside) == 1
