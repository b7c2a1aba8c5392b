"""Several replicas of the daemon, each a process with a token and a network of its own, as the chart's Deployment."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync
from controlplane import chart
from controlplane.audit import AuditEvent
from controlplane.daemon import ACTIVE, COMMAND, Daemon, granted, settings
from controlplane.harness import ControlPlane
from controlplane.identities import write_kubeconfig
from controlplane.kubeclient import ApiError
from controlplane.processes import Launcher, Process
from controlplane.proxy import Proxy
from controlplane.waiting import until

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{chart.NAME}/leases/{chart.NAME}"
# On a machine that does other things beside.
START_SECONDS = 60


@dataclass(slots=True)
class Replica:
    """One process. `network` is between it and the API server; `credential` is how the audit log knows its token."""

    name: str
    process: Process
    network: Proxy
    credential: str
    _read: int = 0

    def said(self) -> Daemon:
        """What it has said since `turn_page`."""
        return Daemon(lambda: self.process.log.read_text()[self._read :], self.process.ended)

    async def last(self) -> str:
        """What it has said last, ever, in whatever form."""
        return (self.process.log.read_text().splitlines() or [""])[-1]

    def turn_page(self) -> None:
        """What it has said so far is of no interest any more."""
        self._read = len(self.process.log.read_text())

    def signal(self, number: signal.Signals) -> None:
        """Sends its process a signal."""
        os.kill(self.process.pid, number)


@dataclass(slots=True)
class Replicas:
    """Those that run. `begin` gives one more."""

    plane: ControlPlane
    environment: dict[str, str]
    tasks: TaskGroup
    running: list[Replica] = field(default_factory=list)
    _launchers: list[Launcher] = field(default_factory=list)
    _number: int = 0

    async def begin(self) -> Replica:
        """Starts a replica."""
        plane, name = self.plane, f"replica-{self._number}"
        self._number += 1
        network = Proxy(plane.ports.apiserver)
        await self.tasks.start(network.run)
        token = await plane.service_account_token(chart.NAME, chart.NAME)
        kubeconfig = plane.folder / f"{name}.kubeconfig"
        url = f"https://127.0.0.1:{network.port}"
        write = write_kubeconfig
        await run_sync(lambda: write(kubeconfig, url=url, ca_file=plane.ca_file, user=name, token=token))
        environment = settings(ACTIVE, kubeconfig, chart.NAME) | self.environment | {"POD_NAME": name}
        launcher, log = Launcher(), plane.folder / "logs" / f"{name}.log"
        process = await launcher.start(name, [*COMMAND, "run"], log=log, environment=environment)
        self._launchers.append(launcher)
        replica = Replica(name, process, network, _credential(token))
        self.running.append(replica)
        return replica

    async def two(self) -> tuple[Replica, Replica]:
        """The one that leads and the one that stands by, after all pages have been turned."""
        for replica in [one for one in self.running if one.process.ended()]:
            self.running.remove(replica)
        while len(self.running) < 2:
            await self.begin()
        names = {one.name for one in self.running}
        holder = await until(self.holder, names.__contains__)
        (leader,) = (one for one in self.running if one.name == holder)
        (other,) = (one for one in self.running if one.name != holder)
        await until(other.last, lambda text: f"{holder} leads" in text, seconds=START_SECONDS)
        for replica in self.running:
            replica.turn_page()
        return leader, other

    async def holder(self) -> str:
        """Who holds the lease, "" for nobody."""
        try:
            return str((await self.plane.client().get(LEASE))["spec"].get("holderIdentity") or "")
        except ApiError as refusal:
            if refusal.status == 404:
                return ""
            raise

    async def writes(self, replica: Replica, since: str) -> list[AuditEvent]:
        """What a replica has written since a moment, leases and Events too, whatever became of it."""
        events = await self.plane.audit()
        return [one for one in events if one.credential == replica.credential and one.mutating and one.received > since]

    async def end(self) -> None:
        """Ends all processes."""
        for replica in self.running:
            if not replica.process.ended():
                replica.signal(signal.SIGCONT)
                await replica.process.kill()
        for launcher in self._launchers:
            await run_sync(launcher.close)


@asynccontextmanager
async def replicas(plane: ControlPlane, **environment: str) -> AsyncIterator[Replicas]:
    """Replicas with the rights of our chart, for as long as a `with` block."""
    await granted(plane, ACTIVE)
    async with anyio.create_task_group() as tasks:
        found = Replicas(plane, environment, tasks)
        try:
            yield found
        finally:
            with anyio.CancelScope(shield=True):
                await found.end()
        tasks.cancel_scope.cancel()


def _credential(token: str) -> str:
    """The id of a ServiceAccount's token, as the audit log has it."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"JTI={claims['jti']}"
