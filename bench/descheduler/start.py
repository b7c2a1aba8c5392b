"""The live 12x130 start state: made once, then given to every run as the same etcd."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from controlplane.harness import ControlPlane
from controlplane.kubeclient import KubeClient, Object
from controlplane.nodes import QUICK, node_plane
from controlplane.startstate import INSTANCES, RecordedMishaps, load_recording, rebuild

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kubevirt/leases"
HEARTBEAT = "kubevirt.io/heartbeat"
FRESH_SECONDS = 30
READY_SECONDS = 60
# Every transfer takes one second, whatever the VM's memory, so that "the time of one migration" is one number. Nodes
# say often that they live: a start state is minutes old when a run begins with it.
NODES = replace(QUICK, bandwidth_bytes=1e12, heartbeat=(3.0, 5.0))


async def prepare(folder: Path) -> Path:
    """Build the start state; the folder with its etcd."""
    state = await load_recording()
    async with ControlPlane(keep=folder / "first") as plane:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node_plane(plane, params=NODES, mishaps=RecordedMishaps(state)).run)
            await rebuild(plane, state)
            await anyio.sleep(2)
            tasks.cancel_scope.cancel()
        # The next virt-controller would wait for the lease of this one.
        os.kill(plane.pid("virt-controller"), signal.SIGKILL)
        await plane.client().delete(LEASES)
    return folder / "first" / "etcd"


@asynccontextmanager
async def started(etcd: Path, folder: Path) -> AsyncIterator[ControlPlane]:
    """A control plane that begins where the start state ended, with nodes that live."""
    state = await load_recording()
    await run_sync(partial(shutil.copytree, etcd, folder / "etcd"))
    async with ControlPlane(keep=folder) as plane, anyio.create_task_group() as tasks:
        tasks.start_soon(node_plane(plane, params=NODES, mishaps=RecordedMishaps(state)).run)
        await _at_rest(plane.client(), len(state.vmis))
        yield plane
        tasks.cancel_scope.cancel()


async def _at_rest(client: KubeClient, vmis: int) -> None:
    """Wait until every VM runs, every worker has just said that it lives, and KubeVirt believes it."""
    with anyio.fail_after(READY_SECONDS):
        while True:
            running = [vmi["status"].get("phase") == "Running" for vmi in await client.items(INSTANCES)]
            workers = await client.items("/api/v1/nodes", labelSelector="!node-role.kubernetes.io/control-plane")
            if sum(running) == vmis and all(_lives(node) for node in workers):
                return
            await anyio.sleep(0.5)


def _lives(node: Object) -> bool:
    meta = node["metadata"]
    beat = datetime.fromisoformat(meta["annotations"][HEARTBEAT]).timestamp()
    return time.time() - beat < FRESH_SECONDS and meta["labels"]["kubevirt.io/schedulable"] == "true"
