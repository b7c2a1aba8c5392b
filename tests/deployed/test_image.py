"""The image without a container engine: built as the Dockerfile says, run with its files only, put to real work."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deployed.image import ROOT, Box, box, build, stages
from page.live import free_port, simulated

from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.world import read_list

pytestmark = pytest.mark.slow

DUMP = ROOT / "tests" / "data" / "kubevirt-12x130.json.gz"
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """The image, and a folder with a dump and a kubeconfig mounted into it."""
    folder = tmp_path_factory.mktemp("image")
    data = folder / "data"
    data.mkdir()
    (data / DUMP.name).write_bytes(DUMP.read_bytes())
    (data / "kubeconfig").touch()
    return box(build(folder), data)


def run(inside: Box, *arguments: str, code: int = 0) -> str:
    """What a command prints; nothing may be on standard error."""
    command = inside.command(*arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS, cwd="/")
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


def test_it_says_what_it_was_run_with(inside: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n[image: {inside.how}]", end=" ")
    assert run(inside, "sh", "-c", "id -u").strip() == str(inside.user) != "0"
    assert re.search(r"^CapEff:\s+0+$", run(inside, "sh", "-c", "cat /proc/self/status"), re.MULTILINE)


def test_nothing_can_be_written_and_nothing_else_is_there(inside: Box) -> None:
    places = [*inside.image.paths, inside.data, *([Path("/"), Path("/usr"), Path("/etc")] if inside.mounts else [])]
    for place in places:
        assert run(inside, "sh", "-c", f"touch {place}/here 2>/dev/null || echo no") == "no\n", place
    if inside.mounts:
        assert run(inside, "sh", "-c", f"ls {ROOT} 2>/dev/null || echo no") == "no\n"
    for path in inside.image.paths:
        assert run(inside, "sh", "-c", f"ls {path}/bin | grep -c pip || true") == "0\n"


def test_it_holds_what_is_pinned_for_production_and_no_more(inside: Box) -> None:
    pinned = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE)
    script = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    found = run(inside, "sh", "-c", f"python -c '{script}'").split()
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in found}
    # Python's own venv brings setuptools up to 3.11.
    assert normal - {"setuptools"} == {*pinned, "kubevirt-rebalancer"}


def test_it_plans_as_the_project_does(inside: Box) -> None:
    dump = str(inside.data / DUMP.name)
    assert "Usage: rebalancer" in run(inside, "--help")
    here = subprocess.run(
        [sys.executable, "-m", "rebalancer", "plan", "--from", DUMP, "-o", "json"], capture_output=True, check=True
    )
    assert json.loads(run(inside, "plan", "--from", dump, "-o", "json"))["waves"] == json.loads(here.stdout)["waves"]
    assert "</html>" in run(inside, "plan", "--from", dump, "-o", "html")


def test_the_daemon_works_there(inside: Box) -> None:
    """The image's own entry point and command, in active mode: page and metrics are served, VMs move."""
    port = free_port()
    settings = {
        "REBALANCER_KUBECONFIG": str(inside.data / "kubeconfig"),
        "REBALANCER_HTTP__HOST": "127.0.0.1",
        "REBALANCER_HTTP__PORT": str(port),
        "REBALANCER_HOLD_SECONDS": "0",
        "REBALANCER_MODE": "active",
    }
    with simulated(read_list(RECORDING)) as cluster:
        (inside.data / "kubeconfig").write_text(kubeconfig(cluster.api))
        command = inside.command(*inside.image.command[1:], **settings)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as process:
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.start()
            told = list(read(process, until="started"))
            answers = {path: fetch(port, path) for path in ("/", "/metrics", "/readyz", "/api/v1/plan")}
            dump = inside.command("dump", f"{inside.data}/out.json", **settings)
            refused = subprocess.run(dump, capture_output=True, text=True, check=False)
            process.send_signal(signal.SIGTERM)
            told += list(read(process))
            timer.cancel()
        assert process.returncode == 0, told
    assert (refused.returncode, refused.stdout) == (3, "")
    assert re.fullmatch(r"rebalancer: .*out\.json.*: Read-only file system\n|.*Permission denied\n", refused.stderr)
    assert "w-00" in answers["/"]
    assert 'rebalancer_mode{mode="active"} 1.0' in answers["/metrics"]
    assert "process_resident_memory_bytes" in answers["/metrics"]
    assert json.loads(answers["/api/v1/plan"])["wave"] == 1
    assert not [line for line in told if "Traceback" in line]


def read(process: subprocess.Popen[str], until: str = "") -> Iterator[str]:
    """Lines of its log, up to one with a word in it or to its end."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if until and until in line:
            return
    assert not until, f"it has ended without {until}"


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def kubeconfig(url: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sim",
            "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "me"}}],
            "clusters": [{"name": "sim", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {}}],
        }
    )


def test_the_image_is_the_smaller_half_of_two_stages() -> None:
    built, last = stages()
    assert (built.name, last.user, last.command) == ("build", "65532:65532", ["rebalancer", "run"])
    assert all("--require-hashes" in text or "--no-deps" in text for _, text in built.steps if "pip install" in text)
