"""What a control plane is given before it is ready: arguments, policy, definitions, roles, webhooks."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from controlplane.kubeclient import KubeClient, Object

KUBEVIRT = "kubevirt"
ESTABLISH_SECONDS = 30

# Writes of KubeVirt's objects are kept whole, other writes and all reads by name; watches are logged when they end.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*", "/openapi*", "/version", "/api", "/apis*"]
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources:
  - group: kubevirt.io
- level: Metadata
"""

# Where the API keeps each kind that installation applies: group path, plural, whether it has a namespace.
COLLECTIONS = {
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Namespace": ("/api/v1", "namespaces", False),
    "KubeVirt": ("/apis/kubevirt.io/v1", "kubevirts", True),
    "MutatingWebhookConfiguration": (
        "/apis/admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        False,
    ),
    "ValidatingWebhookConfiguration": (
        "/apis/admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        False,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeVirtObjects:
    """What virt-operator would install, in the order in which it is installed here."""

    definitions: tuple[Object, ...]
    roles: tuple[Object, ...]
    webhooks: tuple[Object, ...]


def apiserver_arguments(folder: Path, *, etcd: int, port: int) -> list[str]:
    """kube-apiserver's command line. The requestheader flags make the config map that virt-api reads."""
    pki = folder / "pki"
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        f"--audit-policy-file={folder / 'audit-policy.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
        # Tests stop it with watches open, which it would otherwise wait for.
        "--shutdown-delay-duration=0s",
        "--endpoint-reconciler-type=none",
    ]


def kubevirt_objects(program: Path) -> KubeVirtObjects:
    """Ask our `crds` program for KubeVirt's objects."""
    answer = subprocess.run([str(program)], capture_output=True, check=True, timeout=60)
    items: list[Object] = json.loads(answer.stdout)["items"]
    webhooks = tuple(item for item in items if item["kind"].endswith("WebhookConfiguration"))
    definitions = tuple(item for item in items if item["kind"] == "CustomResourceDefinition")
    roles = tuple(item for item in items if item not in webhooks and item not in definitions)
    return KubeVirtObjects(definitions=definitions, roles=roles, webhooks=webhooks)


async def install_kubevirt(admin: KubeClient, objects: KubeVirtObjects, *, configuration: Object, ca: str) -> None:
    """Definitions, roles and the KubeVirt CR; the CR counts only once its phase is Deployed."""
    await ensure_namespace(admin, KUBEVIRT)
    authority = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubevirt-ca", "namespace": KUBEVIRT},
        "data": {"ca-bundle": ca},
    }
    await _apply_all(admin, (*objects.definitions, *objects.roles, authority))
    with anyio.fail_after(ESTABLISH_SECONDS):
        for definition in objects.definitions:
            await _established(admin, _path(definition))
    await apply_kubevirt(admin, configuration)


async def apply_kubevirt(admin: KubeClient, configuration: Object) -> None:
    """Write the KubeVirt CR with this configuration, e.g. {"migrations": {"parallelMigrationsPerCluster": 2}}."""
    resource = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": KUBEVIRT},
        "spec": {"configuration": configuration},
    }
    await admin.apply(_path(resource), resource)
    await admin.patch(f"{_path(resource)}/status", {"status": {"phase": "Deployed"}})


async def install_webhooks(admin: KubeClient, objects: KubeVirtObjects, *, port: int, ca: str) -> None:
    """Point virt-api's webhooks at its address in place of a Service, and apply them."""
    bundle = base64.b64encode(ca.encode()).decode()
    changed = []
    for configuration in objects.webhooks:
        webhooks = []
        for webhook in configuration["webhooks"]:
            url = f"https://127.0.0.1:{port}{webhook['clientConfig']['service']['path']}"
            webhooks.append(webhook | {"clientConfig": {"url": url, "caBundle": bundle}})
        changed.append(configuration | {"webhooks": webhooks})
    await _apply_all(admin, changed)


async def ensure_namespace(admin: KubeClient, name: str, *, labels: dict[str, str] | None = None) -> None:
    """A namespace with the ServiceAccount that every pod in it needs."""
    metadata: Object = {"name": name} | ({"labels": labels} if labels else {})
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    await admin.apply(_path(namespace), namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    await admin.apply(_path(account), account)


async def answers(url: str, *, tls: ssl.SSLContext | None = None, text: str = "") -> bool:
    """Whether a GET is answered with 200, and with `text` in the body."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url, ssl=tls or False) as response,
        ):
            return response.status == 200 and text in await response.text()
    except (OSError, aiohttp.ClientError, TimeoutError):
        return False


async def compact_etcd(port: int) -> int:
    """Forget etcd's history up to now, over its JSON gateway."""
    base = f"http://127.0.0.1:{port}/v3/kv"
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{base}/range", json={"key": "AA=="}) as response:
            revision = int((await response.json())["header"]["revision"])
        async with session.post(f"{base}/compaction", json={"revision": str(revision)}) as response:
            response.raise_for_status()
    return revision


def _path(resource: Object) -> str:
    group, plural, namespaced = COLLECTIONS[resource["kind"]]
    metadata: dict[str, Any] = resource["metadata"]
    return (
        f"{group}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"
        if namespaced
        else (f"{group}/{plural}/{metadata['name']}")
    )


async def _apply_all(admin: KubeClient, objects: tuple[Object, ...] | list[Object]) -> None:
    async with anyio.create_task_group() as tasks:
        for resource in objects:
            tasks.start_soon(admin.apply, _path(resource), resource)


async def _established(admin: KubeClient, path: str) -> None:
    while True:
        conditions = (await admin.get(path))["status"]["conditions"] or []
        if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
            return
        await anyio.sleep(0.05)
