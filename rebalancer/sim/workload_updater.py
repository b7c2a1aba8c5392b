"""virt-controller's workload updater: VMs with an old launcher, or with CPUs that wait to be plugged in, are migrated.

Only as many at a time as the cluster has slots left, in random order (KubeVirt: pkg/virt-controller/watch/
workload-updater). Any migration that succeeds will do, whoever made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rebalancer.sim import admission
from rebalancer.sim.chance import Dice
from rebalancer.sim.controller import Controller
from rebalancer.sim.errors import ApiError
from rebalancer.sim.migration_case import ACTOR, WORKLOAD_UPDATE, Limits
from rebalancer.sim.objects import TERMINAL, Obj, condition, deleting, is_true, key_of, labels_of, phase, stamp, status
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS
from rebalancer.sim.store import DELETED, Change, Store

OUTDATED, PENDING_CPUS = "kubevirt.io/outdatedLauncherImage", "HotVCPUChange"
THROTTLE_SECONDS = 5.0
HOT = "user-triggered"
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    """Since when a VM waits, as the API writes times, and with which priority; the smallest rank is next."""

    since: str
    priority: str
    rank: tuple[bool, float]


class WorkloadUpdater(Controller):
    """One key for all VMs: what matters is how many are under way."""

    name = "workload-updater"

    def __init__(self, store: Store, dice: Dice) -> None:
        super().__init__(store)
        self._dice = dice
        self._waiting: dict[str, _Wait] = {}

    def resync(self) -> None:
        for vmi in self.store.items(VMIS):
            self._consider(key_of(vmi), vmi)

    def changed(self, change: Change) -> None:
        if change.resource == VMIS:
            key = f"{change.namespace}/{change.name}"
            if change.type == DELETED:
                self._waiting.pop(key, None)
            else:
                self._consider(key, change.object)
        elif self._waiting and change.resource == MIGRATIONS and phase(change.object) in TERMINAL:
            self.enqueue(ALL, after=THROTTLE_SECONDS)

    def _consider(self, key: str, vmi: Obj) -> None:
        why = _why(vmi)
        if not why:
            self._waiting.pop(key, None)
        elif key not in self._waiting or self._waiting[key].priority != why:
            self._waiting[key] = _Wait(
                since=stamp(self.store.now()), priority=why, rank=(why != HOT, self._dice.fraction("update", key))
            )
            self.enqueue(ALL, after=THROTTLE_SECONDS)
        elif self._renewed(key, vmi):
            self.enqueue(key)

    def _renewed(self, key: str, vmi: Obj) -> bool:
        """Whether a VM has moved since it was asked to."""
        state = status(vmi).get("migrationState") or {}
        began = state.get("startTimestamp") or ""
        return bool(state.get("completed") and not state.get("failed") and began >= self._waiting[key].since)

    def reconcile(self, key: str) -> None:
        if key != ALL:
            self._finish(*key.split("/"))
            return
        if not self._waiting:
            return
        self.enqueue(ALL, after=60.0)  # whoever cannot be migrated now is asked again
        cluster = next(iter(self.store.items("kubevirts")), None) or {}
        free = Limits.of(cluster).cluster - len(self.store.where(MIGRATIONS, "open", "open"))
        if status(cluster).get("phase") != "Deployed" or free <= 0:
            return
        for name in sorted(self._waiting, key=lambda name: self._waiting[name].rank):
            if free <= 0:
                return
            free -= self._migrate(name)

    def _finish(self, namespace: str, name: str) -> None:
        """virt-handler plugs the CPUs in, and the launcher is a new one."""
        if f"{namespace}/{name}" not in self._waiting:
            return

        def change(new: Obj) -> None:
            labels_of(new).pop(OUTDATED, None)
            conditions = status(new).get("conditions") or ()
            new["status"]["conditions"] = [entry for entry in conditions if entry["type"] != PENDING_CPUS]

        self.store.modify(VMIS, namespace, name, change, actor=ACTOR)

    def _migrate(self, key: str) -> bool:
        """Whether a migration was made."""
        namespace, name = key.split("/")
        vmi = self.store.find(VMIS, namespace, name)
        if vmi is None or phase(vmi) != "Running" or deleting(vmi) or not is_true(vmi, "LiveMigratable"):
            return False
        if any(phase(other) not in TERMINAL for other in self.store.where(MIGRATIONS, "vmi", key)):
            return False
        kind = BY_STORAGE[MIGRATIONS]
        item: Obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                "generateName": "kubevirt-workload-update-",
                "namespace": namespace,
                "annotations": {WORKLOAD_UPDATE: ""},
            },
            "spec": {"vmiName": name, "priority": self._waiting[key].priority},
        }
        admission.mutate_migration(item)
        try:
            admission.admit_migration(self.store, item, admission.CONTROLLER)
        except ApiError:
            return False
        self.store.create(MIGRATIONS, item, actor=ACTOR)
        return True


def _why(vmi: Obj) -> str:
    """The priority with which a VM is to be migrated, "" where nothing asks for it."""
    if condition(vmi, PENDING_CPUS) is not None:
        return HOT
    return "system-critical" if OUTDATED in labels_of(vmi) else ""
