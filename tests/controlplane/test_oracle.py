"""The filter oracle: it is the scheduler, on cases whose answers are known and beside the real kube-scheduler."""

from __future__ import annotations

import time

import anyio
import pytest
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object
from controlplane.nodes import add_node
from controlplane.objects import node
from controlplane.oracle import Oracle, OracleError, Status

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

HOSTNAME = "kubernetes.io/hostname"
SELECTOR = {"matchLabels": {"app": "db"}}


def pod(name: str, *, cpu: str = "1", on: str = "", **spec: object) -> Object:
    container = {"name": "main", "image": "main", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "db"}},
        "spec": {"containers": [container], **({"nodeName": on} if on else {}), **spec},
    }


def tainted(name: str, effect: str) -> Object:
    made = node(name)
    made["spec"]["taints"] = [{"key": "dedicated", "value": "gpu", "effect": effect}]
    return made


def cordoned(name: str) -> Object:
    made = node(name)
    made["spec"]["unschedulable"] = True
    return made


def apart(topology: str) -> Object:
    term = {"labelSelector": SELECTOR, "topologyKey": topology}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def spread() -> list[Object]:
    constraint = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule"}
    return [constraint | {"labelSelector": SELECTOR}]


def port(number: int) -> Object:
    return {"containers": [{"name": "main", "ports": [{"containerPort": number, "hostPort": number}]}]}


def rejects(plugin: str, reason: str, *, code: str = "UnschedulableAndUnresolvable") -> Status:
    return Status(plugin=plugin, code=code, reasons=(reason,))


FITS = Status(plugin="", code="Success", reasons=())
PREEMPTIBLE = "Unschedulable"

CASES: dict[str, tuple[Object, Object, list[Object], Status]] = {
    "empty node": (pod("p"), node("n"), [], FITS),
    "cordoned": (pod("p"), cordoned("n"), [], rejects("NodeUnschedulable", "node(s) were unschedulable")),
    "taint": (pod("p"), tainted("n", "NoSchedule"), [], rejects("TaintToleration", "node(s) had untolerated taint(s)")),
    "soft taint": (pod("p"), tainted("n", "PreferNoSchedule"), [], FITS),
    "selector": (
        pod("p", nodeSelector={"tier": "gold"}),
        node("n"),
        [],
        rejects("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"),
    ),
    "too big for the node": (
        pod("p", cpu="17"),
        node("n", cpu="16"),
        [],
        rejects("NodeResourcesFit", "Insufficient cpu"),
    ),
    "too big for what is left": (
        pod("p", cpu="9"),
        node("n", cpu="16"),
        [pod("q", cpu="8", on="n")],
        rejects("NodeResourcesFit", "Insufficient cpu", code=PREEMPTIBLE),
    ),
    "port taken": (
        pod("p", **port(80)),
        node("n"),
        [pod("q", on="n", **port(80))],
        rejects("NodePorts", "node(s) didn't have free ports for the requested pod ports", code=PREEMPTIBLE),
    ),
    "own anti-affinity": (
        pod("p", affinity=apart(HOSTNAME)),
        node("n"),
        [pod("q", on="n")],
        rejects("InterPodAffinity", "node(s) didn't match pod anti-affinity rules", code=PREEMPTIBLE),
    ),
    "anti-affinity of the other": (
        pod("p"),
        node("n"),
        [pod("q", on="n", affinity=apart(HOSTNAME))],
        rejects("InterPodAffinity", "node(s) didn't satisfy existing pods anti-affinity rules", code=PREEMPTIBLE),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_node_is_judged_by_the_plugin_that_rejects_first(oracle: Oracle, case: str) -> None:
    incoming, there, running, expected = CASES[case]
    verdict = oracle.judge(incoming, {"nodes": [there], "pods": running})
    assert verdict.nodes == {"n": expected}
    assert verdict.message == ("" if expected.fits else f"0/1 nodes are available: 1 {expected.reasons[0]}.")


def test_message_counts_reasons_as_the_scheduler_does(oracle: Oracle) -> None:
    nodes = [node("a", cpu="2"), node("b", cpu="2"), tainted("c", "NoExecute"), cordoned("d")]
    assert oracle.judge(pod("p", cpu="4"), {"nodes": nodes, "pods": []}).message == (
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
    )


def test_spread_looks_at_all_nodes(oracle: Oracle) -> None:
    cluster: Object = {"nodes": [node("a"), node("b")], "pods": [pod("q", on="a")]}
    verdict = oracle.judge(pod("p", topologySpreadConstraints=spread()), cluster)
    assert verdict.nodes["a"].plugin == "PodTopologySpread"
    assert verdict.nodes["b"].fits


def test_volumes_of_one_case_do_not_leak_into_the_next(oracle: Oracle) -> None:
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": ["b"]}]}
    volume = {
        "metadata": {"name": "disk"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "claimRef": {"name": "claim", "namespace": "default", "uid": "claim"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "nfs": {"server": "nas", "path": "/"},
        },
    }
    claim = {
        "metadata": {
            "name": "claim",
            "namespace": "default",
            "uid": "claim",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
        },
        "spec": {"volumeName": "disk", "accessModes": ["ReadWriteMany"]},
    }
    incoming = pod("p", volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "claim"}}])
    nodes = {"nodes": [node("a"), node("b")], "pods": []}
    bound = oracle.judge(incoming, nodes | {"persistentVolumes": [volume], "persistentVolumeClaims": [claim]})
    assert bound.nodes["a"].plugin == "VolumeBinding"
    assert bound.nodes["b"].fits
    missing = oracle.judge(incoming, nodes)
    assert missing.pre_filter is not None
    assert missing.nodes == {}
    assert missing.message == '0/2 nodes are available: persistentvolumeclaim "claim" not found.'


