"""Pods: effective requests as kube-scheduler sums them, and one shared PodSpec for all equal pods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from rebalancer.domain.frozen import EMPTY
from rebalancer.domain.pod import NO_AFFINITY, HostPort, Pod, PodSpec, PodVolume
from rebalancer.domain.resources import CPU, MEMORY, ZERO, Resources
from rebalancer.kube import decode_terms, wire
from rebalancer.kube.reading import (
    BROKEN,
    amounts,
    attempt,
    epoch,
    explain,
    inside,
    join,
    kept_annotations,
    labels,
    plain,
    resources,
)

Amounts = dict[str, int]

_requirements_decoder = msgspec.json.Decoder(wire.ResourceRequirements | None)
_amounts_decoder = msgspec.json.Decoder(wire.Amounts | None)
_volumes_decoder = msgspec.json.Decoder(list[wire.Volume] | None)

_LOAD = re.compile(
    r"(spec(\.(containers|initContainers)(\[\d+\](\.(resources|restartPolicy).*)?)?|\.(overhead|resources).*)?)?: ",
    re.DOTALL,
)
"""Where a problem means that a pod's requests are not known."""

_RESTART_ALL = "RestartAllContainersOnContainerExits"
_USER_NAMESPACES = "UserNamespacesHostNetworkSupport"


def pod(found: wire.Pod, problems: list[str]) -> Pod:
    """A pod; what cannot be read is named in `problems` and left out, what can be read counts as load."""
    meta, status = found.metadata, found.status or wire.PodStatus()
    spec, spec_problems = _spec(_parts(found))
    problems.extend(spec_problems)
    phase = status.phase or "Pending"
    ready, unschedulable = False, ""
    for condition in status.conditions or ():
        if condition.type == "Ready":
            ready = condition.status == "True"
        elif condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable":
            unschedulable = condition.message or "Unschedulable"
    created = attempt(problems, "metadata.creationTimestamp", partial(epoch, meta.creation_timestamp), 0.0)
    return Pod(
        namespace=meta.namespace or "",
        name=meta.name,
        uid=meta.uid or "",
        labels=labels(meta.labels),
        annotations=kept_annotations(meta.annotations),
        spec=spec,
        node=found.spec.node_name or "",
        phase=phase,
        owner=_owner(meta),
        created=created,
        deleting=meta.deletion_timestamp is not None,
        unschedulable=unschedulable,
        ready=ready,
        unreadable=plain(problems[0]) if problems else "",
        load_known=not any(_LOAD.match(problem) for problem in problems),
    )


def _owner(meta: wire.Meta) -> tuple[str, str, str]:
    for owner in meta.owner_references or ():
        if owner.controller:
            return (owner.kind, owner.name, owner.uid)
    return ("", "", "")


# -- The spec: each distinct one is made once


class _Container(NamedTuple):
    resources: bytes
    sidecar: bool = False
    actual: bytes = b""
    allocated: bytes = b""


class _Load(NamedTuple):
    """What decides a pod's effective requests, as it stands on the wire."""

    containers: tuple[_Container, ...]
    init_containers: tuple[_Container, ...]
    resources: bytes
    overhead: bytes
    resize_infeasible: bool


class _Parts(NamedTuple):
    """What decides a PodSpec, as it stands on the wire."""

    load: _Load
    node_selector: bytes
    affinity: bytes
    tolerations: bytes
    spread: bytes
    volumes: bytes
    pod_name: str
    host_ports: tuple[HostPort, ...]
    resource_claims: tuple[str, ...]
    scheduling_gates: tuple[str, ...]
    scheduler_name: str
    priority_class_name: str
    required_features: tuple[str, ...]


def _parts(found: wire.Pod) -> _Parts:
    spec = found.spec
    volumes = bytes(spec.volumes)
    containers, init_containers = spec.containers or [], spec.init_containers or []
    return _Parts(
        load=_load(spec, found.status or wire.PodStatus()),
        node_selector=bytes(spec.node_selector),
        affinity=bytes(spec.affinity),
        tolerations=bytes(spec.tolerations),
        spread=bytes(spec.topology_spread_constraints),
        volumes=volumes,
        pod_name=found.metadata.name if b'"ephemeral"' in volumes else "",
        host_ports=_host_ports(spec, containers, init_containers),
        resource_claims=tuple(claim.name for claim in spec.resource_claims or ()),
        scheduling_gates=tuple(gate.name for gate in spec.scheduling_gates or ()),
        scheduler_name=spec.scheduler_name or "default-scheduler",
        priority_class_name=spec.priority_class_name or "",
        required_features=_required_features(spec, containers + init_containers),
    )


