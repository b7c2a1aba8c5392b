"""Which objects have something in common, kept up to date with every write: what informers' indexers are for.

Without them each step of a migration would look at every pod of its namespace, and a month of a large cluster would
take a day to simulate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rebalancer.sim.objects import JOB_UID, TERMINAL, Obj, labels_of, owner_uid, phase, status
from rebalancer.sim.resources import MIGRATIONS, VMIS

Key = tuple[str, str]


def _job(pod: Obj) -> str:
    return labels_of(pod).get(JOB_UID, "")


def _pods_node(pod: Obj) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _vmis_node(vmi: Obj) -> str:
    return str(status(vmi).get("nodeName") or "")


def _vmi_of(migration: Obj) -> str:
    return f"{migration['metadata']['namespace']}/{(migration.get('spec') or {}).get('vmiName')}"


def _open(migration: Obj) -> str:
    return "" if phase(migration) in TERMINAL else "open"


INDEXES: Mapping[str, Mapping[str, Callable[[Obj], str]]] = {
    "pods": {"owner": owner_uid, "job": _job, "node": _pods_node},
    VMIS: {"node": _vmis_node},
    MIGRATIONS: {"vmi": _vmi_of, "open": _open},
}
"""By resource and name of the index: what objects are found by, "" for those that are not to be found."""


class Index:
    """The keys of the objects of one kind by one property."""

    def __init__(self, read: Callable[[Obj], str]) -> None:
        self._read = read
        self._found: dict[str, set[Key]] = {}

    def update(self, key: Key, old: Obj | None, new: Obj | None) -> None:
        """An object has been added (no old one), changed or removed (no new one)."""
        before = self._read(old) if old is not None else ""
        after = self._read(new) if new is not None else ""
        if before == after:
            return
        if before:
            left = self._found[before]
            left.discard(key)
            if not left:
                del self._found[before]
        if after:
            self._found.setdefault(after, set()).add(key)

    def keys(self, value: str) -> list[Key]:
        """In the order in which etcd lists them."""
        return sorted(self._found.get(value, ()))
