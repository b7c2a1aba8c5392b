"""The checkers' own picture of the cluster: who runs where, how full nodes are, which rules are broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from rebalancer.sim.check_reading import (
    Obj,
    full_name,
    labels,
    need,
    required_terms,
    selects,
    tolerated,
    wants_node,
)

ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Something that runs and matters to rules: a VM, or a pod that is none. `spec` is a VM's own, {} for a pod.

    `ruled`: whether that says anything about where it may run.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Obj
    node: str
    needs: Mapping[str, Fraction]
    ruled: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The cluster with every VM in one place: where it runs, whatever is under way. By name."""

    nodes: Mapping[str, Obj]
    namespaces: Mapping[str, Obj]
    guests: Mapping[str, Guest]

    origin: Picture | None = None

    @cached_property
    def by_label(self) -> dict[str, dict[tuple[str, str], list[str]]]:
        """The names of the guests with a label, by key, then by namespace and value; where they are is all the same.

        What has not been asked about yet is not there.
        """
        return {} if self.origin is None else self.origin.by_label

    def _labelled(self, key: str) -> dict[tuple[str, str], list[str]]:
        found = self.by_label.get(key)
        if found is None:
            found = self.by_label[key] = {}
            for guest in self.guests.values():
                if key in guest.labels:
                    found.setdefault((guest.namespace, guest.labels[key]), []).append(guest.name)
        return found

    @cached_property
    def by_namespace(self) -> Mapping[str, list[str]]:
        """The names of the guests of each namespace."""
        if self.origin is not None:
            return self.origin.by_namespace
        found: dict[str, list[str]] = {}
        for guest in self.guests.values():
            found.setdefault(guest.namespace, []).append(guest.name)
        return found

    def chosen(self, namespaces: Iterable[str], selector: Obj | None) -> list[Guest]:
        """The guests in some namespaces that a label selector selects."""
        exact = next(iter(((selector or {}).get("matchLabels") or {}).items()), None)
        names = [
            name
            for space in sorted(namespaces)
            for name in (
                self._labelled(exact[0]).get((space, exact[1]), ()) if exact else self.by_namespace.get(space, ())
            )
        ]
        guests = (self.guests[name] for name in names)
        return [guest for guest in guests if selects(selector, dict(guest.labels))]

    @cached_property
    def broken(self) -> dict[tuple[str, str], str]:
        """Every required rule that a VM breaks where it runs: (VM, rule) to a sentence."""
        found = {}
        for guest in self.guests.values():
            node = self.nodes.get(guest.node)
            if not guest.spec or node is None or not (guest.ruled or node.get("spec", {}).get("taints")):
                continue
            for rule, text in (*_node_rules(guest, node), *_pod_rules(self, guest), *_spread_rules(self, guest)):
                found[guest.name, rule] = f"{guest.name} on {guest.node}: {text}"
        return found

    def moved(self, places: Mapping[str, str]) -> Picture:
        """The same with some VMs elsewhere."""
        guests = dict(self.guests)
        for name, node in places.items():
            if name in guests:
                guests[name] = replace(guests[name], node=node)
        return Picture(nodes=self.nodes, namespaces=self.namespaces, guests=guests, origin=self.origin or self)


RESOURCES = ("cpu", "memory")


Known = dict[str, tuple[Obj, Obj | None, str, Guest | None]]
"""What was read of each pod, by its UID, of its VM and that VM's UID, for as long as neither is written to."""


def take(items: Callable[[str], list[Obj]], known: Known | None = None) -> Picture:
    """Read the cluster; `items` lists a resource by its plural name. `known` saves reading what has not changed."""
    known = {} if known is None else known
    before = dict(known)
    known.clear()
    vmis = {vmi["metadata"]["uid"]: vmi for vmi in items("virtualmachineinstances")}
    guests = {}
    for pod in items("pods"):
        uid = pod["metadata"]["uid"]
        read = before.get(uid)
        if read is None or read[0] is not pod or read[1] is not vmis.get(read[2]):
            owner = _owner(pod)
            read = (pod, vmis.get(owner), owner, _guest(pod, vmis.get(owner)))
        known[uid] = read
        if read[3] is not None:
            guests[read[3].name] = read[3]
    return Picture(
        nodes={node["metadata"]["name"]: node for node in items("nodes")},
        namespaces={space["metadata"]["name"]: space for space in items("namespaces")},
        guests=guests,
    )


def _owner(pod: Obj) -> str:
    """The UID of whatever controls a pod."""
    return next((ref["uid"] for ref in pod["metadata"].get("ownerReferences") or () if ref.get("controller")), "")


def _guest(pod: Obj, vmi: Obj | None) -> Guest | None:
    """What a pod is to the picture; None where it has ended, is not placed yet, or is the other half of a migration."""
    node = pod["spec"].get("nodeName")
    if not node or (pod.get("status") or {}).get("phase") in ENDED:
        return None
    if vmi is not None and (vmi.get("status") or {}).get("nodeName") not in (None, "", node):
        return None
    spec = vmi["spec"] if vmi is not None else {}
    return Guest(
        name=full_name(vmi) if vmi is not None else f"pod {full_name(pod)}",
        namespace=pod["metadata"]["namespace"],
        labels=labels(pod),
        spec=spec,
        node=node,
        needs={resource: need(pod, resource) for resource in RESOURCES},
        ruled=any(spec.get(field) for field in ("nodeSelector", "affinity", "topologySpreadConstraints")),
    )


