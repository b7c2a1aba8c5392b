"""Objects as the API has them, JSON dicts: reading them without tripping, and the times in them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

Obj = dict[str, Any]

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode

HOSTNAME = "kubernetes.io/hostname"
NODE_NAME = "kubevirt.io/nodeName"
TARGET_NODE = "kubevirt.io/migrationTargetNodeName"
CREATED_BY = "kubevirt.io/created-by"
JOB_UID = "kubevirt.io/migrationJobUID"
JOB_NAME = "kubevirt.io/migrationJobName"
VMI_NAME = "kubevirt.io/vmi-name"
MIGRATION_FINALIZER = "kubevirt.io/migrationJobFinalize"
VMI_FINALIZER = "foregroundDeleteVirtualMachine"
HEARTBEAT = "kubevirt.io/heartbeat"
SCHEDULABLE = "kubevirt.io/schedulable"
TERMINAL = ("Succeeded", "Failed")


def copy(item: Obj) -> Obj:
    """A deep copy. A round trip through JSON is several times faster than copy.deepcopy."""
    result: Obj = decode(encode(item))
    return result


def stamp(seconds: float) -> str:
    """Seconds since 1970 as the API writes a time: RFC 3339, whole seconds."""
    return _stamp(int(seconds))


@lru_cache(maxsize=1024)
def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(seconds: float) -> str:
    """The API's MicroTime, which Leases and events.k8s.io use."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(text: str | None) -> float:
    """A time of the API in seconds since 1970, 0 where there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def key_of(item: Obj) -> str:
    """namespace/name, or the name alone."""
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def labels_of(item: Obj) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def annotations_of(item: Obj) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


def status(item: Obj) -> Obj:
    return item.get("status") or {}


def phase(item: Obj) -> str:
    return str(status(item).get("phase") or "")


def terminal(pod: Obj) -> bool:
    return phase(pod) in TERMINAL


def deleting(item: Obj) -> bool:
    return bool(item["metadata"].get("deletionTimestamp"))


def owner_uid(item: Obj) -> str:
    """The uid of the object's controller, "" where it has none."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def condition(item: Obj, kind: str) -> Obj | None:
    for entry in status(item).get("conditions") or ():
        if entry.get("type") == kind:
            return dict(entry)
    return None


def is_true(item: Obj, kind: str) -> bool:
    found = condition(item, kind)
    return found is not None and found.get("status") == "True"


def with_conditions(old: Iterable[Obj], *new: Obj) -> list[Obj]:
    """The conditions with the new ones put in their places; a transition time changes only with the status."""
    fresh = {entry["type"]: entry for entry in new}
    result = []
    for entry in old:
        replacement = fresh.pop(entry["type"], None)
        if replacement is None:
            result.append(entry)
            continue
        if entry.get("status") == replacement.get("status") and "lastTransitionTime" in entry:
            replacement = replacement | {"lastTransitionTime": entry["lastTransitionTime"]}
        result.append(replacement)
    return result + list(fresh.values())


def ready(pod: Obj) -> bool:
    """What virt-controller asks of a launcher pod: all its containers are ready (not its readiness gates)."""
    return phase(pod) == "Running" and not deleting(pod) and is_true(pod, "ContainersReady")
