"""Pods: their scheduling-relevant spec, shared between equals, and their place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.resources import Resources
from rebalancer.domain.selectors import LabelSelector, NodeSelector, NodeSelectorTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """As in the API; an unknown operator tolerates nothing. An empty effect means every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodAffinityTerm:
    """One term of pod (anti-)affinity. `selector` None matches nothing, an empty one everything.

    `namespaces` empty and `namespace_selector` None mean the pod's own namespace.
    """

    selector: LabelSelector | None
    topology_key: str
    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    mismatch_label_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """Required and preferred terms; the preferred ones as (weight, term)."""

    node_required: NodeSelector | None = None
    node_preferred: tuple[tuple[int, NodeSelectorTerm], ...] = ()
    pod_required: tuple[PodAffinityTerm, ...] = ()
    pod_preferred: tuple[tuple[int, PodAffinityTerm], ...] = ()
    anti_required: tuple[PodAffinityTerm, ...] = ()
    anti_preferred: tuple[tuple[int, PodAffinityTerm], ...] = ()


NO_AFFINITY = Affinity()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpreadConstraint:
    """As in the API, defaults applied. `when_unsatisfiable` is DoNotSchedule or ScheduleAnyway."""

    max_skew: int
    topology_key: str
    selector: LabelSelector | None
    when_unsatisfiable: str = "DoNotSchedule"
    min_domains: int = 1
    node_affinity_policy: str = "Honor"
    node_taints_policy: str = "Ignore"
    match_label_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A port that a container claims on its node."""

    port: int
    protocol: str = "TCP"
    ip: str = "0.0.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodVolume:
    """A volume that may bind a pod to a node. Exactly one of `claim`, `disk` and `csi_driver` is set.

    `claim` names a PersistentVolumeClaim of the pod's namespace; `disk` identifies an in-tree disk for
    VolumeRestrictions, as (kind, identity); `csi_driver` is an inline CSI volume, counted by NodeVolumeLimits.
    """

    name: str
    claim: str = ""
    disk: tuple[str, ...] = ()
    csi_driver: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """Everything of a pod's spec that decides where it may run. Equal specs are one object after decoding.

    `requests` is kube-scheduler's effective sum (init containers, sidecars, overhead, pod-level requests).
    """

    requests: Resources = Resources()
    node_selector: FrozenMap[str, str] = EMPTY
    affinity: Affinity = NO_AFFINITY
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[TopologySpreadConstraint, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    volumes: tuple[PodVolume, ...] = ()
    resource_claims: tuple[str, ...] = ()
    scheduling_gates: tuple[str, ...] = ()
    scheduler_name: str = "default-scheduler"
    priority_class_name: str = ""
    required_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod. `node` is "" while unbound; `owner` is the controller as (kind, name, uid) or ("", "", "").

    `unschedulable` is the message of a PodScheduled=False condition with reason Unschedulable, else "".
    `unreadable` says what of the pod could not be read, "" for nothing: such a pod stays where it is, as load.
    `load_known` is false where its requests could not be read: its node then receives nothing.
    """

    namespace: str
    name: str
    uid: str
    labels: Labels = EMPTY
    annotations: FrozenMap[str, str] = EMPTY
    spec: PodSpec = PodSpec()
    node: str = ""
    phase: str = "Pending"
    owner: tuple[str, str, str] = ("", "", "")
    created: float = 0.0
    deleting: bool = False
    unschedulable: str = ""
    ready: bool = False
    unreadable: str = ""
    load_known: bool = True

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def terminal(self) -> bool:
        """Succeeded and Failed pods hold no resources and count for no rule (kube-scheduler drops them)."""
        return self.phase in ("Succeeded", "Failed")

    def on(self, node: str) -> Pod:
        """The same pod bound to a node."""
        return replace(self, node=node)