def loads(picture: Picture, resource: str) -> dict[str, Fraction]:
    """What the guests of each node ask for together."""
    total = dict.fromkeys(picture.nodes, Fraction(0))
    for guest in picture.guests.values():
        if guest.node in total:
            total[guest.node] += guest.needs[resource]
    return total


def broken_rules(picture: Picture) -> dict[tuple[str, str], str]:
    """Every required rule that a VM breaks where it runs: (VM, rule) to a sentence."""
    return picture.broken


def _node_rules(guest: Guest, node: Obj) -> Iterator[tuple[str, str]]:
    if not wants_node(guest.spec, node):
        yield "node", "its node selector or node affinity does not want this node"
    for taint in node.get("spec", {}).get("taints") or ():
        of_the_node = taint["key"].startswith("node.kubernetes.io/")  # not ready, cordoned: no rule of the VM
        if taint["effect"] == "NoSchedule" and not of_the_node and not tolerated(guest.spec, taint):
            yield f"taint {taint['key']}", f"it does not tolerate {taint['key']}={taint.get('value', '')}"


def _spaces(picture: Picture, guest: Guest, term: Obj) -> set[str]:
    """The namespaces that a pod affinity term looks into."""
    named, chosen = set(term.get("namespaces") or ()), term.get("namespaceSelector")
    if chosen is not None:
        named |= {name for name, space in picture.namespaces.items() if selects(chosen, labels(space))}
    elif not named:
        named = {guest.namespace}
    return named


def _with_label_keys(term: Obj, guest: Guest) -> Obj | None:
    """matchLabelKeys and mismatchLabelKeys are expressions about the guest's own labels."""
    selector: Obj | None = term.get("labelSelector")
    if selector is None or not (term.get("matchLabelKeys") or term.get("mismatchLabelKeys")):
        return selector
    added = [
        {"key": key, "operator": operator, "values": [guest.labels[key]]}
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in term.get(field) or ()
        if key in guest.labels
    ]
    return selector | {"matchExpressions": [*(selector.get("matchExpressions") or ()), *added]}


def _matched(picture: Picture, guest: Guest, term: Obj) -> list[Guest]:
    """The other guests, anywhere, that a term is about."""
    spaces, selector = _spaces(picture, guest, term), _with_label_keys(term, guest)
    return [other for other in picture.chosen(spaces, selector) if other.name != guest.name]


def _domain(picture: Picture, node: str, key: str) -> str | None:
    found = picture.nodes.get(node)
    return labels(found).get(key) if found is not None else None


def _pod_rules(picture: Picture, guest: Guest) -> Iterator[tuple[str, str]]:
    for number, term in enumerate(required_terms(guest.spec, "podAntiAffinity")):
        here = _domain(picture, guest.node, term["topologyKey"])
        for other in _matched(picture, guest, term) if here is not None else ():
            if _domain(picture, other.node, term["topologyKey"]) == here:
                yield (
                    f"anti-affinity {number} {other.name}",
                    f"it must not be with {other.name} ({term['topologyKey']})",
                )
    for number, term in enumerate(required_terms(guest.spec, "podAffinity")):
        here = _domain(picture, guest.node, term["topologyKey"])
        others = _matched(picture, guest, term)
        if others and not any(_domain(picture, other.node, term["topologyKey"]) == here for other in others):
            yield f"affinity {number}", f"none of those it must be with is in its {term['topologyKey']}"


def _spread_rules(picture: Picture, guest: Guest) -> Iterator[tuple[str, str]]:
    for number, rule in enumerate(guest.spec.get("topologySpreadConstraints") or ()):
        here = _domain(picture, guest.node, rule["topologyKey"])
        if rule.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule" or here is None:
            continue
        counts: dict[str, int] = {}
        for node in picture.nodes.values():
            domain = labels(node).get(rule["topologyKey"])
            if domain is not None and domain not in counts and _counts_for_spread(rule, guest, node):
                counts[domain] = 0
        for other in picture.chosen((guest.namespace,), _with_label_keys(rule, guest)):
            domain = _domain(picture, other.node, rule["topologyKey"])
            if domain in counts and _counts_for_spread(rule, guest, picture.nodes[other.node]):
                counts[domain] += 1
        least = 0 if len(counts) < (rule.get("minDomains") or 1) else min(counts.values(), default=0)
        skew = counts.get(here, 0) - least
        if skew > rule["maxSkew"]:
            yield (
                f"spread {number}",
                f"{rule['topologyKey']} {here} has {skew} more than another, {rule['maxSkew']} allowed",
            )


def _counts_for_spread(rule: Obj, guest: Guest, node: Obj) -> bool:
    if rule.get("nodeAffinityPolicy", "Honor") == "Honor" and not wants_node(guest.spec, node):
        return False
    if rule.get("nodeTaintsPolicy", "Ignore") == "Ignore":
        return True
    taints = node.get("spec", {}).get("taints") or ()
    return all(taint["effect"] == "PreferNoSchedule" or tolerated(guest.spec, taint) for taint in taints)
