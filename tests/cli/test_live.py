"""Commands against a live API server: the simulated cluster, over TCP, through a kubeconfig."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from rebalancer.cli import app
from rebalancer.sim.world import World

DUMP = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"


@pytest.fixture(scope="module")
def server() -> Iterator[World]:
    """The recorded cluster, alive in a thread of its own."""
    ready, done = threading.Event(), threading.Event()
    alive: list[World] = []

    async def live() -> None:
        async with World.from_dump(DUMP) as world:
            await world.api.start(port=0)
            alive.append(world)
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    assert ready.wait(20)
    yield alive[0]
    done.set()
    thread.join()


@pytest.fixture
def environment(server: World, tmp_path: Path) -> dict[str, str]:
    """What a shell needs to reach the server."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sim",
        "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "me"}}],
        "clusters": [{"name": "sim", "cluster": {"server": f"http://127.0.0.1:{server.api.port}"}}],
        "users": [{"name": "me", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    return {"KUBECONFIG": str(path), "REBALANCER_KUBECONFIG": str(path)}


@pytest.fixture
def invoke(environment: dict[str, str]) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env=environment)

    return run


def test_plan_and_explain_and_dump(invoke: Callable[..., Result], tmp_path: Path) -> None:
    live = invoke("plan", "-o", "json")
    assert live.exit_code == 0, live.stderr
    path = str(tmp_path / "cluster.json.gz")
    written = invoke("dump", path)
    assert (written.exit_code, written.stdout) == (0, ""), written.stderr
    assert re.fullmatch(r"\d+ objects of \d+ kinds written to .*\n", written.stderr)
    replayed = invoke("plan", "-o", "json", "--from", path)
    assert moves(replayed) == moves(live)
    assert moves(live)
    told = invoke("explain", "bank/db-0-1")
    assert told.stdout.startswith("bank/db-0-1 runs on w-03 and may move.")
    assert told.stdout == invoke("explain", "bank/db-0-1", "--from", path).stdout


def moves(result: Result) -> list[tuple[str, str, str]]:
    return [
        (move["vmi"], move["source"], move["target"])
        for wave in json.loads(result.stdout)["waves"]
        for move in wave["moves"]
    ]


def test_an_unreachable_cluster_is_one_line(invoke: Callable[..., Result], environment: dict[str, str]) -> None:
    path = Path(environment["KUBECONFIG"])
    path.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", path.read_text()))
    result = invoke("plan")
    assert (result.exit_code, result.stdout) == (4, "")
    (line,) = result.stderr.splitlines()
    assert "127.0.0.1:1" in line


def test_run_tells_its_sentences_and_stops_when_told_to(environment: dict[str, str], server: World) -> None:
    requests = len(server.api.log)
    process = subprocess.Popen(
        [sys.executable, "-m", "rebalancer", "run"],
        env={**os.environ, **environment, "REBALANCER_HTTP__HOST": "127.0.0.1", "REBALANCER_HTTP__PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if "DryRun" in line:
            break
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")
    assert any("DryRun" in line for line in told), told
    writes = {entry.target.resource.plural for entry in server.api.log[requests:] if entry.verb not in READS}
    assert writes <= {"leases", "events"}


READS = ("get", "list", "watch")


def test_a_port_in_use_says_what_to_do(environment: dict[str, str], server: World) -> None:
    result = CliRunner().invoke(
        app, ["run", "--set", "http.host=127.0.0.1", "--set", f"http.port={server.api.port}"], env=environment
    )
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "in use" in line
    assert "REBALANCER_HTTP__PORT" in line


def test_metrics_are_served(environment: dict[str, str]) -> None:
    port = "18089"
    process = subprocess.Popen(
        [sys.executable, "-m", "rebalancer", "run", "--set", "http.host=127.0.0.1", "--set", f"http.port={port}"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "DryRun" in line:
            break
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode in (0, 130)
    assert 'rebalancer_hotspots{resource="cpu"} 6.0' in page
