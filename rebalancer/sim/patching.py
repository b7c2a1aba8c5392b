"""Patches: JSON merge patch (RFC 7396), JSON patch (RFC 6902), and as much of strategic merge as kubectl needs."""

from __future__ import annotations

from typing import Any

from rebalancer.sim.errors import ApiError, bad_request

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

MERGE_KEYS = {"conditions": "type", "taints": "key", "containers": "name", "initContainers": "name", "env": "name"}
"""Lists that a strategic merge patch merges by a key; it replaces all others (patchMergeKey in the API's types)."""


def merge(target: Any, patch: Any, *, strategic: bool = False) -> Any:
    """The target with a merge patch applied: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        elif strategic and isinstance(value, list) and key in MERGE_KEYS and isinstance(result.get(key), list):
            result[key] = _merge_list(result[key], value, MERGE_KEYS[key])
        else:
            result[key] = merge(result.get(key), value, strategic=strategic)
    return result


def _merge_list(old: list[Any], new: list[Any], by: str) -> list[Any]:
    merged = {item[by]: item for item in old}
    for item in new:
        if not isinstance(item, dict) or by not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {by}")
        if item.get("$patch") == "delete":
            merged.pop(item[by], None)
        else:
            merged[item[by]] = merge(merged.get(item[by]), item, strategic=True)
    return list(merged.values())


def apply_json_patch(document: Any, operations: Any) -> Any:
    """The document with a JSON patch applied; a failed test is 422, as the API server answers it."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    for operation in operations:
        try:
            document = _apply_one(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise ApiError(422, "Invalid", message) from None
    return document


def _pointer(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _find(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _apply_one(document: Any, operation: dict[str, Any]) -> Any:
    kind, parts = operation["op"], _pointer(operation["path"])
    if kind == "test":
        try:
            found = _find(document, parts)
        except (KeyError, IndexError):
            found = None  # Go's library lets a test for null pass where the path is absent
        if found != operation.get("value"):
            raise ValueError(f"testing path {operation['path']} value failed")
        return document
    if kind in ("move", "copy"):
        value = _find(document, _pointer(operation["from"]))
        if kind == "move":
            document = _set(document, _pointer(operation["from"]), None, remove=True)
        return _set(document, parts, value)
    if kind in ("replace", "remove"):
        _find(document, parts)
    if kind not in ("add", "replace", "remove"):
        raise ValueError(f"unexpected kind: {kind}")
    return _set(document, parts, operation.get("value"), remove=kind == "remove", insert=kind == "add")


def _set(document: Any, parts: list[str], value: Any, *, remove: bool = False, insert: bool = True) -> Any:
    if not parts:
        return None if remove else value
    parent, last = _find(document, parts[:-1]), parts[-1]
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if remove:
            del parent[index]
        elif insert:
            parent.insert(index, value)
        else:
            parent[index] = value
    elif remove:
        del parent[last]
    else:
        parent[last] = value
    return document
