"""Objects, versions and history, without HTTP: what etcd and the API server's registry do."""

from __future__ import annotations

import pytest

from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import Obj
from rebalancer.sim.store import ADDED, DELETED, MODIFIED, NOW, Change, Deletion, Store


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock, history=100)


def pod(name: str, **more: object) -> Obj:
    return {"metadata": {"name": name, "namespace": "a"}, "spec": {}, **more}


def vmim(name: str = "m", **meta: object) -> Obj:
    return {"metadata": {"name": name, "namespace": "a", **meta}, "spec": {"vmiName": "vm"}}


def refusal(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.code, error.value.reason


def test_a_new_object_gets_identity_version_time_and_its_kind(store: Store) -> None:
    made = store.create("pods", {"metadata": {"generateName": "p-", "namespace": "a"}, "spec": {}})
    meta = made["metadata"]
    assert (made["kind"], made["apiVersion"]) == ("Pod", "v1")
    assert meta["name"].startswith("p-")
    assert len(meta["name"]) == 7
    assert meta["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert meta["resourceVersion"] == str(store.version)
    assert made["status"] == {"phase": "Pending"}
    assert store.create("pods", pod("q"))["metadata"]["uid"] != meta["uid"]


@pytest.mark.parametrize(
    ("item", "code", "reason"),
    [
        ({"metadata": {"namespace": "a"}}, 422, "Invalid"),
        ({"metadata": {"name": "Upper", "namespace": "a"}}, 422, "Invalid"),
        ({"metadata": {"name": "x" * 254, "namespace": "a"}}, 422, "Invalid"),
        ({"metadata": {"name": "ok", "namespace": "a", "labels": {"k": "v" * 64}}}, 422, "Invalid"),
        ({"metadata": {"name": "ok", "namespace": "a", "labels": {"k": 1}}}, 400, "BadRequest"),
        ({"metadata": {"name": "taken", "namespace": "a"}}, 409, "AlreadyExists"),
    ],
)
def test_what_cannot_be_created(store: Store, item: Obj, code: int, reason: str) -> None:
    store.create("pods", pod("taken"))
    with pytest.raises(ApiError) as error:
        store.create("pods", item)
    assert refusal(error) == (code, reason)


def test_a_write_on_an_old_version_is_a_conflict_and_one_without_is_not(store: Store) -> None:
    old = store.create("pods", pod("p"))
    store.modify("pods", "a", "p", lambda item: item["metadata"].update(labels={"x": "1"}))
    with pytest.raises(ApiError) as error:
        store.replace("pods", old)
    assert refusal(error) == (409, "Conflict")
    assert "the object has been modified" in error.value.message
    store.replace("pods", pod("p", spec={"nodeName": "n"}))
    assert store.get("pods", "a", "p")["spec"] == {"nodeName": "n"}


def test_a_write_that_changes_nothing_is_no_event(store: Store) -> None:
    made, heard = store.create("pods", pod("p")), list[Change]()
    store.subscribe(heard.append)
    store.replace("pods", made)
    store.modify("pods", "a", "p", lambda _: None)
    assert heard == []


@pytest.mark.parametrize(
    ("resource", "part", "spec", "status"),
    [
        ("pods", "", "new", "old"),
        ("pods", "status", "old", "new"),
        ("virtualmachineinstancemigrations", "", "new", "old"),
        ("virtualmachineinstancemigrations", "status", "old", "new"),
        ("virtualmachineinstances", "", "new", "new"),  # has no status subresource
    ],
)
def test_the_status_subresource_writes_status_and_nothing_else(
    store: Store, resource: str, part: str, spec: str, status: str
) -> None:
    item: Obj = {"metadata": {"name": "o", "namespace": "a"}, "spec": {"v": "old"}}
    store.create(resource, item)
    store.modify(resource, "a", "o", lambda stored: stored.update(status={"v": "old"}))
    store.replace(resource, item | {"spec": {"v": "new"}, "status": {"v": "new"}}, part=part)
    found = store.get(resource, "a", "o")
    assert (found["spec"]["v"], found["status"]["v"]) == (spec, status)


def test_a_status_that_is_posted_is_dropped_where_there_is_a_subresource(store: Store) -> None:
    assert "status" not in store.create("virtualmachineinstancemigrations", vmim() | {"status": {"phase": "Succeeded"}})
    created = store.create("virtualmachineinstances", vmim("v") | {"status": {"phase": "Running"}})
    assert created["status"] == {"phase": "Running"}


def test_finalizers_hold_what_is_deleted(store: Store) -> None:
    store.create("virtualmachineinstancemigrations", vmim(finalizers=["one", "two"]))
    store.delete("virtualmachineinstancemigrations", "a", "m")
    held = store.get("virtualmachineinstancemigrations", "a", "m")
    assert held["metadata"]["deletionTimestamp"]
    for left in (["two"], []):
        held = held | {"metadata": held["metadata"] | {"finalizers": left}}
        held = store.replace("virtualmachineinstancemigrations", held)
    assert store.find("virtualmachineinstancemigrations", "a", "m") is None


@pytest.mark.parametrize(
    ("spec", "phase", "how", "stays"),
    [
        ({}, "Pending", None, False),
        ({"nodeName": "n"}, "Running", None, True),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 0}, "Running", None, False),
        ({"nodeName": "n"}, "Running", NOW, False),
        ({"nodeName": "n"}, "Succeeded", None, False),
    ],
    ids=["unbound", "bound", "no grace", "now", "ended"],
)
def test_a_pod_on_a_node_is_gone_only_when_its_kubelet_says_so(
    store: Store, spec: Obj, phase: str, how: Deletion | None, stays: bool
) -> None:
    store.load("pods", pod("p", spec=spec, status={"phase": phase}))
    store.delete("pods", "a", "p", how)
    assert (store.find("pods", "a", "p") is not None) is stays


