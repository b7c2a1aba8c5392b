"""What virt-api's webhooks refuse, in its own codes and texts (KubeVirt: pkg/virt-api/webhooks)."""

from __future__ import annotations

from typing import Any

from rebalancer.sim.errors import ApiError
from rebalancer.sim.objects import (
    CREATED_BY,
    JOB_UID,
    MIGRATION_FINALIZER,
    NODE_NAME,
    SCHEDULABLE,
    TARGET_NODE,
    TERMINAL,
    VMI_FINALIZER,
    VMI_NAME,
    Obj,
    annotations_of,
    condition,
    is_true,
    labels_of,
    phase,
    stamp,
    status,
    terminal,
)
from rebalancer.sim.resources import MIGRATIONS, VMIS
from rebalancer.sim.store import Store

CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
KUBEVIRT_ACCOUNTS = "system:serviceaccount:kubevirt:"
RESTRICTED_LABELS = (CREATED_BY, JOB_UID, NODE_NAME, TARGET_NODE, SCHEDULABLE, "kubevirt.io/install-strategy")
KNOWN_SPEC_FIELDS = ("vmiName", "addedNodeSelector", "priority", "sendTo", "receive")


def _denied(webhook: str, code: int, message: str, reason: str = "", details: dict[str, Any] | None = None) -> ApiError:
    text = f'admission webhook "{webhook}.kubevirt.io" denied the request: {message}'
    return ApiError(code, reason, text, details=details)


def _restricted(webhook: str, message: str, cause: str, field: str = "") -> ApiError:
    causes = [{"reason": cause, "message": message} | ({"field": field} if field else {})]
    return _denied(webhook, 422, message, "Invalid", {"causes": causes})


def mutate_migration(item: Obj) -> None:
    """The mutating webhook: the label by which migrations of a VMI are found, and the finalizer."""
    meta = item.setdefault("metadata", {})
    meta["labels"] = (meta.get("labels") or {}) | {VMI_NAME: (item.get("spec") or {}).get("vmiName", "")}
    finalizers = meta.get("finalizers") or []
    if MIGRATION_FINALIZER not in finalizers:
        meta["finalizers"] = [*finalizers, MIGRATION_FINALIZER]


def mutate_vmi(item: Obj, now: float) -> None:
    """The mutating webhook for a new VMI, as far as scheduling and the life of a VM depend on it."""
    meta, spec = item.setdefault("metadata", {}), item.setdefault("spec", {})
    meta["finalizers"] = [*(name for name in meta.get("finalizers") or () if name != VMI_FINALIZER), VMI_FINALIZER]
    domain = spec.setdefault("domain", {})
    spec.setdefault("architecture", "amd64")
    domain["cpu"] = {"model": "host-model"} | (domain.get("cpu") or {})
    domain["machine"] = {"type": "q35"} | (domain.get("machine") or {})
    reached = [{"phase": "Pending", "phaseTransitionTimestamp": stamp(now)}]
    item["status"] = {"phase": "Pending", "phaseTransitionTimestamps": reached} | (item.get("status") or {})


def prune_migration(item: Obj, *, strict: bool) -> None:
    """Unknown fields of the spec are dropped, or refused where the client asked for strict validation."""
    spec = item.get("spec") or {}
    unknown = [name for name in spec if name not in KNOWN_SPEC_FIELDS]
    if unknown and strict:
        fields = ", ".join(f'unknown field "spec.{name}"' for name in unknown)
        kind = "VirtualMachineInstanceMigration"
        message = f'{kind} in version "v1" cannot be handled as a {kind}: strict decoding error: {fields}'
        raise ApiError(400, "BadRequest", message)
    for name in unknown:
        del spec[name]


