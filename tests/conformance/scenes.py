"""All scenes, and the golden files that tell how the real control plane plays them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conformance import moves, troubles
from conformance.stage import Scene
from conformance.trace import Trace
from controlplane.binaries import MODULES

GOLDEN = Path(__file__).parent / "golden"
SCENES: tuple[Scene, ...] = (*moves.SCENES, *troubles.SCENES)
# KubeVirt 1.9 always has the priorities that 1.8 has behind this gate.
CONFIGURATION = {"developerConfiguration": {"featureGates": ["MigrationPriorityQueue"]}}
MODULES_OF_INTEREST = {"kubernetes": "k8s.io/kubernetes", "kubevirt": "kubevirt.io/kubevirt"}


def versions() -> dict[str, str]:
    """The versions of the real control plane, from the module files that it is built from."""
    found = {}
    for folder, module in MODULES_OF_INTEREST.items():
        required = re.search(
            rf"^(?:require )?\s*{re.escape(module)} (v\S+)", (MODULES / folder / "go.mod").read_text(), re.M
        )
        assert required is not None, f"{folder}/go.mod does not require {module}"
        found[folder] = required[1]
    return found


def read_golden(scene: Scene) -> Trace:
    """The trace in a scene's golden file; AssertionError where it was written with other versions."""
    content = json.loads((GOLDEN / f"{scene.name}.json").read_text())
    assert content["versions"] == versions(), "the golden files are of other versions: write them anew"
    found: Trace = content["trace"]
    return found


def write_golden(scene: Scene, trace: Trace) -> None:
    """Write a scene's golden file."""
    content = {"about": scene.about, "versions": versions(), "trace": trace}
    lines = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    (GOLDEN / f"{scene.name}.json").write_text(lines + "\n")
