"""virt-controller's evacuations: VMs whose eviction was asked for get a migration of KubeVirt's own, first in line."""

from __future__ import annotations

from rebalancer.sim import admission
from rebalancer.sim.controller import Controller
from rebalancer.sim.errors import ApiError
from rebalancer.sim.events import Recorder
from rebalancer.sim.migration_case import ACTOR, EVACUATION
from rebalancer.sim.objects import (
    TERMINAL,
    Obj,
    annotations_of,
    deleting,
    is_true,
    owner_uid,
    phase,
    status,
    terminal,
)
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS
from rebalancer.sim.store import Change, Store

DRAIN_TAINT = "kubevirt.io/drain"
RETRY_SECONDS = 1.0


class EvacuationController(Controller):
    """Works by node: whatever VM on it is marked, migratable and at rest gets a migration, all at once (since 1.9)."""

    name = "evacuation"

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._recorder = Recorder(store, "evacuation-controller")

    def resync(self) -> None:
        for node in self.store.items("nodes"):
            self.enqueue(node["metadata"]["name"])

    def changed(self, change: Change) -> None:
        node = None
        if change.resource == "nodes":
            node = change.name if self._drained(change.object) else None
        elif change.resource == VMIS:
            node = status(change.object).get("evacuationNodeName")
        elif change.resource == MIGRATIONS and phase(change.object) in TERMINAL:
            vmi = self.store.find(VMIS, change.namespace, change.object["spec"].get("vmiName", ""))
            node = status(vmi).get("nodeName") if vmi else None
        elif change.resource == "pods" and terminal(change.object) and owner_uid(change.object):
            vmi = self.store.find(VMIS, change.namespace, annotations_of(change.object).get("kubevirt.io/domain", ""))
            node = status(vmi).get("evacuationNodeName") if vmi else None
        if node:
            self.enqueue(node)

    @staticmethod
    def _drained(node: Obj) -> bool:
        taints = node.get("spec", {}).get("taints") or ()
        return any(taint.get("key") == DRAIN_TAINT and taint.get("effect") == "NoSchedule" for taint in taints)

    def reconcile(self, key: str) -> None:
        node = self.store.find("nodes", "", key)
        if node is None:
            return
        for vmi in self.store.where(VMIS, "node", key):
            if self._drained(node) or status(vmi).get("evacuationNodeName") == key:
                self._evacuate(vmi, key)

    def _evacuate(self, vmi: Obj, node: str) -> None:
        namespace, name = vmi["metadata"]["namespace"], vmi["metadata"]["name"]
        strategy = admission.eviction_strategy(self.store, vmi)
        if phase(vmi) in TERMINAL or deleting(vmi) or strategy not in ("LiveMigrate", "LiveMigrateIfPossible"):
            return
        if not is_true(vmi, "LiveMigratable"):
            return
        migrations = self.store.where(MIGRATIONS, "vmi", f"{namespace}/{name}")
        if any(phase(other) not in TERMINAL for other in migrations):
            return
        if sum(not terminal(pod) for pod in self.store.where("pods", "owner", vmi["metadata"]["uid"])) > 1:
            return
        source = annotations_of(vmi).get("kubevirt.io/eviction-source")
        kind = BY_STORAGE[MIGRATIONS]
        item: Obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                "generateName": "kubevirt-evacuation-",
                "namespace": namespace,
                "annotations": {EVACUATION: node},
            },
            "spec": {
                "vmiName": name,
                "priority": "system-maintenance" if source == "descheduler" else "system-critical",
            },
        }
        admission.mutate_migration(item)
        try:
            admission.admit_migration(self.store, item, admission.CONTROLLER)
            created = self.store.create(MIGRATIONS, item, actor=ACTOR)
        except ApiError as error:
            text = f"Error creating a Migration: {error}"
            self._recorder.record(vmi, "Warning", "FailedCreate", text)
            self.enqueue(node, after=RETRY_SECONDS)
            return
        text = f"Created Migration {created['metadata']['name']}"
        self._recorder.record(vmi, "Normal", "SuccessfulCreate", text)
