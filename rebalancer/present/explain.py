"""Why one VM may move or has to stay: every node's verdict on it, in kube-scheduler's words where those exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.resources import CPU
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import KINDS, Rejection, Violation
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import find as find_conflicts
from rebalancer.policy.feasibility import Survey, survey
from rebalancer.policy.load import PolicyParams, judged, limit, node_thresholds
from rebalancer.policy.movable import why_immovable
from rebalancer.policy.returns import left_lately
from rebalancer.policy.rule_book import RuleBook
from rebalancer.policy.rules import violations
from rebalancer.policy.target import target_guard, target_pod
from rebalancer.present.words import count, percent, resource, some

SCHEMA = "rebalancer.explain/v1"
MAX_NODES_NAMED = 12
LEFT_LATELY = "It is not brought back within a day to where we took it away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One node as a place for the VM. `cpu` is the node's reserved CPU with it, in percent.

    `rejection` is why the scheduler or we refuse it; `too_full` which of our thresholds it would cross, "" for none;
    `left_lately`: we have taken it away from there within a day, and do not bring it back.
    """

    node: str
    cpu: float
    rejection: Rejection | None = None
    too_full: str = ""
    left_lately: bool = False

    @property
    def fits(self) -> bool:
        """Whether the VM could go there."""
        return self.rejection is None and not self.too_full and not self.left_lately


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything there is to say on where one VM is and could be. `immovable` is None where it may move.

    `conflicts` are sentences on rules of the VM that cannot all hold, wherever it is.
    """

    vmi: str
    node: str
    immovable: str | None
    violations: tuple[Violation, ...]
    places: tuple[Place, ...]
    survey: Survey
    conflicts: tuple[str, ...] = ()

    @property
    def fitting(self) -> tuple[Place, ...]:
        """Where it could go."""
        return tuple(place for place in self.places if place.fits)

    @property
    def full(self) -> tuple[Place, ...]:
        """Where the scheduler would let it go, but a threshold speaks against it."""
        return tuple(place for place in self.places if place.rejection is None and place.too_full)

    @property
    def left(self) -> tuple[Place, ...]:
        """Where it could go, had we not just taken it away from there."""
        return tuple(p for p in self.places if p.rejection is None and not p.too_full and p.left_lately)


class NoSuchVMError(LookupError):
    """There is no such VM in the snapshot; its text says what there is instead."""


def explain(snapshot: Snapshot, key: str, params: PolicyParams) -> Explanation:
    """Judges all nodes for one VM, by "namespace/name", as the cluster will be when running migrations have landed.

    Raises NoSuchVMError, with the names that are nearest, where the snapshot has no such VM.
    """
    vmi = snapshot.vmis.get(key)
    if vmi is None:
        raise NoSuchVMError(_unknown(snapshot, key))
    state = ClusterState.of(snapshot, settled=True)
    source = state.active_pods.get(key)
    immovable = why_immovable(vmi, snapshot, ClusterState.of(snapshot))
    book = RuleBook(state, snapshot, KINDS)
    broken = tuple(violation for violation in violations(state, snapshot, book=book) if violation.vmi == key)
    conflicts = tuple(one.message for one in find_conflicts(state, snapshot, book) if key in one.vmis)
    if source is None:
        return Explanation(
            vmi=key, node=vmi.node, immovable=immovable, violations=broken, places=(), survey=Survey(feasible=())
        )
    source_node = state.nodes.get(source.node)
    pod = target_pod(vmi, source, source_node, snapshot.kubevirt or KubeVirt())
    verdicts = survey(state, pod, target_guard(vmi, source_node))
    left = left_lately(snapshot, snapshot.taken).get(key, frozenset())
    found = (_place(state, pod, node, verdicts, params) for node in state.nodes.values())
    places = tuple(replace(place, left_lately=True) if place.node in left else place for place in found)
    return Explanation(
        vmi=key,
        node=source.node,
        immovable=immovable,
        violations=broken,
        places=places,
        survey=verdicts,
        conflicts=conflicts,
    )


def text(explanation: Explanation, *, node: str = "") -> str:
    """The explanation for people; with `node`, that node's verdict alone. Raises NoSuchNodeError for an unknown one."""
    return "".join(f"{line}\n" for line in (_lines(explanation) if not node else [_of_node(explanation, node)]))


def document(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain values for JSON."""
    return {
        "schema": SCHEMA,
        "vmi": explanation.vmi,
        "node": explanation.node,
        "movable": explanation.immovable is None,
        "why": explanation.immovable or "",
        "violations": [
            {"type": violation.kind, "rule": violation.rule, "message": violation.message}
            for violation in explanation.violations
        ],
        "conflicts": list(explanation.conflicts),
        "message": explanation.survey.message(),
        "targets": [place.node for place in explanation.fitting],
        "nodes": {
            place.node: {
                "fits": place.fits,
                "plugin": place.rejection.plugin if place.rejection else "",
                "reasons": list(place.rejection.reasons) if place.rejection else [],
                "threshold": place.too_full,
                "leftLately": place.left_lately,
                "cpuWithIt": round(place.cpu, 2),
            }
            for place in explanation.places
        },
    }


class NoSuchNodeError(LookupError):
    """There is no such node in the snapshot."""


def _lines(told: Explanation) -> Iterator[str]:
    where = f"runs on {told.node}" if told.node else "runs on no node"
    verdict = "may move" if told.immovable is None else f"has to stay: {told.immovable}"
    yield f"{told.vmi} {where} and {verdict}."
    yield from (f"It breaks {broken.kind} there: {broken.message or broken.rule}." for broken in told.violations)
    yield from (f"Its rules cannot all hold: {conflict}." for conflict in told.conflicts)
    if not told.places:
        return
    total = len(told.places)
    if told.fitting:
        yield f"{len(told.fitting)}/{total} nodes could take it:"
        yield from (f"  {place.node}  {_with_it(place)}" for place in sorted(told.fitting, key=lambda at: at.cpu))
    if told.full:
        none = "" if told.fitting else "No node is left to take it: "
        yield f"{none}kube-scheduler would accept it on {count(len(told.full), 'node')} that would be too full then:"
        yield from (f"  {place.node}  {place.too_full}" for place in told.full)
    if told.left:
        yield f"{LEFT_LATELY}: {some([place.node for place in told.left], MAX_NODES_NAMED)}."
    if told.survey.feasible:
        if len(told.survey.rejections):
            yield f"{len(told.survey.rejections)}/{total} nodes are not available: {told.survey.counted()}."
    else:
        yield told.survey.message()
    yield from _by_reason(told)


def _by_reason(told: Explanation) -> Iterator[str]:
    """Which nodes are behind each reason."""
    nodes: dict[str, list[str]] = {}
    for name, rejection in sorted(told.survey.rejections.items()):
        for reason in rejection.reasons:
            nodes.setdefault(f"{rejection.plugin}: {reason}", []).append(name)
    yield from (f"  {reason}: {some(names, MAX_NODES_NAMED)}" for reason, names in sorted(nodes.items()))


def _of_node(told: Explanation, node: str) -> str:
    for place in told.places:
        if place.node == node:
            if place.rejection is not None:
                return (
                    f"{told.vmi} cannot go to {node}: {place.rejection.plugin}: {'; '.join(place.rejection.reasons)}."
                )
            if place.too_full:
                return f"{told.vmi} is not sent to {node}: {place.too_full}."
            if place.left_lately:
                return f"{told.vmi} is not sent to {node}. {LEFT_LATELY}."
            stays = f", but it has to stay: {told.immovable}" if told.immovable else f"; {_with_it(place)}"
            return f"{told.vmi} could go to {node}{stays}."
    raise NoSuchNodeError(f"there is no node {node}; the nodes are {some([place.node for place in told.places], 20)}")


def _with_it(place: Place) -> str:
    return f"reserves {percent(place.cpu)} of its CPU with it"


def _place(state: ClusterState, pod: Pod, node: Node, verdicts: Survey, params: PolicyParams) -> Place:
    refused = verdicts.rejections.get(node.name)
    requested = state.requested(node.name) + pod.spec.requests
    cpu = 100 * requested.cpu_milli / node.allocatable.cpu_milli if judged(node, CPU) else 0.0
    crossed = [
        f"would reserve {percent(100 * requested.get(name) / node.allocatable.get(name))} of its {resource(name)}, "
        f"above {percent(node_thresholds(node, params.thresholds)[0].percent(name, 'low'))}"
        for name in params.thresholds.resources
        if judged(node, name) and requested.get(name) > limit(node, name, "low", params.thresholds)
    ]
    return Place(node=node.name, cpu=cpu, rejection=refused, too_full="" if refused else "; ".join(crossed))


def _unknown(snapshot: Snapshot, key: str) -> str:
    near = difflib.get_close_matches(key, snapshot.vmis, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; VMs are named NAMESPACE/NAME"
    return f"there is no VM {key} among the {len(snapshot.vmis)} of this cluster{hint}"