def admit_migration(store: Store, item: Obj, user: str) -> None:
    """The validating webhook for a new VirtualMachineInstanceMigration, check by check in its order."""
    webhook, spec, namespace = "migration-create-validator", item.get("spec") or {}, item["metadata"]["namespace"]
    name = spec.get("vmiName")
    if not name:
        raise _restricted(webhook, "vmiName is missing", "FieldValueRequired", "spec.vmiName")
    if spec.get("priority") and user != CONTROLLER:
        message = "Migration priority queue, only virt-controller is allowed to set priority field"
        raise _restricted(webhook, message, "FieldValueForbidden", "spec.migrationPriority")
    vmi = store.find(VMIS, namespace, name)
    if vmi is None:
        raise _denied(webhook, 400, f'the VMI "{namespace}/{name}" does not exist')
    if phase(vmi) in TERMINAL:
        raise _denied(webhook, 400, "Cannot migrate VMI in finalized state.")
    migratable = condition(vmi, "LiveMigratable")
    if migratable and migratable["status"] == "False":
        reason, message = migratable.get("reason", ""), migratable.get("message", "")
        raise _denied(webhook, 400, f"Cannot migrate VMI, Reason: {reason}, Message: {message}")
    for other in store.where(MIGRATIONS, "vmi", f"{namespace}/{name}"):
        if phase(other) not in TERMINAL:
            uid = other["metadata"]["uid"]
            message = f"Active migration job ({uid}) is currently already in progress for VMI {name}."
            raise _denied(webhook, 400, f"in-flight migration detected. {message}")


def admit_migration_update(old: Obj, new: Obj) -> None:
    """A migration's spec never changes, nor the label that finds it while it runs."""
    webhook = "migration-update-validator"
    if old.get("spec") != new.get("spec"):
        raise _restricted(webhook, "update of Migration object's spec is restricted", "FieldValueNotSupported")
    if phase(old) not in TERMINAL and labels_of(old).get(VMI_NAME) != labels_of(new).get(VMI_NAME):
        message = "selector label can't be removed from an in-flight migration"
        raise _restricted(webhook, message, "FieldValueNotSupported")


def admit_vmi_update(old: Obj, new: Obj, user: str) -> None:
    """Only KubeVirt itself changes what a VMI is or how it is doing; labels and annotations are anyone's."""
    if user.startswith(KUBEVIRT_ACCOUNTS):
        return
    webhook, cause = "virtualmachineinstances-update-validator", "FieldValueNotSupported"
    if old.get("spec") != new.get("spec") or old.get("status") != new.get("status"):
        raise _restricted(webhook, "update of VMI object is restricted", cause)
    if any(labels_of(old).get(label) != labels_of(new).get(label) for label in RESTRICTED_LABELS):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        raise _restricted(webhook, message, cause)


def eviction_strategy(store: Store, vmi: Obj) -> str:
    """The VMI's own, else the KubeVirt CR's, else None."""
    own = vmi.get("spec", {}).get("evictionStrategy")
    if own:
        return str(own)
    for cr in store.items("kubevirts"):
        return str(cr.get("spec", {}).get("configuration", {}).get("evictionStrategy") or "")
    return ""


def admit_eviction(store: Store, pod: Obj, eviction: Obj, *, dry_run: bool = False) -> None:
    """The eviction of a launcher pod: denied with 429, and the VMI marked to be evacuated instead."""
    webhook = "virt-launcher-eviction-interceptor"
    name = annotations_of(pod).get("kubevirt.io/domain")
    if labels_of(pod).get("kubevirt.io") != "virt-launcher" or terminal(pod) or not name:
        return
    namespace = pod["metadata"]["namespace"]
    vmi = store.find(VMIS, namespace, name)
    if vmi is None:
        message = f'virtualmachineinstances.kubevirt.io "{name}" not found'
        raise _denied(webhook, 429, f"kubevirt failed getting the vmi: {message}")
    strategy, migratable = eviction_strategy(store, vmi), is_true(vmi, "LiveMigratable")
    if strategy == "LiveMigrate" and not migratable:
        message = f"VMI {name} is configured with an eviction strategy but is not live-migratable"
        raise _denied(webhook, 429, message)
    wanted = strategy in ("LiveMigrate", "External") or (strategy == "LiveMigrateIfPossible" and migratable)
    if not wanted:
        return
    text = f'Eviction triggered evacuation of VMI "{namespace}/{name}"'
    if status(vmi).get("evacuationNodeName"):
        raise _denied(webhook, 429, f"Evacuation in progress: {text}")
    if status(vmi).get("nodeName") != pod["spec"].get("nodeName"):
        raise _denied(webhook, 429, "Eviction request for target Pod")

    def mark(item: Obj) -> None:
        item["status"]["evacuationNodeName"] = pod["spec"]["nodeName"]
        requested_by = (eviction.get("metadata", {}).get("annotations") or {}).get("requested-by", "")
        if requested_by == "sigs.k8s.io/descheduler":
            item["metadata"].setdefault("annotations", {})["kubevirt.io/eviction-source"] = "descheduler"

    if not dry_run:
        store.modify(VMIS, namespace, name, mark, actor="virt-api")
    raise _denied(webhook, 429, text)
