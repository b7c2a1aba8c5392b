"""Small clusters in a few readable words.

    cluster(
        node("n1", cpu=4),
        node("n2", cpu=4, taints=("reserved=gpu:NoSchedule",)),
        vmi("bank/db-0", on="n1", cpu=2, labels={"app": "db"}, apart_from={"app": "db"}),
        pod("kube-system/agent-1", on="n1", cpu=0.5),
    )

`cluster` gives a Snapshot: every VMI gets the launcher pod that KubeVirt would have made for it, every namespace that
is named exists, and everything is keyed and sorted as after decoding. CPU is in cores, memory in GiB. Names may be
written "namespace/name"; without a namespace it is "default".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from rebalancer.domain.cluster import KubeVirt, Namespace, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Condition, Node, Taint
from rebalancer.domain.plan import Move, Wave
from rebalancer.domain.pod import Affinity, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import LabelSelector, NodeSelector, NodeSelectorTerm, Requirement
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration, MigrationState, VMISpec

GIB = 2**30
ZONE = "topology.kubernetes.io/zone"
NOW = 1_800_000_000.0
"""When snapshots are taken unless told otherwise, in seconds since 1970."""

T = TypeVar("T")


def resources(cpu: float = 0, memory: float = 0, **scalars: int) -> Resources:
    """CPU in cores, memory in GiB, scalars by name."""
    return Resources(
        cpu_milli=round(cpu * 1000), memory_bytes=round(memory * GIB), scalars=tuple(sorted(scalars.items()))
    )


def requirement(text: str) -> Requirement:
    """An expression: "app=db", "app!=db", "app in a,b", "app notin a,b", "app" (exists), "!app", "n>5", "n<5"."""
    for separator, operator in ((" notin ", "NotIn"), (" in ", "In"), ("!=", "NotIn"), ("=", "In")):
        if separator in text:
            key, values = text.split(separator)
            return Requirement(key=key, operator=operator, values=tuple(values.split(",")))
    for separator, operator in ((">", "Gt"), ("<", "Lt")):
        if separator in text:
            key, value = text.split(separator)
            return Requirement(key=key, operator=operator, values=(value,))
    return Requirement(key=text.lstrip("!"), operator="DoesNotExist" if text.startswith("!") else "Exists")


def labels_selector(labels: Mapping[str, str]) -> LabelSelector:
    """matchLabels."""
    return LabelSelector(
        requirements=tuple(Requirement(key=k, operator="In", values=(v,)) for k, v in sorted(labels.items()))
    )


def node_term(*expressions: str) -> NodeSelectorTerm:
    """One term: all expressions must hold."""
    return NodeSelectorTerm(match_expressions=tuple(requirement(text) for text in expressions))


def term(labels: Mapping[str, str], topology_key: str = HOSTNAME, **fields: Any) -> PodAffinityTerm:
    """A term of pod affinity or anti-affinity on matchLabels."""
    return PodAffinityTerm(selector=labels_selector(labels), topology_key=topology_key, **fields)


def spread(
    labels: Mapping[str, str], max_skew: int = 1, topology_key: str = ZONE, **fields: Any
) -> TopologySpreadConstraint:
    """A topology spread constraint on matchLabels, DoNotSchedule unless told otherwise."""
    return TopologySpreadConstraint(
        max_skew=max_skew, topology_key=topology_key, selector=labels_selector(labels), **fields
    )


def taint(text: str) -> Taint:
    """A taint as kubectl writes it: "key=value:Effect" or "key:Effect"."""
    head, _, effect = text.rpartition(":")
    key, _, value = head.partition("=")
    return Taint(key=key, value=value, effect=effect)


def toleration(text: str) -> Toleration:
    """ "key=value:Effect" (Equal) or "key:Effect" (Exists); without an effect every effect is tolerated."""
    head, _, effect = text.partition(":")
    key, equal, value = head.partition("=")
    return Toleration(key=key, operator="Equal" if equal else "Exists", value=value, effect=effect)


def node(
    name: str,
    *,
    cpu: float = 64,
    memory: float = 256,
    pods: int = 250,
    zone: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    taints: tuple[str, ...] = (),
    cordoned: bool = False,
    ready: bool = True,
    kubevirt: bool = True,
    scalars: Mapping[str, int] | None = None,
    **fields: Any,
) -> Node:
    """A Ready worker that KubeVirt may use: with virt-handler's labels, unless kubevirt=False."""
    own = {HOSTNAME: name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    if kubevirt:
        own |= {
            "kubevirt.io/schedulable": "true",
            "machine-type.node.kubevirt.io/q35": "true",
            "host-model-cpu.node.kubevirt.io/Skylake-Server": "true",
            "cpu-model.node.kubevirt.io/Skylake-Server": "true",
            "cpu-model-migration.node.kubevirt.io/Skylake-Server": "true",
            "cpu-vendor.node.kubevirt.io/Intel": "true",
        }
    if zone:
        own[ZONE] = zone
    return Node(
        name=name,
        uid=f"node-{name}",
        labels=FrozenMap({**own, **(labels or {})}),
        annotations=FrozenMap(annotations or {}),
        unschedulable=cordoned,
        taints=tuple(taint(text) for text in taints),
        allocatable=resources(cpu, memory, **(scalars or {})),
        pods=pods,
        conditions=FrozenMap({"Ready": Condition(status="True" if ready else "False")}),
        **fields,
    )


def pod(
    name: str,
    *,
    on: str = "",
    cpu: float = 0,
    memory: float = 0,
    labels: Mapping[str, str] | None = None,
    phase: str = "Running",
    **spec: Any,
) -> Pod:
    """A pod that is no VM; `spec` are fields of PodSpec."""
    namespace, own = split(name)
    return Pod(
        namespace=namespace,
        name=own,
        uid=f"pod-{namespace}-{own}",
        labels=FrozenMap(labels or {}),
        spec=PodSpec(requests=resources(cpu, memory), **spec),
        node=on,
        phase=phase,
        ready=phase == "Running",
    )


def vmi(
    name: str,
    *,
    on: str,
    cpu: float = 1,
    memory: float = 1,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    select: Mapping[str, str] | None = None,
    affinity: Affinity | None = None,
    apart_from: Mapping[str, str] | None = None,
    close_to: Mapping[str, str] | None = None,
    tolerate: tuple[str, ...] = (),
    spread_by: tuple[TopologySpreadConstraint, ...] = (),
    migratable: bool = True,
    created: float = 0.0,
    spec: Mapping[str, Any] | None = None,
    **fields: Any,
) -> VMI:
    """A running VM. `apart_from` and `close_to` are required rules per host; `spec` are further fields of VMISpec."""
    namespace, own = split(name)
    affinity = affinity or Affinity()
    if apart_from is not None:
        affinity = replace(affinity, anti_required=(*affinity.anti_required, term(apart_from)))
    if close_to is not None:
        affinity = replace(affinity, pod_required=(*affinity.pod_required, term(close_to)))
    uid = f"vmi-{namespace}-{own}"
    return VMI(
        **{
            "namespace": namespace,
            "name": own,
            "uid": uid,
            "labels": FrozenMap(labels or {}),
            "annotations": FrozenMap(annotations or {}),
            "spec": VMISpec(
                **{
                    "node_selector": FrozenMap(select or {}),
                    "affinity": affinity,
                    "tolerations": tuple(toleration(text) for text in tolerate),
                    "spread": spread_by,
                    "cores": max(1, round(cpu)),
                    "cpu_requests_milli": round(cpu * 1000),
                    "guest_memory_bytes": round(memory * GIB),
                    "machine_type": "q35",
                    "cpu_model": "host-model",
                    **(spec or {}),
                }
            ),
            "phase": "Running",
            "node": on,
            "conditions": FrozenMap(
                {
                    "Ready": Condition(status="True"),
                    "LiveMigratable": Condition(status="True" if migratable else "False"),
                }
            ),
            "eviction_strategy": "LiveMigrate",
            "machine_type": "q35",
            "active_pods": FrozenMap({f"launcher-{uid}": on}),
            "created": created,
            **fields,
        }
    )


def launcher(owner: VMI, *, on: str | None = None, suffix: str = "", **fields: Any) -> Pod:
    """The launcher pod of a VMI as KubeVirt renders it; `suffix` tells a migration's target pod from its source."""
    spec = owner.spec
    requests = Resources(cpu_milli=spec.cpu_requests_milli or 0, memory_bytes=spec.guest_memory_bytes)
    own = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": owner.uid, "vm.kubevirt.io/name": owner.name}
    return Pod(
        **{
            "namespace": owner.namespace,
            "name": f"virt-launcher-{owner.name}{suffix}",
            "uid": f"launcher-{owner.uid}{suffix}",
            "labels": FrozenMap({**owner.labels, **own}),
            "annotations": FrozenMap({"kubevirt.io/domain": owner.name}),
            "spec": PodSpec(
                requests=requests,
                node_selector=FrozenMap({"kubevirt.io/schedulable": "true", **spec.node_selector}),
                affinity=spec.affinity,
                tolerations=spec.tolerations,
                spread=spec.spread,
            ),
            "node": owner.node if on is None else on,
            "phase": "Running",
            "owner": ("VirtualMachineInstance", owner.name, owner.uid),
            "created": owner.created,
            "ready": True,
            **fields,
        }
    )


def migration(owner: VMI, to: str, *, name: str = "", phase: str = "Running", **fields: Any) -> Migration:
    """A VMIM of this VMI towards a node, in flight unless `phase` says otherwise."""
    name = name or f"to-{to}"
    return Migration(
        **{
            "namespace": owner.namespace,
            "name": name,
            "uid": f"vmim-{owner.namespace}-{owner.name}-{name}",
            "vmi": owner.name,
            "phase": phase,
            "added_node_selector": FrozenMap({HOSTNAME: to}),
            "state": MigrationState(source_node=owner.node, target_node=to),
            "created": NOW - 10,
            **fields,
        }
    )


def move(name: str, source: str, target: str, **fields: Any) -> Move:
    """A planned move of the VMI "namespace/name"."""
    namespace, own = split(name)
    return Move(
        **{
            "vmi": f"{namespace}/{own}",
            "uid": f"vmi-{namespace}-{own}",
            "source": source,
            "target": target,
            "cost": 1001,
            "reasons": ("test",),
            **fields,
        }
    )


def wave(*moves: Move) -> Wave:
    return Wave(moves=moves)


def cluster(*objects: Any, kubevirt: KubeVirt | None = None, taken: float = NOW) -> Snapshot:
    """A Snapshot of nodes, pods, VMIs (with their launcher pods), migrations, namespaces, volumes and claims.

    A launcher pod that is given, recognised by its owner, stands for the one that would have been made.
    """
    vmis = [item for item in objects if isinstance(item, VMI)]
    pods = [item for item in objects if isinstance(item, Pod)]
    given = {item.owner[2] for item in pods}
    pods += [launcher(item) for item in vmis if item.uid not in given]
    namespaces = {item.name: item for item in objects if isinstance(item, Namespace)}
    for name in [item.namespace for item in pods] + [item.namespace for item in vmis]:
        namespaces.setdefault(name, namespace(name))
    return Snapshot(
        nodes=keyed({item.name: item for item in objects if isinstance(item, Node)}),
        pods=keyed({item.key: item for item in pods}),
        vmis=keyed({item.key: item for item in vmis}),
        migrations=keyed({f"{item.namespace}/{item.name}": item for item in objects if isinstance(item, Migration)}),
        namespaces=keyed(namespaces),
        volumes=keyed({item.name: item for item in objects if isinstance(item, PersistentVolume)}),
        claims=keyed({item.key: item for item in objects if isinstance(item, PersistentVolumeClaim)}),
        kubevirt=kubevirt or KubeVirt(version="v1.9.0", phase="Deployed"),
        resource_version="1",
        taken=taken,
    )


def namespace(name: str, labels: Mapping[str, str] | None = None, **annotations: str) -> Namespace:
    own = {"kubernetes.io/metadata.name": name, **(labels or {})}
    return Namespace(name=name, labels=FrozenMap(own), annotations=FrozenMap(annotations))


def required_nodes(*terms: NodeSelectorTerm) -> Affinity:
    """Required node affinity: any of the terms."""
    return Affinity(node_required=NodeSelector(terms=terms))


def split(name: str) -> tuple[str, str]:
    """ "namespace/name" → both; without a namespace it is "default"."""
    namespace_, _, own = name.rpartition("/")
    return namespace_ or "default", own


def keyed(items: Mapping[str, T]) -> FrozenMap[str, T]:
    """Sorted by key, as a decoded snapshot is."""
    return FrozenMap(sorted(items.items(), key=lambda item: item[0]))
