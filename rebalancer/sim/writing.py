"""Writes: create, replace, patch and delete with admission in front of the store."""

from __future__ import annotations

from typing import Any

from rebalancer.sim import admission, events, patching
from rebalancer.sim.errors import ApiError, bad_request, invalid, not_found
from rebalancer.sim.faults import Entry
from rebalancer.sim.objects import TERMINAL, VMI_NAME, Obj, copy, labels_of, phase, seconds_of
from rebalancer.sim.resources import BY_STORAGE, MIGRATIONS, VMIS, Target
from rebalancer.sim.store import Deletion, Store

PATCHES = (patching.MERGE, patching.JSON_PATCH, patching.STRATEGIC)


class Writer:
    """Carries out write requests on a store. Every method returns (body, HTTP code) or raises ApiError."""

    def __init__(self, store: Store, blind_seconds: float = 0.0) -> None:
        self._store = store
        self._blind_seconds = blind_seconds

    def write(self, entry: Entry, target: Target, content_type: str) -> tuple[Obj, int]:
        """One POST, PUT, PATCH or DELETE."""
        dry_run = bool(entry.query.get("dryRun"))
        if entry.query.get("dryRun") not in (None, "All"):
            raise bad_request(f'dryRun: Unsupported value: "{entry.query["dryRun"]}": supported values: "All"')
        match entry.verb, target.subresource:
            case "create", "eviction" if target.resource.storage == "pods" and target.name:
                return self._evict(entry, target, dry_run)
            case "create", "" if not target.name:
                return self._create(entry, target, dry_run)
            case "update" | "patch", "" | "status" if target.name:
                if target.subresource and not target.resource.status:
                    raise ApiError(404, "NotFound", "the server could not find the requested resource")
                return self._update(entry, target, content_type, dry_run)
            case "delete", "":
                return self._delete(entry, target, dry_run)
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _body(self, entry: Entry, target: Target) -> Obj:
        body = entry.body
        if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
            raise bad_request("Object 'Kind' is missing in body")
        found = (body.get("apiVersion"), body.get("kind"))
        if found != (target.resource.api_version, target.resource.kind):
            expected = f"{target.resource.api_version}, Kind={target.resource.kind}"
            raise bad_request(f"the object provided is unrecognized (must be of type {expected}): {found}")
        item = copy(body)
        meta = item.setdefault("metadata", {})
        if target.resource.namespaced:
            if meta.get("namespace") not in (None, "", target.namespace):
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = target.namespace
        return item

    def _create(self, entry: Entry, target: Target, dry_run: bool) -> tuple[Obj, int]:
        resource, item = target.resource, self._body(entry, target)
        if resource.namespaced:
            if not target.namespace:
                raise ApiError(
                    405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
                )
            if self._store.find("namespaces", "", target.namespace) is None:
                raise not_found(BY_STORAGE["namespaces"], target.namespace)
        if resource is events.NEW_GROUP:
            events.validate_new(item)
            item = events.to_core(item)
        if resource.storage == MIGRATIONS:
            strict = entry.query.get("fieldValidation") == "Strict"
            admission.prune_migration(item, strict=strict)
            admission.mutate_migration(item)
            self._admit_migration(item, entry.user)
        if resource.storage == VMIS:
            admission.mutate_vmi(item, self._store.now())
        created = self._store.create(resource.storage, item, actor=entry.user_agent, dry_run=dry_run)
        return self._shown(target, created), 201

    def _admit_migration(self, item: Obj, user: str) -> None:
        """virt-api lists and then allows: of several that come at once all may pass."""
        try:
            admission.admit_migration(self._store, item, user)
        except ApiError as refusal:
            since = self._store.now() - self._blind_seconds
            others = (
                other
                for other in self._store.items(MIGRATIONS, item["metadata"]["namespace"])
                if labels_of(other).get(VMI_NAME) == item["spec"]["vmiName"] and phase(other) not in TERMINAL
            )
            seen = any(seconds_of(other["metadata"]["creationTimestamp"]) <= since for other in others)
            if seen or "in-flight" not in refusal.message:
                raise

    def _update(self, entry: Entry, target: Target, content_type: str, dry_run: bool) -> tuple[Obj, int]:
        store, storage = self._store, target.resource.storage
        old = store.get(storage, target.namespace, target.name)
        if entry.verb == "patch":
            if content_type not in PATCHES or (content_type == patching.STRATEGIC and not target.resource.builtin):
                message = f"the body of the request was in an unknown format - accepted media types include: {PATCHES}"
                raise ApiError(415, "UnsupportedMediaType", message)
            body = events.to_core(entry.body) if target.resource is events.NEW_GROUP else entry.body
            new = self._patched(old, body, content_type)
            if new["metadata"].get("name") != target.name:
                raise bad_request("the name of the object does not match the name on the URL")
        else:
            new = self._body(entry, target)
            if new["metadata"].get("name") != target.name:
                raise bad_request("the name of the object does not match the name on the URL")
            if target.resource is events.NEW_GROUP:
                new = events.to_core(new)
            if not new["metadata"].get("resourceVersion") and not target.resource.builtin:
                why = "Invalid value: 0: must be specified for an update"
                raise invalid(target.resource, target.name, "metadata.resourceVersion", why)
        if storage == VMIS:
            admission.admit_vmi_update(old, new, entry.user)
        if storage == MIGRATIONS and not target.subresource:
            admission.admit_migration_update(old, new)
        item = store.replace(storage, new, part=target.subresource, actor=entry.user_agent, dry_run=dry_run)
        return self._shown(target, item), 200

    @staticmethod
    def _patched(old: Obj, body: Any, content_type: str) -> Obj:
        if content_type == patching.JSON_PATCH:
            result: Obj = patching.apply_json_patch(copy(old), body)
            return result
        if not isinstance(body, dict):
            raise bad_request("a merge patch must be an object")
        merged: Obj = patching.merge(copy(old), body, strategic=content_type == patching.STRATEGIC)
        return merged

    def _delete(self, entry: Entry, target: Target, dry_run: bool) -> tuple[Obj, int]:
        options = entry.body if isinstance(entry.body, dict) else {}
        grace = entry.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        storage = target.resource.storage
        dry_run = dry_run or bool(options.get("dryRun"))
        how = Deletion(
            grace_seconds=None if grace is None else int(grace),
            preconditions=options.get("preconditions"),
            dry_run=dry_run,
        )
        last = self._store.delete(storage, target.namespace, target.name, how, actor=entry.user_agent)
        if self._store.find(storage, target.namespace, target.name) is not None:
            return self._shown(target, last), 200
        details = {"name": target.name, "kind": target.resource.plural, "uid": last["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}, 200

    def _evict(self, entry: Entry, target: Target, dry_run: bool) -> tuple[Obj, int]:
        pod = self._store.get("pods", target.namespace, target.name)
        eviction = entry.body if isinstance(entry.body, dict) else {}
        dry_run = dry_run or bool((eviction.get("deleteOptions") or {}).get("dryRun"))
        admission.admit_eviction(self._store, pod, eviction, dry_run=dry_run)
        if not dry_run:
            self._store.delete("pods", target.namespace, target.name, actor=entry.user_agent)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201

    @staticmethod
    def _shown(target: Target, item: Obj) -> Obj:
        return events.to_new(item) if target.resource is events.NEW_GROUP else item
