"""Who is compared, and how each is started."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from anyio.to_thread import run_sync
from controlplane.binaries import find
from controlplane.daemon import ACTIVE, daemon
from controlplane.harness import ControlPlane
from controlplane.processes import Launcher

INTERVAL_SECONDS = 5
PLUGINS = {
    "LowNodeUtilization": {"thresholds": {"cpu": 50}, "targetThresholds": {"cpu": 80}},
    "RemovePodsViolatingInterPodAntiAffinity": {},
    "RemovePodsViolatingNodeAffinity": {"nodeAffinityType": ["requiredDuringSchedulingIgnoredDuringExecution"]},
    "RemovePodsViolatingNodeTaints": {},
}
EVICTOR = {"nodeFit": True, "evictLocalStoragePods": True}
OPENSHIFT = {"maxNoOfPodsToEvictTotal": 5, "maxNoOfPodsToEvictPerNode": 2}
BACKGROUND = ("--feature-gates=EvictionsInBackground=true",)
# VMs may move again at once, and as often as it likes: what keeps the daemon from that must be its plans. A hotspot
# counts once it has lasted as long as the descheduler's interval.
DAEMON = {
    "REBALANCER_HOLD_SECONDS": str(INTERVAL_SECONDS),
    "REBALANCER_LIMITS__COOLDOWN_SECONDS": "0",
    "REBALANCER_LIMITS__COOLDOWN_MAX_SECONDS": "0",
    "REBALANCER_LIMITS__PER_HOUR": "1000",
    "REBALANCER_CPU__HIGH": "80",
    "REBALANCER_SOLVER__SECONDS": "5",
}
LEVEL = {"REBALANCER_CPU__LOW": "80"}
DEFAULT = {"REBALANCER_CPU__LOW": "75"}

Running = Callable[[ControlPlane], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A line of the table; `running` keeps it at work for as long as a `with` block. `runs` at most."""

    name: str
    running: Running
    runs: int = 3


def _policy(limits: dict[str, int]) -> str:
    """A DeschedulerPolicy; every enabled plugin needs its entry in pluginConfig."""
    configs = [{"name": name, "args": arguments} for name, arguments in PLUGINS.items()]
    balance = {"enabled": ["LowNodeUtilization"]}
    profile = {
        "name": "vms",
        "pluginConfig": [{"name": "DefaultEvictor", "args": EVICTOR}, *configs],
        "plugins": {"balance": balance, "deschedule": {"enabled": [name for name in PLUGINS if "Violating" in name]}},
    }
    policy = {
        "apiVersion": "descheduler/v1alpha2",
        "kind": "DeschedulerPolicy",
        "nodeSelector": "kubevirt.io/schedulable=true",
        "profiles": [profile],
    }
    return json.dumps(policy | limits, indent=1)


def _descheduler(*arguments: str, **limits: int) -> Running:
    @asynccontextmanager
    async def running(plane: ControlPlane) -> AsyncIterator[None]:
        program = (await run_sync(find, "descheduler"))["descheduler"]
        file = plane.folder / "policy.yaml"
        await run_sync(file.write_text, _policy(limits))
        command = [
            str(program),
            f"--kubeconfig={plane.folder / 'admin.kubeconfig'}",
            f"--policy-config-file={file}",
            f"--descheduling-interval={INTERVAL_SECONDS}s",
            "--secure-port=0",
            "--v=2",
            *arguments,
        ]
        launcher = Launcher()
        process = await launcher.start("descheduler", command, log=plane.folder / "logs" / "descheduler.log")
        try:
            yield
            if process.ended():
                raise RuntimeError(process.tail())
        finally:
            await process.kill()
            await run_sync(launcher.close)

    return running


def _rebalancer(**settings: str) -> Running:
    @asynccontextmanager
    async def running(plane: ControlPlane) -> AsyncIterator[None]:
        async with daemon(plane, ACTIVE, **DAEMON, **settings):
            yield

    return running


CONTESTANTS = (
    Contestant(name="descheduler, EvictionsInBackground", running=_descheduler(*BACKGROUND)),
    Contestant(name="descheduler, without it (upstream's default)", running=_descheduler(), runs=2),
    Contestant(
        name="descheduler, EvictionsInBackground, OpenShift's limits", running=_descheduler(*BACKGROUND, **OPENSHIFT)
    ),
    Contestant(name="rebalancer, 80 %", running=_rebalancer(**LEVEL)),
    Contestant(name="rebalancer, 80 % down to 75 % (its default)", running=_rebalancer(**DEFAULT), runs=2),
)
