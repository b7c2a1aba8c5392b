"""What watching a large cluster costs: `python -m bench.scale`, server and daemon in processes of their own.

Bars: 30 s of CPU until everything is listed, half a core for 1,000 changes a second, 600 MiB, 100 ms of blocked loop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bench.results import publish
from bench.scale.cluster import OTHERS_PER_NODE, Cluster, Shape
from bench.scale.daemon import RATE

SHAPE = Shape()
SECONDS = 60.0
BARS = {"sync_cpu": 30.0, "share": 0.5, "memory": 600.0, "blocked": 100.0}


def run(shape: Shape, *, watch_list: bool) -> dict[str, Any]:
    """The figures of one daemon on one server."""
    size = (str(shape.nodes), str(shape.vms_per_node), str(int(watch_list)))
    command = [sys.executable, "-m", "bench.scale.server", *size]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            command = [sys.executable, "-m", "bench.scale.daemon", port, str(SECONDS)]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures: dict[str, Any] = json.loads(found.stdout)
            return figures
        finally:
            server.terminate()


def table(found: dict[str, dict[str, Any]]) -> str:
    """The figures of several runs beside each other, against the bars."""
    rows: tuple[tuple[str, Callable[[dict[str, Any]], float], float | None, str], ...] = (
        ("until all is listed: CPU (s)", lambda f: f["sync"]["cpu"], BARS["sync_cpu"], ".1f"),
        ("until all is listed: wall (s)", lambda f: f["sync"]["wall"], None, ".1f"),
        ("one turn of the loop, at most: its own CPU (ms)", lambda f: f["sync_loop"]["own"], BARS["blocked"], ".0f"),
        ("the same with threads beside it (ms)", lambda f: f["sync_loop"]["all"], None, ".0f"),
        ("how late a timer was at most, by the wall clock (ms)", lambda f: f["sync_loop"]["late"], None, ".0f"),
        (f"{RATE:,} changes a second: share of a core", lambda f: f["steady"]["share"], BARS["share"], ".2f"),
        ("cycles in that minute", lambda f: f["steady"]["cycles"], None, ".0f"),
        ("the longest cycle (s)", lambda f: f["cycle_seconds"], None, ".1f"),
        ("one turn of the loop, at most: its own CPU (ms)", lambda f: f["steady_loop"]["own"], BARS["blocked"], ".0f"),
        ("the same with threads beside it (ms)", lambda f: f["steady_loop"]["all"], None, ".0f"),
        ("how late a timer was at most, by the wall clock (ms)", lambda f: f["steady_loop"]["late"], None, ".0f"),
        ("99 of 100 timers less than (ms)", lambda f: f["steady_loop"]["late_p99"], None, ".0f"),
        ("resident memory at its highest (MiB)", lambda f: f["steady_memory"]["peak"], BARS["memory"], ".0f"),
        ("requests in the steady minute", lambda f: f["requests"], None, ".0f"),
    )
    lines = [f"| | {' | '.join(found)} | bar | |", f"|---|{'---:|' * len(found)}---:|---|"]
    for name, read, bar, form in rows:
        values = [read(figures) for figures in found.values()]
        verdict = "" if bar is None else "met" if max(values) <= bar else "missed"
        shown = " | ".join(format(value, form) for value in values)
        lines.append(f"| {name} | {shown} | {'' if bar is None else f'{bar:g}'} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table and publishes it."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=SHAPE.nodes)
    parser.add_argument("--keep", action="store_true", help="print only, leave RESULTS.md as it is")
    options = parser.parse_args()
    shape = Shape(nodes=options.nodes)
    before = f"{os.getloadavg()[0]:.1f}"
    found = {how: run(shape, watch_list=how == "WatchList") for how in ("WatchList", "pages of 500")}
    cluster = Cluster(shape)
    kinds = ("nodes", "virtualmachineinstances", "pods")
    sizes = ", ".join(f"{shape.count(kind):,} {kind} of {len(cluster.item(kind, 0)):,} bytes" for kind in kinds)
    load = f"{os.getloadavg()[0]:.1f}"
    text = f"""{table(found)}

{sizes}: a recorded cluster's, with managedFields; on clusters in use many are larger, nodes above all.
{OTHERS_PER_NODE} pods on each node belong to no VM. Dry run, and nothing to plan. One change of a hundred is in what
the daemon reads; the others have to be decoded to see that. The machine's load was {before} before and {load} after:
others' time is in the figures by the wall clock and not in those of CPU. A cycle is worked out in a thread beside the
loop, which lends it the interpreter for 5 ms at a time, where the machine has a CPU to spare for both. It said at the
end: {found["WatchList"]["sentence"]}."""
    print(text)
    if not options.keep:
        publish("What watching a large cluster costs", "python -m bench.scale", text)


if __name__ == "__main__":
    main()