def _load(spec: wire.PodSpec, status: wire.PodStatus) -> _Load:
    actual = {}
    for state in (*(status.container_statuses or ()), *(status.init_container_statuses or ())):
        if state.resources:
            actual[state.name] = (bytes(state.resources), bytes(state.allocated_resources))
    infeasible = False
    for condition in status.conditions or ():
        if condition.type == "PodResizePending":
            infeasible = condition.reason == "Infeasible"
    return _Load(
        containers=tuple(
            _Container(bytes(container.resources), False, *actual.get(container.name, ()))
            for container in spec.containers or ()
        ),
        init_containers=tuple(
            _Container(bytes(container.resources), True, *actual.get(container.name, ()))
            if container.restart_policy == "Always"
            else _Container(bytes(container.resources))
            for container in spec.init_containers or ()
        ),
        resources=bytes(spec.resources),
        overhead=bytes(spec.overhead),
        resize_infeasible=infeasible,
    )


@lru_cache(maxsize=65_536)
def _spec(parts: _Parts) -> tuple[PodSpec, tuple[str, ...]]:
    """The spec, and what of it could not be read."""
    problems: list[str] = []
    requests = ZERO
    try:
        requests = _requests(parts.load)
    except BROKEN as error:
        problems.append(join("spec", explain(error)))

    spec = PodSpec(
        requests=requests,
        node_selector=attempt(
            problems, "spec.nodeSelector", partial(decode_terms.node_selector_map, parts.node_selector), EMPTY
        ),
        affinity=attempt(problems, "spec.affinity", partial(decode_terms.affinity, parts.affinity), NO_AFFINITY),
        tolerations=attempt(problems, "spec.tolerations", partial(decode_terms.tolerations, parts.tolerations), ()),
        spread=attempt(problems, "spec.topologySpreadConstraints", partial(decode_terms.spread, parts.spread), ()),
        host_ports=parts.host_ports,
        volumes=attempt(problems, "spec.volumes", partial(_volumes, parts.volumes, parts.pod_name), ()),
        resource_claims=parts.resource_claims,
        scheduling_gates=parts.scheduling_gates,
        scheduler_name=parts.scheduler_name,
        priority_class_name=parts.priority_class_name,
        required_features=parts.required_features,
    )
    return _shared(spec), tuple(problems)


@lru_cache(maxsize=65_536)
def _shared(spec: PodSpec) -> PodSpec:
    return spec


def _host_ports(
    spec: wire.PodSpec, containers: list[wire.Container], init_containers: list[wire.Container]
) -> tuple[HostPort, ...]:
    """Ports claimed on the node by what runs for the whole life of the pod (util.GetHostPorts, and the default that
    containers in the node's network claim the ports that they name)."""
    sidecars = [container for container in init_containers if container.restart_policy == "Always"]
    ports = []
    for container in (*sidecars, *containers):
        for port in container.ports or ():
            number = port.host_port or (port.container_port if spec.host_network else 0)
            if number > 0:
                ports.append(HostPort(port=number, protocol=port.protocol or "TCP", ip=port.host_ip or "0.0.0.0"))
    return tuple(ports)


def _required_features(spec: wire.PodSpec, containers: Iterable[wire.Container]) -> tuple[str, ...]:
    """Node features that the pod needs (component-helpers/nodedeclaredfeatures, InferForScheduling)."""
    features = []
    if any(rule.action == "RestartAllContainers" for one in containers for rule in one.restart_policy_rules or ()):
        features.append(_RESTART_ALL)
    if spec.host_network and spec.host_users is False:
        features.append(_USER_NAMESPACES)
    return tuple(features)


@lru_cache(maxsize=16_384)
def _volumes(text: bytes, pod_name: str) -> tuple[PodVolume, ...]:
    found = _volumes_decoder.decode(text) if text else None
    volumes = (_volume(volume, pod_name) for volume in found or ())
    return tuple(volume for volume in volumes if volume)


