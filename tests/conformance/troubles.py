"""Scenes of migrations that fail, and of requests that are refused."""

from __future__ import annotations

from dataclasses import replace

from conformance.moves import FINAL, SLOW_PREPARATION, SLOW_TRANSFER, StuckTargets
from conformance.stage import Scene, Stage
from controlplane.kubeclient import Object
from controlplane.nodes import QUICK
from controlplane.objects import migration

from rebalancer.sim.plane import Mishaps

SHORT = {"kubevirt.io/migrationUnschedulablePodTimeoutSeconds": "2"}
SLOW_END = replace(QUICK, pod_stop=(0.5, 0.6))
LINGERING = replace(SLOW_TRANSFER, source_exit=(1.0, 1.1))


class RejectedTargets(Mishaps):
    """The kubelet refuses target pods."""

    def pod(self, pod: Object) -> str:
        """Why this pod is refused."""
        return "UnexpectedAdmissionError" if "kubevirt.io/migrationJobUID" in pod["metadata"]["labels"] else ""


class BrokenTransfers(Mishaps):
    """No memory ever arrives."""

    def transfer(self, vmi: Object) -> str:
        """Why the copy fails."""
        return "operation failed: migration out job: unexpectedly failed"


class LocalDisks(Mishaps):
    """VMs whose name begins with `local` cannot be migrated."""

    def immovable(self, vmi: Object) -> tuple[str, str] | None:
        """(reason, message) of LiveMigratable=False."""
        if vmi["metadata"]["name"].startswith("local"):
            return "DisksNotLiveMigratable", "cannot migrate VMI: PVC data is not shared"
        return None


async def _move_fails(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.ended("move")


async def _unschedulable(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.cordon("n1")
    await stage.migrate("move", "vm", to="n1", notes=SHORT)
    await stage.ended("move")


async def _own_node(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n0", notes=SHORT)
    await stage.ended("move")


async def _unknown_node(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="nowhere", notes=SHORT)
    await stage.ended("move")


async def _bad_selector(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="not a label!")
    await stage.phase("move", "Pending")
    await stage.recording.quiet(1.0)
    await stage.delete("Migration", "move")
    await stage.gone("Migration", "move")


async def _too_full(stage: Stage) -> None:
    await stage.boot("big", on="n1", cpu="12")
    await stage.boot("vm", cpu="6")
    await stage.migrate("move", "vm", to="n1", notes=SHORT)
    await stage.ended("move")


async def _target_pod_deleted(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.phase("move", "PreparingTarget")
    target = await stage.target("vm")
    await stage.delete_target(target["metadata"]["name"])
    await stage.ended("move")


async def _quota(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.limit_pods(1)
    await stage.migrate("move", "vm", to="n1")
    await stage.until("Migration", "move", lambda found: bool(found.get("status", {}).get("conditions")))
    await stage.recording.quiet(1.0)
    await stage.lift_limit()
    await stage.ended("move")


async def _vm_stopped(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.target("vm", lambda pod: bool(pod["spec"].get("nodeName")))
    await stage.delete("VMI", "vm")
    await stage.gone("VMI", "vm")


async def _vm_stopped_in_transfer(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.migrate("move", "vm", to="n1")
    await stage.phase("move", "Running")
    await stage.delete("VMI", "vm")
    await stage.gone("VMI", "vm")


async def _two_for_one(stage: Stage) -> None:
    await stage.boot("vm")
    await stage.boot("other")
    await stage.migrate("first", "vm", to="n1")
    await stage.phase("first", "Running")
    await stage.migrate("second", "vm", to="n2")
    await stage.migrate("first", "vm", to="n1")
    await stage.migrate("first", "other", to="n1")
    await stage.ended("first")
    await stage.migrate("first", "vm", to="n0")
    await stage.migrate("first", "other", to="n1")


async def _refusals(stage: Stage) -> None:
    await stage.boot("local-disk", migratable=False)
    await stage.boot("vm")
    await stage.boot("mortal", evictionStrategy="None")
    await stage.migrate("ghost", "ghost", to="n1")
    await stage.migrate("local", "local-disk", to="n1")
    await stage.migrate("Capital", "vm", to="n1")

    def order(name: str, **spec: object) -> Object:
        body = migration(name, instance="vm", target="n1", namespace=stage.namespace)
        body["spec"] |= spec
        return body

    await stage.post("migrate with a priority", order("urgent", priority="system-critical"))
    await stage.post("migrate nothing", order("nothing", vmiName=""))
    await stage.post("migrate with an unknown field, strictly", order("odd", odd=1), fieldValidation="Strict")
    await stage.post("migrate, but only as a dry run", order("rehearsal"), dryRun="All")
    await stage.post("migrate with an unknown field", order("odd", odd=1))
    await stage.ended("odd")
    await stage.change("Migration", "odd", {"spec": {"vmiName": "mortal"}})
    await stage.change("VMI", "vm", {"spec": {"evictionStrategy": "None"}})
    await stage.change("VMI", "vm", {"metadata": {"labels": {"kubevirt.io/nodeName": "n2"}}})
    await stage.change("VMI", "vm", {"metadata": {"labels": {"mine": "yes"}}})
    await stage.delete("Migration", "odd")
    await stage.delete("Migration", "odd")
    for vm in ("local-disk", "mortal"):
        (pod,) = await stage.pods(vm)
        await stage.evict(pod, what=f"evict the pod of {vm}")
    await stage.evict("nobody", what="evict a pod that is not there")
    await stage.until("VMI", "mortal", lambda found: found["status"]["phase"] in FINAL)
    await stage.migrate("too-late", "mortal", to="n1")


SCENES = (
    Scene(name="unschedulable", about="the target is cordoned; the short time-out ends it", play=_unschedulable),
    Scene(name="own-node", about="the target is where the VM runs already", play=_own_node),
    Scene(name="unknown-node", about="no node has the target's name", play=_unknown_node),
    Scene(name="bad-selector", about="the target's name cannot be a label", play=_bad_selector),
    Scene(name="too-full", about="the target has no room", play=_too_full),
    Scene(
        name="target-pod-fails",
        about="the kubelet of the target refuses the pod",
        play=_move_fails,
        mishaps=RejectedTargets(),
    ),
    Scene(
        name="transfer-fails",
        about="the copy of the memory fails",
        play=_move_fails,
        mishaps=BrokenTransfers(),
    ),
    Scene(
        name="target-pod-deleted",
        about="the target pod is deleted after the hand-off",
        play=_target_pod_deleted,
        nodes=replace(SLOW_PREPARATION, prepare=(20.0, 20.1)),
    ),
    Scene(name="quota", about="a ResourceQuota has no room for the target pod, until it is lifted", play=_quota),
    Scene(
        name="vm-stopped",
        about="the VM is deleted while the target pod starts",
        play=_vm_stopped,
        mishaps=StuckTargets(),
    ),
    Scene(
        name="vm-stopped-in-transfer",
        about="the VM is deleted while its memory is copied",
        play=_vm_stopped_in_transfer,
        nodes=SLOW_TRANSFER,
    ),
    Scene(
        name="two-for-one",
        about="further migrations of a VM in flight, and names that are taken",
        play=_two_for_one,
        nodes=LINGERING,
    ),
    Scene(
        name="refusals",
        about="everything else that the API refuses",
        play=_refusals,
        nodes=SLOW_END,
        mishaps=LocalDisks(),
    ),
)
