"""Lists: pages that stay consistent, resourceVersion semantics, selectors, and tables for kubectl."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from rebalancer.sim import events
from rebalancer.sim.errors import ApiError, bad_request, expired
from rebalancer.sim.objects import Obj, decode, encode, key_of, seconds_of
from rebalancer.sim.resources import Resource, Target
from rebalancer.sim.selecting import selector
from rebalancer.sim.store import Store

TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder."
)


def parse_version(text: str) -> int:
    """A resourceVersion parameter; raises ApiError 400."""
    if text and not (text.isascii() and text.isdigit()):
        raise bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text or 0)


def _token(version: int, last: str) -> str:
    return base64.urlsafe_b64encode(encode({"v": "meta.k8s.io/v1", "rv": version, "start": last})).decode()


def _read_token(token: str) -> tuple[int, str]:
    try:
        body = decode(base64.urlsafe_b64decode(token))
        return int(body["rv"]), str(body["start"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid: illegal base64 data") from None


def list_body(store: Store, target: Target, query: Mapping[str, str], *, stale: int = 0) -> Obj:
    """The body of a list request. `stale` serves it from a picture that many changes old. Raises ApiError."""
    limit, token = int(query.get("limit") or 0), query.get("continue", "")
    wanted, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    version, start = store.version, ""
    if parse_version(wanted) > store.version:
        message = f"Too large resource version: {wanted}, current: {store.version}"
        details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
        raise ApiError(504, "Timeout", message, details=details, retry_after_seconds=1)
    if token:
        if wanted not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        version, start = _read_token(token)
    elif match == "Exact":
        version = parse_version(wanted)
    elif wanted == "0":
        limit = 0  # served from the watch cache, which knows no pages
    if stale:
        version = max(version - stale, store.compacted, 1)
    try:
        items = store.items_at(target.resource.storage, version, target.namespace)
    except ApiError:
        raise expired(TOO_OLD) from None
    matches = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    if target.name:
        items = [item for item in items if item["metadata"]["name"] == target.name]
    if matches is not None:
        items = [item for item in items if matches(item)]
    if start:
        items = [item for item in items if key_of(item) > start]
    meta: Obj = {"resourceVersion": str(version)}
    if limit and len(items) > limit:
        meta["continue"] = _token(version, key_of(items[limit - 1]))
        if matches is None:
            meta["remainingItemCount"] = len(items) - limit
        items = items[:limit]
    return render_list(target.resource, items, meta)


def render_list(resource: Resource, items: list[Obj], meta: Obj) -> Obj:
    """Items of built-in kinds stand without kind and apiVersion in a list; those of custom resources with."""
    if resource is events.NEW_GROUP:
        items = [events.to_new(item) for item in items]
    if resource.builtin:
        items = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
    return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}


def _at(item: Obj, path: str) -> Any:
    here: Any = item
    for part in path.strip(".").split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here


def _age(item: Obj, now: float) -> str:
    seconds = max(int(now - seconds_of(item["metadata"].get("creationTimestamp"))), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def table(resource: Resource, items: list[Obj], meta: Obj, now: float) -> Obj:
    """What kubectl prints: the server's choice of columns, with the objects' metadata beside. `now` since 1970."""
    names = ["Name", *(name for name, _ in resource.columns), "Age"]
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
        for name in names
    ]
    rows = [
        {
            "cells": [
                item["metadata"]["name"],
                *(_at(item, path) or "" for _, path in resource.columns),
                _age(item, now),
            ],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]},
        }
        for item in items
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    }
