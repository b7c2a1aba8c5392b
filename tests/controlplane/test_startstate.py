"""The 12x130 start state comes about on the real control plane, with everything in it that has to be cured."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from controlplane.harness import ControlPlane
from controlplane.nodes import node_plane
from controlplane.startstate import FIRST_OPEN, INSTANCES, RecordedMishaps, load_recording, rebuild

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane, pytest.mark.slow]


async def test_start_state_is_crowded_and_breaks_its_rules(control_plane: ControlPlane) -> None:
    state = await load_recording()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node_plane(control_plane, mishaps=RecordedMishaps(state)).run)
        await rebuild(control_plane, state)
        tasks.cancel_scope.cancel()

    vmis = await control_plane.client().items(INSTANCES)
    assert {vmi["status"]["phase"] for vmi in vmis} == {"Running"}
    assert len(vmis) == 130
    on = Counter(vmi["status"]["nodeName"] for vmi in vmis)
    assert sum(on[name] for name in FIRST_OPEN) > 115

    immovable = {
        vmi["metadata"]["name"]
        for vmi in vmis
        for condition in vmi["status"]["conditions"]
        if condition["type"] == "LiveMigratable" and condition["status"] == "False"
    }
    assert immovable == {"vm-004", "vm-031", "vm-077"}
    assert sum("podAntiAffinity" in vmi["spec"].get("affinity", {}) for vmi in vmis) == 12

    nodes = {node["metadata"]["name"]: node for node in await control_plane.client().items("/api/v1/nodes")}
    assert "tier" not in nodes["w-01"]["metadata"]["labels"]
    assert [taint["key"] for taint in nodes["w-03"]["spec"]["taints"]] == ["reserved"]
    assert nodes["w-11"]["spec"]["unschedulable"] is True
