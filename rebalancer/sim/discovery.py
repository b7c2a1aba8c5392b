"""Discovery: what kubectl and other clients ask before they ask for objects."""

from __future__ import annotations

from rebalancer.sim.objects import Obj
from rebalancer.sim.resources import RESOURCES, Resource

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}


def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for resource in RESOURCES:
        versions = groups.setdefault(resource.group, [])
        if resource.version not in versions:
            versions.append(resource.version)
    return groups


def _group(name: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _resource_list(group_version: str) -> Obj:
    entries = []
    for resource in RESOURCES:
        if resource.api_version != group_version:
            continue
        entry: Obj = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
            "shortNames": list(resource.short_names),
        }
        entries.append(entry)
        for subresource in (*(("status",) if resource.status else ()), *resource.subresources):
            verbs = ["create"] if subresource == "eviction" else ["get", "patch", "update"]
            part: Obj = entry | {"name": f"{resource.plural}/{subresource}", "verbs": verbs}
            if subresource == "eviction":
                part |= {"group": "policy", "version": "v1", "kind": "Eviction"}
            part.pop("shortNames")
            entries.append(part)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _operation(resource: Resource) -> Obj:
    """What kubectl looks for before it lets the server validate fields."""
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "x-kubernetes-group-version-kind": kind,
        "responses": {},
    }


def _openapi(prefix: str) -> Obj:
    paths = {}
    for resource in RESOURCES:
        if resource.prefix == prefix:
            namespace = "{namespace}" if resource.namespaced else ""
            paths[resource.path(namespace, "{name}")] = {"patch": _operation(resource)}
    return {"openapi": "3.0.0", "info": {"title": "simulator", "version": "1"}, "paths": paths, "components": {}}


def discover(path: str) -> Obj | None:
    """The discovery document at a path, None where there is none."""
    groups = _groups()
    parts = [part for part in path.split("/") if part]
    prefixes = sorted({resource.prefix for resource in RESOURCES})
    match parts:
        case ["version"]:
            return dict(VERSION)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return _resource_list("v1")
        case ["apis"]:
            named = [_group(name, versions) for name, versions in groups.items() if name]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
        case ["apis", name] if name in groups:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, groups[name])
        case ["apis", name, version] if version in groups.get(name, ()):
            return _resource_list(f"{name}/{version}")
        case ["openapi", "v3"]:
            return {"paths": {prefix[1:]: {"serverRelativeURL": f"/openapi/v3{prefix}"} for prefix in prefixes}}
        case ["openapi", "v3", *rest] if "/" + "/".join(rest) in prefixes:
            return _openapi("/" + "/".join(rest))
    return None
