"""A recording without what differs from run to run: names that were generated, uids, times, the order between objects.

A trace says of each object how each facet of it developed, and what events told about it. A facet is the list of its
values, without repetitions; where they are JSON objects, of the first one and then of what changed (null: removed).
Names that were generated become `prefix-1`, `prefix-2` in the order of their creation; uids become the name of what
they belong to.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

from conformance.recording import Recording, Seen
from controlplane.kubeclient import Object

from rebalancer.sim.chance import NAME_ALPHABET

Trace = dict[str, Any]

TIMES = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC"), "TIME in Go's words"),
)


def trace(recording: Recording) -> Trace:
    """The trace of a recording, JSON only."""
    seen = [change for change in recording.seen if change.kind != "Event"]
    objects: dict[str, dict[str, list[Any]]] = {}
    for change in seen:
        facets = objects.setdefault(f"{change.kind} {change.object['metadata']['name']}", {})
        for name, value in _facets(change).items():
            facets.setdefault(name, []).append(value)
        if change.kind == "VMI":
            # Whether a pod is seen before or after it gets its node is chance, and so is which of two pods ends first.
            active = {uid: place for uid, place in (change.object["status"].get("activePods") or {}).items() if place}
            known = facets.setdefault("activePods", [{}])
            known.append(known[-1] | active)
    raw = {
        "asked": [[ask.request, ask.code, ask.reason, ask.message] for ask in recording.asked],
        "objects": objects,
        "events": _events(change.object for change in recording.seen if change.kind == "Event"),
    }
    found: Trace = json.loads(_anonymous(json.dumps(raw), seen))
    for facets in found["objects"].values():
        for facet, values in facets.items():
            facets[facet] = _changes(values)
    for about, told in found["events"].items():
        # What is counted up on one side may be told twice on the other, where a name or a time made a new text of it.
        unique = list({json.dumps(event): event for event in told}.values())
        runs = itertools.groupby(unique, lambda event: event[:3])
        found["events"][about] = [event for _, run in runs for event in sorted(run)]
    return found


def _changes(values: list[Any]) -> list[Any]:
    """Each value that differs from the one before it; of JSON objects what differs."""
    kept = values[:1]
    for before, value in itertools.pairwise(values):
        if value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            removed = dict.fromkeys(before.keys() - value.keys())
            kept.append({key: new for key, new in value.items() if before.get(key) != new} | removed)
        else:
            kept.append(value)
    return kept


def _facets(change: Seen) -> dict[str, Any]:
    item = change.object
    meta, status = item["metadata"], item.get("status") or {}
    common = {
        "phase": status.get("phase", ""),
        "labels": meta.get("labels") or {},
        "annotations": meta.get("annotations") or {},
        "there": "gone" if change.gone else "deleting" if meta.get("deletionTimestamp") else "yes",
    }
    if change.kind == "Pod":
        return common | _pod(item, status)
    state = dict(status.get("migrationState") or {})
    more = {"migrationConfiguration": state.pop("migrationConfiguration", {})}
    more |= {"conditions": sorted(map(_condition, status.get("conditions") or ())), "migrationState": state}
    if change.kind == "VMI":
        node = {key: status.get(key, "") for key in ("nodeName", "evacuationNodeName")}
        return common | more | node
    reached = [entry["phase"] for entry in status.get("phaseTransitionTimestamps") or ()]
    return common | more | {"reached": reached, "finalizers": meta.get("finalizers") or [], "spec": item["spec"]}


def _pod(item: Object, status: Object) -> dict[str, Any]:
    conditions = [one for one in status.get("conditions") or () if one["type"] == "PodScheduled"]
    spec = item["spec"]
    return {
        "scheduled": [_condition(one) for one in conditions],
        "node": spec.get("nodeName", ""),
        "nodeSelector": spec.get("nodeSelector") or {},
        "affinity": spec.get("affinity") or {},
    }


def _condition(one: Object) -> str:
    words = (one["status"], one.get("reason", ""), one.get("message", ""))
    return f"{one['type']}: " + " | ".join(word for word in words if word)


def _events(items: Iterable[Object]) -> dict[str, list[Any]]:
    told: dict[str, list[Any]] = {}
    for item in items:
        about = item["involvedObject"]
        component = item.get("reportingComponent") or (item.get("source") or {}).get("component", "")
        told.setdefault(f"{about['kind']} {about['name']}", []).append(
            [component, item["type"], item["reason"], item.get("message", "")]
        )
    return told


def _anonymous(text: str, seen: Iterable[Seen]) -> str:
    """The text with aliases for generated names and uids, and without times."""
    aliases: dict[str, str] = {}
    counts: dict[str, int] = {}
    for change in seen:
        meta = change.object["metadata"]
        if meta["uid"] in aliases:
            continue
        name = meta["name"]
        if meta.get("generateName"):
            prefix = meta["generateName"]
            counts[prefix] = counts.get(prefix, 0) + 1
            aliases[name] = f"{prefix}{counts[prefix]}"
        aliases[meta["uid"]] = f"uid of {change.kind} {aliases.get(name, name)}"
    pattern = re.compile("|".join(map(re.escape, sorted(aliases, key=len, reverse=True))) or "(?!)")
    text = pattern.sub(lambda found: aliases[found[0]], text)
    # Names of pods that were refused and never came to be.
    prefixes = "|".join(map(re.escape, counts)) or "(?!)"
    text = re.sub(rf"({prefixes})[{NAME_ALPHABET}]{{5}}\b", r"\1NEW", text)
    for time, word in TIMES:
        text = time.sub(word, text)
    return text
