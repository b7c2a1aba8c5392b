"""Nodes, VMs and migrations as tests write them."""

from __future__ import annotations

from controlplane.kubeclient import Object

MIGRATIONS = "/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstancemigrations"
INSTANCES = "/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"
CPU_MODEL = "Skylake-Server"


def node(name: str, *, cpu: str = "16", memory: str = "64Gi", labels: dict[str, str] | None = None) -> Object:
    """A node with the labels and devices that KubeVirt's node labeller and device plugins give it."""
    given = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubevirt.io/schedulable": "true",
        "cpumanager": "false",
        "cpu-vendor.node.kubevirt.io/Intel": "true",
        f"cpu-model.node.kubevirt.io/{CPU_MODEL}": "true",
        f"cpu-model-migration.node.kubevirt.io/{CPU_MODEL}": "true",
        f"host-model-cpu.node.kubevirt.io/{CPU_MODEL}": "true",
        "machine-type.node.kubevirt.io/q35": "true",
        "node-role.kubernetes.io/worker": "",
    } | (labels or {})
    capacity = {"cpu": cpu, "memory": memory, "pods": "250", "ephemeral-storage": "200Gi"} | {
        f"devices.kubevirt.io/{device}": "1000" for device in ("kvm", "tun", "vhost-net")
    }
    conditions = [
        {"type": kind, "status": "True" if kind == "Ready" else "False", "reason": "Test", "message": ""}
        for kind in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    return {
        "metadata": {"name": name, "labels": given},
        "spec": {},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": conditions},
    }


def vmi(name: str, *, cpu: str = "1", memory: str = "1Gi", namespace: str = "default", **spec: object) -> Object:
    """A VMI that may be live-migrated; further fields of its spec are keyword arguments."""
    domain = {"devices": {}, "memory": {"guest": memory}, "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "domain": domain,
            "evictionStrategy": "LiveMigrate",
            "terminationGracePeriodSeconds": 0,
            "architecture": "amd64",
            **spec,
        },
    }


def migration(name: str, *, instance: str, target: str, namespace: str = "default") -> Object:
    """A migration directed at the node whose hostname label is `target`."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"vmiName": instance, "addedNodeSelector": {"kubernetes.io/hostname": target}},
    }


def path(resource: Object) -> str:
    """Where the API keeps a VMI or a migration."""
    collections = {"VirtualMachineInstance": INSTANCES, "VirtualMachineInstanceMigration": MIGRATIONS}
    metadata: dict[str, str] = resource["metadata"]
    return f"{collections[resource['kind']].format(namespace=metadata['namespace'])}/{metadata['name']}"