def _volume(found: wire.Volume, pod_name: str) -> PodVolume | None:
    if found.persistent_volume_claim:
        claim = found.persistent_volume_claim
        return PodVolume(name=found.name, claim=claim.claim_name, read_only=bool(claim.read_only))
    if found.ephemeral:
        return PodVolume(name=found.name, claim=f"{pod_name}-{found.name}")
    if found.csi:
        return PodVolume(name=found.name, csi_driver=found.csi.driver, read_only=bool(found.csi.read_only))
    for kind, disk in (
        ("gcePersistentDisk", found.gce_persistent_disk),
        ("awsElasticBlockStore", found.aws_elastic_block_store),
        ("iscsi", found.iscsi),
        ("rbd", found.rbd),
    ):
        if disk:
            return PodVolume(name=found.name, disk=_identity(kind, disk), read_only=bool(disk.read_only))
    return None


def _identity(kind: str, disk: wire.Disk) -> tuple[str, ...]:
    """(kind, identity...); for rbd (kind, pool, image, monitor, ...): two are one disk if they share a monitor too."""
    if kind == "rbd":
        return (kind, disk.pool or "rbd", disk.image or "", *sorted(disk.monitors or ()))
    return (kind, disk.pd_name or disk.volume_id or disk.iqn or "")


# -- Effective requests (k8s.io/component-helpers/resource, PodRequests)


@lru_cache(maxsize=16_384)
def _requests(load: _Load) -> Resources:
    """The largest of what runs in the end and of each step of the start, or the pod's own amounts; plus overhead.

    Raises what reading.BROKEN names, the path below `spec`.
    """
    running: Amounts = {}
    for index, container in enumerate(load.containers):
        with inside(f"containers[{index}].resources"):
            _add(running, _of_container(container, load.resize_infeasible))
    sidecars: Amounts = {}
    starting: Amounts = {}
    for index, container in enumerate(load.init_containers):
        with inside(f"initContainers[{index}].resources"):
            amount = _of_container(container, load.resize_infeasible)
        if container.sidecar:
            _add(running, amount)
            _add(sidecars, amount)
            step = sidecars
        else:
            step = dict(amount)
            _add(step, sidecars)
        _raise_to(starting, step)
    _raise_to(running, starting)
    with inside("resources"):
        running.update(_pod_level(load.resources, running))
    with inside("overhead"):
        _add(running, _read_amounts(load.overhead))
    return resources(running)


def _of_container(container: _Container, resize_infeasible: bool) -> Amounts:
    """What one container holds: while it is resized, the most of what is wanted, admitted and in force."""
    wanted, _ = _requirements(container.resources)
    if not container.actual or container.actual == b"null":
        return wanted
    actual = _requirements_decoder.decode(container.actual) or wire.ResourceRequirements()
    held = {} if resize_infeasible else dict(wanted)
    _raise_to(held, amounts(actual.requests))
    _raise_to(held, _read_amounts(container.allocated))
    return held


@lru_cache(maxsize=4096)
def _requirements(text: bytes) -> tuple[Amounts, Amounts]:
    """(requests, limits); a limit without a request is a request too (SetDefaults_Pod)."""
    found = (_requirements_decoder.decode(text) if text else None) or wire.ResourceRequirements()
    with inside("limits"):
        limits = amounts(found.limits)
    with inside("requests"):
        return {**limits, **amounts(found.requests)}, limits


def _pod_level(text: bytes, containers: Amounts) -> Amounts:
    """Requests of the pod as a whole, which replace the sum of its containers (defaultPodRequests)."""
    found = (_requirements_decoder.decode(text) if text else None) or wire.ResourceRequirements()
    with inside("limits"):
        limits = {name: amount for name, amount in amounts(found.limits).items() if _is_pod_level(name)}
    with inside("requests"):
        requests = {name: amount for name, amount in amounts(found.requests).items() if _is_pod_level(name)}
    return {**{name: amount for name, amount in limits.items() if name not in containers}, **requests}


def _is_pod_level(name: str) -> bool:
    return name in (CPU, MEMORY) or name.startswith("hugepages-")


def _read_amounts(text: bytes) -> Amounts:
    return amounts(_amounts_decoder.decode(text) if text else None)


def _add(target: Amounts, amount: Amounts) -> None:
    for name, nanos in amount.items():
        target[name] = target.get(name, 0) + nanos


def _raise_to(target: Amounts, amount: Amounts) -> None:
    for name, nanos in amount.items():
        if nanos > target.get(name, 0):
            target[name] = nanos
