"""From many objects to one Snapshot: sorted whatever the order of input, and checked against each other."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from statistics import median_high
from typing import Any

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.reading import plain

NODE = "Node"
POD = "Pod"
VMI_KIND = "VirtualMachineInstance"
MIGRATION = "VirtualMachineInstanceMigration"
KUBEVIRT = "KubeVirt"
HEARTBEAT_SECONDS = 300.0
"""After which virt-controller takes virt-handler for lost (pkg/virt-controller/watch: nodeUnresponsiveTimeout)."""


def build_snapshot(
    objects: Mapping[str, Iterable[Any]],
    set_aside: Iterable[SetAside] = (),
    *,
    resource_version: str = "",
    taken: float = 0.0,
) -> Snapshot:
    """The domain values of each kind as a Snapshot; `taken` in seconds since 1970."""
    builder = SnapshotBuilder()
    for kind, values in objects.items():
        for value in values:
            builder.add(kind, value)
    for entry in set_aside:
        builder.put_aside(entry)
    return builder.build(resource_version=resource_version, taken=taken)


class SnapshotBuilder:
    """Collects objects in any order. Of two different ones with the same key the newer counts, with a warning."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self._set_aside: set[SetAside] = set()

    def add(self, kind: str, value: Any, resource_version: str = "") -> None:
        """One domain value of a kind."""
        key = _key(kind, value)
        found = self._found.setdefault(kind, {})
        known = found.get(key)
        if known is None:
            found[key] = value
            self._versions[kind, key] = resource_version
            return
        version = self._versions[kind, key]
        if known != value:
            self.put_aside(SetAside(kind=kind, name=key, reason="stands twice in the input; the newer one counts"))
        if _rank(value, resource_version) > _rank(known, version):
            found[key] = value
            self._versions[kind, key] = resource_version

    def put_aside(self, entry: SetAside) -> None:
        """A warning of the decoder."""
        self._set_aside.add(entry)

    def build(self, *, resource_version: str = "", taken: float = 0.0) -> Snapshot:
        """Everything that was added."""
        vmis, twins = without_twins(self._sorted(VMI_KIND))
        pods: FrozenMap[str, Pod] = self._sorted(POD)
        nodes, blurred = without_blurred(self._sorted(NODE), pods)
        migrations: FrozenMap[str, Migration] = self._sorted(MIGRATION)
        launched = {pod.owner[2] for pod in pods.values() if pod.owner[0] == VMI_KIND and not pod.terminal}
        warnings = {*self._set_aside, *twins, *blurred}
        warnings |= {warning for pod in pods.values() if (warning := pod_warning(pod, nodes)) is not None}
        warnings |= {
            warning for vmi in vmis.values() for warning in vmi_warnings(vmi, nodes, launched=vmi.uid in launched)
        }
        unread = {entry.name for entry in warnings if entry.kind == VMI_KIND}
        warnings.update(migration_warnings(migrations, vmis, unread))
        return Snapshot(
            nodes=with_silent(nodes),
            pods=pods,
            vmis=vmis,
            migrations=migrations,
            namespaces=self._sorted("Namespace"),
            volumes=self._sorted("PersistentVolume"),
            claims=self._sorted("PersistentVolumeClaim"),
            csi_nodes=self._sorted("CSINode"),
            kubevirt=self._found.get(KUBEVIRT, {}).get(KUBEVIRT),
            set_aside=tuple(sorted(warnings, key=lambda entry: (entry.kind, entry.name, entry.reason))),
            resource_version=resource_version,
            taken=taken,
        )

    def _sorted(self, kind: str) -> FrozenMap[str, Any]:
        found = self._found.get(kind, {})
        return FrozenMap((key, found[key]) for key in sorted(found))


