"""`python -m bench.planner`: the planner's table, on the terminal and as markdown."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
from pathlib import Path

from bench.planner.table import COLUMNS, instances, measured


def main() -> None:
    """Each instance in a process of its own, so that its memory is its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=__doc__)
    parser.add_argument("names", nargs="*", help="only instances whose name contains one of these")
    parser.add_argument("--runs", type=int, default=5, help="plans per instance, to compare them")
    parser.add_argument("--seconds", type=float, default=10.0, help="limit of each search")
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    print("\n".join(lines), flush=True)
    for position, (label, _, _) in enumerate(instances()):
        if options.names and not any(name in label for name in options.names):
            continue
        results = context.SimpleQueue()
        worker = context.Process(target=measured, args=(position, options.runs, options.seconds, results))
        worker.start()
        worker.join()
        lines.append("| " + " | ".join(results.get().cells if not worker.exitcode else (label, "failed")) + " |")
        print(lines[-1], flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    note = f"\n{machine}, limit {options.seconds:g} s"
    print(note)
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n" + note + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
