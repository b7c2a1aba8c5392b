"""A cluster in a file: what `kubectl get ... -o json` or `rebalancer dump` wrote, read into a Snapshot and back."""

from __future__ import annotations

import contextlib
import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube import pieces, wire
from rebalancer.kube.decode import KINDS, decode
from rebalancer.kube.reading import BROKEN, salvage
from rebalancer.kube.redact import redacted
from rebalancer.kube.snapshot import SnapshotBuilder

STANDARD_INPUT = "-"

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".gz")
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HOW = "make one with `rebalancer dump` or `kubectl get nodes,pods,namespaces,vmi,vmim,kubevirt -A -o json`"


class DumpError(Exception):
    """A dump that cannot be used; the message is one line that says what it is and what to do."""


class _Head(wire.Wire):
    """What tells one document from another."""

    api_version: str | None = None
    kind: str | None = None
    items: Raw = Raw()


class _Items(wire.Wire):
    items: list[dict[str, Any]] | None = None


def read_dump(path: Path | str) -> Snapshot:
    """A Snapshot from a file, from all files of a folder, or from standard input ("-"). Raises DumpError.

    A file is gzip or not, and holds a v1 List, a list of one kind, a single object, an array of those, or several of
    them one after the other. `taken` is the newest time that any object tells: a file does not say when it was made.
    """
    builder = SnapshotBuilder()
    counts: Counter[str] = Counter()
    version = 0
    for name, text in _texts(path):
        for kind, raw in _objects(name, text):
            counts[kind] += 1
            if kind not in KINDS:
                continue
            found = decode(kind, raw, position=f"#{counts[kind]} in {name}")
            if found.value is not None:
                builder.add(kind, found.value, found.resource_version)
            if found.set_aside is not None:
                builder.put_aside(found.set_aside)
            if found.resource_version.isdecimal() and len(found.resource_version) <= 20:
                version = max(version, int(found.resource_version))
    _refuse_without_nodes(str(path), counts)
    snapshot = builder.build(resource_version=str(version or ""))
    if not snapshot.nodes:
        raise DumpError(f"{path}: none of its {counts['Node']} nodes can be read; {_HOW}")
    return replace(snapshot, taken=_newest_time(snapshot))


def _refuse_without_nodes(path: str, counts: Counter[str]) -> None:
    if counts["Node"]:
        return
    held = ", ".join(f"{count} {kind[:60] or 'objects without a kind'}" for kind, count in counts.most_common(3))
    if not counts:
        raise DumpError(f"{path}: holds no objects at all; {_HOW}")
    if set(counts) & set(KINDS):
        raise DumpError(f"{path}: holds no nodes (only {held}); {_HOW}")
    raise DumpError(f"{path}: holds other kinds of objects ({held}); {_HOW}")


def _newest_time(snapshot: Snapshot) -> float:
    times = [0.0]
    for node in snapshot.nodes.values():
        times += (node.created, *(condition.since for condition in node.conditions.values()))
    for pod in snapshot.pods.values():
        times.append(pod.created)
    for vmi in snapshot.vmis.values():
        times += (vmi.created, vmi.migration_state.started, vmi.migration_state.ended)
        times += (condition.since for condition in vmi.conditions.values())
    for migration in snapshot.migrations.values():
        times += (migration.created, *migration.phase_times.values())
    return max(times)


# -- Files and documents


