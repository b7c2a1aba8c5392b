"""Every command in the README and in docs/ is executed, and says what they say.

Those that need a cluster are in blocks of the language `cluster`, which tests/controlplane executes.

UPDATE_GOLDEN=1 writes the outputs anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rebalancer.settings.model import Settings, leaves

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCKS = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[tuple[Path, int]]:
    """Documents and the numbers of their blocks in a language."""
    return [(path, number) for path in DOCUMENTS for number, _ in enumerate(bodies(path, language))]


def bodies(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return [body for kind, body in BLOCKS.findall(text) if kind == language]


def named(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


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


@pytest.mark.parametrize(("document", "number"), blocks("console"), ids=named)
def test_outputs_are_what_the_commands_print(document: Path, number: int) -> None:
    block = bodies(document, "console")[number]
    now = played(block)
    if os.environ.get("UPDATE_GOLDEN"):
        document.write_text(document.read_text(encoding="utf-8").replace(block, now), encoding="utf-8")
        return
    assert block == now, "UPDATE_GOLDEN=1 writes the outputs anew"


@pytest.mark.parametrize(("document", "number"), blocks("sh"), ids=named)
def test_make_knows_its_targets(document: Path, number: int) -> None:
    for line in bodies(document, "sh")[number].splitlines():
        command = line.split("#", maxsplit=1)[0].split()
        assert command[0] == "make"
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_block_is_of_a_language_that_is_tried(document: Path) -> None:
    fences = re.findall(r"^```(.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"console", "sh", "cluster", "mermaid", ""}
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_setting_that_is_named_is_there(document: Path) -> None:
    known = {".".join(path) for path, _ in leaves(Settings)}
    groups = {name.partition(".")[0] for name in known if "." in name}
    told = set(re.findall(r"`([a-z]+\.[a-z_]+)[`:]", document.read_text(encoding="utf-8")))
    assert [name for name in sorted(told) if name.partition(".")[0] in groups and name not in known] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []
