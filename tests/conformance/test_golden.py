"""The golden files are what the real control plane does. REWRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable

import pytest
from anyio.to_thread import run_sync
from conformance.differences import comparable
from conformance.scenes import CONFIGURATION, SCENES, read_golden, write_golden
from conformance.stage import Scene, on_control_plane
from conformance.trace import trace
from controlplane.harness import PROGRAMS, ControlPlane

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]


@pytest.fixture(scope="module")
async def plane(programs: Callable[..., None]) -> AsyncIterator[ControlPlane]:
    """One control plane for all scenes."""
    programs(*PROGRAMS)
    async with ControlPlane(configuration=CONFIGURATION) as running:
        yield running


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_real_control_plane_plays_the_scene_as_written(scene: Scene, plane: ControlPlane) -> None:
    played = trace(await on_control_plane(scene, plane))
    if os.environ.get("REWRITE_GOLDEN") == "1":
        await run_sync(write_golden, scene, played)
    assert comparable(scene.name, played) == comparable(scene.name, await run_sync(read_golden, scene))
