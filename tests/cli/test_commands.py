"""The command line as people meet it: what it prints where, what it ends with, what it says when it cannot."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from rebalancer import __version__
from rebalancer.cli import app

DUMP = str(Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz")
Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Runs one command line in this process."""

    def run(*arguments: str, stdin: bytes | str = "", **environment: str) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, env=environment)

    return run


def one_line(result: Result) -> str:
    """The only line on standard error; nothing may be on standard output."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("rebalancer: ")
    assert "mistake of ours" not in line
    return line


def test_version(invoke: Invoke) -> None:
    assert invoke("version").stdout == f"rebalancer {__version__}\n"


def test_help_names_every_command(invoke: Invoke) -> None:
    shown = invoke("--help").stdout
    for command in ("run", "plan", "explain", "dump", "simulate", "settings", "version"):
        assert f"  {command} " in shown


def test_help_is_quick() -> None:
    """0.3 s is what it may take, in processor time, because a busy machine says nothing about the command."""
    seconds = []
    for _ in range(3):
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "rebalancer", "--help"], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime)
    assert min(seconds) <= 0.3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["plan", "--nonsense"], 2),
        (["nonsense"], 2),
        (["plan", "--from", DUMP, "-o", "xml"], 2),
        (["plan", "--from", DUMP, "--set", "cpu.high"], 2),
        (["plan", "--from", DUMP, "--set", "cpu.high=200"], 2),
        (["plan", "--from", DUMP, "--set", "cpu.hgih=80"], 2),
        (["plan", "--from", "no-such-file.json"], 3),
        (["explain", "bank/db-0-1"], 4),
        (["explain", "bank/no-such-vm", "--from", DUMP], 2),
        (["explain", "bank/db-0-1", "--from", DUMP, "--node", "w-99"], 2),
        (["dump", "-"], 4),
        (["simulate", "no-such-scenario"], 2),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]).replace(DUMP, "DUMP") if isinstance(value, list) else "",
)
def test_exit_codes_of_what_cannot_be_done(invoke: Invoke, tmp_path: Path, arguments: list[str], code: int) -> None:
    result = invoke(*arguments, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    assert result.stderr


def test_a_bad_setting_is_one_line(invoke: Invoke) -> None:
    result = invoke("settings", REBALANCER_CPU__HIGH="banana")
    assert result.exit_code == 2
    told = "REBALANCER_CPU__HIGH=banana: allowed is a number above 0 and at most 100 (% of allocatable)"
    assert one_line(result) == f"rebalancer: {told}"


def test_settings_say_where_they_come_from(invoke: Invoke) -> None:
    result = invoke("settings", "-o", "json", "--set", "cpu.low=60", REBALANCER_CPU__HIGH="85")
    rows = {row["name"]: row for row in json.loads(result.stdout)["settings"]}
    assert rows["REBALANCER_CPU__HIGH"] == {
        "name": "REBALANCER_CPU__HIGH",
        "value": "85",
        "default": "80",
        "unit": "% of allocatable",
        "meaning": "above it a node is a hotspot",
        "allowed": "a number above 0 and at most 100 (% of allocatable)",
        "source": "environment",
    }
    assert rows["REBALANCER_CPU__LOW"]["source"] == "command line"
    shown = invoke("settings").stdout
    for name, row in rows.items():
        assert name in shown
        assert row["meaning"] in shown


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"{", ""),
        (b"\x1f\x8b\x08\x00broken", ""),
        (gzip.compress(b'{"kind": "List", "items": []}')[:-9], ""),
        (b"<html><body>502 Bad Gateway</body></html>", ""),
        (b'{"kind": "List", "items": []}', "node"),
        (b'{"kind": "List", "items": [{"kind": "Secret", "metadata": {"name": "x"}}]}', "node"),
        (b'{"kind": "Status", "message": "Unauthorized"}', ""),
        (b"[[[[[]]]]]", ""),
        (b'"words"', ""),
        (b"12", ""),
        (b"null", ""),
        (b"\xff\xfe\x00", ""),
        (b"[" * 100_000, ""),
    ],
    ids=[
        "empty file",
        "not JSON",
        "not gzip",
        "truncated gzip",
        "HTML error page",
        "empty List",
        "List of other kinds",
        "Status",
        "nested arrays",
        "a string",
        "a number",
        "null",
        "not UTF-8",
        "very deep",
    ],
)
@pytest.mark.parametrize("way", ["file", "standard input"])
def test_a_file_that_cannot_be_used_is_one_line(
    invoke: Invoke, tmp_path: Path, way: str, content: bytes, told: str
) -> None:
    file = tmp_path / "dump.json"
    file.write_bytes(content)
    result = invoke("plan", "--from", str(file)) if way == "file" else invoke("plan", "--from", "-", stdin=content)
    assert result.exit_code == 3
    assert told in one_line(result).lower()
    assert any(name in one_line(result) for name in ([str(file)] if way == "file" else ["standard input", " -: "]))


def test_simulate_prints_a_verdict(invoke: Invoke) -> None:
    result = invoke("simulate", "small", "--seed", "3")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.startswith("small, seed 3: as promised\n")
    assert "small" in invoke("simulate", "--list").stdout


def test_plan_of_a_real_cluster_in_every_form(invoke: Invoke) -> None:
    shown = invoke("plan", "--from", DUMP)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "6 hotspots" in shown.stdout
    document = json.loads(invoke("plan", "--from", DUMP, "-o", "json").stdout)
    schema = files("rebalancer.present").joinpath("plan.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(document, json.loads(schema))
    made = [item for item in yaml.safe_load_all(invoke("plan", "--from", DUMP, "-o", "yaml").stdout) if item]
    moves = [move for wave in document["waves"] for move in wave["moves"]]
    assert [item["metadata"]["name"] for item in made] == [move["migration"] for move in moves]
    first = [
        item for item in yaml.safe_load_all(invoke("plan", "--from", DUMP, "-o", "yaml", "--wave", "1").stdout) if item
    ]
    assert first == made[: len(document["waves"][0]["moves"])]


def test_exit_code_tells_whether_there_is_something_to_do(invoke: Invoke) -> None:
    assert invoke("plan", "--from", DUMP).exit_code == 0
    assert invoke("plan", "--from", DUMP, "--exit-code").exit_code == 1
    result = invoke("plan", "--from", DUMP, "--exit-code", "--set", "cpu.high=100", "--set", "rules=")
    assert result.exit_code == 0
    assert "Nothing to do: no node is above its threshold and no rule is broken." in result.stdout


def test_explain(invoke: Invoke) -> None:
    told = invoke("explain", "bank/db-0-1", "--from", DUMP)
    assert told.stdout.startswith("bank/db-0-1 runs on w-03 and may move.\n")
    one = invoke("explain", "bank/db-0-1", "--from", DUMP, "--node", "w-11").stdout
    assert one == "bank/db-0-1 cannot go to w-11: NodeUnschedulable: node(s) were unschedulable.\n"
    document = json.loads(invoke("explain", "bank/db-0-1", "--from", DUMP, "-o", "json").stdout)
    assert document["movable"]
    assert document["nodes"]["w-11"]["reasons"] == ["node(s) were unschedulable"]


def test_output_that_nobody_reads_is_no_error() -> None:
    command = f"{sys.executable} -m rebalancer plan --from {DUMP} -o json | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_cannot_show_bars_gets_question_marks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rebalancer", "plan", "--from", DUMP],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout
