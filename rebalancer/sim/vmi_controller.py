"""virt-controller's virtual machines: a launcher pod for each new VMI, its place when that runs, its end with it."""

from __future__ import annotations

from rebalancer.sim import launcher, quota
from rebalancer.sim.controller import Controller
from rebalancer.sim.errors import ApiError
from rebalancer.sim.events import Recorder
from rebalancer.sim.migration_case import ACTOR
from rebalancer.sim.objects import (
    JOB_UID,
    NODE_NAME,
    TERMINAL,
    VMI_FINALIZER,
    Obj,
    annotations_of,
    condition,
    deleting,
    key_of,
    labels_of,
    owner_uid,
    phase,
    ready,
    stamp,
    status,
    terminal,
    with_conditions,
)
from rebalancer.sim.resources import VMIS
from rebalancer.sim.store import DELETED, Change, Store

QUOTA_RETRY_SECONDS = 5.0


class VmiController(Controller):
    """All VMIs of the cluster, from creation to the last of their pods."""

    name = "vmis"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._recorder = Recorder(store, ACTOR)

    def resync(self) -> None:
        for vmi in self.store.items(VMIS):
            self.enqueue(key_of(vmi))

    def changed(self, change: Change) -> None:
        if change.resource == VMIS:
            if change.type == DELETED:
                self._collect(change.object)
            else:
                self.enqueue(f"{change.namespace}/{change.name}")
        elif change.resource == "pods":
            name = annotations_of(change.object).get("kubevirt.io/domain")
            if name and labels_of(change.object).get("kubevirt.io") == "virt-launcher":
                self.enqueue(f"{change.namespace}/{name}")

    def _collect(self, vmi: Obj) -> None:
        """The garbage collector: pods whose VMI is gone go too."""
        for pod in self._pods(vmi):
            self.store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], actor="garbage-collector")

    def _pods(self, vmi: Obj) -> list[Obj]:
        uid = vmi["metadata"]["uid"]
        return [pod for pod in self.store.items("pods", vmi["metadata"]["namespace"]) if owner_uid(pod) == uid]

    def reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        vmi = self.store.find(VMIS, namespace, name)
        if vmi is None:
            return
        pods = self._pods(vmi)
        if deleting(vmi):
            self._stop(vmi, pods)
            return
        if phase(vmi) in TERMINAL:
            return
        if phase(vmi) in ("", "Pending") and not pods:
            self._create_pod(vmi)
            vmi = self.store.get(VMIS, namespace, name)
            pods = self._pods(vmi)
        self._follow(vmi, pods)

    def _create_pod(self, vmi: Obj) -> None:
        if not phase(vmi):
            self._write(vmi, lambda new: self._enter(new, "Pending"))
        pod = launcher.render(vmi, next(iter(self.store.items("kubevirts")), None))
        try:
            quota.check(self.store, pod)
        except ApiError as error:
            self._recorder.record(vmi, "Warning", "FailedCreate", f"Error creating pod: {error}")
            self.enqueue(key_of(vmi), after=QUOTA_RETRY_SECONDS)
            return
        created = self.store.create("pods", pod, actor=ACTOR)
        text = f"Created virtual machine pod {created['metadata']['name']}"
        self._recorder.record(vmi, "Normal", "SuccessfulCreate", text)

    def _enter(self, vmi: Obj, reached: str) -> None:
        now = vmi.setdefault("status", {})
        now["phase"] = reached
        times = now.setdefault("phaseTransitionTimestamps", [])
        times.append({"phase": reached, "phaseTransitionTimestamp": stamp(self.store.now())})

    def _write(self, vmi: Obj, change: object) -> None:
        assert callable(change)
        self.store.modify(VMIS, vmi["metadata"]["namespace"], vmi["metadata"]["name"], change, actor=ACTOR)

    def _follow(self, vmi: Obj, pods: list[Obj]) -> None:
        """Write into the VMI what its pods show: which are active, where it is placed, whether it is ready or over."""
        active = {pod["metadata"]["uid"]: pod["spec"].get("nodeName", "") for pod in pods}
        first = next((pod for pod in pods if JOB_UID not in labels_of(pod) and ready(pod)), None)
        node = status(vmi).get("nodeName")
        here = [pod for pod in pods if pod["spec"].get("nodeName") == node]

        def change(new: Obj) -> None:
            now = new.setdefault("status", {})
            if active:
                now["activePods"] = active
            if phase(vmi) in ("", "Pending") and pods:
                self._enter(new, "Scheduling")
            elif phase(vmi) == "Scheduling" and first is not None:
                self._enter(new, "Scheduled")
                now["nodeName"] = first["spec"]["nodeName"]
                new["metadata"].setdefault("labels", {})[NODE_NAME] = first["spec"]["nodeName"]
            elif phase(vmi) in ("Scheduled", "Running") and all(terminal(pod) for pod in here):
                over = bool(here) and all(phase(pod) == "Succeeded" for pod in here)
                self._enter(new, "Succeeded" if over else "Failed")
            elif phase(vmi) == "Running" and not condition(new, "Ready"):
                moment = stamp(self.store.now())
                new_condition = {
                    "type": "Ready",
                    "status": "True",
                    "lastProbeTime": moment,
                    "lastTransitionTime": moment,
                }
                now["conditions"] = with_conditions(now.get("conditions") or (), new_condition)

        self._write(vmi, change)
        for pod in here:
            if not terminal(pod) and node and labels_of(pod).get(NODE_NAME) != node:
                self._label(pod, node)

    def _label(self, pod: Obj, node: str) -> None:
        def change(new: Obj) -> None:
            new["metadata"].setdefault("labels", {})[NODE_NAME] = node

        self.store.modify("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], change, actor=ACTOR)

    def _stop(self, vmi: Obj, pods: list[Obj]) -> None:
        """A VMI that is deleted: its pods go first, then it does."""
        left = [pod for pod in pods if not terminal(pod)]
        for pod in left:
            if not deleting(pod):
                meta = pod["metadata"]
                self.store.delete("pods", meta["namespace"], meta["name"], actor=ACTOR)
        if [pod for pod in self._pods(vmi) if not terminal(pod)]:
            return

        def end(new: Obj) -> None:
            if phase(new) not in TERMINAL:
                self._enter(new, "Succeeded")
            finalizers = new["metadata"].get("finalizers") or []
            new["metadata"]["finalizers"] = [name for name in finalizers if name != VMI_FINALIZER]

        self._write(vmi, end)
