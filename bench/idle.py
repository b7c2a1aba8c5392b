"""What the daemon costs while it waits: `python -m bench.idle`, `rebalancer run` as a process on a simulated cluster.

Memory is what the kernel counts as resident, 60 s after the start; CPU is the process's own over the last 30 s of them.
"Nothing to do": no threshold, no rule. "A plan in force": hotspots from the start, dry run.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from bench.results import publish
from rebalancer.sim.objects import Obj
from rebalancer.sim.scenarios import RECORDING
from rebalancer.sim.shapes import Shape, build
from rebalancer.sim.world import World, read_list

SECONDS, COUNTED_SECONDS = 60.0, 30.0
LARGE = Shape(workers=200, control_planes=3, cpu=112, memory_gib=1024, fill=0.9, packed=160, most=4_000)
CLUSTERS = {"12 nodes, 130 VMs": lambda: read_list(RECORDING), "200 nodes, 4,000 VMs": lambda: build(LARGE)}
WAYS: Mapping[str, Mapping[str, str]] = {
    "nothing to do": {"REBALANCER_CPU__HIGH": "100", "REBALANCER_CPU__LOW": "100", "REBALANCER_RULES": ""},
    "a plan in force": {"REBALANCER_HOLD_SECONDS": "0"},
}


def kubeconfig(url: str, path: Path) -> None:
    """A file that leads to a server without credentials."""
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {}}],
    }
    path.write_text(yaml.safe_dump(found), encoding="utf-8")


def mebibytes(pid: int, field: str) -> float:
    """A memory figure of a process: VmRSS now, VmHWM at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(items: list[Obj], settings: Mapping[str, str]) -> tuple[float, float, float, str]:
    """Resident memory at the end and at its highest (MiB), share of a core, and what the daemon said last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        async with World(items) as world:
            await world.api.start(port=0)
            kubeconfig(f"http://127.0.0.1:{world.api.port}", path)
            address = {"REBALANCER_HTTP__HOST": "127.0.0.1", "REBALANCER_HTTP__PORT": "0"}
            environment = {**os.environ, **address, **settings, "REBALANCER_KUBECONFIG": str(path)}
            command = (sys.executable, "-m", "rebalancer", "run")
            process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
            await asyncio.sleep(SECONDS - COUNTED_SECONDS)
            begun = cpu_seconds(process.pid)
            await asyncio.sleep(COUNTED_SECONDS)
            share = (cpu_seconds(process.pid) - begun) / COUNTED_SECONDS
            now, most = mebibytes(process.pid, "VmRSS"), mebibytes(process.pid, "VmHWM")
            process.terminate()
            _, told = await process.communicate()
    return now, most, share, told.decode().splitlines()[-1]


def main() -> None:
    """Print the table and publish it."""
    lines = ["| cluster | | resident (MiB) | at its highest (MiB) | share of a core |", "|---|---|---:|---:|---:|"]
    said = []
    for name, items in CLUSTERS.items():
        for way, settings in WAYS.items():
            now, most, share, sentence = asyncio.run(measure(items(), settings))
            lines.append(f"| {name} | {way} | {now:.0f} | {most:.0f} | {share:.3f} |")
            said.append(f"{name}, {way}: {sentence.partition(' ')[2].strip()}")
            print(lines[-1], said[-1], sep="\n", flush=True)
    libraries = (
        "import os, rebalancer.cli.serve as s; from bench.idle import mebibytes as m; print(m(os.getpid(), 'VmRSS'))"
    )
    bare = float(subprocess.run([sys.executable, "-c", libraries], check=True, capture_output=True, text=True).stdout)
    told = "\n".join(f"* {sentence}" for sentence in said)
    text = "\n".join(lines) + f"\n\nPython and the libraries alone: {bare:.0f} MiB. What it said last:\n\n{told}"
    publish("What the daemon costs while it waits", "python -m bench.idle", text)


if __name__ == "__main__":
    main()
