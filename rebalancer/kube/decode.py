"""From the API's bytes to domain values: one object, one page of a list, one line of a watch.

A page is decoded at once, typed. Where that fails, its objects are decoded one by one, and each that is broken is set
aside alone, with what can be read of it: a pod stays as load, a node as one that receives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from rebalancer.domain.cluster import CSINode, KubeVirt, Namespace, PersistentVolume, PersistentVolumeClaim
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import SetAside
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube import decode_cluster, decode_pod, decode_vmi, pieces, wire, wire_vmi
from rebalancer.kube.reading import BROKEN, explain, plain, salvage
from rebalancer.kube.snapshot import KUBEVIRT, SnapshotBuilder, build_snapshot

__all__ = [
    "KINDS",
    "DecodeError",
    "Decoded",
    "Kind",
    "Page",
    "SnapshotBuilder",
    "Value",
    "WatchEvent",
    "build_snapshot",
    "decode",
    "decode_event",
    "decode_list",
    "decode_object",
]

Value = Node | Pod | VMI | Migration | Namespace | KubeVirt | PersistentVolume | PersistentVolumeClaim | CSINode


class DecodeError(Exception):
    """Text that is no such object, list or event; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind that we read. `optional` ones may be missing from a cluster, or forbidden to us."""

    kind: str
    path: str
    plural: str
    namespaced: bool
    optional: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind: Kind(kind=kind, path=f"{group}/{kind.lower()}s", plural=f"{kind.lower()}s", namespaced=ns, optional=opt)
        for kind, group, ns, opt in (
            ("Node", "/api/v1", False, False),
            ("Namespace", "/api/v1", False, False),
            ("Pod", "/api/v1", True, False),
            ("VirtualMachineInstance", "/apis/kubevirt.io/v1", True, False),
            ("VirtualMachineInstanceMigration", "/apis/kubevirt.io/v1", True, False),
            ("KubeVirt", "/apis/kubevirt.io/v1", True, False),
            ("PersistentVolume", "/api/v1", False, True),
            ("PersistentVolumeClaim", "/api/v1", True, True),
            ("CSINode", "/apis/storage.k8s.io/v1", False, True),
        )
    }
)
"""By kind, in the order in which a cache should list them: what others refer to comes first."""

_READERS: Mapping[str, tuple[type[wire.Object], Callable[[Any, list[str]], Value | None]]] = MappingProxyType(
    {
        "Node": (wire.Node, decode_cluster.node),
        "Namespace": (wire.Namespace, decode_cluster.namespace),
        "Pod": (wire.Pod, decode_pod.pod),
        "VirtualMachineInstance": (wire_vmi.VMI, decode_vmi.vmi),
        "VirtualMachineInstanceMigration": (wire_vmi.Migration, decode_vmi.migration),
        "KubeVirt": (wire.KubeVirt, decode_cluster.kubevirt),
        "PersistentVolume": (wire.PersistentVolume, decode_cluster.persistent_volume),
        "PersistentVolumeClaim": (wire.PersistentVolumeClaim, decode_cluster.persistent_volume_claim),
        "CSINode": (wire.CSINode, decode_cluster.csi_node),
    }
)

_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One object. `value` is None where nothing of it can be used; `set_aside` says what could not be read.

    `key` is its name, or "namespace/name"; "" where it has none. The KubeVirt CR, of which a cluster has one, goes by
    its kind.
    """

    key: str
    resource_version: str
    value: Value | None
    set_aside: SetAside | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list; an object may be in `items`, as far as it can be read, and in `set_aside` too."""

    items: tuple[Value, ...]
    set_aside: tuple[SetAside, ...]
    resource_version: str
    continue_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.

    `key` and `object` as in Decoded. `code`, `reason` and `message` are those of the Status of an ERROR.
    `initial_events_end` marks the bookmark after which a streaming list is complete.
    """

    type: str
    key: str = ""
    object: Value | None = None
    resource_version: str = ""
    set_aside: SetAside | None = None
    code: int = 0
    reason: str = ""
    message: str = ""
    initial_events_end: bool = False


def decode(kind: str, raw: bytes, *, position: str = "") -> Decoded:
    """One object, whatever it looks like; never raises. `position` names an object that has no name."""
    problems: list[str] = []
    struct, _ = _READERS[kind]
    try:
        found = _decoder(struct).decode(raw)
    except BROKEN:
        found = salvage(struct, raw, problems)
    return _decoded(kind, found, problems, position)


def _decoded(kind: str, found: wire.Object, problems: list[str], position: str = "") -> Decoded:
    meta = found.metadata
    namespace = (meta.namespace or "") if KINDS[kind].namespaced else ""
    if not _NAME.fullmatch(meta.name):
        problems = problems or ["metadata.name: is not a name"]
    elif KINDS[kind].namespaced and not _NAME.fullmatch(namespace):
        problems = problems or ["metadata.namespace: is not a name"]
    else:
        key = f"{namespace}/{meta.name}" if namespace else meta.name
        if kind == KUBEVIRT:
            key = KUBEVIRT
        value = _READERS[kind][1](found, problems)
        return Decoded(
            key=key,
            resource_version=meta.resource_version or "",
            value=value,
            set_aside=SetAside(kind=kind, name=key, reason=_reason(problems)) if problems else None,
        )
    nameless = SetAside(kind=kind, name=position or "without a name", reason=_reason(problems))
    return Decoded(key="", resource_version=meta.resource_version or "", value=None, set_aside=nameless)


