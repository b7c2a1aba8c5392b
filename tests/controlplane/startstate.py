"""The 12x130 start state of tests/data, rebuilt live: placed by the real scheduler, run by the node plane.

As when it was recorded: six workers are open and the VMs start there; then the others are opened, and only then come
the rules, label, taint and cordon that running VMs break. Who lands where is the scheduler's choice and may differ
from the recording.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.to_thread import run_sync
from controlplane.harness import ControlPlane
from controlplane.kubeclient import KubeClient, Object
from controlplane.nodes import add_node
from controlplane.objects import path

from rebalancer.sim.plane import Mishaps

RECORDING = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"
FIRST_OPEN = tuple(f"w-{number:02}" for number in range(6))
INSTANCES = "/apis/kubevirt.io/v1/virtualmachineinstances"
AT_ONCE = 16
START_SECONDS = 180
KEPT_METADATA = ("name", "namespace", "labels", "ownerReferences")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartState:
    """Objects of the recording, by kind."""

    nodes: tuple[Object, ...]
    pods: tuple[Object, ...]
    vmis: tuple[Object, ...]
    namespaces: tuple[Object, ...]


class RecordedMishaps(Mishaps):
    """VMIs that were not live-migratable in the recording are not here either, for the same reason."""

    def __init__(self, state: StartState) -> None:
        self._immovable = {_name(vmi): _immovable(vmi) for vmi in state.vmis}

    def immovable(self, vmi: Object) -> tuple[str, str] | None:
        """(reason, message) of LiveMigratable=False."""
        return self._immovable.get(_name(vmi))


def read_recording(recording: Path = RECORDING) -> StartState:
    """The recording, without the launcher pods: those KubeVirt makes anew."""
    with gzip.open(recording) as file:
        items: list[Object] = json.load(file)["items"]

    def of(kind: str) -> tuple[Object, ...]:
        return tuple(item for item in items if item["kind"] == kind)

    own = tuple(pod for pod in of("Pod") if "kubevirt.io" not in pod["metadata"].get("labels", {}))
    return StartState(nodes=of("Node"), pods=own, vmis=of("VirtualMachineInstance"), namespaces=of("Namespace"))


async def load_recording() -> StartState:
    """read_recording() without blocking the event loop."""
    return await run_sync(read_recording)


async def rebuild(plane: ControlPlane, state: StartState) -> None:
    """Bring the state about; the node plane must be running, with RecordedMishaps."""
    admin = plane.client()
    for namespace in state.namespaces:
        await plane.namespace(namespace["metadata"]["name"], labels=namespace["metadata"].get("labels"))
    for node in state.nodes:
        await add_node(plane, _before(node))
    await _create(admin, (_posted_pod(pod) for pod in state.pods))
    await _create(admin, (_posted_vmi(vmi) for vmi in state.vmis))
    await _started(admin, len(state.vmis), waiting_counts=True)
    for node in state.nodes:
        await admin.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": None}})
    await _started(admin, len(state.vmis), waiting_counts=False)
    await _break_rules(plane, state)


async def _break_rules(plane: ControlPlane, state: StartState) -> None:
    """The late rules. Only KubeVirt's own accounts may change the spec of a VMI."""
    for vmi in state.vmis:
        if "affinity" in vmi["spec"]:
            await plane.client("controller").patch(path(vmi), {"spec": {"affinity": vmi["spec"]["affinity"]}})
    for node in state.nodes:
        spec = {key: node["spec"].get(key) for key in ("taints", "unschedulable")}
        labels = {"tier": node["metadata"]["labels"].get("tier")}
        change = {"spec": spec, "metadata": {"labels": labels}}
        await plane.client().patch(f"/api/v1/nodes/{node['metadata']['name']}", change)


async def _create(admin: KubeClient, objects: Iterable[Object]) -> None:
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(resource: Object) -> None:
        collection = _collection(resource)
        async with limit:
            await admin.create(collection, resource)

    async with anyio.create_task_group() as tasks:
        for resource in objects:
            tasks.start_soon(one, resource)


async def _started(admin: KubeClient, count: int, *, waiting_counts: bool) -> None:
    """Every VM runs; with `waiting_counts`, or waits for room that the scheduler did not find."""
    with anyio.fail_after(START_SECONDS):
        while True:
            running = [vmi["status"].get("phase") == "Running" for vmi in await admin.items(INSTANCES)]
            waiting = await _unschedulable(admin) if waiting_counts else 0
            if sum(running) + waiting == count:
                return
            await anyio.sleep(0.2)


async def _unschedulable(admin: KubeClient) -> int:
    pods = await admin.items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher")
    return sum(
        condition.get("reason") == "Unschedulable"
        for pod in pods
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "PodScheduled"
    )


def _before(node: Object) -> Object:
    """A node as it was when the VMs started: w-01 had its label, nothing was tainted late, half were closed."""
    metadata = {"name": node["metadata"]["name"], "labels": dict(node["metadata"]["labels"])}
    name = metadata["name"]
    spec: Object = {}
    if name == "w-01":
        metadata["labels"]["tier"] = "gold"
    if "node-role.kubernetes.io/control-plane" in metadata["labels"]:
        spec["taints"] = node["spec"]["taints"]
    elif name not in FIRST_OPEN:
        spec["unschedulable"] = True
    return {"metadata": metadata, "spec": spec, "status": node["status"]}


def _posted_vmi(vmi: Object) -> Object:
    labels = {key: value for key, value in vmi["metadata"].get("labels", {}).items() if "kubevirt.io/" not in key}
    spec = {key: value for key, value in vmi["spec"].items() if key != "affinity"}
    metadata = {"name": vmi["metadata"]["name"], "namespace": vmi["metadata"]["namespace"], "labels": labels}
    return {"apiVersion": "kubevirt.io/v1", "kind": vmi["kind"], "metadata": metadata, "spec": spec}


def _posted_pod(pod: Object) -> Object:
    metadata = {key: pod["metadata"][key] for key in KEPT_METADATA if key in pod["metadata"]}
    containers = [{key: one[key] for key in ("name", "image", "resources")} for one in pod["spec"]["containers"]]
    spec = {key: pod["spec"][key] for key in ("nodeName", "tolerations") if key in pod["spec"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | {"containers": containers}}


def _collection(resource: Object) -> str:
    if resource["kind"] == "Pod":
        return f"/api/v1/namespaces/{resource['metadata']['namespace']}/pods"
    return path(resource).rsplit("/", 1)[0]


def _name(vmi: Object) -> str:
    return f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"


def _immovable(vmi: Object) -> tuple[str, str] | None:
    conditions: Sequence[Object] = vmi["status"].get("conditions", ())
    for condition in conditions:
        if condition["type"] == "LiveMigratable" and condition["status"] == "False":
            return condition["reason"], condition["message"]
    return None
