"""No input brings reading down: whatever is broken in a dump, at any depth, ends in a Snapshot or in a DumpError."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kube.wires import DUMP, meta

from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.decode import DecodeError, decode_event, decode_list
from rebalancer.kube.dump import DumpError, read_dump


def deep(levels: int) -> Any:
    nested: Any = 1
    for _ in range(levels):
        nested = [nested]
    return nested


HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "NaN",
    "1e9999999999",
    "-5",
    "99999999999999999999Ei",
    "\ud800",
    "\x00\n\x1b[31m",
    "x" * 300,
    [],
    [None],
    [[]],
    {},
    {"": {}},
    {"key": "a", "operator": "Near", "values": None},
    deep(600),
]
"""Each is put in the place of anything else."""


def small_cluster() -> list[dict[str, Any]]:
    """A few objects of every kind from the recording, and by hand what it has none of."""
    items = json.loads(gzip.decompress(DUMP.read_bytes()))["items"]
    few = [item for kind in ("Node", "Pod", "VirtualMachineInstance") for item in of_kind(items, kind)[:3]]
    few += of_kind(items, "Namespace")[:1] + of_kind(items, "KubeVirt")
    few += [item for item in items if item["metadata"]["name"] == "db-0-1"]
    virt = {"apiVersion": "kubevirt.io/v1"}
    claims = {"accessModes": ["ReadWriteMany"], "storageClassName": "s"}
    zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}
    drivers = [{"name": "d", "allocatable": {"count": 3}}]
    state = {"migrationUid": "m", "startTimestamp": "2026-11-20T21:00:00Z"}
    few += [
        {
            **virt,
            "kind": "VirtualMachineInstanceMigration",
            "metadata": meta("m"),
            "spec": {"vmiName": "vm", "addedNodeSelector": {"a": "b"}},
            "status": {"phase": "Running", "migrationState": state},
        },
        {
            "kind": "PersistentVolume",
            "metadata": {"name": "pv"},
            "spec": {**claims, "nodeAffinity": {"required": {"nodeSelectorTerms": [zone]}}},
        },
        {"kind": "PersistentVolumeClaim", "metadata": meta("pvc"), "spec": {**claims, "volumeName": "pv"}},
        {"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": drivers}},
    ]
    for item in few:
        item["metadata"].pop("managedFields", None)
    return few


def of_kind(items: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in items if item["kind"] == kind]


CLUSTER = small_cluster()


@st.composite
def broken_lists(draw: st.DrawFn) -> dict[str, Any]:
    """A v1 List with one to four places removed, repeated or replaced by something hostile."""
    whole: dict[str, Any] = {"kind": "List", "items": copy.deepcopy(CLUSTER)}
    for _ in range(draw(st.integers(1, 4))):
        holder: Any = whole
        key: Any = "items"
        depth = draw(st.integers(0, 9))
        for _ in range(depth):
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            holder = inner
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        change = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
        if change == "replace":
            holder[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
        elif change == "remove":
            del holder[key]
            if holder is whole:
                break
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    return whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
@given(broken_lists())
def test_a_broken_dump_is_a_snapshot_or_a_dump_error(tmp_path: Path, whole: dict[str, Any]) -> None:
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    try:
        snapshot = read_dump(path)
    except DumpError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        return
    assert isinstance(snapshot, Snapshot)
    assert hash(snapshot) == hash(read_dump(path))
    for entry in snapshot.set_aside:
        assert entry.sentence().isprintable()
        assert len(entry.reason) < 500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_dump_with_damaged_bytes_is_a_snapshot_or_a_dump_error(tmp_path: Path, data: st.DataObject) -> None:
    text = bytearray(json.dumps({"kind": "List", "items": CLUSTER[:4]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "dump.json"
    path.write_bytes(bytes(text))
    try:
        assert read_dump(path).nodes
    except DumpError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@given(
    st.sampled_from(["Pod", "Node", "VirtualMachineInstance"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["metadata", "spec", "status", "items", "type", "object", "name"]), inner)
        ),
        max_leaves=12,
    ),
)
def test_any_json_at_all_is_read_or_refused(kind: str, found: Any) -> None:
    body = json.dumps(found).encode()
    for read in (decode_list, decode_event):
        try:
            read(kind, body)
        except DecodeError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def test_a_page_of_nothing_but_broken_objects() -> None:
    items = [{"metadata": {"name": f"x{number}", "namespace": "n"}, "spec": 5} for number in range(500)]
    found = decode_list("Pod", json.dumps({"items": items}).encode())
    assert len(found.set_aside) == len(found.items) == 500
