"""The commands of docs/ that need a cluster, by the real kubectl and Helm on a real API server.

In the documents they are blocks of the language `cluster`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync
from controlplane.binaries import find
from controlplane.harness import ControlPlane

pytestmark = [pytest.mark.anyio, pytest.mark.controlplane]

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```cluster\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if BLOCKS.search(path.read_text())
]


@pytest.fixture(scope="module")
async def environment(control_plane: ControlPlane, programs: Callable[..., None]) -> dict[str, str]:
    """A shell's, in which kubectl and helm are those of the tests and reach this cluster alone."""
    programs("helm", "kubectl")
    found = await run_sync(lambda: find("helm", "kubectl"))
    folders = ":".join(str(path.parent) for path in found.values())
    kubeconfig = await control_plane.kubeconfig("admin")
    path = f"{folders}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(control_plane.folder), "KUBECONFIG": str(kubeconfig), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the commands use of this repository. The API server of the tests is built without a version to judge by."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    chart = tmp_path / "deploy" / "chart" / "Chart.yaml"
    chart.write_text(re.sub("^kubeVersion:.*\n", "", chart.read_text(), flags=re.MULTILINE))
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
async def test_every_command_does_what_it_is_there_for(
    document: Path, project: Path, environment: dict[str, str]
) -> None:
    for block in BLOCKS.findall(await anyio.Path(document).read_text(encoding="utf-8")):
        for line in block.splitlines():
            done = await anyio.run_process(["bash", "-c", line], cwd=project, env=environment, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout.decode()}{done.stderr.decode()}"
