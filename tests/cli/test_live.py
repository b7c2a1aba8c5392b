"""Commands against a live API server: the simulated cluster, over TCP, through a kubeconfig."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
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
    ready = threading.Event()
    alive: list[World] = []
    ends: list[Callable[[], object]] = []

    async def live() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with World.from_dump(DUMP) as world:
            await world.api.start(port=0)
            alive.append(world)
            ends.append(lambda: loop.call_soon_threadsafe(done.set))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    assert ready.wait(20)
    yield alive[0]
    ends[0]()
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


def test_without_any_cluster_it_says_where_it_has_looked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rebalancer", "plan"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rebalancer: there is no kubeconfig {tmp_path}/.kube/config, and this is no pod")


def test_a_dump_that_cannot_be_written_is_one_line(invoke: Callable[..., Result]) -> None:
    done = invoke("dump", "/proc/no-such-place/cluster.json.gz")
    assert (done.exit_code, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "/proc/no-such-place/cluster.json.gz" in line


@pytest.fixture
def daemon(
    environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[str]]]]:
    """Starts `rebalancer run` and reads its log up to a word; whatever happens, it is gone in a minute."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(word: str, **more: str) -> tuple[subprocess.Popen[str], list[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rebalancer", "run"],
            env={
                **os.environ,
                **environment,
                "REBALANCER_HTTP__HOST": "127.0.0.1",
                "REBALANCER_HOLD_SECONDS": "0",
                "REBALANCER_LOG__FORMAT": "json",
                "REBALANCER_LEASE__NAME": tmp_path.name.replace("_", "-"),
                **more,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(60.0, process.kill)
        timer.start()
        started.append((process, timer))
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if word in line:
                return process, told
        raise AssertionError(f"no {word} in {told}")

    yield start
    for process, timer in started:
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_run_says_what_it_would_do_and_writes_nothing_but_its_lease_and_events(
    daemon: Callable[..., tuple[subprocess.Popen[str], list[str]]], server: World
) -> None:
    requests = len(server.api.log)
    process, _ = daemon('"DryRun"', REBALANCER_HTTP__PORT="0")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    writes = {
        entry.target.resource.plural
        for entry in server.api.log[requests:]
        if entry.target is not None and entry.verb not in READS
    }
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


@pytest.mark.slow
def test_metrics_are_served(daemon: Callable[..., tuple[subprocess.Popen[str], list[str]]]) -> None:
    port = free_port()
    process, _ = daemon('"DryRun"', REBALANCER_HTTP__PORT=str(port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert 'rebalancer_hotspots{resource="cpu"} 6.0' in page


@pytest.mark.slow
def test_a_daemon_whose_log_nobody_reads_ends_quietly(
    daemon: Callable[..., tuple[subprocess.Popen[str], list[str]]],
) -> None:
    # Active, or it would not care for being paused; but nothing may move the cluster of the other tests.
    never = {"REBALANCER_MODE": "active", "REBALANCER_BLACKOUTS": "0 0 * * * 24h"}
    process, _ = daemon('"Held"', REBALANCER_HTTP__PORT="0", **never)
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGUSR1)  # it is paused now, and says so
    assert process.wait(timeout=20) == 0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
