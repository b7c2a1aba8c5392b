"""Whole lists, single objects and events; what is no such thing, and what is nearly one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from kube.wires import DUMP, meta, page, pod_json, read_pod, text, vmi_json

from rebalancer.domain.pod import (
    Pod,
    PodAffinityTerm,
)
from rebalancer.domain.selectors import label_selector
from rebalancer.kube.decode import (
    KINDS,
    DecodeError,
    Page,
    build_snapshot,
    decode,
    decode_event,
    decode_list,
    decode_object,
)


def test_the_recorded_cluster_is_read_whole() -> None:
    """Its facts are those of the recording: six workers were filled to 97-99 % before the others were opened."""
    items: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for item in json.loads(gzip.decompress(DUMP.read_bytes()))["items"]:
        items[item["kind"]].append(item)
    pages = {kind: page(kind, *found) for kind, found in items.items()}
    assert [entry for found in pages.values() for entry in found.set_aside] == []

    snapshot = build_snapshot({kind: found.items for kind, found in pages.items()})
    assert (len(snapshot.nodes), len(snapshot.pods), len(snapshot.vmis)) == (15, 144, 130)
    full = 0
    for name, node in snapshot.nodes.items():
        requested = sum(pod.spec.requests.cpu_milli for pod in snapshot.pods.values() if pod.node == name)
        full += 96 <= 100 * requested / node.allocatable.cpu_milli <= 100
    assert full == 6
    assert snapshot.vmis["bank/db-0-1"].spec.affinity.anti_required == (
        PodAffinityTerm(selector=label_selector({"app": "db-0"}), topology_key="kubernetes.io/hostname"),
    )
    specs = [pod.spec for pod in snapshot.pods.values()]
    assert len({id(spec) for spec in specs}) == len(set(specs)) < 20
    assert [entry.sentence() for entry in snapshot.set_aside] == [
        "Pod vms/virt-launcher-vm-a-vsbk4 is set aside: is on node n2, which is unknown"
    ]


def test_a_page_tells_where_to_go_on() -> None:
    found = page("Pod", pod_json(), resourceVersion="7", **{"continue": "next"})
    assert (found.resource_version, found.continue_token, len(found.items)) == ("7", "next", 1)
    assert decode_list("Pod", b'{"items":null}') == Page(items=(), set_aside=(), resource_version="", continue_token="")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"items":5}', b'{"kind":"Status","code":500}', b'{"items":[{"metadata"', b"\xff"],
)
def test_a_body_that_is_no_list_is_no_empty_list(body: bytes) -> None:
    """An empty list would mean that everything was deleted."""
    with pytest.raises(DecodeError, match="no list of pods"):
        decode_list("Pod", body)


DEEP = '{"a":' * 3000 + "1" + "}" * 3000
NAMED = '"metadata":{"name":"x","namespace":"n"}'
HOSTILE_ITEMS = [
    ("null", "expected `object`, got `null`"),
    ("5", "expected `object`, got `int`"),
    ("[[]]", "expected `object`, got `array`"),
    ("{}", "metadata.name: is not a name"),
    ('{"metadata":null}', "metadata: expected `object`, got `null`"),
    ('{"metadata":{"name":"../x","namespace":"n"}}', "metadata.name: is not a name"),
    ('{"metadata":{"name":"x"}}', "metadata.namespace: is not a name"),
    ("{" + NAMED + ',"spec":' + DEEP + "}", ""),
    ("{" + NAMED + ',"spec":{"affinity":' + DEEP + "}}", "spec.affinity: nested too deeply"),
    ("{" + NAMED + ',"spec":{"affinity":NaN}}', "spec.affinity: JSON is malformed"),
    ("{" + NAMED + ',"spec":{"nodeName":' + "9" * 5000 + "}}", "spec.nodeName: "),
    ("{" + NAMED + ',"status":"Failure"}', "status: expected `object | null`, got `str`"),
    ('{"metadata":{"name":"x","namespace":"n","uid":"\\ud800"}}', "metadata.uid: "),
    ('{"metadata":{"name":"x","namespace":"n","creationTimestamp":"yesterday"}}', "metadata.creationTimestamp: "),
]


@pytest.mark.parametrize(("item", "reason"), HOSTILE_ITEMS, ids=range(len(HOSTILE_ITEMS)))
def test_one_broken_object_costs_its_page_nothing_else(item: str, reason: str) -> None:
    body = b'{"metadata":{"resourceVersion":"7"},"items":[%s,%s,%s]}' % (
        text(pod_json()),
        item.encode(),
        text({**pod_json(), "metadata": meta("b")}),
    )
    found = decode_list("Pod", body)
    whole = [pod for pod in found.items if isinstance(pod, Pod) and not pod.unreadable]
    assert [pod.name for pod in whole if pod.name != "x"] == ["a", "b"]
    assert found.resource_version == "7"
    assert len(found.set_aside) == (1 if reason else 0)
    for entry in found.set_aside:
        assert entry.reason.startswith(reason)
        assert "\n" not in entry.sentence()


def test_ten_megabytes_in_one_annotation_are_left_out() -> None:
    found = pod_json()
    found["metadata"]["annotations"] = {"kubevirt.io/x": "x" * 10_000_000, "kubevirt.io/y": "y"}
    assert read_pod(found).annotations == {"kubevirt.io/y": "y"}


def test_one_object_must_be_readable_as_a_whole() -> None:
    broken = vmi_json({"topologySpreadConstraints": [{"maxSkew": 0}]})
    with pytest.raises(DecodeError) as caught:
        decode_object("VirtualMachineInstance", text(broken))
    assert str(caught.value) == (
        "VirtualMachineInstance ns/a is set aside: spec.topologySpreadConstraints[0].maxSkew: must be greater than 0"
    )
    assert decode("Pod", b"<html>", position="#3").set_aside is not None


def test_events_of_a_watch() -> None:
    found = pod_json()
    found["metadata"]["resourceVersion"] = "9"
    event = decode_event("Pod", text({"type": "MODIFIED", "object": found}))
    assert (event.type, event.key, event.resource_version, event.object) == ("MODIFIED", "ns/a", "9", read_pod(found))

    found["spec"]["affinity"] = 5
    broken = decode_event("Pod", text({"type": "ADDED", "object": found}))
    assert broken.set_aside is not None
    assert (broken.key, broken.set_aside.name) == ("ns/a", "ns/a")
    assert isinstance(broken.object, Pod)

    annotations = {"k8s.io/initial-events-end": "true"}
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "12", "annotations": annotations}}
    end = decode_event("Pod", text({"type": "BOOKMARK", "object": bookmark}))
    assert (end.object, end.resource_version, end.initial_events_end) == (None, "12", True)

    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
    error = decode_event("Pod", text({"type": "ERROR", "object": status}))
    assert (error.code, error.reason, error.message) == (410, "Expired", "too old")


@pytest.mark.parametrize("line", [b"", b"<html>", b'{"type":"ADDED","object":{"meta', b"[]", b'{"type":"NEWS"}', b"{}"])
def test_a_line_that_is_no_event(line: bytes) -> None:
    with pytest.raises(DecodeError, match=r"no event|unknown type"):
        decode_event("Pod", line)


def test_paths_of_the_api() -> None:
    assert [kind.path for kind in KINDS.values()] == [
        "/api/v1/nodes",
        "/api/v1/namespaces",
        "/api/v1/pods",
        "/apis/kubevirt.io/v1/virtualmachineinstances",
        "/apis/kubevirt.io/v1/virtualmachineinstancemigrations",
        "/apis/kubevirt.io/v1/kubevirts",
        "/api/v1/persistentvolumes",
        "/api/v1/persistentvolumeclaims",
        "/apis/storage.k8s.io/v1/csinodes",
    ]
