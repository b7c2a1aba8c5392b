"""bench/RESULTS.md: one section for each table, replaced when its command runs again."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = "# Results\n\nEach section was printed by the command that it names, on the machine and commit it names.\n"


def publish(title: str, command: str, text: str, *, path: Path = RESULTS) -> None:
    """Write a section, in the place of the one of the same title if there is one. `text` is markdown."""
    section = f"## {title}\n\n{provenance(command)}\n\n{text.strip()}\n"
    before = path.read_text(encoding="utf-8") if path.exists() else HEADING
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", before, re.MULTILINE | re.DOTALL)
    if found:
        after = f"{before[: found.start()]}{section}\n{before[found.end() :]}"
    else:
        after = f"{before.rstrip()}\n\n{section}"
    path.write_text(after.rstrip() + "\n", encoding="utf-8")


def provenance(command: str) -> str:
    """Which command, when, on what: the line that every section begins with."""
    machine = f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}"
    day = datetime.now(UTC).date().isoformat()
    return f"`{command}`, {day}, commit {commit()}, {machine}, OR-Tools {version('ortools')}."


def commit() -> str:
    """The commit measured, with a + where the tree has changes that it does not hold; unknown outside a repository."""
    git = ["git", "-C", str(RESULTS.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], check=True, capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "../rebalancer"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
