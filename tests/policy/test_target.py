"""The target pod of a migration, rule by rule of KubeVirt's virt-controller."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import cluster, labels_selector, launcher, node, node_term, required_nodes, spread, term, vmi

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.pod import Affinity, Pod, PodSpec, Toleration
from rebalancer.domain.resources import Resources
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import feasible_nodes, survey
from rebalancer.policy.target import target_guard, target_pod

TRUE = "true"
FIRST = {"kubevirt.io/schedulable": TRUE, "kubernetes.io/arch": "amd64", "machine-type.node.kubevirt.io/q35": TRUE}
INTEL = {"cpu-vendor.node.kubevirt.io/Intel": TRUE}
SKYLAKE = {"cpu-model-migration.node.kubevirt.io/Skylake-Server": TRUE}
OBSOLETE = "!node-labeller.kubevirt.io/obsolete-host-model"
STRICT = KubeVirt(feature_gates=("HypervStrictCheck",), version="v1.9.0")


def vm(**spec: Any) -> VMI:
    return vmi("db", on="n1", cpu=2, spec={"cpu_model": "Haswell", **spec})


def rendered(one: VMI, kubevirt: KubeVirt | None = None, source: Pod | None = None, on: Node | None = None) -> Pod:
    return target_pod(one, source or launcher(one), on or node("n1"), kubevirt or KubeVirt(version="v1.9.0"))


HASWELL = {**FIRST, **INTEL, "cpu-model.node.kubevirt.io/Haswell": TRUE}


@pytest.mark.parametrize(
    ("spec", "kubevirt", "selector"),
    [
        ({}, None, HASWELL),
        ({"cpu_model": ""}, None, {**FIRST, **INTEL}),
        ({"cpu_model": "host-passthrough"}, None, {**FIRST, **INTEL}),
        ({"cpu_model": "host-model"}, None, {**FIRST, **INTEL, **SKYLAKE}),
        ({"architecture": "ARM64"}, None, {**HASWELL, "kubernetes.io/arch": "arm64"}),
        ({"architecture": ""}, None, {k: v for k, v in HASWELL.items() if k != "kubernetes.io/arch"}),
        ({"dedicated_cpu": True}, None, {**HASWELL, "kubevirt.io/cpumanager": TRUE}),
        ({"realtime": True}, None, {**HASWELL, "kubevirt.io/realtime": TRUE}),
        ({"launch_security": "sev"}, None, {**HASWELL, "kubevirt.io/sev": TRUE}),
        ({"launch_security": "sev-es"}, None, {**HASWELL, "kubevirt.io/sev": TRUE, "kubevirt.io/sev-es": TRUE}),
        ({"launch_security": "sev-snp"}, None, {**HASWELL, "kubevirt.io/sev": TRUE, "kubevirt.io/sev-snp": TRUE}),
        ({"launch_security": "tdx"}, None, {**HASWELL, "kubevirt.io/tdx": TRUE}),
        (
            {"features": (("avx", "require"), ("sse", ""), ("vmx", "optional"), ("svm", "forbid"))},
            None,
            {**HASWELL, "cpu-feature.node.kubevirt.io/avx": TRUE, "cpu-feature.node.kubevirt.io/sse": TRUE},
        ),
        ({"cpu_model": "", "features": (("avx", "require"),)}, None, {**FIRST, **INTEL}),
        ({"hyperv": ("vpindex", "relaxed")}, None, HASWELL),
        ({"hyperv": ("vpindex", "relaxed")}, STRICT, {**HASWELL, "hyperv.node.kubevirt.io/vpindex": TRUE}),
        ({"node_selector": FrozenMap({"tier": "gold"})}, None, {**HASWELL, "tier": "gold"}),
        (
            {"node_selector": FrozenMap({"tier": "gold"})},
            KubeVirt(node_selectors=FrozenMap({"tier": "lead", "pool": "vms"}), version="v1.9.0"),
            {**HASWELL, "tier": "gold", "pool": "vms"},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) and value and "tier" not in value else None,
)
def test_node_selector(spec: dict[str, Any], kubevirt: KubeVirt | None, selector: dict[str, str]) -> None:
    assert rendered(vm(**spec), kubevirt).spec.node_selector == selector


@pytest.mark.parametrize(
    ("version", "guarded"),
    [
        ("v1.9.0", True),
        ("v1.8.0", True),
        ("v1.7.1", True),
        ("v1.7.0", False),
        ("v1.6.4", True),
        ("v1.6.3", False),
        ("v1.5.9", False),
        ("v2.0.0-rc.1", True),
        ("", True),
        ("devel", True),
    ],
)
def test_the_cpu_vendor_is_kept_since_the_release_that_keeps_it(version: str, guarded: bool) -> None:
    selector = rendered(vm(), KubeVirt(version=version)).spec.node_selector
    assert ("cpu-vendor.node.kubevirt.io/Intel" in selector) == guarded


def test_the_vms_own_vendor_is_not_overruled() -> None:
    selector = rendered(vm(node_selector=FrozenMap({"cpu-vendor.node.kubevirt.io/AMD": TRUE}))).spec.node_selector
    assert "cpu-vendor.node.kubevirt.io/Intel" not in selector


def test_what_a_host_model_vm_was_tied_to_first_stays_for_life() -> None:
    one = vm(cpu_model="host-model")
    first = {"cpu-model-migration.node.kubevirt.io/Broadwell": TRUE, HOSTNAME: "n0", "tier": "gone"}
    source = launcher(one, spec=PodSpec(node_selector=FrozenMap(first)))
    selector = rendered(one, source=source).spec.node_selector
    assert selector == {**FIRST, **INTEL, "cpu-model-migration.node.kubevirt.io/Broadwell": TRUE}


def test_a_host_model_vm_brings_the_features_of_its_node_along() -> None:
    here = node("n1", labels={"host-model-required-features.node.kubevirt.io/vmx": TRUE})
    selector = rendered(vm(cpu_model="host-model"), on=here).spec.node_selector
    assert selector == {**FIRST, **INTEL, **SKYLAKE, "cpu-feature.node.kubevirt.io/vmx": TRUE}


def test_a_required_feature_hides_the_host_model() -> None:
    """KubeVirt takes the feature's selector for a sign that the VM has migrated before."""
    one = vm(cpu_model="host-model", features=(("avx", "require"),))
    source = launcher(one, spec=PodSpec(node_selector=FrozenMap({"cpu-feature.node.kubevirt.io/avx": TRUE})))
    assert rendered(one, source=source).spec.node_selector.keys().isdisjoint(SKYLAKE)


