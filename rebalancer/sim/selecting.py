"""Label and field selectors of list and watch requests, in the query string's notation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rebalancer.sim.errors import bad_request

Matches = Callable[[dict[str, Any]], bool]

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s,()]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<absent>!?)\s*(?P<key>[^\s!=,()]+)\s*$")
_SPLIT = re.compile(r",(?![^(]*\))")

FIELDS = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.unschedulable": ("spec", "unschedulable"),
    "status.phase": ("status", "phase"),
    "involvedObject.name": ("involvedObject", "name"),
    "involvedObject.namespace": ("involvedObject", "namespace"),
    "involvedObject.uid": ("involvedObject", "uid"),
    "involvedObject.kind": ("involvedObject", "kind"),
    "reason": ("reason",),
    "type": ("type",),
}


def _labels(item: dict[str, Any]) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _label_requirement(text: str) -> Matches:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["operator"] == "in":
            return lambda item: _labels(item).get(key) in values
        return lambda item: _labels(item).get(key) not in values
    if found := _EQUAL.match(text):
        key, value = found["key"], found["value"]
        if found["operator"] == "!=":
            return lambda item: _labels(item).get(key) != value
        return lambda item: _labels(item).get(key) == value
    if found := _EXISTS.match(text):
        key, absent = found["key"], bool(found["absent"])
        return lambda item: (key in _labels(item)) != absent
    raise bad_request(f"unable to parse requirement: {text!r}")


def _field_requirement(text: str) -> Matches:
    found = _EQUAL.match(text)
    if not found or found["key"] not in FIELDS:
        raise bad_request(f"field label not supported: {found['key'] if found else text}")
    path, value, negative = FIELDS[found["key"]], found["value"], found["operator"] == "!="

    def matches(item: dict[str, Any]) -> bool:
        here: Any = item
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        text = "" if here is None else str(here).lower() if isinstance(here, bool) else str(here)
        return (text == value) != negative

    return matches


def selector(labels: str, fields: str) -> Matches | None:
    """One predicate of both selectors; None where everything matches. Raises ApiError 400 for bad notation."""
    parts = [_label_requirement(text) for text in _SPLIT.split(labels) if text.strip()]
    parts += [_field_requirement(text) for text in _SPLIT.split(fields) if text.strip()]
    if not parts:
        return None
    return lambda item: all(part(item) for part in parts)
