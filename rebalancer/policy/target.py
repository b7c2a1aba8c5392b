"""The target pod of a VM's next migration, as KubeVirt's virt-controller will render it.

Sources in KubeVirt: pkg/virt-controller/services (template.go, nodeselectorrenderer.go) and
pkg/virt-controller/watch/migration/migration.go (createTargetPod); line by line in the order of that code. What the API
server's default admission adds to the pod is added too. Read at v1.9.0, and seen equal to what v1.8.3 makes of 84 VMs
(tests/controlplane/test_targets.py); releases differ in the CPU vendor's selector, see VENDOR_GUARD_BACKPORTS. Not
foreseen, as they are alpha: CrossArchitectureVirtualization, and the anti-affinity of SCSI persistent reservations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap, Labels
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.pod import (
    Affinity,
    Pod,
    PodAffinityTerm,
    PodSpec,
    PodVolume,
    Toleration,
    TopologySpreadConstraint,
)
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import LabelSelector, NodeSelector, NodeSelectorTerm, Requirement
from rebalancer.domain.verdict import Rejection
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import VMI_KIND
from rebalancer.policy.feasibility import KUBEVIRT, receiver_guard
from rebalancer.policy.node_table import Mask, NodeTable

CREATED_BY: Final = "kubevirt.io/created-by"
HOST_MODEL: Final = "host-model"
HOST_PASSTHROUGH: Final = "host-passthrough"
CPU_MODEL: Final = "cpu-model.node.kubevirt.io/"
CPU_FEATURE: Final = "cpu-feature.node.kubevirt.io/"
CPU_VENDOR: Final = "cpu-vendor.node.kubevirt.io/"
CPU_MODEL_MIGRATION: Final = "cpu-model-migration.node.kubevirt.io/"
HOST_MODEL_CPU: Final = "host-model-cpu.node.kubevirt.io/"
HOST_MODEL_FEATURES: Final = "host-model-required-features.node.kubevirt.io/"
OBSOLETE_HOST_MODEL: Final = "node-labeller.kubevirt.io/obsolete-host-model"
HYPERV_LABELS: Final = frozenset(
    ("vpindex", "runtime", "reset", "synic", "synictimer", "frequencies", "reenlightenment", "tlbflush", "ipi")
)
MAX_LABEL: Final = 63
VENDOR_GUARD_BACKPORTS: Final = {(1, 6): 4, (1, 7): 1}
"""The guard came with v1.8.0; older minors have it from these patch releases on."""


def target_pod(vmi: VMI, source: Pod, source_node: Node | None, kubevirt: KubeVirt) -> Pod:
    """The pod, not bound yet, that will take over from `source`.

    Everything comes from the VMI, but for two things: the effective requests, and the selectors that tie a host-model
    VM to the CPU it was started on. `source_node` None leaves out what its labels would add.
    """
    labels = _labels(vmi, source)
    spec = vmi.spec
    return Pod(
        namespace=vmi.namespace,
        name=f"virt-launcher-{vmi.name}",
        uid=f"target:{vmi.uid}",
        labels=labels,
        annotations=vmi.annotations,
        spec=PodSpec(
            requests=target_requests(vmi, source, kubevirt),
            node_selector=FrozenMap(node_selector(vmi, source, source_node, kubevirt)),
            affinity=_admitted(_affinity(vmi), labels),
            tolerations=_tolerations(spec.tolerations),
            spread=tuple(_spread_merged(constraint, labels) for constraint in spec.spread),
            volumes=tuple(PodVolume(name=claim, claim=claim) for claim in spec.volume_claims),
            resource_claims=source.spec.resource_claims,
            scheduler_name=spec.scheduler_name or "default-scheduler",
            priority_class_name=spec.priority_class_name,
            required_features=source.spec.required_features,
        ),
        owner=(VMI_KIND, vmi.name, vmi.uid),
    )


@dataclass(frozen=True, slots=True)
class TargetGuard:
    """A guard for a VM that runs on the node `home`; with `cpu`, for one that needs a node of these host models."""

    home: str
    cpu: frozenset[str] | None = None

    def __call__(self, node: Node) -> Rejection | None:
        return _ITS_OWN_NODE if node.name == self.home else self._of_others(node)

    def passing(self, table: NodeTable) -> Mask:
        """The answer about all other nodes is shared by VMs of one kind."""

        def answer() -> Mask:
            return np.array([self._of_others(node) is None for node in table.nodes], dtype=np.bool_)

        found = table.remember(("guard", self.cpu), answer, passing=True)
        position = table.positions.get(self.home)
        if position is None:
            return found
        found = found.copy()
        found[position] = False
        return found

    def _of_others(self, node: Node) -> Rejection | None:
        # Nothing ties a host-passthrough VM to its CPU, and the guest finds out when libvirt refuses it.
        if self.cpu is not None and _host_models(node) != self.cpu:
            return _OTHER_CPU
        return receiver_guard(node)


def target_guard(vmi: VMI, source_node: Node | None) -> TargetGuard:
    """What KubeVirt and we hold against a node that the scheduler would accept for a VM's target pod."""
    if source_node is None or vmi.spec.cpu_model != HOST_PASSTHROUGH:
        return TargetGuard(vmi.node)
    return TargetGuard(vmi.node, _host_models(source_node))


