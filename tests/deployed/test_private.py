"""Secrets in VMs and around them leave by no face: page, API, stream, metrics, log, Events, plans, explanations, dumps.

They are planted where users and KubeVirt put such things, in every VM of the recording and one that cannot be read;
then a daemon works on the cluster, and everything that comes out of it and of the commands is searched.
"""

from __future__ import annotations

import gzip
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed.test_image import kubeconfig
from page.live import Living, living
from typer.testing import CliRunner

from rebalancer import daemon
from rebalancer.cli import app
from rebalancer.cli.serve import Log
from rebalancer.control.cycle import CycleParams
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.load import PolicyParams
from rebalancer.present.answers import DOCUMENTS, STREAM
from rebalancer.sim.objects import Obj
from rebalancer.sim.resources import VMIS
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.world import read_list

pytestmark = pytest.mark.slow

SECRET = "pl4nt3d-s3cr3t"
NOTES = {"example.com/password": SECRET, "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"a": SECRET})}
VM = "bank/db-0-1"


def planted(item: Obj) -> Obj:
    """An object with secrets in it."""
    kind, spec = item["kind"], item.setdefault("spec", {})
    item["metadata"].setdefault("annotations", {}).update(NOTES)
    item["metadata"]["managedFields"] = [{"manager": SECRET, "operation": "Update", "fieldsV1": {SECRET: {}}}]
    if kind == "VirtualMachineInstance":
        spec.setdefault("volumes", []).extend(
            [
                {"name": "init", "cloudInitNoCloud": {"userData": f"password: {SECRET}", "networkData": SECRET}},
                {"name": "drive", "cloudInitConfigDrive": {"userDataBase64": SECRET}},
                {"name": "answers", "sysprep": {"secret": {"name": SECRET}}},
                {"name": "keys", "secret": {"secretName": SECRET}},
            ]
        )
        source = {"secret": {"secretName": SECRET}}
        spec["accessCredentials"] = [{"sshPublicKey": {"source": source}}, {"userPassword": {"source": source}}]
        spec["hostname"] = SECRET
        spec["domain"]["firmware"] = {"uuid": SECRET, "serial": SECRET}
        item["status"]["interfaces"] = [{"ipAddress": SECRET, "mac": SECRET}]
        item["status"]["guestOSInfo"] = {"prettyName": SECRET}
    if kind == "Pod":
        for container in spec.get("containers", ()):
            container["env"] = [{"name": "TOKEN", "value": SECRET}]
            container["command"] = ["run", SECRET]
    return item


def unreadable() -> Obj:
    """A VM with secrets and with a value that nobody can read."""
    order: Obj = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "odd", "namespace": "bank", "uid": "odd"},
        "spec": {"domain": {"cpu": {"cores": "many"}}},
        "status": {"phase": "Running", "nodeName": "w-06"},
    }
    return planted(order)


@pytest.fixture(scope="module")
def alive() -> Iterator[Living]:
    """An active daemon that has begun to move VMs of the planted cluster."""
    items = [planted(item) for item in read_list(RECORDING)] + [unreadable()]
    cycle = CycleParams(mode=daemon.ACTIVE, planning=PlanningParams(policy=PolicyParams(hold_seconds=0.0), seconds=0.0))
    with living(items, daemon.DaemonParams(cycle=cycle, lease=None), speed=20.0) as here:
        here.until(lambda report: report.plan is not None and len(report.done) > 0)
        yield here


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        if url.endswith(STREAM):
            return b"".join(answer.readline() for _ in range(6))  # how to resume, then one event
        return bytes(answer.read())


def test_the_secrets_are_really_there(alive: Living) -> None:
    everything = json.dumps([item for kind in ("pods", "nodes", VMIS) for item in alive.world.store.items(kind)])
    assert everything.count(SECRET) > 500


@pytest.mark.parametrize("path", [*(document.path for document in DOCUMENTS), STREAM, "/metrics"])
def test_nothing_private_is_served(alive: Living, path: str) -> None:
    query = f"?vmi={VM}" if path.endswith(("explain", "/")) and path != STREAM else ""
    told = fetch(f"{alive.url}{path}{query}")
    assert len(told) > 20
    assert SECRET.encode() not in told


def test_nothing_private_is_logged_or_told_as_an_event(alive: Living) -> None:
    for as_json in (False, True):
        stream = io.StringIO()
        log = Log(stream, as_json=as_json)
        for report in list(alive.reports):
            log.observe(report)
        told = stream.getvalue()
        assert "bank/odd" in told
        assert "started" in told
        assert SECRET not in told
    written: list[Any] = [entry.body for entry in alive.world.api.log if entry.writes]
    assert "RebalancingStarted" in json.dumps(written)
    assert SECRET not in json.dumps(written)


def test_nothing_private_is_in_a_dump_a_plan_or_an_explanation(alive: Living, tmp_path: Path) -> None:
    config, path = tmp_path / "kubeconfig", tmp_path / "dump.json.gz"
    config.write_text(kubeconfig(alive.api))
    commands = [["dump", str(path)], ["explain", VM], ["explain", VM, "-o", "json"]]
    commands += [["plan", "-o", form] for form in ("text", "json", "yaml", "html")]
    for command in commands:
        done = CliRunner().invoke(app, command, env={"REBALANCER_KUBECONFIG": str(config)})
        assert done.exit_code == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr, command
    dumped = gzip.decompress(path.read_bytes()).decode()
    assert '"db-0-1"' in dumped
    assert SECRET not in dumped