def test_a_clock_that_must_not_change_selects_its_frequency() -> None:
    label = "scheduling.node.kubevirt.io/tsc-frequency-2593905000"
    for spec, wanted in (
        ({"features": (("invtsc", "require"),)}, True),
        ({"hyperv": ("reenlightenment",)}, True),
        ({"features": (("invtsc", "optional"),)}, False),
        ({}, False),
    ):
        one = vmi("db", on="n1", spec=spec, tsc_frequency=2_593_905_000)
        assert (label in rendered(one).spec.node_selector) == wanted, spec


def test_affinity_avoids_lost_cpu_models_forbidden_features_and_its_own_source() -> None:
    own = required_nodes(node_term("zone=a"), node_term("zone=b"))
    one = vmi("db", on="n1", affinity=own, apart_from={"app": "db"}, spec={"features": (("svm", "forbid"),)})
    affinity = rendered(one).spec.affinity
    without = (OBSOLETE, "!cpu-feature.node.kubevirt.io/svm")
    assert (
        affinity.node_required
        == required_nodes(node_term("zone=a", *without), node_term("zone=b", *without)).node_required
    )
    assert affinity.anti_required == (term({"app": "db"}), term({"kubevirt.io/created-by": one.uid}))


def test_a_named_cpu_model_needs_no_host_model() -> None:
    assert rendered(vm()).spec.affinity.node_required is None


