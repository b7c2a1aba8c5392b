"""Another Python, with other people's solvers in it, and nothing of ours.

Meta's Rebalancer has the import name of this project and asks for Python 3.12, so it gets a virtual environment of its
own, and PuLP with it. Made on first use, in the user's cache; by the hashes of requirements-solvers.txt.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-solvers.txt"
WORKERS = HERE / "workers"
VERSIONS = ("3.14", "3.13", "3.12")
MAKING_SECONDS = 600


class UnavailableError(Exception):
    """Why a peer cannot be had here, in a sentence."""


def folder() -> Path:
    """Where the environment is, or would be: one for each set of requirements and kind of machine."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + platform.platform().encode()).hexdigest()[:12]
    return caches / "kubevirt-rebalancer" / f"solvers-{digest}"


def made() -> bool:
    """Whether the environment is there already."""
    return (folder() / "complete").exists()


def prepare() -> Path:
    """The environment's interpreter, after making the environment if need be. Raises UnavailableError."""
    place = folder()
    python = place / "bin" / "python"
    if made():
        return python
    found = next(_interpreters(), None)
    if found is None:
        raise UnavailableError(f"no Python {VERSIONS[-1]} or newer is on this machine")
    shutil.rmtree(place, ignore_errors=True)
    commands = (
        [str(found), "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--require-hashes", "-r", str(REQUIREMENTS)],
    )  # fmt: skip
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAKING_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"its environment could not be made: {error}") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UnavailableError(f"its environment could not be made: {last}")
    (place / "complete").touch()
    return python


def _interpreters() -> Iterator[Path]:
    """Pythons that are new enough and run, newest first: on PATH, or kept by a version manager."""
    candidates = [shutil.which(f"python{version}") for version in VERSIONS]
    manager = shutil.which("pyenv")
    if manager:
        root = subprocess.run([manager, "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += [str(p) for v in VERSIONS for p in sorted(Path(root).glob(f"versions/{v}.*/bin/python"))]
    question = f"import sys; sys.exit(sys.version_info < ({VERSIONS[-1].replace('.', ', ')}))"
    for candidate in filter(None, candidates):
        # A version manager's shim may stand on PATH for a version that is not chosen.
        if subprocess.run([candidate, "-c", question], capture_output=True, check=False).returncode == 0:
            yield Path(candidate)


def run(worker: str, given: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """What a worker answers. Raises UnavailableError where it gives no answer in time, or dies; nothing survives it."""
    python = prepare()
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        asked, answer, log = (Path(name) / file for file in ("asked.json", "answer.json", "log"))
        asked.write_text(json.dumps(given), encoding="utf-8")
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(python), "-I", str(WORKERS / f"{worker}.py"), str(asked), str(answer)],
                stdout=output,
                stderr=output,
                cwd=name,
                start_new_session=True,
            )
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise UnavailableError(f"no answer after {seconds:.0f} s") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # its solver is a process of its own
                    process.wait()
        if process.returncode or not answer.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UnavailableError(_cause(lines, given["memory_limit_mib"]))
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


def _cause(lines: list[str], limit_mib: int) -> str:
    """Why a worker died, from what it said last."""
    if any("MemoryError" in line or "bad_alloc" in line for line in lines):
        return f"out of memory at {limit_mib // 1024} GB"
    return f"it failed: {(lines or ['without a word'])[-1][:120]}"