def test_pods_that_have_ended_hold_nothing(oracle: Oracle) -> None:
    ended = pod("q", cpu="16", on="n") | {"status": {"phase": "Succeeded"}}
    assert oracle.judge(pod("p"), {"nodes": [node("n")], "pods": [ended]}).nodes["n"].fits


def test_an_unreadable_case_is_an_error_and_the_next_is_answered(oracle: Oracle) -> None:
    with pytest.raises(OracleError, match="spec"):
        oracle.judge({"spec": 5}, {"nodes": [node("n")]})
    assert oracle.judge(pod("p"), {"nodes": [node("n")]}).nodes["n"].fits


def test_created_pod_has_what_the_api_server_adds(oracle: Oracle) -> None:
    constraint = spread()[0] | {"matchLabelKeys": ["app"], "labelSelector": {"matchLabels": {"tier": "gold"}}}
    limited: Object = {"name": "main", "image": "main", "resources": {"limits": {"cpu": "2"}}}
    posted = pod("p", topologySpreadConstraints=[constraint], containers=[limited])
    created = oracle.create([posted])[0].pod
    assert created is not None
    assert created["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2"}
    assert created["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"] == [
        {"key": "app", "operator": "In", "values": ["db"]}
    ]


def test_refused_pod_names_the_field(oracle: Oracle) -> None:
    refused = oracle.create([pod("p", affinity=apart(""))])[0]
    assert refused.pod is None
    term = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
    assert [fault.field for fault in refused.faults][:1] == [f"{term}.topologyKey"]


def test_bulk_is_far_below_a_millisecond_for_each_verdict(oracle: Oracle) -> None:
    nodes = [node(f"n{number}") for number in range(20)]
    running = [pod(f"q{number}", on=f"n{number % 20}", affinity=apart("zone")) for number in range(100)]
    incoming = [pod(f"p{number}", topologySpreadConstraints=spread()) for number in range(10)]
    cases: list[Object] = [{"candidates": incoming, "nodes": nodes, "pods": running}] * 25
    begin = time.monotonic()
    answers = oracle.answers(cases)
    seconds = time.monotonic() - begin
    verdicts = sum(len(verdict.nodes) for answer in answers for verdict in answer)
    assert verdicts == 5_000
    assert seconds < 5


async def test_oracle_says_what_the_real_scheduler_says(control_plane: ControlPlane, oracle: Oracle) -> None:
    """Pods that fit nowhere, scheduled live: the condition's message begins with the oracle's."""
    admin = control_plane.client()
    for there in (node("o0", cpu="2"), node("o1", cpu="2", labels={"tier": "gold"}), cordoned("o2")):
        await add_node(control_plane, there)
    incoming = [
        pod("big", cpu="3"),
        pod("selective", nodeSelector={"tier": "lead"}),
        pod("picky", cpu="3", nodeSelector={"tier": "gold"}),
    ]
    for one in incoming:
        metadata = {"name": one["metadata"]["name"], "labels": one["metadata"]["labels"]}
        await admin.create("/api/v1/namespaces/default/pods", one | {"metadata": metadata})
    with anyio.fail_after(20):
        for one in incoming:
            said = await scheduler_message(control_plane, one["metadata"]["name"])
            stored = await admin.get(f"/api/v1/namespaces/default/pods/{one['metadata']['name']}")
            cluster = {"nodes": await admin.items("/api/v1/nodes"), "pods": []}
            assert said.startswith(oracle.judge(stored, cluster).message)


async def scheduler_message(control_plane: ControlPlane, name: str) -> str:
    while True:
        status = (await control_plane.client().get(f"/api/v1/namespaces/default/pods/{name}"))["status"]
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition.get("message"):
                return str(condition["message"])
        await anyio.sleep(0.05)