_ITS_OWN_NODE = Rejection(plugin=KUBEVIRT, reasons=("node(s) ran the VM already",), unresolvable=True)
_OTHER_CPU = Rejection(
    plugin=KUBEVIRT, reasons=("node(s) had another CPU than the host-passthrough VM's",), unresolvable=True
)


def _host_models(node: Node) -> frozenset[str]:
    return frozenset(key for key in node.labels if key.startswith(HOST_MODEL_CPU))


def node_selector(vmi: VMI, source: Pod, source_node: Node | None, kubevirt: KubeVirt) -> dict[str, str]:
    """The target pod's node selector, but for what a directed migration adds.

    A key of the VM wins over an added one, so a VM that selects a hostname is pinned to it.
    """
    spec = vmi.spec
    keys = {"kubevirt.io/schedulable": "true"}
    if spec.architecture:
        keys["kubernetes.io/arch"] = spec.architecture.lower()
    keys |= kubevirt.node_selectors
    keys |= spec.node_selector
    keys |= dict.fromkeys(_required_labels(vmi, kubevirt), "true")
    if spec.cpu_model == HOST_MODEL:
        keys |= _host_model_selector(source, source_node)
    if source_node is not None and _guards_vendor(kubevirt.version) and not _vendor(keys):
        keys |= dict.fromkeys(_vendor(source_node.labels), "true")
    return keys


def _required_labels(vmi: VMI, kubevirt: KubeVirt) -> list[str]:
    """The labels that must be "true" on the node (NodeSelectorRenderer.Render)."""
    spec = vmi.spec
    labels = ["kubevirt.io/cpumanager"] if spec.dedicated_cpu else []
    if "HypervStrictCheck" in kubevirt.feature_gates:
        labels += [f"hyperv.node.kubevirt.io/{name}" for name in spec.hyperv if name in HYPERV_LABELS]
        labels += [f"{CPU_VENDOR}Intel"] if "evmcs" in spec.hyperv else []
    if spec.cpu_model:
        if spec.cpu_model not in (HOST_MODEL, HOST_PASSTHROUGH):
            labels.append(f"{CPU_MODEL}{spec.cpu_model}")
        labels += [f"{CPU_FEATURE}{name}" for name, policy in spec.features if policy in ("", "require")]
    machine = vmi.machine_type or spec.machine_type
    labels += [f"machine-type.node.kubevirt.io/{machine}"] if machine else []
    invariant_clock = any(name == "invtsc" and policy in ("require", "force") for name, policy in spec.features)
    if vmi.tsc_frequency and (invariant_clock or "reenlightenment" in spec.hyperv):
        labels.append(f"scheduling.node.kubevirt.io/tsc-frequency-{vmi.tsc_frequency}")
    labels += ["kubevirt.io/realtime"] if spec.realtime else []
    if spec.launch_security in ("sev-es", "sev-snp"):  # kinds of sev, which ask for both
        labels.append("kubevirt.io/sev")
    labels += [f"kubevirt.io/{spec.launch_security}"] if spec.launch_security else []
    return labels


