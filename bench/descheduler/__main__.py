"""`python -m bench.descheduler`: the descheduler and our daemon on one start state; a section of RESULTS.md.

About twenty minutes. The control plane's programs are built first where they are missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import anyio
from controlplane.binaries import find
from controlplane.harness import PROGRAMS

from bench.descheduler import table
from bench.descheduler.contest import Result, best, contest
from bench.descheduler.contestants import CONTESTANTS
from bench.descheduler.start import prepare
from bench.results import publish


def say(text: str) -> None:
    """Progress, for people only."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


async def measure(folder: Path, runs: int, only: str) -> str:
    """Everything, as the section of RESULTS.md."""
    say("building the start state")
    etcd = await prepare(folder / "start")
    least = await best(etcd, folder / "best")
    results: list[Result] = []
    # Round by round, so that a machine that gets busier is so for all.
    for number in range(runs):
        for position, contestant in enumerate(one for one in CONTESTANTS if only in one.name and number < one.runs):
            say(f"run {number + 1} of {runs}: {contestant.name}")
            place = folder / f"run-{number}-{position}"
            results.append(await contest(contestant, etcd, place))
            say(f"  {results[-1].migrations} migrations, {len(results[-1].hotspots)} hotspots left")
            shutil.rmtree(place)
    return table.section(results, least)


def main() -> None:
    """Measure and print; the folder goes in the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.descheduler", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each, at most; the long ones have two")
    parser.add_argument(
        "--only", default="", help="only contestants whose name contains this; nothing is published then"
    )
    options = parser.parse_args()
    say("control plane")
    find(*PROGRAMS, "descheduler", "helm")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        text = anyio.run(measure, Path(folder), options.runs, options.only)
    print(text)
    if not options.only:
        publish(table.TITLE, "python -m bench.descheduler", text)


if __name__ == "__main__":
    main()
