"""ResourceQuota, as its admission plugin answers a pod that would exceed it."""

from __future__ import annotations

from rebalancer.domain.quantity import milli_value
from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import Obj, terminal
from rebalancer.sim.store import Store

COUNTED = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "pods")


def _used(pod: Obj, name: str) -> int:
    """What one pod uses of a quota's resource, in thousandths."""
    if name == "pods":
        return 1000
    field, _, resource = name.partition(".")
    containers = (*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ()))
    return sum(milli_value(((item.get("resources") or {}).get(field) or {}).get(resource)) for item in containers)


def _text(milli: int) -> str:
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def check(store: Store, pod: Obj) -> None:
    """Raises ApiError 403 "exceeded quota" where the pod does not fit into a quota of its namespace."""
    namespace = pod["metadata"]["namespace"]
    for quota in store.items("resourcequotas", namespace):
        hard = quota.get("spec", {}).get("hard") or {}
        present = [item for item in store.items("pods", namespace) if not terminal(item)]
        over = [
            (name, _used(pod, name), sum(_used(item, name) for item in present), milli_value(hard[name]))
            for name in COUNTED
            if name in hard
        ]
        over = [entry for entry in over if entry[1] + entry[2] > entry[3]]
        if over:
            requested = ",".join(f"{name}={_text(need)}" for name, need, _, _ in over)
            used = ",".join(f"{name}={_text(have)}" for name, _, have, _ in over)
            limited = ",".join(f"{name}={_text(most)}" for name, _, _, most in over)
            name = pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
            text = (
                f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {used}, limited: {limited}"
            )
            raise ApiError(403, "Forbidden", f'pods "{name}" is forbidden: {text}')
