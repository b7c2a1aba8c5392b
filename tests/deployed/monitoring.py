"""The monitoring files, what /metrics exposes, and a real Prometheus on a simulated cluster's daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from page.live import living

from rebalancer import daemon
from rebalancer.control.cycle import CycleParams
from rebalancer.planning.params import PlanningParams
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.world import read_list

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
ALERTS = FOLDER / "alerts.yaml"
DASHBOARD = FOLDER / "dashboard.json"
PATIENCE_SECONDS = 60.0


def rules() -> list[dict[str, Any]]:
    """Alerts and recording rules."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """What the dashboard asks for, with a range that suits a scrape each second."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "5s") for expression in found]


def names(expression: str) -> set[str]:
    """The metrics that an expression refers to, those of the process too."""
    return set(re.findall(r"(?<![:\w])(?:rebalancer|process)_\w+(?!:)\b", expression))


def need_prometheus() -> None:
    """Skips, or fails where a Prometheus is required."""
    missing = [program for program in ("prometheus", "promtool") if shutil.which(program) is None]
    if missing and os.environ.get("REQUIRE_PROMETHEUS") == "1":
        pytest.fail(f"Prometheus is required here, and missing: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: tests/deployed/install-prometheus.sh installs them")


def promtool(*arguments: str) -> str:
    """What promtool says in the folder of the monitoring files; it must agree."""
    need_prometheus()
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API; None before it can answer."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def points(self, expression: str, *, since: float, until: float) -> int:
        """How many numbers an expression gave within a time."""
        query = {"query": expression, "start": f"{since:.3f}", "end": f"{until:.3f}", "step": "1s"}
        data = self.ask("/api/v1/query_range", **query)
        found = [value for series in data["result"] for _, value in series["values"]] if data else []
        return len([value for value in found if value != "NaN"])


@contextmanager
def at_work() -> Iterator[str]:
    """A daemon that cures our recording in active mode, 30 times as fast as the wall's time; gives host and port."""
    cycle = CycleParams(mode=daemon.ACTIVE, planning=PlanningParams(seconds=0.0))
    params = daemon.DaemonParams(cycle=cycle, lease=None)
    with living(read_list(RECORDING), params, speed=30.0) as alive:
        yield alive.url.removeprefix("http://")


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], *, rules: Path = ALERTS, interval: str = "1s"
) -> Iterator[Prometheus]:
    """A Prometheus with our rules that scrapes targets, each with a namespace of its own as a label."""
    need_prometheus()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    static = [{"targets": [target], "labels": {"namespace": namespace}} for namespace, target in targets.items()]
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval},
        "rule_files": [str(rules.resolve())],
        "scrape_configs": [{"job_name": "rebalancer", "static_configs": static}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        yield Prometheus(url=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()
