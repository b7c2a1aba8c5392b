"""Small simulated clusters for tests: a world in virtual time, spoken to over HTTP like any cluster."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp

from rebalancer.sim import shapes
from rebalancer.sim.api import ApiParams, Authorize
from rebalancer.sim.faults import Faults
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import Mishaps, NodePlaneParams
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World, WorldParams

T = TypeVar("T")
NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/bank/pods"
VMIS = "/apis/kubevirt.io/v1/namespaces/bank/virtualmachineinstances"
MIGRATIONS = "/apis/kubevirt.io/v1/namespaces/bank/virtualmachineinstancemigrations"
MERGE = "application/merge-patch+json"

# Every duration is a fixed number, so that tests can say when things happen.
EXACT = NodePlaneParams(
    pod_start=(1.0, 1.0),
    pod_stop=(1.0, 1.0),
    vm_boot=(2.0, 2.0),
    prepare=(1.0, 1.0),
    handshake=(0.5, 0.5),
    source_exit=(5.0, 5.0),
    bandwidth_bytes=1.1e9,
    dirty_bytes=0.1e9,
    qemu_timeout=(240.0, 240.0),
    heartbeat=(0.0, 0.0),
)


class Client:
    """JSON over HTTP, with nothing in between that could hide how the server answers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def ask(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: str
    ) -> tuple[int, Any]:
        """(HTTP code, body) of one request."""
        headers = {"Content-Type": kind} if body is not None else {}
        text = json.dumps(body) if body is not None else None
        async with self.session.request(method, path, data=text, params=query, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str, **query: str) -> Any:
        """The body of a GET that must succeed."""
        code, body = await self.ask("GET", path, **query)
        assert code == 200, body
        return body

    async def watch(self, path: str, **query: str) -> list[Any]:
        """Every event of a watch until it ends."""
        found = []
        async with self.session.get(path, params={"watch": "true", **query}) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                found.append(json.loads(line))
        return found


def small(*, workers: int = 3, cpu: int = 16) -> list[Obj]:
    """Three empty workers and nothing else."""
    return shapes.build(shapes.Shape(workers=workers, control_planes=0, cpu=cpu, most=0), 0)


def with_vm(name: str = "vm", on: str = "w-00", *, vcpus: int = 2, gib: int = 4, **spec: Any) -> tuple[Obj, Obj]:
    """A running VM of namespace bank and its pod; `spec` adds to the VMI's."""
    order = shapes.vmi("bank", name, vcpus=vcpus, memory_gib=gib)
    order["spec"] |= spec
    return shapes.running(order, on)


def vmim(vmi: str = "vm", *, to: str = "", name: str = "", **spec: Any) -> Obj:
    """A migration as a client posts it."""
    meta: Obj = {"name": name} if name else {"generateName": "move-"}
    spec |= {"vmiName": vmi} if vmi else {}
    spec |= {"addedNodeSelector": {"kubernetes.io/hostname": to}} if to else {}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": meta,
        "spec": spec,
    }


def run(
    scenario: Callable[[World, Client], Coroutine[Any, Any, T]],
    items: list[Obj] | None = None,
    *,
    nodes: NodePlaneParams = EXACT,
    mishaps: Mishaps | None = None,
    faults: Faults | None = None,
    authorize: Authorize | None = None,
    api: ApiParams | None = None,
) -> T:
    """Run a scenario in a small cluster, in virtual time."""
    params = WorldParams(nodes=nodes, api=api or ApiParams())

    with tempfile.TemporaryDirectory() as folder:

        async def main() -> T:
            world = World(
                small() if items is None else items, params, mishaps=mishaps, faults=faults, authorize=authorize
            )
            async with world:
                await world.api.start(unix=f"{folder}/api")
                connector = aiohttp.UnixConnector(f"{folder}/api")
                async with aiohttp.ClientSession("http://cluster", connector=connector, read_bufsize=2**21) as session:
                    return await scenario(world, Client(session))

        return run_virtual(main)