def with_silent(nodes: FrozenMap[str, Node]) -> FrozenMap[str, Node]:
    """The nodes, those marked whose virt-handler has long not been heard of.

    Judged by what most nodes tell and not by our clock, or any other one clock, which may be wrong by more than that;
    should most fall silent at once, virt-controller makes their nodes unschedulable for VMs.
    """
    beats = [node.heartbeat for node in nodes.values() if node.heartbeat is not None]
    if not beats:
        return nodes
    oldest = median_high(beats) - HEARTBEAT_SECONDS
    silent = {
        name: replace(node, silent=True)
        for name, node in nodes.items()
        if node.heartbeat is not None and node.heartbeat < oldest
    }
    return FrozenMap({**nodes, **silent}) if silent else nodes


def _key(kind: str, value: Any) -> str:
    """Name, or "namespace/name"; the KubeVirt CR, of which a cluster has one, goes by its kind."""
    if isinstance(value, KubeVirt):
        return KUBEVIRT
    key: str = value.key if hasattr(value, "namespace") else value.name
    return key


def _rank(value: Any, resource_version: str) -> tuple[int, float, str, str]:
    """Newer is greater; the text at the end makes the choice independent of the order of input."""
    version = int(resource_version) if resource_version.isdecimal() and len(resource_version) <= 20 else -1
    return (version, getattr(value, "created", 0.0), getattr(value, "uid", ""), repr(value))


def without_twins(vmis: FrozenMap[str, VMI]) -> tuple[FrozenMap[str, VMI], list[SetAside]]:
    """VMIs without those whose uid another one has too: their launcher pods cannot be told apart."""
    first: dict[str, str] = {}
    twins = []
    for key, vmi in vmis.items():
        if vmi.uid and first.setdefault(vmi.uid, key) != key:
            twins.append(SetAside(kind=VMI_KIND, name=key, reason=f"has the same uid as {first[vmi.uid]}"))
    names = {twin.name for twin in twins}
    return (FrozenMap((key, vmi) for key, vmi in vmis.items() if key not in names) if twins else vmis), twins


def without_blurred(
    nodes: FrozenMap[str, Node], pods: Mapping[str, Pod]
) -> tuple[FrozenMap[str, Node], list[SetAside]]:
    """Nodes, with those that carry a pod of unknown requests marked as of unknown capacity."""
    blurred = {}
    for key, pod in pods.items():
        if not pod.load_known and not pod.terminal and pod.node in nodes:
            blurred[pod.node] = key
    if not blurred:
        return nodes, []
    warnings = [
        SetAside(kind=NODE, name=name, reason=f"what pod {pod} requests there is unknown, so it receives nothing")
        for name, pod in blurred.items()
    ]
    marked = ((name, replace(node, capacity_known=False) if name in blurred else node) for name, node in nodes.items())
    return FrozenMap(marked), warnings


def pod_warning(pod: Pod, nodes: Container[str]) -> SetAside | None:
    """What does not fit together about a pod."""
    if pod.terminal or pod.node in nodes:
        return None
    if pod.node:
        return SetAside(kind=POD, name=pod.key, reason=f"is on node {plain(pod.node)}, which is unknown")
    return SetAside(kind=POD, name=pod.key, reason="runs, but on no node") if pod.phase == "Running" else None


def vmi_warnings(vmi: VMI, nodes: Container[str], *, launched: bool) -> Iterator[SetAside]:
    """What does not fit together about a VMI. `launched`: it has a launcher pod."""
    if vmi.phase != "Running":
        return
    if not vmi.node:
        yield SetAside(kind=VMI_KIND, name=vmi.key, reason="runs, but on no node")
    elif vmi.node not in nodes:
        yield SetAside(kind=VMI_KIND, name=vmi.key, reason=f"is on node {plain(vmi.node)}, which is unknown")
    if not launched:
        yield SetAside(kind=VMI_KIND, name=vmi.key, reason="runs without a launcher pod")


def migration_warnings(
    migrations: Mapping[str, Migration], vmis: Container[str], unread: Container[str]
) -> Iterator[SetAside]:
    """Migrations under way of VMs that nobody knows, other than those that could not be read."""
    for key, migration in migrations.items():
        if not migration.final and migration.vmi_key not in vmis and migration.vmi_key not in unread:
            yield SetAside(kind=MIGRATION, name=key, reason=f"its VM {plain(migration.vmi_key)} is unknown")
