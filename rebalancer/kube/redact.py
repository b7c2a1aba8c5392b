"""What of an object goes into a dump: what we read and what explains it, named one by one, and nothing else.

A dump is sent to other people. Environment variables, commands, probes, cloud-init data, firmware, guest addresses,
managedFields and foreign annotations never get into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rebalancer.kube.reading import HEARTBEAT, kept_annotations

_Shape = dict[str, Any]
"""Names that are kept, each with the shape of what stands below; ... keeps all of it."""


def _all(*names: str) -> _Shape:
    return dict.fromkeys(names, ...)


_META = _all(
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
)
_TERMS = _all("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_CONTAINER = _all("name", "image", "resources", "ports", "restartPolicy", "restartPolicyRules")
_CONTAINER_STATUS = _all("name", "ready", "resources", "allocatedResources")
_DISK = _all("pdName", "volumeID", "iqn", "monitors", "pool", "image", "readOnly")
_VOLUME = {
    **_all("name", "persistentVolumeClaim"),
    "ephemeral": {},
    "csi": _all("driver", "readOnly"),
    "gcePersistentDisk": _DISK,
    "awsElasticBlockStore": _DISK,
    "iscsi": _DISK,
    "rbd": _DISK,
}
_POD = {
    "metadata": _META,
    "spec": {
        **_TERMS,
        **_all("nodeName", "schedulerName", "priorityClassName", "priority", "hostNetwork", "hostUsers", "overhead"),
        **_all("resources", "resourceClaims", "schedulingGates", "terminationGracePeriodSeconds"),
        "containers": _CONTAINER,
        "initContainers": _CONTAINER,
        "volumes": _VOLUME,
    },
    "status": {
        **_all("phase", "conditions", "qosClass"),
        "containerStatuses": _CONTAINER_STATUS,
        "initContainerStatuses": _CONTAINER_STATUS,
    },
}
_VMI_DOMAIN = {
    **_all("cpu", "memory", "machine", "features", "ioThreads", "ioThreadsPolicy", "resources"),
    "launchSecurity": {"sev": _all("policy"), "snp": {}, "tdx": {}},
    "devices": {"hostDevices": _all("name", "deviceName"), "gpus": _all("name", "deviceName")},
}
_VMI = {
    "metadata": _META,
    "spec": {
        **_TERMS,
        **_all("architecture", "evictionStrategy", "schedulerName", "priorityClassName", "networks", "utilityVolumes"),
        "domain": _VMI_DOMAIN,
        "volumes": _all("name", "persistentVolumeClaim", "dataVolume", "ephemeral", "memoryDump"),
    },
    "status": {
        **_all("phase", "phaseTransitionTimestamps", "nodeName", "conditions", "activePods", "evacuationNodeName"),
        **_all("migrationState", "migrationMethod", "migrationTransport", "migratedVolumes", "changedBlockTracking"),
        **_all("machine", "memory", "currentCPUTopology", "topologyHints", "qosClass", "launcherContainerImageVersion"),
    },
}
_NODE = {
    "metadata": _META,
    "spec": _all("unschedulable", "taints"),
    "status": _all("capacity", "allocatable", "conditions", "declaredFeatures", "nodeInfo"),
}
_KUBEVIRT = {
    "metadata": _META,
    "spec": {
        "configuration": {
            **_all("migrations", "evictionStrategy", "cpuModel", "cpuRequest"),
            "developerConfiguration": _all("cpuAllocationRatio", "nodeSelectors", "featureGates"),
        },
        "workloadUpdateStrategy": ...,
    },
    "status": _all("phase", "conditions", "observedKubeVirtVersion", "targetDeploymentID", "observedDeploymentID"),
}
_VOLUME_SPEC = {
    **_all("nodeAffinity", "accessModes", "storageClassName", "capacity", "volumeMode"),
    "csi": _all("driver", "volumeHandle"),
    "claimRef": _all("namespace", "name", "uid"),
}
_CLAIM_SPEC = _all("volumeName", "accessModes", "storageClassName", "resources", "volumeMode")

_SHAPES: Mapping[str, _Shape] = MappingProxyType(
    {
        "Node": _NODE,
        "Namespace": {"metadata": _META},
        "Pod": _POD,
        "VirtualMachineInstance": _VMI,
        "VirtualMachineInstanceMigration": {"metadata": _META, "spec": ..., "status": ...},
        "KubeVirt": _KUBEVIRT,
        "PersistentVolume": {"metadata": _META, "spec": _VOLUME_SPEC},
        "PersistentVolumeClaim": {"metadata": _META, "spec": _CLAIM_SPEC},
        "CSINode": {"metadata": _META, "spec": ...},
    }
)


def redacted(found: Mapping[str, Any]) -> dict[str, Any]:
    """The object with what its kind's shape names; of a kind that we do not read only kind and name."""
    kind = found.get("kind")
    shape = _SHAPES.get(kind, {"metadata": _all("name", "namespace")}) if isinstance(kind, str) else {}
    result: dict[str, Any] = _kept(found, {**_all("apiVersion", "kind"), **shape})
    meta = result.get("metadata")
    if isinstance(meta, dict) and isinstance(meta.get("annotations"), dict):
        texts = {key: text for key, text in meta["annotations"].items() if isinstance(text, str)}
        beats = {key: text for key, text in texts.items() if key == HEARTBEAT}
        meta["annotations"] = {**kept_annotations(texts), **beats}
    return result


def _kept(value: Any, shape: Any) -> Any:
    if shape is ... or value is None:
        return value
    if isinstance(value, Mapping):
        return {name: _kept(value[name], inner) for name, inner in shape.items() if name in value}
    if isinstance(value, list):
        return [_kept(item, shape) for item in value]
    return None
