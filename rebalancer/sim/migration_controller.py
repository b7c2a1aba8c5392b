"""virt-controller's migrations: the queue, the limits, the target pod, the hand-off, aborts, time-outs and clean-up.

In the order of the original (KubeVirt: pkg/virt-controller/watch/migration/migration.go): first `_sync` makes things
happen in the world, then `_update` says in the migration's status what is seen of them.
"""

from __future__ import annotations

from rebalancer.sim import launcher, quota, slots
from rebalancer.sim.controller import LATENCY_SECONDS, Controller
from rebalancer.sim.errors import ApiError
from rebalancer.sim.events import Recorder
from rebalancer.sim.migration_case import (
    ACTOR,
    BACKOFF_SECONDS,
    CONFIGURATION,
    KEPT_PER_VMI,
    OBSERVED,
    PENDING_TIMEOUT,
    QUOTA,
    RECORDER,
    RUNNING_PRIORITY,
    UNSCHEDULABLE_TIMEOUT,
    Case,
    Limits,
    kubevirts_own,
    priority_of,
)
from rebalancer.sim.migration_status import READY_MARK, decide
from rebalancer.sim.objects import (
    JOB_UID,
    TARGET_NODE,
    TERMINAL,
    Obj,
    annotations_of,
    condition,
    deleting,
    key_of,
    labels_of,
    phase,
    ready,
    seconds_of,
    stamp,
    status,
    terminal,
)
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.store import DELETED, Change, Store


