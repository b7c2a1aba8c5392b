"""`python -m bench.planner`: the planner's table and its bars, on the terminal and in RESULTS.md."""

from __future__ import annotations

import argparse

from bench.planner.bars import bars
from bench.planner.instances import instances, missing
from bench.planner.isolated import MEMORY_MB, FailedError, isolated
from bench.planner.steady import Steady, measure_steady
from bench.planner.table import Measured, heading, measure, progress
from bench.results import publish

NOTES = """
Each instance is measured in a process of its own, which may take {memory:,} MB for its data. Read: until there is a
snapshot, the making of synthetic ones included. Triggers: what is known of the snapshot and what is wrong with it, from
nothing. First plan: a decision without search, and with what is worked out once for all decisions. End: the quickest of
the decisions, with a limit of {seconds:g} s for the search of each; CPU: the least of theirs. Waves and the minutes
until quiet are those of KubeVirt's default limits (5 migrations at a time, one of them left to others; 2 off a node)
and ours (1 onto a node), with 512 MiB/s for each. Equal: how many of the plans were the same. Thresholds: the
recording, swaps and rings 80 % down to 75 %; synthetic ones 80 %; BtrPlace 100 %; ByteDance 98 %, which its fullest
machines exceed. Overfull: more is reserved than 80 % of all nodes, so most hotspots stay. Stops are moves onto a third
node, without which no order of moves exists; the bound is that of placements, which know nothing of an order, so a gap
remains where there are stops. BtrPlace's rules are rebuilt from its recordings: a client's VMs stay within the edge
that they are on (li only), and those of one template on different nodes. Bars in seconds are about the wall clock; that
of nothing to do is about CPU, and `python -m bench.cycle` tells more of it. Python's garbage collector is set as it is
in the daemon.
"""


def main() -> None:
    """Each instance in a process of its own, so that its memory is its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=__doc__)
    parser.add_argument("names", nargs="*", help="only instances whose name contains one of these; publishes nothing")
    parser.add_argument("--runs", type=int, default=5, help="plans per instance, to compare them")
    parser.add_argument("--seconds", type=float, default=10.0, help="limit of each search")
    options = parser.parse_args()
    for file in missing():
        print(f"{file} is missing, and with it what would be read from it", flush=True)
    lines, found = heading(), list[Measured]()
    print("\n".join(lines), flush=True)
    for instance in instances():
        if options.names and not any(name in instance.name for name in options.names):
            continue
        try:
            row = isolated(measure, instance, options.runs, options.seconds)
            found.append(row)
            lines.append(row.line())
        except FailedError as reason:
            lines.append(f"| {instance.name} | {reason} |")
        progress("")
        print(lines[-1], flush=True)
    if not options.names:
        judged = bars(found, _steady())
        print("\n" + "\n".join(judged))
        notes = NOTES.format(memory=MEMORY_MB, seconds=options.seconds).strip()
        text = "\n".join([*judged, "", *lines, "", notes])
        publish("The planner", "python -m bench.planner", text)


def _steady() -> Steady | None:
    try:
        return isolated(measure_steady)
    except FailedError:
        return None
    finally:
        progress("")


if __name__ == "__main__":
    main()
