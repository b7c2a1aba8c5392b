"""The API's objects, as far as we read them: typed targets for msgspec.

Fields that are not named here (environment variables, managedFields, cloud-init data) are skipped by the decoder and
never become Python objects. Sections of type Raw are decoded later, each once per distinct text: most pods of a cluster
share theirs. `None` is allowed wherever the API may write null.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

Quantity = str | int | float | None
Amounts = dict[str, Quantity]


class Wire(msgspec.Struct, gc=False, rename="camel", kw_only=True):
    """Base of all: unknown to the cyclic collector, as the API's objects are trees. Read once, never changed."""


class OwnerReference(Wire):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(Wire):
    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class Condition(Wire):
    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Object(Wire):
    """What every kind has."""

    metadata: Meta = msgspec.field(default_factory=Meta)


# -- Scheduling terms, shared by pods and VMIs


class Expression(Wire):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(Wire):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Expression] | None = None


class NodeSelectorTerm(Wire):
    match_expressions: list[Expression] | None = None
    match_fields: list[Expression] | None = None


class NodeSelector(Wire):
    node_selector_terms: list[NodeSelectorTerm] | None = None


class PreferredNodeTerm(Wire):
    weight: int = 0
    preference: NodeSelectorTerm = msgspec.field(default_factory=NodeSelectorTerm)


class NodeAffinity(Wire):
    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredNodeTerm] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class PodAffinityTerm(Wire):
    label_selector: LabelSelector | None = None
    topology_key: str = ""
    namespaces: list[str] | None = None
    namespace_selector: LabelSelector | None = None
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class WeightedPodTerm(Wire):
    weight: int = 0
    pod_affinity_term: PodAffinityTerm = msgspec.field(default_factory=PodAffinityTerm)


class PodAffinity(Wire):
    """Pod affinity and pod anti-affinity alike."""

    required: list[PodAffinityTerm] | None = msgspec.field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )
    preferred: list[WeightedPodTerm] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Wire):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Toleration(Wire):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None


class TopologySpreadConstraint(Wire):
    max_skew: int = 0
    topology_key: str = ""
    when_unsatisfiable: str = ""
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: list[str] | None = None


# -- Pods


class ContainerPort(Wire):
    container_port: int = 0
    host_port: int | None = None
    protocol: str | None = None
    host_ip: str | None = msgspec.field(default=None, name="hostIP")


class ResourceRequirements(Wire):
    requests: Amounts | None = None
    limits: Amounts | None = None


class RestartRule(Wire):
    action: str = ""


class Container(Wire):
    name: str = ""
    resources: Raw = Raw()
    restart_policy: str | None = None
    restart_policy_rules: list[RestartRule] | None = None
    ports: list[ContainerPort] | None = None


class ClaimVolume(Wire):
    claim_name: str = ""
    read_only: bool | None = None


class Disk(Wire):
    """The identities of the in-tree disks that kube-scheduler still compares (plugin VolumeRestrictions)."""

    pd_name: str | None = None
    volume_id: str | None = msgspec.field(default=None, name="volumeID")
    iqn: str | None = None
    monitors: list[str] | None = None
    pool: str | None = None
    image: str | None = None
    read_only: bool | None = None


class CSIVolume(Wire):
    driver: str = ""
    read_only: bool | None = None


class EphemeralVolume(Wire):
    """Its claim is named after pod and volume."""


class Volume(Wire):
    name: str = ""
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: EphemeralVolume | None = None
    csi: CSIVolume | None = None
    gce_persistent_disk: Disk | None = None
    aws_elastic_block_store: Disk | None = None
    iscsi: Disk | None = None
    rbd: Disk | None = None


class Named(Wire):
    name: str = ""


class PodSpec(Wire):
    node_name: str | None = None
    scheduler_name: str | None = None
    priority_class_name: str | None = None
    host_network: bool | None = None
    host_users: bool | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: Raw = Raw()
    resources: Raw = Raw()
    node_selector: Raw = Raw()
    affinity: Raw = Raw()
    tolerations: Raw = Raw()
    topology_spread_constraints: Raw = Raw()
    volumes: Raw = Raw()
    resource_claims: list[Named] | None = None
    scheduling_gates: list[Named] | None = None


class ContainerStatus(Wire):
    name: str = ""
    resources: Raw = Raw()
    allocated_resources: Raw = Raw()


class PodStatus(Wire):
    phase: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(Object):
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus | None = None


# -- Nodes and what surrounds them


class Taint(Wire):
    key: str = ""
    value: str | None = None
    effect: str = ""


class NodeSpec(Wire):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class NodeStatus(Wire):
    allocatable: Amounts | None = None
    conditions: list[Condition] | None = None
    declared_features: list[str] | None = None


class Node(Object):
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class Namespace(Object):
    pass


class CSISource(Wire):
    driver: str = ""
    volume_handle: str = ""


class ObjectReference(Wire):
    namespace: str | None = None
    name: str | None = None


class VolumeNodeAffinity(Wire):
    required: NodeSelector | None = None


class PersistentVolumeSpec(Wire):
    node_affinity: VolumeNodeAffinity | None = None
    access_modes: list[str] | None = None
    csi: CSISource | None = None
    claim_ref: ObjectReference | None = None
    storage_class_name: str | None = None


class PersistentVolume(Object):
    spec: PersistentVolumeSpec = msgspec.field(default_factory=PersistentVolumeSpec)


class PersistentVolumeClaimSpec(Wire):
    volume_name: str | None = None
    access_modes: list[str] | None = None
    storage_class_name: str | None = None


class PersistentVolumeClaim(Object):
    spec: PersistentVolumeClaimSpec = msgspec.field(default_factory=PersistentVolumeClaimSpec)


class Allocatable(Wire):
    count: int | None = None


class CSIDriver(Wire):
    name: str = ""
    allocatable: Allocatable | None = None


class CSINodeSpec(Wire):
    drivers: list[CSIDriver] | None = None


class CSINode(Object):
    spec: CSINodeSpec = msgspec.field(default_factory=CSINodeSpec)


class MigrationConfiguration(Wire):
    parallel_migrations_per_cluster: int | None = None
    parallel_outbound_migrations_per_node: int | None = None
    bandwidth_per_migration: Quantity = None
    completion_timeout_per_gib: int | None = msgspec.field(default=None, name="completionTimeoutPerGiB")
    progress_timeout: int | None = None


class DeveloperConfiguration(Wire):
    cpu_allocation_ratio: int | None = None
    node_selectors: dict[str, str] | None = None
    feature_gates: list[str] | None = None


class KubeVirtConfiguration(Wire):
    migrations: MigrationConfiguration | None = None
    developer_configuration: DeveloperConfiguration | None = None
    eviction_strategy: str | None = None
    cpu_model: str | None = None


class KubeVirtSpec(Wire):
    configuration: KubeVirtConfiguration | None = None


class KubeVirtStatus(Wire):
    phase: str | None = None
    observed_kube_virt_version: str | None = None
    target_deployment_id: str | None = msgspec.field(default=None, name="targetDeploymentID")
    observed_deployment_id: str | None = msgspec.field(default=None, name="observedDeploymentID")


class KubeVirt(Object):
    spec: KubeVirtSpec | None = None
    status: KubeVirtStatus | None = None
