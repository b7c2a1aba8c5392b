"""virt-handler's part: a scheduled VM boots, and a migration goes through its steps (KubeVirt: pkg/virt-handler).

Each step is one update of the VMI, in the order in which the original makes them. `failed: false` is never written:
virt-controller compares the whole migrationState when it patches.
"""

from __future__ import annotations

from rebalancer.domain.quantity import QuantityError, value
from rebalancer.sim.objects import NODE_NAME, TARGET_NODE, Obj, labels_of, phase, stamp, status, with_conditions
from rebalancer.sim.plane import Plane, Step

ABORT_SECONDS = 0.5
FINAL_CLEANUP_SECONDS = 0.2
ABORTED = "Live migration has been aborted"


def memory_bytes(vmi: Obj) -> int:
    """The guest's memory, 0 where it cannot be read."""
    domain = vmi.get("spec", {}).get("domain", {})
    guest = (domain.get("memory") or {}).get("guest")
    guest = guest or ((domain.get("resources") or {}).get("requests") or {}).get("memory")
    try:
        return value(guest)
    except QuantityError:
        return 0


def transfer_seconds(plane: Plane, vmi: Obj) -> float:
    """Memory over the rate at which the copy gains on the guest that dirties it; at least one second."""
    params = plane.params
    state = status(vmi)["migrationState"]
    limit = value((state.get("migrationConfiguration") or {}).get("bandwidthPerMigration") or 0)
    rate = min(limit or params.bandwidth_bytes, params.bandwidth_bytes) - params.dirty_bytes
    if rate <= 0:
        return float("inf")
    return max(memory_bytes(vmi) / rate, 1.0)