def test_the_api_server_merges_label_keys_and_adds_its_tolerations() -> None:
    keyed = term({"app": "db"}, match_label_keys=("ver", "missing"), mismatch_label_keys=("tenant",))
    constraint = spread({"app": "db"}, match_label_keys=("ver", "missing"))
    one = vmi(
        "db",
        on="n1",
        labels={"ver": "2", "tenant": "t"},
        affinity=Affinity(anti_required=(keyed,)),
        spread_by=(constraint,),
    )
    pod = rendered(one)
    assert pod.spec.spread == (replace(constraint, selector=labels_selector({"app": "db", "ver": "2"})),)
    selector = pod.spec.affinity.anti_required[0].selector
    assert selector is not None
    assert [(r.key, r.operator, r.values) for r in selector.requirements] == [
        ("app", "In", ("db",)),
        ("ver", "In", ("2",)),
        ("tenant", "NotIn", ("t",)),
    ]
    assert pod.spec.tolerations == (
        Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
        Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
    )
    everything = (Toleration(operator="Exists"),)
    assert rendered(vm(tolerations=everything)).spec.tolerations == everything


@pytest.mark.parametrize(
    ("spec", "cpu_milli"),
    [
        ({"cpu_requests_milli": 1000}, 2005),  # what the pod has counts where the VM asks for less
        ({"cpu_requests_milli": 3000}, 3000),
        ({"cpu_requests_milli": None, "cores": 4}, 2005),  # a tenth of a CPU for each virtual one
        ({"cpu_requests_milli": None, "cores": 32}, 3200),
        ({"cpu_requests_milli": None, "cores": 32, "cpu_limits_milli": 2500}, 2500),
        ({"dedicated_cpu": True, "cores": 4}, 4000),
        ({"dedicated_cpu": True, "cores": 4, "io_threads": 2, "isolate_emulator_thread": True}, 7000),
    ],
)
def test_requests_are_the_source_pods_or_what_the_vm_has_come_to_ask_for(spec: dict[str, Any], cpu_milli: int) -> None:
    one = vm(**spec)
    devices = (("devices.kubevirt.io/kvm", 1),)
    there = PodSpec(requests=Resources(cpu_milli=2005, memory_bytes=7, storage_bytes=8, scalars=devices))
    assert rendered(one, source=launcher(one, spec=there)).spec.requests == Resources(
        cpu_milli=cpu_milli, memory_bytes=7, storage_bytes=8, scalars=devices
    )


def test_labels_and_owner() -> None:
    name = "a-rather-long-name-for-a-virtual-machine-that-no-label-could-hold.example"
    one = vmi(name, on="n1", labels={"app": "db"})
    pod = rendered(one, source=launcher(one, labels=FrozenMap({"vm.kubevirt.io/name": "host"})))
    assert pod.owner == ("VirtualMachineInstance", name, one.uid)
    assert (pod.node, pod.uid) == ("", f"target:{one.uid}")
    assert pod.labels == {
        "app": "db",
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": one.uid,
        "vm.kubevirt.io/name": "host",
        "vmi.kubevirt.io/id": "a-rather-long-name-for-a-virtual-machine-that-no-label-bf4f44df",
    }


def test_volumes_come_from_the_vm() -> None:
    assert [volume.claim for volume in rendered(vm(volume_claims=("disk", "hot"))).spec.volumes] == ["disk", "hot"]


def test_where_kubevirt_would_fail_the_guard_says_no() -> None:
    other = node("n3", labels={"host-model-cpu.node.kubevirt.io/Cascadelake-Server": TRUE})
    nodes = (node("n1"), node("n2"), other, node("n4", ready=False), node("n5", capacity_known=False))
    one = vm(cpu_model="host-passthrough")
    snapshot = cluster(*nodes, one)
    state = ClusterState.of(snapshot)
    pod = rendered(one)
    found = survey(state, pod, target_guard(one, snapshot.nodes["n1"]))
    assert found.feasible == feasible_nodes(state, pod, target_guard(one, snapshot.nodes["n1"])) == ("n2",)
    assert found.counted() == (
        "1 node(s) didn't match pod anti-affinity rules, 1 node(s) had an unreadable capacity, "
        "1 node(s) had another CPU than the host-passthrough VM's, 1 node(s) were not ready"
    )


def test_a_pod_without_its_node_is_still_rendered() -> None:
    one = vm(cpu_model="host-model")
    assert target_pod(one, launcher(one), None, KubeVirt()).spec.node_selector == FIRST