def _host_model_selector(source: Pod, source_node: Node | None) -> dict[str, str]:
    """What ties a host-model VM to CPUs like the first one it ran on (prepareNodeSelectorForHostCpuModel).

    Selectors of the source pod are kept for life. A VM that requires a CPU feature has such a selector from the start,
    so KubeVirt takes it for one that has migrated before and adds nothing of its node: so do we.
    """
    kept = {
        key: value
        for key, value in source.spec.node_selector.items()
        if CPU_FEATURE in key or CPU_MODEL_MIGRATION in key
    }
    if kept or source_node is None:
        return kept
    found = {}
    for key, value in source_node.labels.items():
        if key.startswith(HOST_MODEL_CPU):
            found[CPU_MODEL_MIGRATION + key.removeprefix(HOST_MODEL_CPU)] = value
        elif key.startswith(HOST_MODEL_FEATURES):
            found[CPU_FEATURE + key.removeprefix(HOST_MODEL_FEATURES)] = value
    return found


def _vendor(labels: Mapping[str, str]) -> list[str]:
    """The CPU vendor's label, as a list of one or none; KubeVirt takes any, we the first by name."""
    return sorted(key for key in labels if key.startswith(CPU_VENDOR))[:1]


def _guards_vendor(version: str) -> bool:
    """Whether this KubeVirt keeps VMs on their CPU's vendor; an unknown version is taken for a new one."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return True
    major, minor, patch = (int(number) for number in match.groups())
    return (major, minor) >= (1, 8) or patch >= VENDOR_GUARD_BACKPORTS.get((major, minor), patch + 1)


def _affinity(vmi: VMI) -> Affinity:
    """The VM's affinity, without nodes that lost its CPU features, and apart from its own source pod."""
    spec = vmi.spec
    rejected = [OBSOLETE_HOST_MODEL] if spec.cpu_model in ("", HOST_MODEL) else []
    rejected += [f"{CPU_FEATURE}{name}" for name, policy in spec.features if policy == "forbid"]
    apart = PodAffinityTerm(
        selector=LabelSelector(requirements=(Requirement(key=CREATED_BY, operator="In", values=(vmi.uid,)),)),
        topology_key=HOSTNAME,
    )
    return replace(
        spec.affinity,
        node_required=_without(spec.affinity.node_required, tuple(rejected)),
        anti_required=(*spec.affinity.anti_required, apart),
    )


@lru_cache(maxsize=4096)
def _without(selector: NodeSelector | None, labels: tuple[str, ...]) -> NodeSelector | None:
    """A node selector every term of which also rejects nodes with these labels (modifyNodeAffintyToRejectLabel).

    A term that was empty, and so matched nothing, matches the nodes without these labels from then on.
    """
    if not labels:
        return selector
    added = tuple(Requirement(key=label, operator="DoesNotExist") for label in labels)
    if selector is None:
        return NodeSelector(terms=(NodeSelectorTerm(match_expressions=added),))
    terms = tuple(replace(term, match_expressions=(*term.match_expressions, *added)) for term in selector.terms)
    return NodeSelector(terms=terms)