def completion_timeout_seconds(vmi: Obj) -> float:
    """KubeVirt's limit on a transfer: seconds per decimal GB, begun ones counted whole."""
    state = status(vmi)["migrationState"]
    per_gb = (state.get("migrationConfiguration") or {}).get("completionTimeoutPerGiB") or 150
    return float(per_gb * max(-(-memory_bytes(vmi) // 10**9), 1))


def vmi_step(plane: Plane, vmi: Obj) -> Step | None:
    """What happens next to a VMI on the node where it runs, or on the one it is going to."""
    if vmi["metadata"].get("deletionTimestamp"):
        return None
    now, node = status(vmi), status(vmi).get("nodeName", "")
    if phase(vmi) == "Scheduled" and plane.alive(node):
        return _boot(plane, vmi)
    state = now.get("migrationState") or {}
    if phase(vmi) == "Running" and state.get("migrationUid") and TARGET_NODE in labels_of(vmi):
        return _migrate(plane, vmi, state)
    return None


def _boot(plane: Plane, vmi: Obj) -> Step:
    seconds = plane.draw(plane.params.vm_boot, "boot", vmi["metadata"]["uid"])
    moment = stamp(plane.now())
    immovable = plane.mishaps.immovable(vmi)
    migratable: Obj = {"type": "LiveMigratable", "status": "True"}
    if immovable is not None:
        migratable |= {"status": "False", "reason": immovable[0], "message": immovable[1]}
    storage: Obj = {"type": "StorageLiveMigratable", "status": "True"}
    timed = [item | {"lastProbeTime": moment, "lastTransitionTime": moment} for item in (migratable, storage)]
    old = status(vmi)
    machine = (vmi["spec"].get("domain", {}).get("machine") or {}).get("type") or "q35"
    patch: Obj = {
        "phase": "Running",
        "conditions": with_conditions(old.get("conditions") or (), *timed),
        "machine": {"type": machine},
        "selinuxContext": "none",
        "migrationTransport": "Unix",
        "migrationMethod": "LiveMigration",
        "phaseTransitionTimestamps": [
            *(old.get("phaseTransitionTimestamps") or ()),
            {"phase": "Running", "phaseTransitionTimestamp": moment},
        ],
    }
    return Step(name="boot", seconds=seconds, patch={"status": patch})


def _migrate(plane: Plane, vmi: Obj, state: Obj) -> Step | None:
    """The next step of the migration in flight; its name carries the migration, since a VMI sees many."""
    uid = state["migrationUid"]
    source, target = plane.alive(state["sourceNode"]), plane.alive(state["targetNode"])

    def step(name: str, seconds: float, fields: Obj, **more: Obj) -> Step:
        return Step(name=f"{name} {uid}", seconds=seconds, patch={"status": {"migrationState": fields}} | more)

    if state.get("endTimestamp") and (state.get("completed") or state.get("failed")):
        if not target and not state.get("failed"):
            return None
        return Step(
            name=f"cleanup {uid}",
            seconds=FINAL_CLEANUP_SECONDS,
            patch={"metadata": {"labels": {TARGET_NODE: None}}},
        )
    handshake = plane.draw(plane.params.handshake, "handshake", uid)
    if state.get("endTimestamp"):
        return step("complete", handshake, {"completed": True}) if target else None
    if not state.get("targetNodeAddress"):
        if not target:
            return None
        seconds = plane.draw(plane.params.prepare, "prepare", uid)
        ports = {"49152": 0, "49153": 1}
        return step("prepare", seconds, {"targetNodeAddress": "10.0.0.1", "targetDirectMigrationNodePorts": ports})
    if not source:
        return None
    if not state.get("startTimestamp"):
        fields = {"startTimestamp": stamp(plane.now()), "mode": "PreCopy"}
        return step("start", handshake, fields)
    if state.get("targetNodeDomainReadyTimestamp"):
        return _arrive(plane, vmi, handshake) if target else None
    return _transfer(plane, vmi, state, target_alive=target)


def _transfer(plane: Plane, vmi: Obj, state: Obj, *, target_alive: bool) -> Step:
    """Memory is copied until the guest runs on the target, or the copy fails."""
    uid, params = state["migrationUid"], plane.params

    def failed(name: str, seconds: float, reason: str, **more: str | bool) -> Step:
        end = stamp(plane.now())
        fields: Obj = {"endTimestamp": end, "failed": True, "completed": True, "failureReason": reason}
        return Step(name=f"{name} {uid}", seconds=seconds, patch={"status": {"migrationState": fields | more}})

    if state.get("abortRequested"):
        return failed("abort", ABORT_SECONDS, ABORTED, abortStatus="Succeeded")
    seconds, limit = transfer_seconds(plane, vmi), completion_timeout_seconds(vmi)
    reason = plane.mishaps.transfer(vmi)
    if reason:
        return failed("fail", min(seconds, limit) / 2, reason)
    if not target_alive:
        return failed("stall", params.progress_timeout_seconds, f"Live migration stuck for "
                      f"{params.progress_timeout_seconds:.0f} seconds and has been aborted")  # fmt: skip
    if seconds > limit:
        return failed(
            "timeout", limit, f"Live migration is not completed after {limit:.0f} seconds and has been aborted"
        )
    ready = {"targetNodeDomainDetected": True, "targetNodeDomainReadyTimestamp": stamp(plane.now())}
    return Step(name=f"transfer {uid}", seconds=seconds, patch={"status": {"migrationState": ready}})


def _arrive(plane: Plane, vmi: Obj, seconds: float) -> Step:
    """One update: the end, the new node, its label, and no evacuation any more."""
    state = status(vmi)["migrationState"]
    target = state["targetNode"]
    now: Obj = {"migrationState": {"endTimestamp": stamp(plane.now())}, "nodeName": target}
    if "evacuationNodeName" in status(vmi):
        now["evacuationNodeName"] = None
    meta = {"labels": {NODE_NAME: target}, "annotations": {"kubevirt.io/eviction-source": None}}
    return Step(name=f"arrive {state['migrationUid']}", seconds=seconds, patch={"status": now, "metadata": meta})
