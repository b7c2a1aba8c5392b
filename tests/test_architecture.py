"""What keeps the code readable: one home for each thing that is dangerous or heavy, and a ratchet on sizes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rebalancer"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

HOMES = {
    "kubernetes_asyncio": ("kube/client.py",),
    "ortools": ("placement/",),
    "pydantic": ("settings/",),
    "pydantic_settings": ("settings/",),
    "time": ("control/clock.py", "sim/"),
    "typer": ("cli/",),
    "prometheus_client": ("present/metrics.py",),
}
"""The only files or folders that may import a module: swapping or faking it then touches one place."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> frozenset[str]:
    """The top-level names of all modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


@pytest.mark.parametrize(("module", "homes"), HOMES.items(), ids=HOMES)
def test_a_module_with_a_home_is_imported_only_there(module: str, homes: tuple[str, ...]) -> None:
    importers = [path.relative_to(PACKAGE).as_posix() for path in SOURCES if module in imported(path)]
    assert [path for path in importers if not path.startswith(homes)] == []


def test_the_simulators_checkers_share_no_judgement_with_policy() -> None:
    """They are to find what policy gets wrong, so they are written in their own words."""
    for path in (PACKAGE / "sim").glob("check*.py"):
        assert "rebalancer.policy" not in path.read_text(encoding="utf-8"), path


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in SOURCES if not ast.get_docstring(parsed(path))]
    assert silent == []