class MigrationController(Controller):
    """All migrations of the cluster."""

    name = "migrations"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._recorder = Recorder(store, RECORDER)

    # What concerns what

    def resync(self) -> None:
        for item in self.store.items(MIGRATIONS):
            self.enqueue(key_of(item))

    def changed(self, change: Change) -> None:
        if change.resource == MIGRATIONS:
            if change.type != DELETED:
                self.enqueue(f"{change.namespace}/{change.name}", priority=priority_of(change.object))
        elif change.resource == VMIS:
            self._enqueue_of(change.namespace, change.name, settled=change.type == DELETED)
        elif change.resource == "pods":
            job = labels_of(change.object).get(JOB_UID)
            if job:
                self._enqueue_of(change.namespace, annotations_of(change.object).get("kubevirt.io/domain", ""))
        elif change.resource == "resourcequotas":
            for item in self.store.items(MIGRATIONS, change.namespace):
                if condition(item, QUOTA):
                    self.enqueue(key_of(item))

    def _enqueue_of(self, namespace: str, vmi: str, *, settled: bool = False) -> None:
        for item in self.store.where(MIGRATIONS, "vmi", f"{namespace}/{vmi}"):
            if settled or not self._settled(item):
                self.enqueue(key_of(item), priority=priority_of(item))

    @staticmethod
    def _settled(item: Obj) -> bool:
        return phase(item) in TERMINAL and not item["metadata"].get("finalizers")

    # One migration

    def reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        item = self.store.find(MIGRATIONS, namespace, name)
        if item is None:
            return
        vmi = self.store.find(VMIS, namespace, item["spec"]["vmiName"])
        if vmi is None:
            self._orphan(item)
            return
        if self._settled(item):
            return
        if OBSERVED not in annotations_of(item):
            self._observe(item)
            return
        case = self._case(item, vmi)
        self._sync(case)
        self._update(case)

    def _case(self, item: Obj, vmi: Obj) -> Case:
        launchers = self.store.where("pods", "owner", vmi["metadata"]["uid"])
        here = [pod for pod in launchers if pod["spec"].get("nodeName") == status(vmi).get("nodeName")]
        here.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        case = Case(
            item=item,
            vmi=vmi,
            pods=[pod for pod in launchers if labels_of(pod).get(JOB_UID) == item["metadata"]["uid"]],
            source_pod=here[-1]["metadata"]["name"] if here else "",
        )
        case.blocked = not self._may_run(case)
        return case

    def _observe(self, item: Obj) -> None:
        def mark(new: Obj) -> None:
            notes = new["metadata"].setdefault("annotations", {})
            notes[OBSERVED] = notes["kubevirt.io/storage-observed-api-version"] = "v1"

        self._write(item, mark)

    def _orphan(self, item: Obj) -> None:
        """The VMI is gone: its migrations go too."""
        if not deleting(item):
            self.store.delete(MIGRATIONS, item["metadata"]["namespace"], item["metadata"]["name"], actor=ACTOR)
        if not item["metadata"].get("finalizers"):
            return

        def drop(new: Obj) -> None:
            new["metadata"]["finalizers"] = []

        self._write(item, drop)

    def _write(self, item: Obj, change: object) -> None:
        assert callable(change)
        self.store.modify(MIGRATIONS, item["metadata"]["namespace"], item["metadata"]["name"], change, actor=ACTOR)

    def _warn(self, case: Case, reason: str, message: str, kind: str = "Warning") -> None:
        self._recorder.record(case.item, kind, reason, message)

    # Making things happen

    def _sync(self, case: Case) -> None:
        if deleting(case.vmi) or (case.handed_off and case.state.get("completed")):
            return
        if not case.blocked:
            acts = {
                "Pending": self._act_pending,
                "Scheduling": self._act_scheduling,
                "Scheduled": self._act_scheduled,
                "PreparingTarget": self._act_handed_off,
                "TargetReady": self._act_handed_off,
                "Running": self._act_running,
                "Failed": self._act_failed,
            }
            acts.get(phase(case.item), lambda _: None)(case)

    def _act_pending(self, case: Case) -> None:
        if deleting(case.item):
            self._cancel_pod(case)
        elif not self._backs_off(case):
            if case.pod is None:
                self._create_pod(case)
            elif not ready(case.pod):
                self._time_out(case)

    def _act_scheduling(self, case: Case) -> None:
        if deleting(case.item):
            self._cancel_pod(case)
        elif case.pod is not None:
            self._time_out(case)

    def _act_scheduled(self, case: Case) -> None:
        if deleting(case.item) and not case.handed_off:
            self._cancel_pod(case)
        elif case.pod is not None and ready(case.pod) and not case.handed_off:
            self._hand_off(case, case.pod)

    def _act_handed_off(self, case: Case) -> None:
        lost = case.pod is None or terminal(case.pod)
        if lost and not case.state.get("startTimestamp") and not case.state.get("targetDirectMigrationNodePorts"):
            self._mark_failed_on_vmi(case)

    def _act_running(self, case: Case) -> None:
        if deleting(case.item) and not case.state.get("abortRequested"):
            self._request_abort(case)

    def _act_failed(self, case: Case) -> None:
        if case.handed_off and not case.state.get("endTimestamp"):
            self._mark_failed_on_vmi(case)

    def _may_run(self, case: Case) -> bool:
        """Not while the VMI still belongs to another migration that is not final."""
        other = case.state.get("migrationUid")
        if not other or other == case.uid:
            return True
        found = self.store.where(MIGRATIONS, "vmi", key_of(case.vmi))
        return all(phase(item) in TERMINAL for item in found if item["metadata"]["uid"] == other)

    def _cancel_pod(self, case: Case) -> None:
        if case.pod is None or deleting(case.pod):
            return
        key = key_of(case.pod)
        self._delete_pod(case.pod)
        self._warn(case, "SuccessfulDelete", f"migration canceled and pod {key} is deleted", "Normal")

    def _delete_pod(self, pod: Obj) -> None:
        self.store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], actor=ACTOR)

    def _backs_off(self, case: Case) -> bool:
        """Only KubeVirt's own evacuations and updates wait after failures: 20 s, doubled each time."""
        if not kubevirts_own(case.item):
            return False
        known = sorted(
            filter(kubevirts_own, self.store.where(MIGRATIONS, "vmi", key_of(case.vmi))),
            key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["uid"] == case.uid),
            reverse=True,
        )
        if len(known) < 2 or known[0]["metadata"]["uid"] != case.uid:
            return False
        seconds = 0.0
        for item in known[1:]:
            if phase(item) == "Succeeded":
                break
            if phase(item) == "Failed" and not deleting(item):
                seconds = seconds * 2 or BACKOFF_SECONDS
        failed = [
            entry["phaseTransitionTimestamp"]
            for entry in status(known[1]).get("phaseTransitionTimestamps") or ()
            if entry["phase"] == "Failed"
        ]
        left = seconds_of(failed[0] if failed else None) + seconds - self.store.now()
        if not seconds or left <= 0:
            return False
        self.enqueue(key_of(case.item), after=max(left, LATENCY_SECONDS), priority=RUNNING_PRIORITY)
        self._recorder.record(case.vmi, "Warning", "MigrationBackoff", f"backoff migrating vmi {key_of(case.vmi)}")
        return True

    def _create_pod(self, case: Case) -> None:
        """The target pod, if there is a slot for it; the VMI must run in exactly one pod."""
        vmi, key = case.vmi, key_of(case.item)
        pods = [pod for pod in self.store.where("pods", "owner", vmi["metadata"]["uid"]) if not terminal(pod)]
        if len(pods) > 1:
            self.enqueue(key, after=1.0, priority=RUNNING_PRIORITY)
            return
        cluster = next(iter(self.store.items("kubevirts")), None)
        node = str(status(vmi).get("nodeName"))
        if not slots.is_free(self.store, node, Limits.of(cluster)):
            priority = priority_of(case.item)
            self.enqueue(key, after=1.0 if priority >= 100 else 3.0 if priority >= 50 else 5.0, priority=priority)
            return
        source_node = self.store.find("nodes", "", node)
        if phase(vmi) != "Running" or not pods or source_node is None:
            return
        try:
            target = launcher.render_target(vmi, case.item, pods[0], source_node, cluster)
            self.store.name(target)
            quota.check(self.store, target)
            pod = self.store.create("pods", target, actor=ACTOR)
        except (ApiError, launcher.HostModelError) as error:
            self._recorder.record(vmi, "Warning", "FailedCreate", f"Error creating pod: {error}")
            case.quota_exceeded = "exceeded quota" in str(error)
            self.enqueue(key, after=5.0)
            return
        self._warn(case, "SuccessfulCreate", f"Created migration target pod {pod['metadata']['name']}", "Normal")

    def _time_out(self, case: Case) -> None:
        """A target pod that stays Pending is deleted after its time; looked at again at the very second."""
        pod, notes = case.pod, annotations_of(case.item)
        if pod is None or phase(pod) != "Pending" or deleting(pod):
            return
        age = self.store.now() - seconds_of(pod["metadata"]["creationTimestamp"])
        limits = [("pending", float(notes.get(PENDING_TIMEOUT, 900)))]
        scheduled = condition(pod, "PodScheduled")
        if scheduled and scheduled["status"] == "False" and scheduled.get("reason") == "Unschedulable":
            text = f"Migration target pod for VMI [{key_of(case.vmi)}] is currently unschedulable."
            self._warn(case, "migrationTargetPodUnschedulable", text)
            limits.insert(0, ("unschedulable", float(notes.get(UNSCHEDULABLE_TIMEOUT, 300))))
        for name, limit in limits:
            if age >= limit - 1e-6:
                self._delete_pod(pod)
                self._warn(case, "SuccessfulDelete", f"{name} pod {key_of(pod)} timeout period exceeded", "Normal")
                return
            self.enqueue(key_of(case.item), after=max(limit - age, LATENCY_SECONDS), priority=RUNNING_PRIORITY)

    def _hand_off(self, case: Case, pod: Obj) -> None:
        cluster = next(iter(self.store.items("kubevirts")), None) or {}
        configured = (cluster.get("spec", {}).get("configuration") or {}).get("migrations") or {}

        def change(vmi: Obj) -> None:
            vmi["status"]["migrationState"] = {
                "migrationUid": case.uid,
                "sourceNode": vmi["status"].get("nodeName", ""),
                "targetNode": pod["spec"]["nodeName"],
                "targetPod": pod["metadata"]["name"],
                "sourcePod": (status(case.item).get("migrationState") or {}).get("sourcePod", ""),
                "migrationConfiguration": CONFIGURATION | configured,
            }
            vmi["metadata"].setdefault("labels", {})[TARGET_NODE] = pod["spec"]["nodeName"]

        self._write_vmi(case, change)
        text = "Migration target pod is ready for preparation by virt-handler."
        self._warn(case, "SuccessfulHandOver", text, "Normal")

    def _write_vmi(self, case: Case, change: object) -> None:
        assert callable(change)
        meta = case.vmi["metadata"]
        self.store.modify(VMIS, meta["namespace"], meta["name"], change, actor=ACTOR)

    def _mark_failed_on_vmi(self, case: Case) -> None:
        now = stamp(self.store.now())

        def change(vmi: Obj) -> None:
            state = vmi["status"]["migrationState"]
            state.setdefault("startTimestamp", now)
            state |= {"endTimestamp": now, "failed": True, "completed": True}

        self._write_vmi(case, change)
        # The original sets the VMI's failureReason too, but only after it has written the VMI: nobody ever sees it.
        text = f"VirtualMachineInstance migration uid {case.uid} failed. reason: Target pod is down"
        self._recorder.record(case.vmi, "Warning", "FailedMigration", text)

    def _request_abort(self, case: Case) -> None:
        def change(vmi: Obj) -> None:
            vmi["status"]["migrationState"]["abortRequested"] = True

        self._write_vmi(case, change)
        self._warn(case, "SuccessfulAbortMigration", "Migration is ready to be canceled by virt-handler.", "Normal")

    # Saying what is seen

    def _update(self, case: Case) -> None:
        case.vmi = self.store.get(VMIS, case.vmi["metadata"]["namespace"], case.vmi["metadata"]["name"])
        verdict = decide(case, self.store.now())
        for reason, message in verdict.events:
            self._warn(case, reason, message, "Normal" if reason == "SuccessfulMigration" else "Warning")

        def report(new: Obj) -> None:
            new["status"] = verdict.status

        def release(new: Obj) -> None:
            new["metadata"]["finalizers"] = verdict.finalizers

        if verdict.mark_pod is not None and case.pod is not None:
            self._annotate(case.pod, verdict.mark_pod)
        # Two writes, as of the original: a migration that goes with its finalizer is seen in its final state before.
        self._write(case.item, report)
        self._write(case.item, release)
        if phase(case.item) in TERMINAL:
            self._collect(case)

    def _annotate(self, pod: Obj, moment: str) -> None:
        def change(new: Obj) -> None:
            new["metadata"].setdefault("annotations", {})[READY_MARK] = moment

        self.store.modify("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], change, actor=ACTOR)

    def _collect(self, case: Case) -> None:
        """The newest five final migrations of a VMI stay, older ones go and take the pod they left behind with them."""
        namespace = case.vmi["metadata"]["namespace"]
        known = self.store.where(MIGRATIONS, "vmi", key_of(case.vmi))
        final = [item for item in known if phase(item) in TERMINAL and not deleting(item)]
        final.sort(key=lambda item: item["metadata"]["creationTimestamp"])
        for item in final[:-KEPT_PER_VMI]:
            state = status(item).get("migrationState") or {}
            left = state.get("targetPod" if phase(item) == "Failed" else "sourcePod")
            pod = self.store.find("pods", namespace, left or "")
            if pod is not None and terminal(pod):
                self._delete_pod(pod)
            self.store.delete(MIGRATIONS, namespace, item["metadata"]["name"], actor=ACTOR)
        for item in self.store.where(MIGRATIONS, "open", "open"):
            if item["metadata"]["namespace"] == namespace and phase(item) == "Pending":
                self.enqueue(key_of(item), priority=priority_of(item))