def test_preconditions_of_a_deletion(store: Store) -> None:
    made = store.create("pods", pod("p"))
    with pytest.raises(ApiError) as error:
        store.delete("pods", "a", "p", Deletion(preconditions={"uid": "another"}))
    assert refusal(error) == (409, "Conflict")
    store.delete("pods", "a", "p", Deletion(preconditions={"uid": made["metadata"]["uid"]}))


def test_dry_runs_leave_no_trace(store: Store) -> None:
    store.create("pods", pod("p"))
    version = store.version
    store.create("pods", pod("q"), dry_run=True)
    store.replace("pods", pod("p", spec={"nodeName": "n"}), dry_run=True)
    store.delete("pods", "a", "p", Deletion(dry_run=True))
    assert store.version == version
    assert [item["metadata"]["name"] for item in store.items("pods")] == ["p"]


def test_history_can_be_replayed_and_rewound(store: Store) -> None:
    store.create("pods", pod("p"))
    middle = store.version
    store.create("pods", pod("q"))
    store.modify("pods", "a", "p", lambda item: item["spec"].update(nodeName="n"))
    store.delete("pods", "a", "q")
    assert [(change.type, change.name) for change in store.since(middle)] == [
        (ADDED, "q"),
        (MODIFIED, "p"),
        (MODIFIED, "q"),
        (DELETED, "q"),
    ]
    assert [item["spec"] for item in store.items_at("pods", middle)] == [{}]
    assert [item["spec"] for item in store.items_at("pods", store.version)] == [{"nodeName": "n"}]


def test_compacted_history_is_gone(store: Store) -> None:
    store.create("pods", pod("p"))
    before = store.version
    store.create("pods", pod("q"))
    store.compact()
    with pytest.raises(ApiError) as error:
        store.since(before)
    assert refusal(error) == (410, "Expired")
    assert list(store.since(store.version)) == []


def test_old_history_makes_room_for_new(store: Store) -> None:
    for number in range(150):
        store.create("pods", pod(f"p{number}"))
    with pytest.raises(ApiError, match="too old resource version"):
        store.since(store.version - 101)
    assert len(list(store.since(store.version - 100))) == 100


def test_lists_are_in_the_order_of_keys(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.create("pods", {"metadata": {"name": name, "namespace": namespace}})
    assert [item["metadata"]["name"] for item in store.items("pods")] == ["y", "z", "x"]
    assert [item["metadata"]["name"] for item in store.items("pods", "b")] == ["x"]
