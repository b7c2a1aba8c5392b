"""Events: one kind of object behind two groups, core/v1 and events.k8s.io/v1, and a recorder for controllers."""

from __future__ import annotations

from typing import Any

from rebalancer.sim.errors import invalid
from rebalancer.sim.objects import Obj, micro_stamp, stamp
from rebalancer.sim.resources import BY_PATH
from rebalancer.sim.store import Store

NEW_GROUP = BY_PATH["events.k8s.io", "v1", "events"]

_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_TO_NEW = {core: new for new, core in _TO_CORE.items()}


def to_core(event: Obj) -> Obj:
    """An event of events.k8s.io/v1 as it is stored."""
    return {_TO_CORE.get(key, key): value for key, value in event.items()} | {"apiVersion": "v1"}


def to_new(event: Obj) -> Obj:
    """A stored event in the words of events.k8s.io/v1."""
    return {_TO_NEW.get(key, key): value for key, value in event.items()} | {"apiVersion": "events.k8s.io/v1"}


def validate_new(event: Obj) -> None:
    """What the server asks of an Event of events.k8s.io/v1 (pkg/apis/core/validation/events.go); raises ApiError."""
    name = event.get("metadata", {}).get("name", "")
    for field, limit in (
        ("eventTime", 0), ("reportingController", 0), ("reportingInstance", 128), ("action", 128), ("reason", 128),
    ):  # fmt: skip
        value = event.get(field)
        if not value:
            raise invalid(NEW_GROUP, name, field, "Required value")
        if limit and len(value) > limit:
            raise invalid(NEW_GROUP, name, field, f"Invalid value: can have at most {limit} characters")
    if len(event.get("note") or "") > 1024:
        raise invalid(NEW_GROUP, name, "note", "Invalid value: can have at most 1024 characters")
    if event.get("type") not in ("Normal", "Warning"):
        raise invalid(NEW_GROUP, name, "type", f"Invalid value: {event.get('type')!r}")
    about = (event.get("regarding") or {}).get("namespace") or "default"
    if about != event.get("metadata", {}).get("namespace"):
        raise invalid(NEW_GROUP, name, "regarding.namespace", "Invalid value: does not match event.namespace")


REMEMBERED = 4096
"""Events that a recorder remembers before it forgets those that are gone (the size of client-go's cache)."""


class Recorder:
    """Writes a controller's Events; the same one again only counts up, as client-go's recorder does."""

    def __init__(self, store: Store, component: str) -> None:
        self._store = store
        self._component = component
        self._seen: dict[tuple[str, str, str], tuple[str, str]] = {}

    def record(self, about: Obj, kind: str, reason: str, message: str) -> None:
        """One Event; `kind` is Normal or Warning."""
        meta = about["metadata"]
        known = self._seen.get((meta["uid"], reason, message))
        now = stamp(self._store.now())
        if known and self._store.find("events", *known):

            def again(event: Obj) -> None:
                event["count"] += 1
                event["lastTimestamp"] = now

            self._store.modify("events", *known, again, actor=self._component)
            return
        namespace = meta.get("namespace") or "default"
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.get("apiVersion", "v1"),
                "kind": about.get("kind", ""),
                "name": meta["name"],
                "namespace": meta.get("namespace", ""),
                "uid": meta["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": micro_stamp(self._store.now()),
            "count": 1,
        }
        created = self._store.create("events", event, actor=self._component)
        if len(self._seen) >= REMEMBERED:
            self._seen = {key: where for key, where in self._seen.items() if self._store.find("events", *where)}
        self._seen[meta["uid"], reason, message] = (namespace, created["metadata"]["name"])
