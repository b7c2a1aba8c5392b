"""Dumps in every shape that people have them in, and one line for whatever is none."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kube.wires import DUMP, meta, node_json, pod_json, vmi_json

from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import DumpError, list_objects, read_dump, write_dump

Write = Callable[[str | bytes], Path]

NODE: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", **node_json()}
POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", **pod_json()}
ITEMS: list[dict[str, Any]] = json.loads(gzip.decompress(DUMP.read_bytes()))["items"]


def a_list(*items: Any, kind: str = "List", **fields: Any) -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": items, **fields})


def without_kind(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("kind", "apiVersion")}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file with this content."""

    def written(content: str | bytes) -> Path:
        path = tmp_path / "dump.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


@pytest.mark.parametrize(
    "content",
    [
        a_list(NODE, POD),
        f"\ufeff\n {a_list(NODE, POD)}\n",
        gzip.compress(a_list(NODE, POD).encode()),
        f"{a_list(NODE)}\n{a_list(POD)}",
        f"{json.dumps(NODE)}{json.dumps(POD)}",
        f"[{a_list(NODE)}, {json.dumps(POD)}]",
        a_list(without_kind(NODE), kind="NodeList") + a_list(without_kind(POD), kind="PodList"),
        json.dumps({"items": [NODE, POD]}),
        a_list(NODE, POD, {"apiVersion": "longhorn.io/v1beta2", "kind": "Node", "metadata": {"name": "n9"}}),
    ],
)
def test_shapes_of_a_file(write: Write, content: str | bytes) -> None:
    snapshot = read_dump(write(content))
    assert (list(snapshot.nodes), list(snapshot.pods), snapshot.set_aside) == (["n1"], ["ns/a"], ())


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(a_list(NODE))
    (tmp_path / "pods.json.gz").write_bytes(gzip.compress(a_list(POD).encode()))
    (tmp_path / "README.md").write_text("not for us")
    snapshot = read_dump(tmp_path)
    assert (list(snapshot.nodes), list(snapshot.pods)) == (["n1"], ["ns/a"])


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(a_list(NODE).encode())))
    assert list(read_dump("-").nodes) == ["n1"]


def test_the_newest_version_and_time_of_the_objects_are_the_dumps(write: Write) -> None:
    pod = {**POD, "metadata": meta(resourceVersion="12")}
    snapshot = read_dump(write(a_list({**NODE, "metadata": {"name": "n1", "resourceVersion": "9"}}, pod)))
    assert (snapshot.resource_version, snapshot.taken) == ("12", 1_795_208_400.0)


PACKED = gzip.compress(a_list(NODE).encode())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "an empty file"),
        (" \n", "an empty file"),
        ("Error from server (Forbidden)", "not JSON (it begins with 'Error from server (F')"),
        ("apiVersion: v1\nkind: List\n", "not JSON (it begins with 'apiVersion: v1"),
        ("<!DOCTYPE html><html><h1>502 Bad Gateway</h1></html>", "an HTML or XML page, perhaps a proxy's error page"),
        (b"\x00\x01\x02\x03", "not JSON"),
        (PACKED[:-12], "a gzip file that ends too early"),
        (PACKED[:20] + b"\x00" * 20 + PACKED[40:], "a damaged gzip file"),
        (a_list(NODE)[:-9], "not JSON, or cut off (the text ends in the middle of a value)"),
        (a_list(NODE) + "}", "not JSON, or cut off"),
        (a_list(NODE) + " and more", "not JSON, or cut off"),
        (a_list(), "holds no objects at all"),
        ("[]", "holds no objects at all"),
        ("[[1]]", "an array of arrays"),
        (a_list(POD), "holds no nodes (only 1 Pod)"),
        (a_list({"apiVersion": "v1", "kind": "Secret"}), "holds other kinds of objects (1 Secret.v1)"),
        (json.dumps({"kind": "Status", "message": "no"}), "holds other kinds of objects (1 Status)"),
        ('{"kind":"List","items":{"a":1}}', "a list whose items are no array of objects"),
        ('{"kind":"NodeList","items":[{"metadata":{}}]}', "none of its 1 nodes can be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_says_what_it_is(
    write: Write, content: str | bytes, what: str
) -> None:
    path = write(content)
    with pytest.raises(DumpError) as caught:
        read_dump(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {what}")
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "no.json", "no such file"),
        (tmp_path, "a folder without"),
        (Path("a\0b"), "not the"),
    ):
        with pytest.raises(DumpError, match=what):
            read_dump(path)


