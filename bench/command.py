"""What a user waits for: `python -m bench.command`, whole processes on the 12x130 recording.

Times are medians of wall clock beyond what the interpreter alone takes to start, measured in the same run. The
simulation's figure is its own: seconds of the simulated cluster over seconds of the process that simulates it.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.results import publish

RECORDING = Path(__file__).parent.parent / "tests" / "data" / "kubevirt-12x130.json.gz"
RUNS = 5
COMMANDS = (
    (("--help",), 0.3),
    (("plan", "--from", str(RECORDING)), 2.0),
    (("plan", "--from", str(RECORDING), "-o", "json"), 2.0),
    (("explain", "bank/db-0-1", "--from", str(RECORDING)), 2.0),
)
SPEED_BAR = 100


def seconds(command: list[str]) -> float:
    """Median wall time of a whole process, over RUNS runs after one that does not count."""
    times = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def main() -> None:
    """Print the tables and publish them."""
    start = seconds([sys.executable, "-c", "pass"])
    lines = ["| command | seconds beyond interpreter start | bar | |", "|---|---|---|---|"]
    for arguments, bar in COMMANDS:
        beyond = seconds([sys.executable, "-m", "rebalancer", *arguments]) - start
        shown = " ".join(arguments).replace(str(RECORDING), RECORDING.name)
        lines.append(f"| `rebalancer {shown}` | {beyond:.2f} | {bar} | {'met' if beyond <= bar else 'missed'} |")
    said = subprocess.run(
        [sys.executable, "-m", "rebalancer", "simulate", "real-12x130"], check=True, capture_output=True, text=True
    ).stdout
    faster = re.search(r"(\d+) times faster", said)
    assert faster, f"the simulation does not say how fast it was: {said}"
    verdict = "met" if int(faster[1]) >= SPEED_BAR else "missed"
    lines += [
        f"| `rebalancer simulate real-12x130` | {faster[1]} times faster than real time | {SPEED_BAR} | {verdict} |"
    ]
    text = "\n".join(lines)
    print(text)
    publish("What a user waits for", "python -m bench.command", text + f"\n\nMedians of {RUNS} runs.")


if __name__ == "__main__":
    main()
