"""The simulator plays every scene as the golden files say that the real control plane does."""

from __future__ import annotations

import pytest
from conformance.differences import DIFFERENCES, comparable
from conformance.scenes import GOLDEN, SCENES, read_golden
from conformance.stage import Scene, in_simulator
from conformance.trace import Trace, trace

from rebalancer.sim.virtualtime import run_virtual


def play(scene: Scene) -> Trace:
    """A scene's trace on the simulator."""
    return trace(run_virtual(lambda: in_simulator(scene)))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_simulator_plays_the_scene_as_the_real_one_does(scene: Scene) -> None:
    assert comparable(scene.name, play(scene)) == comparable(scene.name, read_golden(scene))


@pytest.mark.slow
def test_every_listed_difference_is_still_there() -> None:
    played = [(scene.name, play(scene), read_golden(scene)) for scene in SCENES]
    for difference in DIFFERENCES:
        others = tuple(other for other in DIFFERENCES if other is not difference)
        needed = any(comparable(name, ours, others) != comparable(name, real, others) for name, ours, real in played)
        assert needed or difference.chance, f"no longer a difference: {difference.where} {difference.key}"


def test_every_golden_file_has_its_scene() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {scene.name for scene in SCENES}
