"""How virt-controller renders a virt-launcher pod, at a VM's start and as a migration's target.

The pod follows from the VMI's spec every time anew (KubeVirt: pkg/virt-controller/services/template.go,
nodeselectorrenderer.go, renderresources.go); of a migration's source pod only the host model's selectors are kept.
"""

from __future__ import annotations

from rebalancer.domain.quantity import value
from rebalancer.sim.objects import CREATED_BY, HOSTNAME, JOB_NAME, JOB_UID, Obj, annotations_of, labels_of, status

MIB = 2**20
OBSOLETE_HOST_MODEL = "node-labeller.kubevirt.io/obsolete-host-model"
CPU_FEATURE = "cpu-feature.node.kubevirt.io/"
CPU_MODEL = "cpu-model.node.kubevirt.io/"
CPU_MODEL_MIGRATION = "cpu-model-migration.node.kubevirt.io/"
CPU_VENDOR = "cpu-vendor.node.kubevirt.io/"
HOST_MODEL = "host-model-cpu.node.kubevirt.io/"
HOST_MODEL_FEATURES = "host-model-required-features.node.kubevirt.io/"
MACHINE_TYPE = "machine-type.node.kubevirt.io/"
NOT_INHERITED = ("kubectl.kubernetes.io", "kubevirt.io/latest-observed-api-version",
                 "kubevirt.io/storage-observed-api-version")  # fmt: skip


class HostModelError(Exception):
    """The node of a host-model VM does not say what its host model is, so no target can be rendered."""


def _domain(vmi: Obj) -> Obj:
    found: Obj = vmi["spec"].get("domain") or {}
    return found


def vcpus(vmi: Obj) -> int:
    """Cores times sockets times threads, zero counting as one."""
    cpu = _domain(vmi).get("cpu") or {}
    return max(cpu.get("cores") or 1, 1) * max(cpu.get("sockets") or 1, 1) * max(cpu.get("threads") or 1, 1)


def overhead_bytes(vmi: Obj, memory: int) -> int:
    """What QEMU, libvirt and the launcher need beside the guest's memory."""
    reported = (status(vmi).get("memory") or {}).get("memoryOverhead")
    return value(reported) if reported else memory // 512 + (280 + 8 * vcpus(vmi)) * MIB


def _requests(vmi: Obj, kubevirt: Obj | None) -> Obj:
    domain = _domain(vmi)
    asked = (domain.get("resources") or {}).get("requests") or {}
    limits = (domain.get("resources") or {}).get("limits") or {}
    developer = ((kubevirt or {}).get("spec", {}).get("configuration") or {}).get("developerConfiguration") or {}
    ratio = developer.get("cpuAllocationRatio") or 10
    if (domain.get("cpu") or {}).get("dedicatedCpuPlacement"):
        cpu = str(vcpus(vmi))
    else:
        cpu = asked.get("cpu") or limits.get("cpu") or f"{-(-vcpus(vmi) * 1000 // ratio)}m"
    guest = value(asked.get("memory") or (domain.get("memory") or {}).get("guest"))
    return {"cpu": cpu, "memory": str(guest + overhead_bytes(vmi, guest)), "ephemeral-storage": "50M"}


def _containers(vmi: Obj, kubevirt: Obj | None) -> tuple[list[Obj], list[Obj]]:
    devices = {"devices.kubevirt.io/kvm": "1", "devices.kubevirt.io/tun": "1"}
    requests = _requests(vmi, kubevirt)
    dedicated = (_domain(vmi).get("cpu") or {}).get("dedicatedCpuPlacement")
    limits = devices | ({"cpu": requests["cpu"], "memory": requests["memory"]} if dedicated else {})
    compute = {
        "name": "compute",
        "image": "virt-launcher:v1.9",
        "resources": {"requests": requests | devices, "limits": limits},
    }
    log = {
        "name": "guest-console-log",
        "image": "virt-launcher:v1.9",
        "restartPolicy": "Always",
        "resources": {
            "requests": {"cpu": "15m" if dedicated else "5m", "memory": "35M"},
            "limits": {"cpu": "15m", "memory": "60M"},
        },
    }
    return [compute], [log]


def _cpu_selector(vmi: Obj) -> dict[str, str]:
    cpu = _domain(vmi).get("cpu") or {}
    selector = {}
    model = cpu.get("model") or ""
    if model and model not in ("host-model", "host-passthrough"):
        selector[f"{CPU_MODEL}{model}"] = "true"
    if model:
        for feature in cpu.get("features") or ():
            if feature.get("policy", "") in ("", "require"):
                selector[f"{CPU_FEATURE}{feature['name']}"] = "true"
    if cpu.get("dedicatedCpuPlacement"):
        selector["kubevirt.io/cpumanager"] = "true"
    return selector


def node_selector(vmi: Obj, kubevirt: Obj | None) -> dict[str, str]:
    """The selector that every launcher pod of this VMI carries."""
    selector = {"kubevirt.io/schedulable": "true"}
    architecture = vmi["spec"].get("architecture")
    if architecture:
        selector["kubernetes.io/arch"] = architecture.lower()
    configuration = (kubevirt or {}).get("spec", {}).get("configuration") or {}
    selector |= (configuration.get("developerConfiguration") or {}).get("nodeSelectors") or {}
    selector |= vmi["spec"].get("nodeSelector") or {}
    selector |= _cpu_selector(vmi)
    machine = (status(vmi).get("machine") or _domain(vmi).get("machine") or {}).get("type")
    if machine:
        selector[f"{MACHINE_TYPE}{machine}"] = "true"
    return selector


