"""The objects of the cluster: versions, history, conflicts, finalizers, deletion, the status subresource.

Objects handed out are shared and must not be changed: write through `modify`, `replace` or `patch`. Every write is one
synchronous step, so whoever does not await between reading and writing holds a transaction.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from rebalancer.sim.chance import Dice
from rebalancer.sim.errors import already_exists, bad_request, conflict, expired, invalid, not_found
from rebalancer.sim.index import INDEXES, Index, Key
from rebalancer.sim.objects import Obj, copy, encode, stamp, terminal
from rebalancer.sim.resources import BY_STORAGE, Resource

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
HISTORY = 20_000
"""Changes that a watch can resume from (etcd keeps five minutes; the watch cache some thousands of events)."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
"""The server's own words (apimachinery: util/validation)."""


@dataclass(slots=True)
class Change:
    """One write. `previous` is the object before it, None for an addition; `actor` is who wrote."""

    version: int
    type: str
    resource: str
    namespace: str
    name: str
    object: Obj
    previous: Obj | None
    time: float
    actor: str
    _line: bytes = field(default=b"", repr=False)

    def line(self) -> bytes:
        """The change as a line of a watch, encoded once for all watchers."""
        if not self._line:
            self._line = b'{"type":"%s","object":%s}\n' % (self.type.encode(), encode(self.object))
        return self._line


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How to delete. `grace_seconds` None is the pod's own; `preconditions` are metadata fields that must match."""

    grace_seconds: int | None = None
    preconditions: Obj | None = None
    dry_run: bool = False


NOW = Deletion(grace_seconds=0)
Listener = Callable[[Change], None]


