"""The chart's pods under the API server's own Pod Security admission at its strictest, with everything switched on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from subprocess import CalledProcessError

import pytest
import yaml
from anyio.to_thread import run_sync
from controlplane import chart
from controlplane.harness import ControlPlane
from controlplane.kubeclient import Object

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

NAMESPACE = "strict"
LEVEL = "pod-security.kubernetes.io/enforce=restricted"
EVERYTHING: Object = {
    "settings": {"mode": "active"},
    "networkPolicy": {"enabled": True},
    "flowSchema": {"enabled": True},
}


def pod(release: list[Object]) -> Object:
    """What the Deployment's controller would create: there is none here."""
    (deployment,) = [item for item in release if item["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "from-the-template", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.fixture(scope="module")
async def release(control_plane: ControlPlane, programs: Callable[..., None]) -> list[Object]:
    """The chart with everything in it, accepted by the API server in a namespace that is restricted."""
    programs("helm")
    await control_plane.namespace(NAMESPACE)
    await control_plane.kubectl("label", "namespace", NAMESPACE, LEVEL)
    done = await run_sync(partial(chart.helm, "template", EVERYTHING, namespace=NAMESPACE))
    assert done.returncode == 0, done.stderr
    await control_plane.kubectl("apply", "--validate=strict", "-f", "-", stdin=done.stdout)
    return chart.objects(done.stdout)


async def test_everything_that_the_chart_can_bring_is_brought(release: list[Object]) -> None:
    kinds = {item["kind"] for item in release}
    assert kinds >= {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "FlowSchema", "Service", "ServiceAccount"}
    spec = pod(release)["spec"]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"


async def test_its_pod_is_admitted_where_restricted_is_enforced(
    control_plane: ControlPlane, release: list[Object]
) -> None:
    told = await control_plane.kubectl("create", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(pod(release)))
    assert told == "pod/from-the-template created\n"
    await control_plane.kubectl("delete", "pod", "from-the-template", "-n", NAMESPACE, "--grace-period=0", "--force")


async def test_the_level_is_really_enforced(control_plane: ControlPlane, release: list[Object]) -> None:
    loose = pod(release)
    del loose["spec"]["securityContext"]["seccompProfile"]
    with pytest.raises(CalledProcessError) as refused:
        await control_plane.kubectl("create", "-f", "-", stdin=yaml.safe_dump(loose))
    assert b'violates PodSecurity "restricted' in refused.value.stderr
    assert b"seccompProfile" in refused.value.stderr
