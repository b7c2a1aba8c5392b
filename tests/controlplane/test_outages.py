"""The API server and its store fail under a running daemon, or have no KubeVirt at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio
import pytest
from controlplane.daemon import ACTIVE, USER, command, daemon
from controlplane.harness import PROGRAMS, ControlPlane
from controlplane.objects import vmi
from controlplane.scene import Scene, enter, leave, live_nodes
from controlplane.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

KINDS_READ = 9
# After a renewal that went unanswered for ten seconds we do not lead any more.
LEASE_SECONDS = 13
# Not we are slow to recover: virt-controller and the scheduler wait between their attempts.
RECOVERY_SECONDS = 180
# Each VM is copied for seconds, so that there is a middle of the wave.
LARGE = "8Gi"


@pytest.fixture(scope="module")
async def alive(control_plane: ControlPlane, programs: Callable[..., None]) -> AsyncIterator[Scene]:
    """Living nodes for the scenes of this module."""
    programs("helm")
    async with live_nodes(control_plane) as scene:
        yield scene


@pytest.fixture
async def scene(alive: Scene) -> AsyncIterator[Scene]:
    """Four VMs on o0, with nothing wrong about it yet; o1 and o2 are free."""
    await enter(alive, ("o0", "o1", "o2"), [vmi(f"vm-{number}", memory=LARGE) for number in range(4)])
    yield alive
    await leave(alive)


async def places(scene: Scene) -> list[str]:
    """Where the VMs run."""
    return [await scene.place(f"vm-{number}") for number in range(4)]


async def copying(scene: Scene) -> None:
    """Waits until the migrations under way copy memory.

    An API server that has just started refuses everybody for some seconds; where that hits virt-controller on its way
    to a target pod, it waits five minutes for the pod that it could not create.
    """
    await until(scene.migrations, lambda found: all(one.get("status", {}).get("phase") == "Running" for one in found))


async def test_an_api_server_that_crashes_in_mid_wave_changes_nothing_about_the_end(scene: Scene) -> None:
    await scene.retire("o0")
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Started", "started 2 migrations")
        await copying(scene)
        await scene.plane.restart_apiserver(crash=True, pause_seconds=1)
        await ours.says("Finished", "4 migrations done", "0 broken rules left", seconds=RECOVERY_SECONDS)
    assert "o0" not in await places(scene)
    moved = Counter(one["spec"]["vmiName"] for one in await scene.migrations())
    assert set(moved.values()) == {1}
    assert {one["status"]["phase"] for one in await scene.migrations()} == {"Succeeded"}


async def test_an_outage_longer_than_the_lease_and_a_history_that_is_gone(scene: Scene) -> None:
    await scene.retire("o0")
    async with daemon(scene.plane, ACTIVE) as ours:
        await ours.says("Started", "started 2 migrations")
        await copying(scene)
        before = await _lists(scene)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(scene.plane.restart_apiserver, crash=True, pause_seconds=LEASE_SECONDS))
            await anyio.sleep(1)
            await scene.plane.compact()
            await ours.says("Standby")
        await ours.says("Balanced", seconds=RECOVERY_SECONDS)
        # Every watch was answered by 410 Gone.
        assert await _lists(scene) >= before + KINDS_READ
    assert "o0" not in await places(scene)
    assert set(Counter(one["spec"]["vmiName"] for one in await scene.migrations()).values()) == {1}


async def _lists(scene: Scene) -> int:
    """How many lists our daemon has asked for."""
    return sum(event.user == USER and event.verb == "list" for event in await scene.plane.audit())


async def test_without_kubevirt_the_daemon_waits_and_the_commands_say_why(programs: Callable[..., None]) -> None:
    programs(*PROGRAMS, "helm")
    async with ControlPlane(kubevirt=False) as plane:
        async with daemon(plane, ACTIVE) as ours:
            await ours.says("NotSynced", "virtualmachineinstances are not served here")
        answer = await command(plane, "plan")
    assert (answer.code, answer.out) == (4, "")
    assert "has no virtualmachineinstances: is KubeVirt installed?" in answer.err
