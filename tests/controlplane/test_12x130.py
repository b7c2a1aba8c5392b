"""The daemon and its commands on the 12x130 start state: as a dry run, as a dump, for real, and by kubectl.

The tests follow each other on one live cluster: those that change nothing come first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from controlplane.daemon import ACTIVE, DRY_RUN, USER, command, daemon
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object
from controlplane.nodes import QUICK, node_plane
from controlplane.startstate import FIRST_OPEN, INSTANCES, RecordedMishaps, load_recording, rebuild
from controlplane.waiting import until
from controlplane.witness import Witness, witness

from rebalancer.sim.checkers import Bounds

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane, pytest.mark.slow]

MIGRATIONS = "/apis/kubevirt.io/v1/virtualmachineinstancemigrations"
# More at a time than usual, so that a plan of thirty moves is over soon.
LIMITS = {"PER_CLUSTER": "10", "PER_SOURCE": "4", "PER_TARGET": "2"}
SETTINGS = {f"REBALANCER_LIMITS__{name}": number for name, number in LIMITS.items()}
MIGRATIONS_OF_KUBEVIRT = {"parallelMigrationsPerCluster": 11, "parallelOutboundMigrationsPerNode": 4}
BOUNDS = Bounds(per_cluster=10, per_source=4, per_target=2, per_hour=1000, per_vm_day=1)
# A VM's memory is copied in a second.
FAST = replace(QUICK, bandwidth_bytes=1e12)
ENDED = ("Succeeded", "Failed")
SOLVER = {"REBALANCER_SOLVER__SECONDS": "5"}
CONVERGE_SECONDS = 200
IMMOVABLE = {"ci/vm-004", "hr/vm-031", "shop/vm-077"}


@pytest.fixture(scope="module")
async def crowded(control_plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    """The start state, with its nodes alive."""
    state = await load_recording()
    async with anyio.create_task_group() as tasks:
        await control_plane.configure_kubevirt({"migrations": MIGRATIONS_OF_KUBEVIRT})
        tasks.start_soon(node_plane(control_plane, params=FAST, mishaps=RecordedMishaps(state)).run)
        await rebuild(control_plane, state)
        yield control_plane
        tasks.cancel_scope.cancel()


async def plan(plane: ControlPlane, *arguments: str) -> Object:
    """`rebalancer plan -o json`."""
    answer = await command(plane, "plan", "-o", "json", *arguments, **SOLVER, **SETTINGS)
    assert answer.code == 0, answer.err
    made: Object = json.loads(answer.out)
    return made


def moves(made: Object) -> list[tuple[str, str, str]]:
    """(VM, source, target) of each move of a plan, in order."""
    return [(move["vmi"], move["source"], move["target"]) for wave in made["waves"] for move in wave["moves"]]


async def places(plane: ControlPlane) -> dict[str, str]:
    """Where each VM runs."""
    vmis = await plane.client().items(INSTANCES)
    return {f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}": vmi["status"]["nodeName"] for vmi in vmis}


async def test_the_start_state_is_crowded_and_breaks_its_rules(crowded: ControlPlane) -> None:
    vmis = await crowded.client().items(INSTANCES)
    assert {vmi["status"]["phase"] for vmi in vmis} == {"Running"}
    assert len(vmis) == 130
    on = Counter(vmi["status"]["nodeName"] for vmi in vmis)
    assert sum(on[name] for name in FIRST_OPEN) > 115

    immovable = {
        vmi["metadata"]["name"]
        for vmi in vmis
        for condition in vmi["status"]["conditions"]
        if condition["type"] == "LiveMigratable" and condition["status"] == "False"
    }
    assert immovable == {name.partition("/")[2] for name in IMMOVABLE}
    assert sum("podAntiAffinity" in vmi["spec"].get("affinity", {}) for vmi in vmis) == 12

    nodes = {node["metadata"]["name"]: node for node in await crowded.client().items("/api/v1/nodes")}
    assert "tier" not in nodes["w-01"]["metadata"]["labels"]
    assert [taint["key"] for taint in nodes["w-03"]["spec"]["taints"]] == ["reserved"]
    assert nodes["w-11"]["spec"]["unschedulable"] is True


async def test_dry_run_says_its_plan_and_writes_nothing_but_its_lease_and_events(crowded: ControlPlane) -> None:
    async with witness(crowded) as seen, daemon(crowded, DRY_RUN, **SETTINGS) as ours:
        told = await ours.says("DryRun", "nothing is moved", "proven minimal")
        await ours.says("DryRun", "nothing is moved")
        assert await seen.broken(Bounds(dry_run=True)) == []
    assert "0 hotspots and" in told.rpartition(":")[2].partition("now,")[2]
    ours_alone = [event for event in await crowded.audit() if event.user == USER and event.mutating]
    written = Counter((event.verb, event.resource) for event in ours_alone)
    assert written[("create", "leases")] == 1
    assert written[("create", "events")] >= 1
    assert {resource for _, resource in written} == {"leases", "events"}
    assert await crowded.client().items(MIGRATIONS) == []


async def test_a_dump_gives_the_plan_of_the_live_cluster(crowded: ControlPlane, tmp_path: Path) -> None:
    file = str(tmp_path / "dump.json.gz")
    dumped = await command(crowded, "dump", file)
    assert (dumped.code, dumped.out) == (0, "")
    live, dead = await plan(crowded), await plan(crowded, "--from", file)
    assert moves(live) == moves(dead)
    assert len(moves(live)) > 5
    for made in (live, dead):
        # What may differ: when and how long.
        for key in ("id", "created", "snapshot", "solver"):
            del made[key]
        for wave in made["waves"]:
            for move in wave["moves"]:
                del move["migration"]
    assert live == dead


async def test_the_daemon_converges_by_its_plan_and_keeps_its_promises(crowded: ControlPlane) -> None:
    async with witness(crowded) as seen, daemon(crowded, ACTIVE, **SETTINGS) as ours:
        await ours.says("Planned", "proven minimal", "0 hotspots and")
        await ours.says("Finished", "0 hotspots and", seconds=CONVERGE_SECONDS)
        assert await seen.broken(BOUNDS) == []
        assert len(ours.messages("Planned")) == 1
        made = seen.moves()
    await _each_migration_did_as_planned(crowded, seen)
    assert max(Counter(vm for vm, _, _ in made).values()) == 1, "a VM has moved twice"
    await _nothing_is_left_but_what_cannot_move(crowded)


async def _nothing_is_left_but_what_cannot_move(plane: ControlPlane) -> None:
    made = await plan(plane)
    assert moves(made) == []
    assert made["before"]["hotspots"] == []
    stuck = {vm for left in made["left"] for vm in left["trigger"]["vmis"]}
    assert stuck <= IMMOVABLE


async def _each_migration_did_as_planned(plane: ControlPlane, seen: Witness) -> None:
    migrations = await plane.client().items(MIGRATIONS)
    assert {one["status"]["phase"] for one in migrations} == {"Succeeded"}
    ends = {vm: target for vm, _, target in seen.moves()}
    planned = {
        f"{one['metadata']['namespace']}/{one['spec']['vmiName']}": one["metadata"]["annotations"][
            "kubevirt-rebalancer.io/target"
        ]
        for one in migrations
    }
    assert ends == planned
    now = await places(plane)
    assert {vm: now[vm] for vm in planned} == planned


async def test_kubectl_runs_a_plan_to_its_end_state(crowded: ControlPlane) -> None:
    # A new reason to move: a node that is to be emptied of what does not tolerate its taint.
    taint = {"spec": {"taints": [{"key": "retiring", "value": "soon", "effect": "NoSchedule"}]}}
    await crowded.client().patch("/api/v1/nodes/w-06", taint)
    made = await plan(crowded)
    wanted = {vm: target for vm, _, target in moves(made)}
    assert len(wanted) > 2
    assert made["after"]["hotspots"] == []

    manifests = await command(crowded, "plan", "-o", "yaml", **SOLVER, **SETTINGS)
    created = (await crowded.kubectl("create", "-f", "-", "-o", "name", stdin=manifests.out)).split()
    assert len(created) == len(wanted)
    ended = await until(
        lambda: crowded.client().items(MIGRATIONS),
        lambda found: all(one["status"].get("phase") in ENDED for one in found),
        seconds=CONVERGE_SECONDS,
    )
    assert {one["status"]["phase"] for one in ended} == {"Succeeded"}
    now = await places(crowded)
    assert {vm: now[vm] for vm in wanted} == wanted
    await _nothing_is_left_but_what_cannot_move(crowded)
