"""Our Helm chart, rendered by the real Helm, and its ServiceAccount with roles put into a cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import yaml
from anyio.to_thread import run_sync
from controlplane.binaries import find
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object

CHART = Path(__file__).parents[2] / "deploy" / "chart"
INSTALL = CHART.parent / "install.yaml"
NAME = "kubevirt-rebalancer"
# Helm knows only the Kubernetes of its own libraries otherwise.
KUBE_VERSION = "1.36.0"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def render(namespace: str = NAME, **settings: str) -> str:
    """What `helm template` prints for a release in a namespace; `settings` are the daemon's, e.g. mode="active".

    Everything in it is named after the namespace, so that releases can stand side by side.
    """
    done = helm("template", {"settings": settings, "fullnameOverride": namespace}, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(
    command: str, values: Object, *, namespace: str = NAME, folder: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """What Helm says to a command about a release of the chart with some values: template or lint."""
    name = () if command == "lint" else (NAME,)
    where = ["--namespace", namespace, "--kube-version", KUBE_VERSION, "--values", "-"]
    return subprocess.run(
        [str(find("helm")["helm"]), command, *name, str(folder), *where],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def objects(rendered: str) -> list[Object]:
    """The objects of a stream of YAML documents."""
    return [found for found in yaml.safe_load_all(rendered) if found]


async def rendered(namespace: str = NAME, **settings: str) -> list[Object]:
    """The objects of a release, without blocking the event loop."""
    return objects(await run_sync(partial(render, namespace, **settings)))


def install_manifest() -> str:
    """What deploy/install.yaml must be: the chart as it comes, and the namespace that Helm would make."""
    return f"""\
# Made from deploy/chart by `python -m controlplane.chart` (from tests/): a dry run, which moves nothing.
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAME}
{render()}"""


async def grant(plane: ControlPlane, namespace: str, release: Iterable[Object]) -> str:
    """Create a release's ServiceAccount and roles, and nothing more of it; gives that account's token."""
    await plane.namespace(namespace)
    account = ""
    for item in release:
        if item["kind"] in RIGHTS:
            await plane.client().apply(_path(item), item)
        if item["kind"] == "ServiceAccount":
            account = item["metadata"]["name"]
    return await plane.service_account_token(namespace, account)


def _path(item: Object) -> str:
    metadata = item["metadata"]
    plural = f"{item['kind'].lower()}s"
    if "namespace" not in metadata:
        return f"{RBAC}/{plural}/{metadata['name']}"
    base = "/api/v1" if item["kind"] == "ServiceAccount" else RBAC
    return f"{base}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


if __name__ == "__main__":
    INSTALL.write_text(install_manifest())
    print(INSTALL)