def test_a_single_bad_object_is_one_warning(write: Write) -> None:
    vmi = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **vmi_json({"domain": 5})}
    deep = json.dumps({**POD, "metadata": meta("deep")}).replace('"n1"', "[" * 5000 + "]" * 5000)
    content = a_list(NODE, POD, vmi, 7, {"kind": "Pod"})[:-2] + f", {deep}]}}"
    snapshot = read_dump(write(content))
    assert [entry.sentence().replace(str(write(content)), "FILE") for entry in snapshot.set_aside] == [
        "Pod #2 in FILE is set aside: metadata.name: is not a name",
        "Pod ns/deep is set aside: runs, but on no node",
        "Pod ns/deep is set aside: spec.nodeName: expected `str | null`, got `array`",
        "VirtualMachineInstance ns/a is set aside: spec.domain: expected `object`, got `int`",
    ]
    assert (list(snapshot.pods), list(snapshot.vmis)) == (["ns/a", "ns/deep"], [])


@pytest.mark.parametrize("name", ["whole.json", "whole.json.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write_dump(path, ITEMS) == len(ITEMS)
    assert path.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert read_dump(path) == read_dump(DUMP)
    first = path.read_bytes()
    write_dump(path, ITEMS)
    assert path.read_bytes() == first
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_pages_of_the_api_are_written_with_their_kinds(tmp_path: Path) -> None:
    pages = [("Node", [without_kind(NODE)]), ("VirtualMachineInstance", [vmi_json()]), ("Pod", [])]
    path = tmp_path / "dump.json"
    write_dump(path, (found for kind, items in pages for found in list_objects(kind, a_list(*items).encode())))
    assert [(item["apiVersion"], item["kind"]) for item in json.loads(path.read_text())["items"]] == [
        ("v1", "Node"),
        ("kubevirt.io/v1", "VirtualMachineInstance"),
    ]
    with pytest.raises(DumpError, match="no list of nodes"):
        list(list_objects("Node", b"<html>"))


def test_a_dump_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="no such file"):
        write_dump(tmp_path / "gone" / "dump.json", ITEMS)

    def cut_off() -> Any:
        yield NODE
        raise RuntimeError("the cluster went away")

    with pytest.raises(RuntimeError):
        write_dump(tmp_path / "dump.json", cut_off())
    assert list(tmp_path.iterdir()) == []


def test_no_secret_gets_into_a_dump(tmp_path: Path) -> None:
    """Wherever people are known to put them; what a plan needs stays."""
    pod = pod_json(
        {
            "containers": [
                {
                    "name": "c",
                    "resources": {"requests": {"cpu": "1"}},
                    "env": [{"name": "A", "value": "s3cret"}],
                    "envFrom": [{"secretRef": {"name": "s3cret"}}],
                    "args": ["--password=s3cret"],
                    "command": ["s3cret"],
                    "livenessProbe": {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": "s3cret"}]}},
                    "lifecycle": {"postStart": {"exec": {"command": ["s3cret"]}}},
                }
            ],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s3cret"}},
                {"name": "b", "csi": {"driver": "d", "volumeAttributes": {"token": "s3cret"}}},
                {
                    "name": "c",
                    "rbd": {"monitors": ["m"], "image": "i", "keyring": "s3cret", "secretRef": {"name": "s3cret"}},
                },
            ],
            "imagePullSecrets": [{"name": "s3cret"}],
        },
        containerStatuses=[{"name": "c", "state": {"terminated": {"message": "s3cret"}}}],
    )
    pod["metadata"] |= {
        "managedFields": [{"manager": "s3cret"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "s3cret", "kubevirt.io/domain": "vm"},
    }
    vmi = vmi_json(
        {
            "domain": {
                "firmware": {"serial": "s3cret", "kernelBoot": {"kernelArgs": "s3cret"}},
                "launchSecurity": {
                    "sev": {"session": "s3cret", "dhCert": "s3cret", "policy": {"encryptedState": True}}
                },
            },
            "accessCredentials": [{"userPassword": {"source": {"secret": {"secretName": "s3cret"}}}}],
            "volumes": [
                {"name": "c", "cloudInitNoCloud": {"userData": "s3cret", "userDataBase64": "s3cret"}},
                {"name": "d", "cloudInitConfigDrive": {"networkData": "s3cret"}},
                {"name": "s", "sysprep": {"secret": {"name": "s3cret"}}},
            ],
        },
        interfaces=[{"ipAddress": "s3cret"}],
    )
    volume = {"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "d", "volumeAttributes": {"k": "s3cret"}}}}
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"k": "s3cret"}}
    objects = [
        NODE,
        {"kind": "Pod", **pod},
        {"kind": "VirtualMachineInstance", **vmi},
        {"kind": "PersistentVolume", **volume},
        secret,
    ]
    original = tmp_path / "original.json"
    original.write_text(a_list(*objects))
    path = tmp_path / "dump.json"
    write_dump(path, objects)
    assert "s3cret" not in path.read_text()
    kept: Snapshot = read_dump(path)
    assert kept == read_dump(original)
    assert kept.vmis["ns/a"].spec.launch_security == "sev-es"