def _admitted(affinity: Affinity, labels: Labels) -> Affinity:
    """The API server merges matchLabelKeys and mismatchLabelKeys into the selectors of a pod that is created."""
    if not any(term.match_label_keys or term.mismatch_label_keys for term in _terms(affinity)):
        return affinity
    return replace(
        affinity,
        pod_required=tuple(_merged(term, labels) for term in affinity.pod_required),
        anti_required=tuple(_merged(term, labels) for term in affinity.anti_required),
        pod_preferred=tuple((weight, _merged(term, labels)) for weight, term in affinity.pod_preferred),
        anti_preferred=tuple((weight, _merged(term, labels)) for weight, term in affinity.anti_preferred),
    )


def _terms(affinity: Affinity) -> list[PodAffinityTerm]:
    preferred = (*affinity.pod_preferred, *affinity.anti_preferred)
    return [*affinity.pod_required, *affinity.anti_required, *(term for _, term in preferred)]


def _merged(term: PodAffinityTerm, labels: Labels) -> PodAffinityTerm:
    if term.selector is None:
        return term
    added = (*_own(term.match_label_keys, "In", labels), *_own(term.mismatch_label_keys, "NotIn", labels))
    return replace(term, selector=LabelSelector(requirements=(*term.selector.requirements, *added)))


def _spread_merged(constraint: TopologySpreadConstraint, labels: Labels) -> TopologySpreadConstraint:
    """As for affinity. API servers before 1.34 leave this to the scheduler, to the same effect."""
    added = _own(constraint.match_label_keys, "In", labels)
    if constraint.selector is None or not added:
        return constraint
    return replace(constraint, selector=LabelSelector(requirements=(*constraint.selector.requirements, *added)))


def _own(keys: tuple[str, ...], operator: str, labels: Labels) -> tuple[Requirement, ...]:
    """What the pod's own labels make of matchLabelKeys (In) or mismatchLabelKeys (NotIn)."""
    return tuple(Requirement(key=key, operator=operator, values=(labels[key],)) for key in keys if key in labels)


@lru_cache(maxsize=4096)
def _tolerations(own: tuple[Toleration, ...]) -> tuple[Toleration, ...]:
    """The VM's tolerations and those that the API server gives every pod (admission: DefaultTolerationSeconds)."""
    added = [
        Toleration(key=key, operator="Exists", effect="NoExecute")
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        if not any(t.key in ("", key) and t.effect in ("", "NoExecute") for t in own)
    ]
    return (*own, *added)


def _labels(vmi: VMI, source: Pod) -> Labels:
    """The VM's labels and KubeVirt's own. The hostname's label is the source's: the VMI alone does not tell it."""
    hostname = vmi.name.split(".")[0][:MAX_LABEL]
    own = {
        "kubevirt.io": "virt-launcher",
        CREATED_BY: vmi.uid,
        "vm.kubevirt.io/name": source.labels.get("vm.kubevirt.io/name", hostname),
        "vmi.kubevirt.io/id": _identity(vmi.name),
    }
    return FrozenMap({**vmi.labels, **own})


def _identity(name: str) -> str:
    """A label value for a VM's name of any length (CalculateVirtualMachineInstanceID)."""
    if len(name) <= MAX_LABEL:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{name[: MAX_LABEL - 9]}-{digest}"


def target_requests(vmi: VMI, source: Pod, kubevirt: KubeVirt) -> Resources:
    """The source pod's effective requests, with more CPU where the VMI's spec has come to ask for more.

    The spec says what the compute container asks for; sidecars, overheads and devices only show on the pod.
    """
    spec = vmi.spec
    vcpus = spec.vcpus + spec.io_threads
    if spec.dedicated_cpu:
        asked = (vcpus + spec.isolate_emulator_thread) * 1000
    elif spec.cpu_requests_milli is not None:
        asked = spec.cpu_requests_milli
    elif spec.cpu_limits_milli is not None:
        asked = spec.cpu_limits_milli
    else:
        asked = vcpus * 1000 // max(kubevirt.cpu_allocation_ratio, 1)
    requests = source.spec.requests
    return requests if requests.cpu_milli >= asked else replace(requests, cpu_milli=asked)
