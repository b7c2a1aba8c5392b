"""Scenes of migrations that come about, are called back, or take turns."""

from __future__ import annotations

from dataclasses import replace

from conformance.stage import Scene, Stage
from controlplane.kubeclient import Object
from controlplane.nodes import QUICK

from rebalancer.sim.plane import Mishaps

FINAL = ("Succeeded", "Failed")
SLOW_START = replace(QUICK, pod_start=(1.0, 1.1))
SLOW_PREPARATION = replace(QUICK, prepare=(1.0, 1.1))
SLOW_TRANSFER = replace(QUICK, bandwidth_bytes=6e8)


class StuckTargets(Mishaps):
    """Target pods never start."""

    def stuck(self, pod: Object) -> bool:
        """Whether it is a migration's target."""
        return "kubevirt.io/migrationJobUID" in pod["metadata"]["labels"]


async def _there_and_back(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("there", "vm", to="n1")
    await stage.ended("there")
    await stage.migrate("back", "vm", to="n0")
    await stage.ended("back")
    await stage.delete("Migration", "there")


async def _called_back_unscheduled(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.cordon("n1")
    await stage.migrate("move", "vm", to="n1")
    await stage.target("vm", lambda pod: bool(pod["status"].get("conditions")))
    await stage.recording.quiet(0.5)
    await stage.delete("Migration", "move")
    await stage.gone("Migration", "move")


async def _called_back_while_pod_starts(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.target("vm", lambda pod: bool(pod["spec"].get("nodeName")))
    await stage.delete("Migration", "move")
    await stage.gone("Migration", "move")


async def _called_back_at(stage: Stage, phase: str) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.phase("move", phase)
    await stage.delete("Migration", "move")
    await stage.gone("Migration", "move")


async def _called_back_while_preparing(stage: Stage) -> None:
    await _called_back_at(stage, "PreparingTarget")


async def _called_back_during_transfer(stage: Stage) -> None:
    await _called_back_at(stage, "Running")


async def _outbound_limit(stage: Stage) -> None:
    names = ("a", "b", "c")
    for vm in names:
        await stage.boot(vm)
    for vm in names:
        await stage.migrate(f"move-{vm}", vm, to="n1")
        if vm != "c":
            await stage.phase(f"move-{vm}", "Running")
    await stage.phase("move-c", "Pending")
    for vm in names:
        await stage.ended(f"move-{vm}")


async def _five_are_kept(stage: Stage) -> None:
    await stage.boot("vm")
    for number in range(6):
        await stage.migrate(f"move-{number}", "vm", to=f"n{(number + 1) % 2}")
        await stage.ended(f"move-{number}")
    await stage.gone("Migration", "move-0")


async def _before_the_vm_runs(stage: Stage) -> None:
    for node in ("n1", "n2"):
        await stage.cordon(node)
    await stage.order("vm")
    await stage.until("VMI", "vm", lambda found: found.get("status", {}).get("phase") == "Scheduling")
    await stage.migrate("early", "vm", to="n1")
    for node in ("n1", "n2"):
        await stage.cordon(node, on=False)
    await stage.ended("early")


async def _evacuation(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.cordon("n0")
    await stage.cordon("n2")
    (pod,) = await stage.pods("vm")
    await stage.evict(pod, what="evict the VM's pod")
    await stage.evict(pod, what="evict it again")
    target = await stage.target("vm", lambda pod: pod["status"]["phase"] == "Running")
    await stage.evict(target["metadata"]["name"], what="evict the target pod")
    await stage.until("VMI", "vm", lambda found: not found["status"].get("evacuationNodeName"))
    await stage.until("Pod", pod, lambda found: found["status"]["phase"] == "Succeeded")


async def _drain_meets_ours(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("ours", "vm", to="n1")
    await stage.phase("ours", "Running")
    (pod, _) = await stage.pods("vm")
    await stage.evict(pod, what="evict the VM's pod")
    await stage.ended("ours")


async def _drain_waits_for_ours(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.cordon("n1")
    await stage.cordon("n0")
    await stage.migrate("ours", "vm", to="n1")
    await stage.target("vm", lambda pod: bool(pod["status"].get("conditions")))
    await stage.recording.quiet(0.5)
    pods = await stage.pods("vm")
    await stage.evict(pods[0], what="evict the VM's pod")
    await stage.delete("Migration", "ours")
    await stage.until("VMI", "vm", lambda found: found["status"]["nodeName"] == "n2")


SCENES = (
    Scene(name="there-and-back", about="a directed migration, and another one back", play=_there_and_back),
    Scene(
        name="called-back-unscheduled",
        about="the migration is deleted while its target pod finds no node",
        play=_called_back_unscheduled,
    ),
    Scene(
        name="called-back-while-pod-starts",
        about="the migration is deleted while its target pod is bound and does not run yet",
        play=_called_back_while_pod_starts,
        mishaps=StuckTargets(),
    ),
    Scene(
        name="called-back-while-preparing",
        about="the migration is deleted after the hand-off, before memory is copied",
        play=_called_back_while_preparing,
        nodes=SLOW_PREPARATION,
    ),
    Scene(
        name="called-back-during-transfer",
        about="the migration is deleted while memory is copied",
        play=_called_back_during_transfer,
        nodes=SLOW_TRANSFER,
    ),
    Scene(
        name="outbound-limit",
        about="three migrations off one node, of which two may run at a time",
        play=_outbound_limit,
        nodes=SLOW_TRANSFER,
    ),
    Scene(name="five-are-kept", about="of six migrations of one VM the oldest is removed", play=_five_are_kept),
    Scene(
        name="before-the-vm-runs",
        about="a migration is asked for while the VM still starts",
        play=_before_the_vm_runs,
        nodes=SLOW_START,
    ),
    Scene(
        name="evacuation",
        about="the launcher pod is evicted: refused, and KubeVirt migrates the VM",
        play=_evacuation,
        nodes=SLOW_TRANSFER,
    ),
    Scene(
        name="drain-meets-ours",
        about="the launcher pod is evicted while a migration of ours already copies memory",
        play=_drain_meets_ours,
        nodes=SLOW_TRANSFER,
    ),
    Scene(
        name="drain-waits-for-ours",
        about="the launcher pod is evicted while a migration of ours finds no node; ours is withdrawn",
        play=_drain_waits_for_ours,
    ),
)
