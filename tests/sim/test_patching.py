"""Patches and selectors, as kubectl and controllers write them."""

from __future__ import annotations

from typing import Any

import pytest

from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import Obj
from rebalancer.sim.patching import apply_json_patch, merge
from rebalancer.sim.selecting import selector


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({"a": "text"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merge_patches(target: Obj, patch: Obj, result: Obj) -> None:
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ([{"key": "a", "v": 1}], [{"key": "b"}], [{"key": "a", "v": 1}, {"key": "b"}]),
        ([{"key": "a", "v": 1}], [{"key": "a", "v": 2}], [{"key": "a", "v": 2}]),
        ([{"key": "a"}, {"key": "b"}], [{"key": "a", "$patch": "delete"}], [{"key": "b"}]),
    ],
)
def test_strategic_patches_merge_taints_by_key(old: list[Obj], new: list[Obj], result: list[Obj]) -> None:
    assert merge({"taints": old}, {"taints": new}, strategic=True) == {"taints": result}
    assert merge({"taints": old}, {"taints": new}) == {"taints": new}


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/0", "value": 9}], {"a": [9, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": {"x/y~z": 1}}, [{"op": "remove", "path": "/a/x~1y~0z"}], {"a": {}}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({}, [{"op": "test", "path": "/a", "value": None}], {}),
    ],
)
def test_json_patches(document: Obj, operations: list[Obj], result: Obj) -> None:
    assert apply_json_patch(document, operations) == result


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "replace", "path": "/missing", "value": 2}], 422),
        ([{"op": "remove", "path": "/missing"}], 422),
        ([{"op": "jump", "path": "/a"}], 422),
        ([{"path": "/a"}], 422),
        ({"a": 2}, 400),
    ],
)
def test_json_patches_that_fail(operations: Any, code: int) -> None:
    with pytest.raises(ApiError) as error:
        apply_json_patch({"a": 1}, operations)
    assert error.value.code == code


ITEM: Obj = {
    "metadata": {"name": "p", "namespace": "a", "labels": {"app": "web", "tier": "gold"}},
    "spec": {"nodeName": "w-00", "unschedulable": True},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("labels", "fields", "matches"),
    [
        ("app=web", "", True),
        ("app==web,tier!=silver", "", True),
        ("app!=web", "", False),
        ("missing!=x", "", True),
        ("app in (web, db),tier notin (silver)", "", True),
        ("app in (db)", "", False),
        ("tier,!other", "", True),
        ("!tier", "", False),
        ("", "metadata.name=p", True),
        ("", "spec.nodeName=w-00,status.phase!=Failed", True),
        ("", "spec.unschedulable=true", True),
        ("", "metadata.namespace=b", False),
        ("app=web", "metadata.name=q", False),
    ],
)
def test_selectors(labels: str, fields: str, matches: bool) -> None:
    chosen = selector(labels, fields)
    assert chosen is not None
    assert chosen(ITEM) is matches


def test_no_selector_is_none_and_a_bad_one_is_refused() -> None:
    assert selector("", "") is None
    for labels, fields in (("a in b", ""), ("=x", ""), ("", "spec.secret=1"), ("", "nonsense")):
        with pytest.raises(ApiError) as error:
            selector(labels, fields)
        assert error.value.code == 400
