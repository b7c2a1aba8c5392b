"""Objects as the API writes them, small, and what decoding makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rebalancer.domain.pod import Pod
from rebalancer.domain.resources import Resources
from rebalancer.kube.decode import Page, decode_list, decode_object

DUMP = Path(__file__).parents[1] / "data/kubevirt-12x130.json.gz"
GIB = 2**30
CREATED = "2026-11-20T21:00:00Z"
CREATED_SECONDS = 1_795_208_400.0
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def meta(name: str = "a", namespace: str = "ns", **fields: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": CREATED, **fields}


def pod_json(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {"metadata": meta(), "spec": {"nodeName": "n1", **(spec or {})}, "status": {"phase": "Running", **status}}


def vmi_json(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": meta(),
        "spec": {"domain": {}, **(spec or {})},
        "status": {"phase": "Running", "nodeName": "n1", **status},
    }


def node_json(**allocatable: Any) -> dict[str, Any]:
    whole = {"cpu": "4", "memory": "8Gi", "pods": "110", **allocatable}
    status = {"allocatable": {name.replace("_", "-"): amount for name, amount in whole.items()}}
    return {"metadata": {"name": "n1", "uid": "u"}, "status": status}


def text(found: Any) -> bytes:
    return json.dumps(found).encode()


def page(kind: str, *items: Any, **metadata: Any) -> Page:
    return decode_list(kind, text({"kind": f"{kind}List", "metadata": metadata, "items": items}))


def read_pod(found: dict[str, Any]) -> Pod:
    value = decode_object("Pod", text(found))
    assert isinstance(value, Pod)
    return value


def requests(spec: dict[str, Any], **status: Any) -> Resources:
    return read_pod(pod_json(spec, **status)).spec.requests


def container(cpu: str | None = None, *, limits: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    amounts = {"requests": {"cpu": cpu}} if cpu else {}
    return {"name": "c", "resources": {**amounts, **({"limits": limits} if limits else {})}, **fields}


def sidecar(cpu: str) -> dict[str, Any]:
    return container(cpu, restartPolicy="Always")
