"""What happens when a node falls silent: kube-controller-manager's node lifecycle, and virt-controller's part of it.

A silent node is unreachable after 40 s and tainted; its pods are marked as deleted after five minutes more, but never
end while the node is away. VMs there fail once virt-handler has been silent for five minutes and their pods are gone.
"""

from __future__ import annotations

from collections.abc import Callable

from rebalancer.sim.controller import Controller
from rebalancer.sim.objects import SCHEDULABLE, Obj, condition, deleting, stamp, status, terminal, with_conditions
from rebalancer.sim.store import NOW, Change, Store

ACTOR = "node-controller"
TICK_SECONDS = 10.0
GRACE_SECONDS = 40.0
EVICT_SECONDS = 300.0
FORGET_SECONDS = 300.0
"""After eviction: somebody (a person, or fencing) confirms that the node is off, and its pods are removed."""
UNREACHABLE = "node.kubernetes.io/unreachable"


class NodeController(Controller):
    """Watches over nodes by asking `alive` every few seconds, but only while some node is away."""

    name = "node-lifecycle"

    def __init__(self, store: Store, alive: Callable[[str], bool]) -> None:
        super().__init__(store)
        self._alive = alive
        self._silent_since: dict[str, float] = {}

    def changed(self, change: Change) -> None:
        """A node's own writes say that it lives; silence is noticed by `notice`."""

    def notice(self, node: str) -> None:
        """Begin to look at a node that has just been lost."""
        self._silent_since[node] = self.store.now()
        self.enqueue(node, after=GRACE_SECONDS)

    def reconcile(self, key: str) -> None:
        if self.store.find("nodes", "", key) is None:
            return
        if self._alive(key):
            self._silent_since.pop(key, None)
            self._mark(key, ready=True)
            return
        self.enqueue(key, after=TICK_SECONDS)
        silent = self.store.now() - self._silent_since.get(key, self.store.now())
        self._mark(key, ready=False)
        if silent >= GRACE_SECONDS + EVICT_SECONDS:
            self._evict(key, gone=silent >= GRACE_SECONDS + EVICT_SECONDS + FORGET_SECONDS)

    def _mark(self, node: str, *, ready: bool) -> None:
        """The Ready condition, the taints that go with it, and virt-controller's label."""
        moment = stamp(self.store.now())
        fresh = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status."}  # fmt: skip
        state = (fresh if ready else lost) | {"lastHeartbeatTime": moment, "lastTransitionTime": moment}

        def change(item: Obj) -> None:
            old = condition(item, "Ready")
            if old is None or old["status"] != state["status"]:
                conditions = status(item).get("conditions") or ()
                item.setdefault("status", {})["conditions"] = with_conditions(conditions, state)
            taints = [taint for taint in item.get("spec", {}).get("taints") or () if taint["key"] != UNREACHABLE]
            if not ready:
                taints += [{"key": UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
            spec = item.setdefault("spec", {})
            spec["taints"] = taints
            if not taints:
                del spec["taints"]
            if SCHEDULABLE in (item["metadata"].get("labels") or {}):
                item["metadata"]["labels"][SCHEDULABLE] = "true" if ready else "false"

        self.store.modify("nodes", "", node, change, actor=ACTOR)

    def _evict(self, node: str, *, gone: bool) -> None:
        for pod in self.store.where("pods", "node", node):
            if terminal(pod):
                continue
            meta = pod["metadata"]
            if gone:
                self.store.delete("pods", meta["namespace"], meta["name"], NOW, actor=ACTOR)
            elif not deleting(pod):
                self.store.delete("pods", meta["namespace"], meta["name"], actor=ACTOR)
