"""Every command in the README is executed, and says what the README says.

UPDATE_GOLDEN=1 writes the outputs anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCKS = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    text = README.read_text(encoding="utf-8")
    return [body for kind, body in BLOCKS.findall(text) if kind == language]


def played(block: str) -> str:
    """The block with the outputs that its commands have now."""
    shown = ""
    for line in block.splitlines():
        if line.startswith("$ "):
            shown += f"{line}\n{output(line[2:])}"
    return shown


def output(command: str) -> str:
    """What a shell with the command `rebalancer` in it prints, in a clean environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), command
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("console"))))
def test_outputs_are_what_the_commands_print(number: int) -> None:
    block = blocks("console")[number]
    now = played(block)
    if os.environ.get("UPDATE_GOLDEN"):
        README.write_text(README.read_text(encoding="utf-8").replace(block, now), encoding="utf-8")
        return
    assert block == now, "UPDATE_GOLDEN=1 writes the README's outputs anew"


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_make_knows_its_targets(line: str) -> None:
    command = line.split("#", maxsplit=1)[0].split()
    assert command[0] == "make"
    subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []
