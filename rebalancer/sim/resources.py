"""The API resources that the simulated server knows."""

from __future__ import annotations

from dataclasses import dataclass

KUBEVIRT = "kubevirt.io"
VMIS = "virtualmachineinstances"
MIGRATIONS = "virtualmachineinstancemigrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource. `status` tells whether the API has a status subresource for it (a VMI has none).

    `storage` is the key in the store: Events of both groups are one kind of object.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def storage(self) -> str:
        return self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def builtin(self) -> bool:
        """False for custom resources, whose status is dropped at creation when they have the subresource."""
        return not self.group.endswith("kubevirt.io")

    def path(self, namespace: str = "", name: str = "") -> str:
        """The request path of the collection, or of one object."""
        parts = [self.prefix]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        return "/".join(parts)


_PHASE = ("Phase", ".status.phase")
_NODE = ("Node", ".status.nodeName")

RESOURCES = (
    Resource(group="", version="v1", plural="nodes", kind="Node", namespaced=False, short_names=("no",)),
    Resource(
        group="",
        version="v1",
        plural="pods",
        kind="Pod",
        short_names=("po",),
        subresources=("eviction",),
        columns=(("Status", ".status.phase"), ("Node", ".spec.nodeName")),
    ),
    Resource(group="", version="v1", plural="namespaces", kind="Namespace", namespaced=False, short_names=("ns",)),
    Resource(group="", version="v1", plural="events", kind="Event", status=False, short_names=("ev",)),
    Resource(group="", version="v1", plural="persistentvolumes", kind="PersistentVolume", namespaced=False,
             short_names=("pv",)),
    Resource(group="", version="v1", plural="persistentvolumeclaims", kind="PersistentVolumeClaim",
             short_names=("pvc",)),
    Resource(group="", version="v1", plural="resourcequotas", kind="ResourceQuota", short_names=("quota",)),
    Resource(group="", version="v1", plural="configmaps", kind="ConfigMap", status=False, short_names=("cm",)),
    Resource(group="events.k8s.io", version="v1", plural="events", kind="Event", status=False, short_names=("ev",)),
    Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", status=False),
    Resource(group="storage.k8s.io", version="v1", plural="csinodes", kind="CSINode", namespaced=False, status=False),
    Resource(group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget",
             short_names=("pdb",)),
    Resource(group="scheduling.k8s.io", version="v1", plural="priorityclasses", kind="PriorityClass",
             namespaced=False, status=False, short_names=("pc",)),
    Resource(group=KUBEVIRT, version="v1", plural=VMIS, kind="VirtualMachineInstance", status=False,
             short_names=("vmi", "vmis"), columns=(_PHASE, _NODE)),
    Resource(group=KUBEVIRT, version="v1", plural="virtualmachines", kind="VirtualMachine",
             short_names=("vm", "vms")),
    Resource(group=KUBEVIRT, version="v1", plural=MIGRATIONS, kind="VirtualMachineInstanceMigration",
             short_names=("vmim", "vmims"), columns=(_PHASE, ("VMI", ".spec.vmiName"))),
    Resource(group=KUBEVIRT, version="v1", plural="kubevirts", kind="KubeVirt", short_names=("kv", "kvs"),
             columns=(_PHASE,)),
    Resource(group="migrations.kubevirt.io", version="v1alpha1", plural="migrationpolicies", kind="MigrationPolicy",
             namespaced=False, status=False),
)  # fmt: skip

BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
BY_KIND = {(resource.api_version, resource.kind): resource for resource in RESOURCES}
BY_STORAGE: dict[str, Resource] = {}
for _resource in RESOURCES:
    BY_STORAGE.setdefault(_resource.storage, _resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request path names. `name` is "" for a collection, `namespace` "" for all namespaces."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> Target | None:
    """The target of a request path, None where it names no resource of ours."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and (group, version, rest[2]) in BY_PATH:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((group, version, rest[0])) if rest else None
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    return Target(resource=resource, namespace=namespace, name=name, subresource=rest[2] if len(rest) > 2 else "")