def _reason(problems: list[str]) -> str:
    first = plain(problems[0].removeprefix(": "))
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more)"


def decode_object(kind: str, raw: bytes) -> Value:
    """One object that must be readable as a whole. Raises DecodeError."""
    found = decode(kind, raw)
    if found.set_aside:
        raise DecodeError(found.set_aside.sentence())
    assert found.value is not None, "a reader gives a value or a problem"
    return found.value


# -- Lists


class _ListMeta(wire.Wire):
    resource_version: str | None = None
    continue_token: str | None = msgspec.field(default=None, name="continue")


class _RawList(wire.Wire):
    metadata: _ListMeta | None = None
    items: list[Raw] | UnsetType | None = UNSET


def decode_list(kind: str, body: bytes) -> Page:
    """One page of a list. Raises DecodeError where the body is no list at all."""
    struct, _ = _READERS[kind]
    try:
        whole = _list_decoder(struct).decode(body)
    except BROKEN:
        return _decode_one_by_one(kind, body)
    if whole.items is UNSET:
        raise DecodeError(f"no list of {KINDS[kind].plural}: it has no items")
    found = [_decoded(kind, item, [], f"#{index}") for index, item in enumerate(whole.items or ())]
    return _page(found, whole.metadata)


def _decode_one_by_one(kind: str, body: bytes) -> Page:
    try:
        texts, metadata = _items(body)
    except BROKEN as error:
        raise DecodeError(f"no list of {KINDS[kind].plural}: {explain(error).removeprefix(': ')}") from None
    return _page([decode(kind, text, position=f"#{index}") for index, text in enumerate(texts)], metadata)


def _items(body: bytes) -> tuple[list[bytes], _ListMeta | None]:
    """The texts of a list's items. Raises what reading.BROKEN names."""
    try:
        whole = msgspec.json.decode(body, type=_RawList)
        return [bytes(item) for item in whole.items or ()], whole.metadata
    except BROKEN:
        # Perhaps one item is nested too deeply, or holds something like NaN: cut it out by its brackets.
        found = pieces.members(body)
        return pieces.elements(found.get("items", b"")), salvage(_ListMeta, found.get("metadata", b"{}"), [])


def _page(found: list[Decoded], metadata: _ListMeta | None) -> Page:
    metadata = metadata or _ListMeta()
    return Page(
        items=tuple(one.value for one in found if one.value is not None),
        set_aside=tuple(one.set_aside for one in found if one.set_aside is not None),
        resource_version=metadata.resource_version or "",
        continue_token=metadata.continue_token or "",
    )


# -- Watches


class _RawEvent(wire.Wire):
    type: str
    object: Raw = Raw()


class _Failure(wire.Wire):
    code: int | None = None
    reason: str | None = None
    message: str | None = None


def decode_event(kind: str, line: bytes) -> WatchEvent:
    """One line of a watch. Raises DecodeError where the line is no event (cut off, an HTML page, ...)."""
    struct, _ = _READERS[kind]
    try:
        event = _event_decoder(struct).decode(line)
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            return _event(event.type, _decoded(kind, event.object, []))
    except BROKEN:
        pass
    try:
        type_, raw = _raw_event(line)
        if type_ in ("ADDED", "MODIFIED", "DELETED"):
            return _event(type_, decode(kind, raw))
        if type_ == "BOOKMARK":
            meta = msgspec.json.decode(raw, type=wire.Object).metadata
            end = (meta.annotations or {}).get("k8s.io/initial-events-end") == "true"
            return WatchEvent(type=type_, resource_version=meta.resource_version or "", initial_events_end=end)
        if type_ == "ERROR":
            status = msgspec.json.decode(raw, type=_Failure)
            code, reason, message = status.code or 0, status.reason or "", status.message or ""
            return WatchEvent(type=type_, code=code, reason=reason, message=message)
    except BROKEN as error:
        raise DecodeError(f"no event: {explain(error).removeprefix(': ')}") from None
    raise DecodeError(f"an event of unknown type {type_[:40]!r}")


def _raw_event(line: bytes) -> tuple[str, bytes]:
    try:
        event = msgspec.json.decode(line, type=_RawEvent)
        return event.type, bytes(event.object)
    except BROKEN:
        found = pieces.members(line)
        return msgspec.json.decode(found.get("type", b'""'), type=str), found.get("object", b"null")


def _event(type_: str, found: Decoded) -> WatchEvent:
    return WatchEvent(
        type=type_,
        key=found.key,
        object=found.value,
        resource_version=found.resource_version,
        set_aside=found.set_aside,
    )


@lru_cache
def _decoder(struct: type[wire.Object]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(struct)


@lru_cache
def _list_decoder(struct: type[wire.Object]) -> msgspec.json.Decoder[Any]:
    items = list[struct] | None | UnsetType  # type: ignore[valid-type]
    fields = [("metadata", _ListMeta | None, None), ("items", items, UNSET)]
    return msgspec.json.Decoder(msgspec.defstruct(f"{struct.__name__}List", fields, gc=False))


@lru_cache
def _event_decoder(struct: type[wire.Object]) -> msgspec.json.Decoder[Any]:
    fields = [("type", str), ("object", struct)]
    return msgspec.json.Decoder(msgspec.defstruct(f"{struct.__name__}Event", fields, gc=False))
