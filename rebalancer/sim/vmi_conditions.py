"""Conditions that virt-controller writes into a VMI (KubeVirt: pkg/virt-controller/watch/vmi/lifecycle.go)."""

from __future__ import annotations

from rebalancer.sim.objects import Obj, condition, deleting, phase, stamp, status, terminal, with_conditions

READY, EVICTION = "Ready", "EvictionRequested"


def sync(vmi: Obj, pod: Obj | None, now: float) -> None:
    """Bring Ready and EvictionRequested of the VMI up to date, in place. `pod` is the one in which it runs."""
    wanted = [_ready(vmi, pod)]
    if status(vmi).get("evacuationNodeName"):
        wanted.append(_entry(EVICTION, "True", EVICTION, "VMI is marked for eviction"))
    kept = [entry for entry in status(vmi).get("conditions") or () if entry["type"] != EVICTION or len(wanted) > 1]
    moment = stamp(now)
    fresh = [
        entry | {"lastProbeTime": moment, "lastTransitionTime": moment}
        for entry in wanted
        if entry is not None and not _says(vmi, entry)
    ]
    vmi["status"]["conditions"] = with_conditions(kept, *fresh)


def _entry(kind: str, value: str, reason: str = "", message: str = "") -> Obj:
    words = {"reason": reason, "message": message}
    return {"type": kind, "status": value} | {key: text for key, text in words.items() if text}


def _ready(vmi: Obj, pod: Obj | None) -> Obj | None:
    """The condition Ready, None where the pod does not say."""
    if pod is None:
        return _entry(READY, "False", "PodNotExists", "virt-launcher pod has not yet been scheduled")
    if terminal(pod) or deleting(pod):
        return _entry(READY, "False", "PodTerminating", "virt-launcher pod is terminating")
    if phase(vmi) != "Running":
        return _entry(READY, "False", "GuestNotRunning", "Guest VM is not reported as running")
    found = condition(pod, READY)
    return found and _entry(READY, found["status"], found.get("reason", ""), found.get("message", ""))


def _says(vmi: Obj, wanted: Obj) -> bool:
    found = condition(vmi, wanted["type"]) or {}
    return all(found.get(key) == wanted.get(key) for key in ("status", "reason", "message"))
