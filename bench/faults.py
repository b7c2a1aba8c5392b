"""What was tried to make the daemon break a promise, and what of it succeeded: `python -m bench.faults`."""

from __future__ import annotations

import argparse
import sys

from bench.results import publish
from rebalancer.sim.matrix import SEEDS, cases, hunted, hunts, run_matrix, spread

TITLE = "Faults at every write and every event"
ABOUT = """\
The daemon against a small simulated cluster, over HTTP in virtual time: once without faults, and once more for every
write that it sends, every watch event that it receives, and everything that can go wrong there. A point counts only if
its fault has happened: the process did restart, another did lead, the list was stale, the relist did take place. Every
run is judged by checkers that share no code with the daemon, and must end as well as the one without faults, with as
few migrations and the same VMs moved, but for what `rebalancer.sim.matrix.compare` names."""
PLANTED = """\
And the other way round: daemons with one mistake in each, which the same runs must find."""


def main(arguments: list[str] | None = None) -> int:
    """Try them, publish the tables; 1 where anything was found wrong, or a planted fault was not."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=sys.maxsize, help="so many points, well spread; default all")
    chosen = parser.parse_args(arguments)
    every = cases(seeds=SEEDS)
    some = spread(every, chosen.points)
    matrix, found = run_matrix(some), hunts()
    share = f"{len(some):,} of {len(every):,} points." if len(some) < len(every) else f"All {len(every):,} points."
    text = "\n\n".join((ABOUT, share, matrix.text().strip(), PLANTED, hunted(found).strip()))
    option = f" --points {chosen.points}" if len(some) < len(every) else ""
    publish(TITLE, f"python -m bench.faults{option}", text)
    print(text)
    return int(bool(matrix.failures) or any(one.found is None for one in found))


if __name__ == "__main__":
    sys.exit(main())
