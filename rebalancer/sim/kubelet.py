"""The kubelet's part: pods start, end, and are taken away."""

from __future__ import annotations

from rebalancer.sim.objects import JOB_UID, Obj, deleting, labels_of, phase, seconds_of, stamp, status
from rebalancer.sim.plane import Plane, Step

FAILED_EXIT_SECONDS = 2.0
"""The launcher of a failed migration's target polls every two seconds and then exits with an error."""


def pod_step(plane: Plane, pod: Obj) -> Step | None:
    """What happens next to a pod that is bound to a living node."""
    node = pod.get("spec", {}).get("nodeName")
    if not node or not plane.alive(node):
        return None
    uid = pod["metadata"]["uid"]
    if deleting(pod):
        return Step(name="end", seconds=plane.draw(plane.params.pod_stop, "stop", uid))
    if phase(pod) == "Pending":
        return _start(plane, pod)
    if phase(pod) == "Running" and labels_of(pod).get("kubevirt.io") == "virt-launcher":
        return _launcher_exit(plane, pod)
    return None


def _start(plane: Plane, pod: Obj) -> Step | None:
    if plane.mishaps.stuck(pod):
        return None
    seconds = plane.draw(plane.params.pod_start, "start", pod["metadata"]["uid"])
    reason = plane.mishaps.pod(pod)
    if reason:
        patch: Obj = {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {reason}"}
        return Step(name="reject", seconds=seconds, patch={"status": patch}, subresource="status")
    return Step(name="start", seconds=seconds, patch={"status": running_status(pod, plane.now())},
                subresource="status")  # fmt: skip


def _containers(pod: Obj, field: str, state: Obj, *, up: bool) -> list[Obj]:
    return [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": up,
            "started": up,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"].get(field) or ()
    ]


def _up(now: float, *, ready: bool) -> list[Obj]:
    value = "True" if ready else "False"
    kinds = (("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", value), ("Ready", value))
    return [
        {"type": kind, "status": state, "lastProbeTime": None, "lastTransitionTime": stamp(now)}
        for kind, state in kinds
    ]


def running_status(pod: Obj, now: float) -> Obj:
    """The status of a pod whose containers all run and are ready."""
    state = {"running": {"startedAt": stamp(now)}}
    number = sum(pod["metadata"]["uid"].encode())
    address = f"10.{number % 200 + 20}.{number // 7 % 250}.{number // 3 % 250 + 1}"
    return {
        "phase": "Running",
        "conditions": _up(now, ready=True),
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": stamp(now),
        "initContainerStatuses": _containers(pod, "initContainers", state, up=True),
        "containerStatuses": _containers(pod, "containers", state, up=True),
    }


def ended_status(pod: Obj, now: float, *, failed: bool) -> Obj:
    """The status of a pod whose containers have all exited."""
    exit_code, reason = (1, "Error") if failed else (0, "Completed")
    state = {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": stamp(now)}}
    return {
        "phase": "Failed" if failed else "Succeeded",
        "conditions": _up(now, ready=False),
        "initContainerStatuses": _containers(pod, "initContainers", state, up=False),
        "containerStatuses": _containers(pod, "containers", state, up=False),
    }


def _ends(plane: Plane, pod: Obj, seconds: float, *, failed: bool) -> Step:
    patch: Obj = {"status": ended_status(pod, plane.now() + seconds, failed=failed)}
    return Step(name="fail" if failed else "finish", seconds=seconds, patch=patch, subresource="status")


def _launcher_exit(plane: Plane, pod: Obj) -> Step | None:
    """When the launcher in this pod exits by itself: its guest has left, stopped, never came, or did not arrive."""
    vmi, name = plane.vmi_of(pod), pod["metadata"]["name"]
    if vmi is None or deleting(vmi):
        return None  # KubeVirt deletes the pod of a VM that stops
    state = status(vmi).get("migrationState") or {}
    here = pod["spec"]["nodeName"] == status(vmi).get("nodeName")
    uid = pod["metadata"]["uid"]
    if state.get("completed") and not state.get("failed"):
        if state.get("sourcePod") == name and not here:
            return _ends(plane, pod, plane.draw(plane.params.source_exit, "exit", uid), failed=False)
        return None
    if state.get("failed") and state.get("targetPod") == name:
        return _ends(plane, pod, FAILED_EXIT_SECONDS, failed=True)
    waiting = JOB_UID in labels_of(pod) and not here and not state.get("targetNodeDomainDetected")
    if waiting and not (state.get("startTimestamp") and state.get("targetPod") == name):
        # No guest has come: virt-launcher gives up after its qemu-timeout.
        started = seconds_of(status(pod).get("startTime")) or plane.now()
        left = started + plane.draw(plane.params.qemu_timeout, "qemu-timeout", uid) - plane.now()
        return _ends(plane, pod, max(left, 0.0), failed=True)
    return None
