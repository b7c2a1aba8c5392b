"""Scheduling terms of pods and VMIs: each distinct text is decoded once and shared.

What the API server would refuse is refused here, with the field's path (k8s.io/kubernetes/pkg/apis/core/validation).
All functions raise UnreadableError, or what msgspec raises for wrong types (reading.BROKEN).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import msgspec

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.pod import NO_AFFINITY, Affinity, PodAffinityTerm, Toleration, TopologySpreadConstraint
from rebalancer.domain.selectors import (
    Expression,
    LabelSelector,
    NodeSelector,
    NodeSelectorTerm,
    SelectorError,
    int64,
    is_label_key,
    is_label_value,
    label_selector,
    node_selector_term,
)
from rebalancer.kube import wire
from rebalancer.kube.reading import UnreadableError, inside, labels

S = TypeVar("S")
T = TypeVar("T")

_DISTINCT = 16_384
"""How many distinct texts of each kind are remembered; a cluster has hundreds, a hostile one not more than these."""

_affinity_decoder = msgspec.json.Decoder(wire.Affinity | None)
_tolerations_decoder = msgspec.json.Decoder(list[wire.Toleration] | None)
_spread_decoder = msgspec.json.Decoder(list[wire.TopologySpreadConstraint] | None)
_selector_decoder = msgspec.json.Decoder(dict[str, str] | None)

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


@lru_cache(maxsize=_DISTINCT)
def node_selector_map(text: bytes) -> FrozenMap[str, str]:
    """spec.nodeSelector, its JSON or b"" for none."""
    found = (_selector_decoder.decode(text) if text else None) or {}
    for key, value in found.items():
        if not is_label_key(key):
            raise UnreadableError(f": {key[:80]!r} is not a label key")
        if not is_label_value(value):
            raise UnreadableError(f": {value[:80]!r} is not a label value")
    return labels(found)


@lru_cache(maxsize=_DISTINCT)
def affinity(text: bytes) -> Affinity:
    """spec.affinity, its JSON or b"" for none."""
    found = _affinity_decoder.decode(text) if text else None
    if not found:
        return NO_AFFINITY
    return _shared_affinity(_affinity(found))


@lru_cache(maxsize=_DISTINCT)
def _shared_affinity(found: Affinity) -> Affinity:
    return found


def _affinity(found: wire.Affinity) -> Affinity:
    nodes = found.node_affinity or wire.NodeAffinity()
    pods = found.pod_affinity or wire.PodAffinity()
    anti = found.pod_anti_affinity or wire.PodAffinity()
    with inside("nodeAffinity"):
        with inside("requiredDuringSchedulingIgnoredDuringExecution"):
            node_required = node_selector(nodes.required) if nodes.required else None
        with inside("preferredDuringSchedulingIgnoredDuringExecution"):
            node_preferred = _each(nodes.preferred, _preferred_node_term)
    with inside("podAffinity"):
        pod_required, pod_preferred = _pod_terms(pods)
    with inside("podAntiAffinity"):
        anti_required, anti_preferred = _pod_terms(anti)
    return Affinity(
        node_required=node_required,
        node_preferred=node_preferred,
        pod_required=pod_required,
        pod_preferred=pod_preferred,
        anti_required=anti_required,
        anti_preferred=anti_preferred,
    )


def node_selector(found: wire.NodeSelector) -> NodeSelector:
    """A node selector of an affinity or a volume."""
    if not found.node_selector_terms:
        raise UnreadableError("nodeSelectorTerms: must not be empty")
    with inside("nodeSelectorTerms"):
        return NodeSelector(terms=_each(found.node_selector_terms, _node_term))


def _node_term(found: wire.NodeSelectorTerm, *, preferred: bool = False) -> NodeSelectorTerm:
    expressions, match_fields = _expressions(found.match_expressions), _expressions(found.match_fields)
    try:
        return node_selector_term(expressions, match_fields, preferred=preferred)
    except SelectorError as error:
        raise UnreadableError(str(error)) from None


def _preferred_node_term(found: wire.PreferredNodeTerm) -> tuple[int, NodeSelectorTerm]:
    weight = _weight(found.weight)
    with inside("preference"):
        return weight, _node_term(found.preference, preferred=True)


def _pod_terms(
    found: wire.PodAffinity,
) -> tuple[tuple[PodAffinityTerm, ...], tuple[tuple[int, PodAffinityTerm], ...]]:
    with inside("requiredDuringSchedulingIgnoredDuringExecution"):
        required = _each(found.required, _pod_term)
    with inside("preferredDuringSchedulingIgnoredDuringExecution"):
        preferred = _each(found.preferred, _weighted_pod_term)
    return required, preferred


def _weighted_pod_term(found: wire.WeightedPodTerm) -> tuple[int, PodAffinityTerm]:
    weight = _weight(found.weight)
    with inside("podAffinityTerm"):
        return weight, _pod_term(found.pod_affinity_term)


def _pod_term(found: wire.PodAffinityTerm) -> PodAffinityTerm:
    _check_topology_key(found.topology_key)
    if not is_label_key(found.topology_key):
        raise UnreadableError(f"topologyKey: {found.topology_key[:80]!r} is not a label key")
    for index, namespace in enumerate(found.namespaces or ()):
        if not _NAMESPACE.fullmatch(namespace):
            raise UnreadableError(f"namespaces[{index}]: {namespace[:80]!r} is not a namespace's name")
    with inside("labelSelector"):
        selector = _selector(found.label_selector)
    with inside("namespaceSelector"):
        namespace_selector = _selector(found.namespace_selector)
    match_keys = _label_keys("matchLabelKeys", found.match_label_keys, selector)
    mismatch_keys = _label_keys("mismatchLabelKeys", found.mismatch_label_keys, selector)
    for index, key in enumerate(match_keys):
        if key in mismatch_keys:
            raise UnreadableError(f"matchLabelKeys[{index}]: {key!r} is one of mismatchLabelKeys too")
    return PodAffinityTerm(
        selector=selector,
        topology_key=found.topology_key,
        namespaces=tuple(sorted(set(found.namespaces or ()))),
        namespace_selector=namespace_selector,
        match_label_keys=match_keys,
        mismatch_label_keys=mismatch_keys,
    )


@lru_cache(maxsize=_DISTINCT)
def tolerations(text: bytes) -> tuple[Toleration, ...]:
    """spec.tolerations, its JSON or b"" for none."""
    return _each(_tolerations_decoder.decode(text) if text else None, _toleration)


def _toleration(found: wire.Toleration) -> Toleration:
    key, value, effect = found.key or "", found.value or "", found.effect or ""
    operator = found.operator or "Equal"
    if key and not is_label_key(key):
        raise UnreadableError(f"key: {key[:80]!r} is not a label key")
    if not key and operator != "Exists":
        raise UnreadableError("operator: must be Exists when key is empty")
    if operator == "Exists" and value:
        raise UnreadableError("value: must be empty when operator is Exists")
    if operator == "Equal" and not is_label_value(value):
        raise UnreadableError(f"value: {value[:80]!r} is not a label value")
    if operator in ("Gt", "Lt") and int64(value) is None:
        raise UnreadableError(f"value: must be an integer when operator is {operator}")
    if operator not in ("Exists", "Equal", "Gt", "Lt"):
        raise UnreadableError(f"operator: {operator[:80]!r} is not a toleration operator")
    if effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        raise UnreadableError(f"effect: {effect[:80]!r} is not a taint effect")
    if found.toleration_seconds is not None and effect != "NoExecute":
        raise UnreadableError("effect: must be NoExecute where tolerationSeconds is set")
    return Toleration(key=key, operator=operator, value=value, effect=effect)


@lru_cache(maxsize=_DISTINCT)
def spread(text: bytes) -> tuple[TopologySpreadConstraint, ...]:
    """spec.topologySpreadConstraints, its JSON or b"" for none."""
    result = _each(_spread_decoder.decode(text) if text else None, _spread_constraint)
    kinds = [(constraint.topology_key, constraint.when_unsatisfiable) for constraint in result]
    for index, kind in enumerate(kinds):
        if kind in kinds[index + 1 :]:
            raise UnreadableError(f"[{index}].{{topologyKey, whenUnsatisfiable}}: another constraint has the same")
    return result


def _spread_constraint(found: wire.TopologySpreadConstraint) -> TopologySpreadConstraint:
    if found.max_skew < 1:
        raise UnreadableError("maxSkew: must be greater than 0")
    _check_topology_key(found.topology_key)
    if found.when_unsatisfiable not in ("DoNotSchedule", "ScheduleAnyway"):
        raise UnreadableError(f"whenUnsatisfiable: {found.when_unsatisfiable[:80]!r} is neither of its two values")
    if found.min_domains is not None:
        if found.min_domains < 1:
            raise UnreadableError("minDomains: must be greater than 0")
        if found.when_unsatisfiable != "DoNotSchedule":
            raise UnreadableError("minDomains: can only be set when whenUnsatisfiable is DoNotSchedule")
    affinity_policy = _policy("nodeAffinityPolicy", found.node_affinity_policy, "Honor")
    taints_policy = _policy("nodeTaintsPolicy", found.node_taints_policy, "Ignore")
    with inside("labelSelector"):
        selector = _selector(found.label_selector)
    return TopologySpreadConstraint(
        max_skew=found.max_skew,
        topology_key=found.topology_key,
        selector=selector,
        when_unsatisfiable=found.when_unsatisfiable,
        min_domains=found.min_domains or 1,
        node_affinity_policy=affinity_policy,
        node_taints_policy=taints_policy,
        match_label_keys=_label_keys("matchLabelKeys", found.match_label_keys, selector),
    )


def _policy(path: str, given: str | None, default: str) -> str:
    policy = default if given is None else given
    if policy not in ("Honor", "Ignore"):
        raise UnreadableError(f"{path}: {policy[:80]!r} is not Honor or Ignore")
    return policy


def check_unmerged(terms: Affinity, constraints: tuple[TopologySpreadConstraint, ...]) -> None:
    """What the API server refuses when it merges matchLabelKeys into the selectors of a pod that is made from a spec.

    Stored pods are merged already, so in them a key does stand in both.
    """
    sides = (
        ("podAffinity", terms.pod_required, terms.pod_preferred),
        ("podAntiAffinity", terms.anti_required, terms.anti_preferred),
    )
    for side, required, preferred in sides:
        for index, term in enumerate(required):
            with inside(f"affinity.{side}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"):
                _check_keys(term.match_label_keys, term.selector)
        for index, (_, term) in enumerate(preferred):
            with inside(f"affinity.{side}.preferredDuringSchedulingIgnoredDuringExecution[{index}].podAffinityTerm"):
                _check_keys(term.match_label_keys, term.selector)
    for index, constraint in enumerate(constraints):
        with inside(f"topologySpreadConstraints[{index}]"):
            _check_keys(constraint.match_label_keys, constraint.selector)


def _check_keys(keys: tuple[str, ...], selector: LabelSelector | None) -> None:
    taken = {requirement.key for requirement in selector.requirements} if selector is not None else set()
    for index, key in enumerate(keys):
        if (key in taken or key in keys[:index]) and key not in keys[index + 1 :]:
            raise UnreadableError(f"matchLabelKeys[{index}]: {key!r} stands in labelSelector or there again")


def _check_topology_key(key: str) -> None:
    if not key:
        raise UnreadableError("topologyKey: must not be empty")


def _weight(weight: int) -> int:
    if not 1 <= weight <= 100:
        raise UnreadableError("weight: must be in the range 1-100")
    return weight


def _label_keys(path: str, keys: list[str] | None, selector: LabelSelector | None) -> tuple[str, ...]:
    if keys and selector is None:
        raise UnreadableError(f"{path}: must not be set without labelSelector")
    for index, key in enumerate(keys or ()):
        if not is_label_key(key):
            raise UnreadableError(f"{path}[{index}]: {key[:80]!r} is not a label key")
    return tuple(keys or ())


def _selector(found: wire.LabelSelector | None) -> LabelSelector | None:
    if found is None:
        return None
    try:
        return label_selector(found.match_labels or {}, _expressions(found.match_expressions))
    except SelectorError as error:
        raise UnreadableError(str(error)) from None


def _expressions(found: list[wire.Expression] | None) -> list[Expression]:
    return [(expression.key, expression.operator, expression.values or ()) for expression in found or ()]


def _each(found: list[S] | None, read: Callable[[S], T]) -> tuple[T, ...]:
    result = []
    for index, item in enumerate(found or ()):
        with inside(f"[{index}]"):
            result.append(read(item))
    return tuple(result)