def _texts(path: Path | str) -> Iterator[tuple[str, bytes]]:
    """(name for messages, text) of each file."""
    if str(path) == STANDARD_INPUT:
        yield "standard input", _unpacked("standard input", sys.stdin.buffer.read())
        return
    root = Path(path)
    try:
        if not root.is_dir():
            yield str(root), _unpacked(str(root), root.read_bytes())
            return
        files = sorted(file for file in root.iterdir() if file.name.endswith(_SUFFIXES))
        if not files:
            raise DumpError(f"{root}: a folder without .json or .gz files; {_HOW}")
        for file in files:
            yield str(file), _unpacked(str(file), file.read_bytes())
    except OSError as error:
        raise DumpError(f"{root}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise DumpError(f"{str(root)!r} is not the name of a file") from None


def _unpacked(name: str, data: bytes) -> bytes:
    """The text of a file, told by its first bytes, not by its name."""
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except EOFError:
            raise DumpError(f"{name}: a gzip file that ends too early; copy or download it again") from None
        except (OSError, zlib.error):
            raise DumpError(f"{name}: a damaged gzip file; copy or download it again") from None
    return data.removeprefix(_BYTE_ORDER_MARK)


def _objects(name: str, text: bytes) -> Iterator[tuple[str, bytes]]:
    """(kind, JSON) of each object in a file."""
    start = text[:200].lstrip()
    if not start:
        raise DumpError(f"{name}: an empty file; {_HOW}")
    if start.startswith(b"<"):
        raise DumpError(f"{name}: an HTML or XML page, perhaps a proxy's error page; {_HOW}")
    if not start.startswith((b"{", b"[")):
        raise DumpError(f"{name}: not JSON (it begins with {start[:20].decode(errors='replace')!r}); {_HOW}")
    try:
        msgspec.json.decode(text, type=Raw)
        documents = [text]
    except BROKEN:
        # Several documents, or one that holds an object nested too deeply for the decoder, or something like NaN.
        try:
            documents = list(pieces.documents(text))
        except pieces.CutError as error:
            raise DumpError(f"{name}: not JSON, or cut off ({error}); {_HOW}") from None
    for document in documents:
        yield from _in_document(name, document)


def _in_document(name: str, document: bytes) -> Iterator[tuple[str, bytes]]:
    if document.lstrip()[:1] == b"[":
        for element in _elements(name, document):
            if element[:1] == b"[":
                raise DumpError(f"{name}: an array of arrays, where an array of lists or objects may be; {_HOW}")
            yield from _in_document(name, element)
        return
    head = _head(document)
    if not head.items or not (head.kind or "List").endswith("List"):
        yield _kind(head.kind, head.api_version), document
        return
    of_list = (head.kind or "").removesuffix("List")
    for item in _elements(name, bytes(head.items)):
        inner = _head(item)
        yield _kind(inner.kind or of_list, inner.api_version or (head.api_version if of_list else "")), item


def _elements(name: str, array: bytes) -> Iterable[bytes]:
    try:
        return (bytes(element) for element in msgspec.json.decode(array, type=list[Raw] | None) or ())
    except BROKEN:
        with contextlib.suppress(pieces.CutError):
            return pieces.elements(array)
    raise DumpError(f"{name}: a list whose items are no array of objects; {_HOW}")


def _head(document: bytes) -> _Head:
    """Kind and items; of what is no such object nothing."""
    try:
        return msgspec.json.decode(document, type=_Head)
    except BROKEN:
        return salvage(_Head, document, [])


def _kind(kind: str | None, api_version: str | None) -> str:
    """The kind, with its group where that is another one than ours: other groups have a Node too."""
    if not kind or not api_version:
        return kind or ""
    group = api_version.rpartition("/")[0]
    return kind if kind in KINDS and _GROUPS[kind] == group else f"{kind}.{api_version}"


_GROUPS: Mapping[str, str] = {
    kind: entry.path.split("/")[2] if entry.path.startswith("/apis/") else "" for kind, entry in KINDS.items()
}


# -- Writing


def list_objects(kind: str, body: bytes) -> Iterator[dict[str, Any]]:
    """The objects of one page of a list, as write_dump takes them. Raises DumpError where it is no list."""
    version = KINDS[kind].path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")[0]
    try:
        items = msgspec.json.decode(body, type=_Items).items or []
    except BROKEN:
        raise DumpError(f"what the API server sent is no list of {KINDS[kind].plural}") from None
    for item in items:
        yield {**item, "apiVersion": version, "kind": kind}


def write_dump(path: Path | str, objects: Iterable[Mapping[str, Any]]) -> int:
    """Writes the objects as one v1 List, gzip where the name ends in .gz, to standard output for "-"; how many.

    What we do not read and what may hold secrets is left out (redact). Equal objects make an equal file. Raises
    DumpError; a file that could not be written whole does not appear.
    """
    if str(path) == STANDARD_INPUT:
        return _write(sys.stdout.buffer, objects)
    target = Path(path)
    partial = target.with_name(f"{target.name}.part")
    try:
        with partial.open("wb") as file:
            if target.name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    count = _write(packed, objects)
            else:
                count = _write(file, objects)
        partial.replace(target)
    except OSError as error:
        raise DumpError(f"{target}: {(error.strerror or 'cannot be written').lower()}") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def _write(file: _Writable, objects: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    file.write(b'{"apiVersion":"v1","kind":"List","items":[')
    for found in objects:
        file.write(b",\n" if count else b"\n")
        file.write(msgspec.json.encode(redacted(found)))
        count += 1
    file.write(b"\n]}\n")
    return count
