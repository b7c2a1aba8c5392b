"""What KubeVirt's limits on parallel migrations count (findRunningMigrations, outboundMigrationsOnNode)."""

from __future__ import annotations

from rebalancer.sim.migration_case import RUNNING_PHASES, Limits
from rebalancer.sim.objects import Obj, phase, status
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.store import Store


def is_free(store: Store, node: str, limits: Limits) -> bool:
    """True if one more migration may start from a node."""
    running = [item for item in store.where(MIGRATIONS, "open", "open") if _counts(store, item)]
    return len(running) < limits.cluster and _outbound(store, node, running) < limits.outbound


def _counts(store: Store, item: Obj) -> bool:
    if phase(item) in RUNNING_PHASES:
        return True
    if phase(item) not in ("", "Pending"):
        return False
    return bool(store.where("pods", "job", item["metadata"]["uid"]))


def _outbound(store: Store, node: str, running: list[Obj]) -> int:
    """Counts a migration by where its VMI is, or by the source of the VMI's last hand-off, as the original does."""
    found = 0
    for item in running:
        vmi = store.find(VMIS, item["metadata"]["namespace"], item["spec"]["vmiName"])
        if vmi is not None:
            state = status(vmi).get("migrationState") or {}
            found += node in (status(vmi).get("nodeName"), state.get("sourceNode"))
    return found