class Store:
    """All objects of the cluster and their recent history."""

    def __init__(self, now: Callable[[], float], dice: Dice | None = None, history: int = HISTORY) -> None:
        self.now = now
        self.version = 1
        self.compacted = 0
        self._dice = dice or Dice()
        self._objects: dict[str, dict[Key, Obj]] = {storage: {} for storage in BY_STORAGE}
        self._order: dict[str, list[Key]] = {storage: [] for storage in BY_STORAGE}
        self._indexes = {
            storage: {name: Index(read) for name, read in readers.items()} for storage, readers in INDEXES.items()
        }
        self._history: deque[Change] = deque(maxlen=history)
        self._listeners: dict[int, Listener] = {}
        self._subscriptions = 0
        self._created = 0
        self._names = 0

    # Reading

    def find(self, resource: str, namespace: str, name: str) -> Obj | None:
        return self._objects[resource].get((namespace, name))

    def get(self, resource: str, namespace: str, name: str) -> Obj:
        """The object; raises ApiError 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(BY_STORAGE[resource], name)
        return found

    def items(self, resource: str, namespace: str = "") -> list[Obj]:
        """All objects of a kind in the order of their keys, as etcd lists them."""
        objects, order = self._objects[resource], self._order[resource]
        if namespace:
            order = order[bisect_left(order, (namespace, "")) : bisect_left(order, (namespace + "\0", ""))]
        return [objects[key] for key in order]

    def where(self, resource: str, index: str, value: str) -> list[Obj]:
        """The objects that an index of index.py has under a value, in the order of their keys."""
        objects = self._objects[resource]
        return [objects[key] for key in self._indexes[resource][index].keys(value)]

    def items_at(self, resource: str, version: int, namespace: str = "") -> list[Obj]:
        """The objects as they were at an earlier version; raises ApiError 410 where that is compacted."""
        if version >= self.version:
            return self.items(resource, namespace)
        self._check_history(version)
        objects = dict(self._objects[resource])
        for change in reversed(self._history):
            if change.version <= version:
                break
            if change.resource == resource:
                key = (change.namespace, change.name)
                if change.previous is None:
                    objects.pop(key, None)
                else:
                    objects[key] = change.previous
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def since(self, version: int) -> Iterator[Change]:
        """The changes after a version, oldest first; raises ApiError 410 where they are compacted."""
        self._check_history(version)
        # A watch resumes near the end of what may be a long history.
        newer = list(takewhile(lambda change: change.version > version, reversed(self._history)))
        return reversed(newer)

    def _check_history(self, version: int) -> None:
        oldest = self._history[0].version - 1 if len(self._history) == self._history.maxlen else 0
        oldest = max(oldest, self.compacted)
        if version < oldest:
            raise expired(f"too old resource version: {version} ({oldest})")

    def compact(self) -> None:
        """Forget all history: every watch that resumes and every page that continues gets 410."""
        self._history.clear()
        self.compacted = self.version

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener at every change, in the middle of the write; returns how to stop that."""
        self._subscriptions += 1
        number = self._subscriptions
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    @property
    def listeners(self) -> int:
        """How many subscriptions there are, watches included."""
        return len(self._listeners)

    # Writing

    def load(self, resource: str, item: Obj) -> Obj:
        """Put an object of a dump in place as it is, with its uid, times and status."""
        item = copy(item)
        item["metadata"].pop("managedFields", None)
        meta = item["metadata"]
        return self._commit(resource, (meta.get("namespace", ""), meta["name"]), item, None, "dump")

    def create(self, resource: str, item: Obj, *, actor: str = "", dry_run: bool = False) -> Obj:
        """A new object with name, uid, version and time; raises ApiError 409, 422."""
        kind = BY_STORAGE[resource]
        item = copy(item)
        meta = item.setdefault("metadata", {})
        meta.pop("resourceVersion", None)
        self._created += 1
        if not meta.get("name") and not meta.get("generateName"):
            raise invalid(kind, "", "metadata.name", "Required value: name or generateName is required")
        self.name(item)
        self._validate(kind, meta)
        if resource == "pods":
            selector = (item.get("spec") or {}).get("nodeSelector") or {}
            self._validate_labels(kind, meta["name"], "spec.nodeSelector", selector)
        key = (meta.get("namespace", ""), meta["name"])
        if key in self._objects[resource]:
            raise already_exists(kind, meta["name"])
        item.setdefault("apiVersion", kind.api_version)
        item.setdefault("kind", kind.kind)
        meta["uid"] = self._dice.uid("uid", self._created)
        meta["creationTimestamp"] = stamp(self.now())
        meta.pop("deletionTimestamp", None)
        meta.pop("managedFields", None)
        meta["generation"] = 1
        if kind.status and not kind.builtin:
            item.pop("status", None)
        if resource == "pods":
            item["status"] = {"phase": "Pending"} | (item.get("status") or {})
        return item if dry_run else self._commit(resource, key, item, None, actor)

    def name(self, item: Obj) -> None:
        """Give the object a name by its generateName, unless it has one."""
        meta = item["metadata"]
        if not meta.get("name"):
            self._names += 1
            meta["name"] = meta["generateName"] + self._dice.suffix("name", self._names)

    @classmethod
    def _validate(cls, kind: Resource, meta: Obj) -> None:
        name = meta["name"]
        if len(name) > 253 or not _NAME.fullmatch(name):
            raise invalid(kind, name, "metadata.name", f'Invalid value: "{name}": {_NAME_RULE}')
        cls._validate_labels(kind, name, "metadata.labels", meta.get("labels") or {})

    @staticmethod
    def _validate_labels(kind: Resource, name: str, field: str, labels: Obj) -> None:
        for label, value in labels.items():
            if not isinstance(value, str):
                raise bad_request(
                    f"json: cannot unmarshal into Go struct field ObjectMeta.labels of type string: {label}"
                )
            if len(value) > 63 or not _LABEL.fullmatch(value):
                rule = _LABEL_RULE if len(value) <= 63 else "must be no more than 63 bytes"
                raise invalid(kind, name, field, f'Invalid value: "{value}": {rule}')

    def replace(self, resource: str, item: Obj, *, part: str = "", actor: str = "", dry_run: bool = False) -> Obj:
        """Replace an object, or with part="status" its status only; raises ApiError 404, 409.

        Without a resourceVersion in the new object it is unconditional, as for the real server's patches.
        """
        kind, meta = BY_STORAGE[resource], item["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        old = self.get(resource, *key)
        wanted = meta.get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise conflict(kind, meta["name"])
        if meta.get("uid") not in (None, old["metadata"]["uid"]):
            why = (
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
            )
            raise conflict(kind, meta["name"], why)
        new = copy(item)
        if part == "status":
            new = old | {"status": new.get("status")}
        elif kind.status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        meta = new["metadata"] = dict(new["metadata"])
        for kept in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):
            if kept in old["metadata"]:
                meta[kept] = old["metadata"][kept]
            else:
                meta.pop(kept, None)
        meta.pop("managedFields", None)
        self._validate(kind, meta)
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        generation = old["metadata"].get("generation")
        if generation is not None:
            meta["generation"] = generation + (new.get("spec") != old.get("spec"))
        if new == old or dry_run:
            return new  # a write that changes nothing is no event
        return self._settle(resource, key, new, old, actor)

    def modify(
        self, resource: str, namespace: str, name: str, change: Callable[[Obj], None], *, actor: str = ""
    ) -> Obj:
        """Let a function change a copy of the object, spec and status alike, and write that."""
        old = self.get(resource, namespace, name)
        new = copy(old)
        change(new)
        if new == old:
            return old
        return self._settle(resource, (namespace, name), new, old, actor)

    def _settle(self, resource: str, key: Key, new: Obj, old: Obj, actor: str) -> Obj:
        """Write the object, or let it go where the last finalizer of a deleted one was taken away."""
        meta = new["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and old["metadata"].get("finalizers"):
            # The write that takes the last finalizer is not stored: watchers see the object go as it was before.
            return self._remove(resource, key, copy(old), actor)
        return self._commit(resource, key, new, old, actor)

    def delete(self, resource: str, namespace: str, name: str, how: Deletion | None = None, *, actor: str = "") -> Obj:
        """Delete, or mark as deleted where finalizers or a pod's grace period hold it; raises ApiError 404, 409."""
        kind = BY_STORAGE[resource]
        how = how or Deletion()
        old = self.get(resource, namespace, name)
        for precondition, value in (how.preconditions or {}).items():
            if old["metadata"].get(precondition) != value:
                found = old["metadata"].get(precondition)
                why = f"the {precondition} in the precondition ({value}) does not match the one in record ({found})"
                raise conflict(kind, name, f"Precondition failed: {why}")
        grace = 0
        if resource == "pods" and old["spec"].get("nodeName") and not terminal(old):
            grace = old["spec"].get("terminationGracePeriodSeconds", 30)
            grace = grace if how.grace_seconds is None else how.grace_seconds
        if how.dry_run:
            return old
        if not old["metadata"].get("finalizers") and not grace:
            if resource == "pods":
                # Even without grace the server first writes that the pod is being deleted, and then deletes it.
                new = copy(old)
                new["metadata"] |= {"deletionTimestamp": stamp(self.now()), "deletionGracePeriodSeconds": 0}
                old = self._commit(resource, (namespace, name), new, old, actor)
            return self._remove(resource, (namespace, name), copy(old), actor)
        if old["metadata"].get("deletionTimestamp"):
            return old
        new = copy(old)
        new["metadata"]["deletionTimestamp"] = stamp(self.now() + grace)
        new["metadata"]["deletionGracePeriodSeconds"] = grace
        return self._commit(resource, (namespace, name), new, old, actor)

    def _commit(self, resource: str, key: Key, new: Obj, old: Obj | None, actor: str) -> Obj:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        old_here = self._objects[resource].get(key)
        if old_here is None:
            insort(self._order[resource], key)
        self._objects[resource][key] = new
        for index in self._indexes.get(resource, {}).values():
            index.update(key, old_here, new)
        self._publish(Change(self.version, MODIFIED if old else ADDED, resource, *key, new, old, self.now(), actor))
        return new

    def _remove(self, resource: str, key: Key, last: Obj, actor: str) -> Obj:
        self.version += 1
        old = self._objects[resource].pop(key)
        order = self._order[resource]
        del order[bisect_left(order, key)]
        for index in self._indexes.get(resource, {}).values():
            index.update(key, old, None)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._publish(Change(self.version, DELETED, resource, *key, last, old, self.now(), actor))
        return last

    def _publish(self, change: Change) -> None:
        self._history.append(change)
        for listener in list(self._listeners.values()):
            listener(change)