def _node_requirements(vmi: Obj) -> list[Obj]:
    cpu = _domain(vmi).get("cpu") or {}
    found = []
    if (cpu.get("model") or "") in ("", "host-model"):
        found.append({"key": OBSOLETE_HOST_MODEL, "operator": "DoesNotExist"})
    for feature in cpu.get("features") or ():
        if feature.get("policy") == "forbid":
            found.append({"key": f"{CPU_FEATURE}{feature['name']}", "operator": "DoesNotExist"})
    return found


def _affinity(vmi: Obj) -> Obj:
    """The VMI's own affinity with KubeVirt's requirements on the node added to every term."""
    affinity: Obj = dict(vmi["spec"].get("affinity") or {})
    added = _node_requirements(vmi)
    if not added:
        return affinity
    node: Obj = dict(affinity.get("nodeAffinity") or {})
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or [{}]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [
            term | {"matchExpressions": [*(term.get("matchExpressions") or ()), *added]} for term in terms
        ]
    }
    return affinity | {"nodeAffinity": node}


def render(vmi: Obj, kubevirt: Obj | None) -> Obj:
    """The launcher pod of a VMI, not yet created."""
    meta, spec = vmi["metadata"], vmi["spec"]
    containers, sidecars = _containers(vmi, kubevirt)
    notes = {key: text for key, text in annotations_of(vmi).items() if not key.startswith(NOT_INHERITED)}
    pod_spec: Obj = {
        "containers": containers,
        "initContainers": sidecars,
        "restartPolicy": "Never",
        "schedulerName": spec.get("schedulerName") or "default-scheduler",
        "nodeSelector": node_selector(vmi, kubevirt),
        "tolerations": list(spec.get("tolerations") or ()),
        "terminationGracePeriodSeconds": (spec.get("terminationGracePeriodSeconds") or 180) + 30,
        "readinessGates": [{"conditionType": "kubevirt.io/virtual-machine-unpaused"}],
    }
    for field, found in (
        ("affinity", _affinity(vmi)),
        ("topologySpreadConstraints", spec.get("topologySpreadConstraints")),
        ("priorityClassName", spec.get("priorityClassName")),
    ):
        if found:
            pod_spec[field] = found
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"virt-launcher-{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": labels_of(vmi)
            | {
                "kubevirt.io": "virt-launcher",
                CREATED_BY: meta["uid"],
                "vm.kubevirt.io/name": meta["name"][:63],
                "vmi.kubevirt.io/id": meta["name"][:63],
            },
            "annotations": notes
            | {
                "kubevirt.io/domain": meta["name"],
                "descheduler.alpha.kubernetes.io/request-evict-only": "",
                "kubevirt.io/migrationTransportUnix": "true",
            },
            "ownerReferences": [
                {
                    "apiVersion": "kubevirt.io/v1",
                    "kind": "VirtualMachineInstance",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": pod_spec,
    }


def _host_model_selector(selector: dict[str, str], source_pod: Obj, source_node: Obj) -> dict[str, str]:
    """Where the guest's CPU can run: the selectors of its first move stay for ever, the first time its node tells."""
    kept = {
        key: text
        for key, text in (source_pod["spec"].get("nodeSelector") or {}).items()
        if CPU_FEATURE in key or CPU_MODEL_MIGRATION in key
    }
    if kept:
        return selector | kept
    found = {}
    for key, text in labels_of(source_node).items():
        if key.startswith(HOST_MODEL):
            found[CPU_MODEL_MIGRATION + key.removeprefix(HOST_MODEL)] = text
        elif key.startswith(HOST_MODEL_FEATURES):
            found[CPU_FEATURE + key.removeprefix(HOST_MODEL_FEATURES)] = text
    if not any(key.startswith(CPU_MODEL_MIGRATION) for key in found):
        raise HostModelError(f"node {source_node['metadata']['name']} does not have any host model label")
    return selector | found


def render_target(vmi: Obj, migration: Obj, source_pod: Obj, source_node: Obj, kubevirt: Obj | None) -> Obj:
    """The target pod of a migration. Raises HostModelError."""
    pod = render(vmi, kubevirt)
    selector = (migration["spec"].get("addedNodeSelector") or {}) | pod["spec"]["nodeSelector"]
    if (_domain(vmi).get("cpu") or {}).get("model") == "host-model":
        selector = _host_model_selector(selector, source_pod, source_node)
    if not any(key.startswith(CPU_VENDOR) for key in selector):
        selector |= {key: "true" for key in sorted(labels_of(source_node)) if key.startswith(CPU_VENDOR)}
    pod["spec"]["nodeSelector"] = selector
    affinity: Obj = dict(pod["spec"].get("affinity") or {})
    anti: Obj = dict(affinity.get("podAntiAffinity") or {})
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    own = {"labelSelector": {"matchLabels": {CREATED_BY: vmi["metadata"]["uid"]}}, "topologyKey": HOSTNAME}
    anti[field] = [*(anti.get(field) or ()), own]
    pod["spec"]["affinity"] = affinity | {"podAntiAffinity": anti}
    pod["metadata"]["labels"][JOB_UID] = migration["metadata"]["uid"]
    pod["metadata"]["annotations"][JOB_NAME] = migration["metadata"]["name"]
    return pod
