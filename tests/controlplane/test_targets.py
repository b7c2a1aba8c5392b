"""What we say of a VM's next target pod, and of every node for it, beside what KubeVirt and the scheduler really do.

More than sixty VMs, each made otherwise, are migrated: first to a node of which we say that it cannot take the VM,
then to one that can. KubeVirt here is 1.8.3; target.py says where other releases differ.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from controlplane.harness import PROGRAMS, ControlPlane
from controlplane.kubeclient import Object
from controlplane.makes import HOME, Make, makes
from controlplane.nodes import node_plane
from controlplane.oracle import Oracle
from controlplane.trials import CONFIGURATION, JOB, Scene, Trial, Watched, moves, read, set_up, stays

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.pod import Pod
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import Survey, survey
from rebalancer.policy.target import target_pod

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

MAKES = makes()
AT_ONCE = 24
"""VMs under way together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one VM, before anything moves. `stay` and `go` are nodes to try, "" where there is none of the kind."""

    target: Pod
    verdicts: Survey
    stay: str
    go: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that was predicted, and everything that happened, by VM."""

    scene: Scene
    state: ClusterState
    predictions: dict[str, Prediction]
    stays: dict[str, Trial]
    moves: dict[str, Trial]


@pytest.fixture(scope="module")
async def outcome(programs: Callable[..., None]) -> AsyncIterator[Outcome]:
    """All migrations, made once for the tests below."""
    programs(*PROGRAMS)
    async with ControlPlane(configuration=CONFIGURATION) as plane, anyio.create_task_group() as tasks:
        watched = Watched(plane)
        tasks.start_soon(node_plane(plane).run)
        tasks.start_soon(watched.run)
        scene = await set_up(plane, watched, MAKES)
        state = ClusterState.of(scene.snapshot)
        predictions = {make.name: predict(scene, state, make, number) for number, make in enumerate(MAKES)}
        found = Outcome(scene=scene, state=state, predictions=predictions, stays={}, moves={})
        limit = anyio.CapacityLimiter(AT_ONCE)

        async def migrate(name: str, said: Prediction) -> None:
            async with limit:
                if said.stay:
                    found.stays[name] = await stays(plane, watched, name, said.stay)
                if said.go:
                    found.moves[name] = await moves(plane, watched, name, said.go)

        async with anyio.create_task_group() as migrations:
            for name, said in predictions.items():
                migrations.start_soon(migrate, name, said)
        yield found
        tasks.cancel_scope.cancel()


def predict(scene: Scene, state: ClusterState, make: Make, number: int) -> Prediction:
    """What we say of a VM; the nodes to try go round, so that every reason has its turn."""
    vmi = scene.snapshot.vmis[f"default/{make.name}"]
    source = state.active_pods[vmi.key]
    pod = target_pod(vmi, source, state.nodes[source.node], scene.snapshot.kubevirt or KubeVirt())
    verdicts = survey(state, pod)
    against = sorted(verdicts.rejections.keys() - {HOME})
    return Prediction(
        target=pod,
        verdicts=verdicts,
        stay=against[number % len(against)] if against else "",
        go=verdicts.feasible[number % len(verdicts.feasible)] if verdicts.feasible else "",
    )


def directed(pod: Pod, hostname: str) -> Pod:
    """The target pod of a migration that adds this hostname; the VM's own wins."""
    selector = FrozenMap({HOSTNAME: hostname, **pod.spec.node_selector})
    return replace(pod, spec=replace(pod.spec, node_selector=selector))


def told(pod: Pod) -> dict[str, Any]:
    """Everything about a pod that the scheduler looks at; its labels without what differs from one migration to the
    next."""
    spec = pod.spec
    return {
        "node selector": dict(spec.node_selector),
        "affinity": spec.affinity,
        "tolerations": spec.tolerations,
        "spread": spec.spread,
        "requests": spec.requests,
        "claims": sorted(volume.claim for volume in spec.volumes if volume.claim),
        "host ports": spec.host_ports,
        "resource claims": spec.resource_claims,
        "scheduler": spec.scheduler_name,
        "priority class": spec.priority_class_name,
        "features": spec.required_features,
        "labels": {key: value for key, value in pod.labels.items() if key != JOB},
        "owner": pod.owner,
    }


def decoded(pod: Object) -> Pod:
    return next(iter(read({"Pod": [pod]}).pods.values()))


async def test_target_pods_are_as_predicted(outcome: Outcome) -> None:
    trials = [*outcome.stays.values(), *outcome.moves.values()]
    assert len(outcome.moves) >= 60
    assert len(outcome.stays) >= 60
    wrong = {}
    for trial in trials:
        hostname = outcome.state.nodes[trial.towards].labels[HOSTNAME]
        expected = told(directed(outcome.predictions[trial.vmi].target, hostname))
        real = told(decoded(trial.pod))
        differences = {key: (expected[key], real[key]) for key in real if real[key] != expected[key]}
        if differences:
            wrong[trial.vmi] = differences
    assert wrong == {}


async def test_what_we_call_impossible_is_left_unschedulable_in_our_words(outcome: Outcome) -> None:
    for name, trial in outcome.stays.items():
        hostname = outcome.state.nodes[trial.towards].labels[HOSTNAME]
        ours = survey(outcome.state, directed(outcome.predictions[name].target, hostname)).message()
        assert trial.node == "", f"{name} is on {trial.node}; we said: {ours}"
        assert trial.message.startswith(ours), name


async def test_what_we_call_possible_is_where_the_vm_lands(outcome: Outcome) -> None:
    assert {name: trial.node for name, trial in outcome.moves.items()} == {
        name: said.go for name, said in outcome.predictions.items() if said.go
    }


async def test_every_nodes_verdict_is_the_schedulers(outcome: Outcome, oracle: Oracle) -> None:
    """Its filters on the real target pod, without the hostname that the migration added, beside ours on the one
    that we foresaw."""
    raw = outcome.scene.raw
    cluster = {
        "nodes": raw["Node"],
        "pods": raw["Pod"],
        "namespaces": raw["Namespace"],
        "persistentVolumes": raw["PersistentVolume"],
        "persistentVolumeClaims": raw["PersistentVolumeClaim"],
        "csiNodes": raw["CSINode"],
    }
    seen = {**outcome.stays, **outcome.moves}
    pods = {name: undirected(trial.pod, outcome.predictions[name].target) for name, trial in seen.items()}
    assert len(pods) == len(MAKES)
    for name, verdict in zip(pods, oracle.judge_all(list(pods.values()), cluster), strict=True):
        ours = outcome.predictions[name].verdicts
        assert verdict.message == ours.message(), name
        assert {node for node, status in verdict.nodes.items() if status.fits} == set(ours.feasible), name
        for node, status in verdict.nodes.items():
            reasons = ours.rejections[node].reasons if node in ours.rejections else ()
            assert sorted(status.reasons) == sorted(reasons), (name, node)


def undirected(pod: Object, predicted: Pod) -> Object:
    """A target pod as a migration to anywhere would have it."""
    plain = copy.deepcopy(pod)
    if HOSTNAME not in predicted.spec.node_selector:
        del plain["spec"]["nodeSelector"][HOSTNAME]
    plain["spec"].pop("nodeName", None)
    return plain
