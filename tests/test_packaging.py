"""What a fresh machine installs: pinned and hashed requirements, and a wheel with all its data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def statements(path: Path) -> list[str]:
    """The logical lines of a requirement file, without comments."""
    text = re.sub(r"\s*\\\n\s*", " ", path.read_text(encoding="utf-8"))
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pinned_and_hashed_and_name_no_place(path: Path) -> None:
    pinned = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; [^@]+?)?( --hash=sha256:[0-9a-f]{64})+")
    assert [line for line in statements(path) if not pinned.fullmatch(line)] == []
    assert "://" not in path.read_text(encoding="utf-8")


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[>=<]", name)[0].lower() for name in project["dependencies"]}
    pinned = {line.partition("==")[0].lower() for line in statements(ROOT / "requirements" / "runtime.txt")}
    assert declared <= pinned


def test_tests_run_with_what_production_is_built_from_and_runs_with() -> None:
    runtime, build, dev = (
        {line.split(" ")[0] for line in statements(ROOT / "requirements" / name)}
        for name in ("runtime.txt", "build.txt", "dev.txt")
    )
    assert runtime | build <= dev


def test_ci_insists_on_the_real_control_plane_a_browser_and_prometheus() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert "REQUIRE_CONTROLPLANE=1" in script
    assert "REQUIRE_BROWSER=1" in script
    assert "REQUIRE_PROMETHEUS=1" in script
    assert "make test" in script


def test_the_wheel_holds_every_file_that_the_package_needs(tmp_path: Path) -> None:
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "rebalancer"):
        (source / name).symlink_to(ROOT / name)
    built = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("rebalancer/")}
        metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        assert "License-Expression: Apache-2.0" in wheel.read(metadata).decode()
    present = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rebalancer").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == present
