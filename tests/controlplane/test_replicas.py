"""Two replicas as processes of their own, and what can happen to the one that leads in the middle of a wave.

Whatever it is: never two unfinished migrations of a VM, never one more than a budget allows, at any revision of the
store; no VM moved twice; the plan is completed by whoever is left; and one that has lost its lease writes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import anyio
import pytest
from controlplane.harness import ControlPlane
from controlplane.history import Limits, recorded
from controlplane.objects import vmi
from controlplane.proxy import Cut
from controlplane.replicas import Replica, Replicas, replicas
from controlplane.scene import Scene, enter, leave, live_nodes
from controlplane.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane, pytest.mark.slow]

NODES = ("r0", "r1", "r2", "r3")
VMS = tuple(f"vm-{number}" for number in range(6))
# Copied in two seconds, so that there is a middle of the wave.
MEMORY = "2Gi"
LIMITS = Limits(cluster=3, source=3, target=2)
OF_KUBEVIRT = {"parallelMigrationsPerCluster": 4, "parallelOutboundMigrationsPerNode": 3}
SETTINGS = {
    "REBALANCER_LIMITS__PER_CLUSTER": str(LIMITS.cluster),
    "REBALANCER_LIMITS__PER_SOURCE": str(LIMITS.source),
    "REBALANCER_LIMITS__PER_TARGET": str(LIMITS.target),
    "REBALANCER_LEASE__DURATION_SECONDS": "3",
}
GOOD_TIME_SECONDS = 60
# Not we are slow to recover: virt-controller and the scheduler wait between their attempts.
RECOVERY_SECONDS = 120
AWAKE_SECONDS = 3


@pytest.fixture(scope="module")
async def alive(control_plane: ControlPlane, programs: Callable[..., None]) -> AsyncIterator[Scene]:
    """Living nodes for all scenes here."""
    programs("helm")
    await control_plane.configure_kubevirt({"migrations": OF_KUBEVIRT})
    async with live_nodes(control_plane) as scene:
        yield scene


@pytest.fixture(scope="module")
async def pair(alive: Scene) -> AsyncIterator[Replicas]:
    """The replicas of all tests here; one that has ended is replaced."""
    async with replicas(alive.plane, **SETTINGS) as found:
        yield found


@pytest.fixture
async def scene(alive: Scene, pair: Replicas) -> AsyncIterator[Scene]:
    """Six VMs on r0, with nothing wrong about it yet; the others are free."""
    await enter(alive, NODES, [vmi(name, memory=MEMORY) for name in VMS])
    yield alive
    await leave(alive)


Trouble = Callable[[Replicas, Replica, Replica], Awaitable[None]]


async def killed(pair: Replicas, leader: Replica, other: Replica) -> None:
    """A crash: the lease runs out."""
    await leader.process.kill()
    await other.said().says("Started", seconds=GOOD_TIME_SECONDS)


async def frozen(pair: Replicas, leader: Replica, other: Replica) -> None:
    """The process is stopped, and wakes up when another leads and has begun to act."""
    leader.signal(signal.SIGSTOP)
    await other.said().says("Started", seconds=GOOD_TIME_SECONDS)
    woken = now()
    leader.signal(signal.SIGCONT)
    await leader.said().says("Standby", f"{other.name} leads")
    await anyio.sleep(AWAKE_SECONDS)
    assert await pair.writes(leader, since=woken) == []


async def silenced(pair: Replicas, leader: Replica, other: Replica) -> None:
    """Its connections are half open: nothing arrives, and nothing says so."""
    await cut_off(pair, leader, other, Cut.SILENCE)


async def reset(pair: Replicas, leader: Replica, other: Replica) -> None:
    """Its connections are reset, and new ones too."""
    await cut_off(pair, leader, other, Cut.RESET)


async def cut_off(pair: Replicas, leader: Replica, other: Replica, how: Cut) -> None:
    leader.network.cut(how)
    await other.said().says("Started", seconds=GOOD_TIME_SECONDS)
    healed = now()
    leader.network.heal()
    await leader.said().says("Standby", f"{other.name} leads")
    await anyio.sleep(AWAKE_SECONDS)
    assert await pair.writes(leader, since=healed) == []


async def terminated(pair: Replicas, leader: Replica, other: Replica) -> None:
    """A rollout: it gives the lease back, and the other need not wait for that to run out."""
    begun = anyio.current_time()
    await leader.process.stop()
    assert leader.process.exit_code == 0
    assert await pair.holder() in ("", other.name)
    assert anyio.current_time() - begun < int(SETTINGS["REBALANCER_LEASE__DURATION_SECONDS"])
    await other.said().says("Running", "of ours from an earlier one still run")


@pytest.mark.parametrize("happens", [killed, frozen, silenced, reset, terminated])
async def test_the_other_replica_completes_the_plan_and_nothing_is_done_twice(
    scene: Scene, pair: Replicas, happens: Trouble
) -> None:
    leader, other = await pair.two()
    async with recorded(scene.plane) as history:
        await scene.retire(NODES[0])
        await leader.said().says("Started", "started 3 migrations")
        await in_the_middle(scene)
        await happens(pair, leader, other)
        await empty(scene, GOOD_TIME_SECONDS)
        await other.said().says("Finished", "0 broken rules left", seconds=GOOD_TIME_SECONDS)
    assert history.broken(LIMITS) == []
    assert history.most() == LIMITS.cluster
    assert sorted(vm for vm, _, _ in history.moves()) == [f"default/{name}" for name in VMS]
    assert leader.said().messages("Finished") == []


async def test_an_api_server_that_crashes_is_survived_by_one_plan_or_another(scene: Scene, pair: Replicas) -> None:
    leader, other = await pair.two()
    async with recorded(scene.plane) as history:
        await scene.retire(NODES[0])
        await leader.said().says("Started", "started 3 migrations")
        await in_the_middle(scene)
        await scene.plane.restart_apiserver(crash=True)
        await empty(scene, RECOVERY_SECONDS)
    assert history.broken(LIMITS) == []
    assert sorted(vm for vm, _, _ in history.moves()) == [f"default/{name}" for name in VMS]

    async def finished() -> list[str]:
        return [line for one in (leader, other) for line in one.said().messages("Finished", "Balanced")]

    await until(finished, bool, seconds=GOOD_TIME_SECONDS)


async def in_the_middle(scene: Scene) -> None:
    """The migrations under way copy memory."""
    await until(scene.migrations, lambda found: all(one.get("status", {}).get("phase") == "Running" for one in found))


async def empty(scene: Scene, seconds: float) -> None:
    """Every VM has left the first node, and nothing is under way."""

    async def there() -> list[str]:
        unfinished = [one["metadata"]["name"] for one in await scene.unfinished()]
        return unfinished + [name for name in VMS if await scene.place(name) == NODES[0]]

    await until(there, lambda found: not found, seconds=seconds)


def now() -> str:
    """As the audit log writes a moment."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
