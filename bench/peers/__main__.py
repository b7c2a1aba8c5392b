"""`python -m bench.peers`: ours beside others, on the terminal and as a section of RESULTS.md.

About five minutes, with `--large` twenty. The others' solvers are installed into an environment of their own at first.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from dataclasses import replace

from bench.peers import table
from bench.peers.contestants import CONTESTANTS, THRESHOLDS, Answer, Case, Contestant
from bench.peers.instances import Instance, instances
from bench.peers.judge import judge
from bench.peers.numbers import numbers
from bench.peers.table import Result
from bench.results import publish

QUICK_SECONDS = 5.0
REPEATS = 3


def main() -> None:
    """Measure, print each line as it comes, and publish when nothing was left out."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--large", action="store_true", help="5,000 nodes and 65,000 VMs, too")
    parser.add_argument("--instance", default="", help="only instances whose name contains this; publishes nothing")
    parser.add_argument("--who", default="", help="only contestants whose name contains this; publishes nothing")
    options = parser.parse_args()
    print(table.head(), flush=True)
    results: list[Result] = []
    for instance in instances(large=options.large):
        if options.instance in instance.name:
            results += measure(instance, [one for one in CONTESTANTS if options.who in one.name])
    if not options.instance and not options.who:
        text = table.section(results)
        print("\n" + text[text.index("What it says:") :])
        publish(table.TITLE, f"python -m bench.peers{' --large' if options.large else ''}", text)


def measure(instance: Instance, contestants: Sequence[Contestant]) -> list[Result]:
    """All lines of one instance."""
    snapshot = instance.read()
    case = Case(snapshot=snapshot, numbers=numbers(snapshot, THRESHOLDS), seconds=instance.seconds)
    before = judge(case.numbers, ())
    gc.collect()
    gc.freeze()  # the instance itself is no garbage, and looking through it is nobody's time
    found: list[Result] = []
    for contestant in contestants:
        if sys.stderr.isatty():
            print(f"{instance.name}: {contestant.name}", file=sys.stderr, flush=True)
        answer = best(contestant, case)
        result = Result(
            instance=instance.name,
            size=(len(case.numbers.nodes), len(case.numbers.vms)),
            ills=(before.hot, before.broken),
            who=contestant.name,
            answer=answer,
            verdict=judge(case.numbers, answer.waves),
        )
        print(table.line(result, first=not found), flush=True)
        found.append(result)
    gc.unfreeze()
    return found


def best(contestant: Contestant, case: Case) -> Answer:
    """Its answer, with the shortest of a few times where it is quick."""
    answer = contestant.solve(case)
    for _ in range(1, REPEATS):
        if answer.failed or answer.took[0] >= QUICK_SECONDS:
            break
        again = contestant.solve(case)
        answer = replace(answer, took=min(answer.took, again.took))
    return answer


if __name__ == "__main__":
    main()
