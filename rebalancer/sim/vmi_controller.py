"""virt-controller's virtual machines: a launcher pod for each new VMI, its place when that runs, its end with it."""

from __future__ import annotations

from rebalancer.sim import launcher, quota, vmi_conditions
from rebalancer.sim.controller import Controller
from rebalancer.sim.errors import ApiError
from rebalancer.sim.events import Recorder
from rebalancer.sim.migration_case import ACTOR, RECORDER
from rebalancer.sim.objects import (
    JOB_UID,
    NODE_NAME,
    TERMINAL,
    VMI_FINALIZER,
    Obj,
    annotations_of,
    deleting,
    key_of,
    labels_of,
    phase,
    ready,
    stamp,
    status,
    terminal,
)
from rebalancer.sim.resources import VMIS
from rebalancer.sim.store import DELETED, Change, Store

QUOTA_RETRY_SECONDS = 5.0
EVICTION_MARK = "descheduler.alpha.kubernetes.io/eviction-in-progress"


class VmiController(Controller):
    """All VMIs of the cluster, from creation to the last of their pods."""

    name = "vmis"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._recorder = Recorder(store, RECORDER)

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
        return self.store.where("pods", "owner", vmi["metadata"]["uid"])

    def reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        vmi = self.store.find(VMIS, namespace, name)
        if vmi is None:
            return
        pods = self._pods(vmi)
        if deleting(vmi):
            self._delete_pods(vmi, pods)
        elif phase(vmi) in ("", "Pending") and not pods:
            self._create_pod(vmi)
        self._follow(self.store.get(VMIS, namespace, name), self._pods(vmi))

    def _create_pod(self, vmi: Obj) -> None:
        pod = launcher.render(vmi, next(iter(self.store.items("kubevirts")), None))
        self.store.name(pod)
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
        node = status(vmi).get("nodeName")
        here = [pod for pod in pods if not node or pod["spec"].get("nodeName") == node]
        pod = max(here, key=lambda item: int(item["metadata"]["resourceVersion"]), default=None)

        def change(new: Obj) -> None:
            now = new.setdefault("status", {})
            if active or now.get("activePods"):
                now["activePods"] = active
            if pod is not None or phase(vmi) not in ("", "Pending"):
                vmi_conditions.sync(new, pod, self.store.now())
            self._advance(new, pods, here)

        self._write(vmi, change)
        if pod is not None and not terminal(pod) and node:
            self._mark(pod, node, evicted=bool(status(vmi).get("evacuationNodeName")))

    def _advance(self, vmi: Obj, pods: list[Obj], here: list[Obj]) -> None:
        """The next phase of the VMI, in place; `here` are its pods on the node where it runs."""
        first = next((pod for pod in pods if JOB_UID not in labels_of(pod) and ready(pod)), None)
        if phase(vmi) in TERMINAL:
            if all(terminal(pod) for pod in pods):
                finalizers = vmi["metadata"].get("finalizers") or []
                vmi["metadata"]["finalizers"] = [name for name in finalizers if name != VMI_FINALIZER]
        elif deleting(vmi):
            if all(terminal(pod) for pod in pods):
                self._enter(vmi, "Succeeded")
        elif phase(vmi) in ("", "Pending") and pods:
            self._enter(vmi, "Scheduling")
        elif phase(vmi) == "Scheduling" and first is not None:
            self._enter(vmi, "Scheduled")
            vmi["status"]["nodeName"] = first["spec"]["nodeName"]
            vmi["metadata"].setdefault("labels", {})[NODE_NAME] = first["spec"]["nodeName"]
        elif phase(vmi) in ("Scheduled", "Running") and all(terminal(pod) for pod in here):
            over = bool(here) and all(phase(pod) == "Succeeded" for pod in here)
            self._enter(vmi, "Succeeded" if over else "Failed")

    def _mark(self, pod: Obj, node: str, *, evicted: bool) -> None:
        """What launcher pods tell others: where the VM runs, and whether its eviction is under way."""

        def change(new: Obj) -> None:
            new["metadata"].setdefault("labels", {})[NODE_NAME] = node
            notes = new["metadata"].setdefault("annotations", {})
            if evicted:
                notes[EVICTION_MARK] = "true"
            else:
                notes.pop(EVICTION_MARK, None)

        self.store.modify("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], change, actor=ACTOR)

    def _delete_pods(self, vmi: Obj, pods: list[Obj]) -> None:
        """A VMI that is deleted: its pods go first, then it does."""
        for pod in pods:
            if not deleting(pod) and not terminal(pod):
                meta = pod["metadata"]
                self.store.delete("pods", meta["namespace"], meta["name"], actor=ACTOR)
                text = f"Deleted virtual machine pod {meta['name']}"
                self._recorder.record(vmi, "Normal", "SuccessfulDelete", text)
