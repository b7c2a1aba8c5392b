"""One integer program with a variable for every VM and node it may be on, solved once by CBC through PuLP.

Minimised is what is left broken, then CPU left above the threshold, then the number of moves, by weights far apart in
one objective. What is at fault may not get worse; what is not may not become so.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pulp

BROKEN, HOT = 10_000, 1_000
"""What a broken rule weighs, and a core above the threshold, beside one move."""


def model(given: dict[str, Any]) -> tuple[pulp.LpProblem, dict[tuple[int, int], pulp.LpVariable]]:
    """The program, and its variable for each VM and node."""
    program = pulp.LpProblem("placement", pulp.LpMinimize)
    nodes, home = range(given["nodes"]), given["home"]
    pinned, forbidden = set(given["pinned"]), {int(k): set(v) for k, v in given["forbidden"].items()}
    closed = set(given["closed"])
    on: dict[tuple[int, int], pulp.LpVariable] = {}
    for vm, start in enumerate(home):
        shut = closed | forbidden.get(given["kind"][vm], set())
        places = [start] if vm in pinned else [node for node in nodes if node == start or node not in shut]
        for node in places:
            on[vm, node] = pulp.LpVariable(f"x_{vm}_{node}", cat=pulp.LpBinary)
        program += pulp.lpSum(on[vm, node] for node in places) == 1
    penalty = _loads(program, given, on) + _rules(program, given, on)
    program.setObjective(pulp.lpSum(1 - on[vm, start] for vm, start in enumerate(home)) + penalty)
    return program, on


def _loads(program: pulp.LpProblem, given: dict[str, Any], on: dict[tuple[int, int], Any]) -> Any:
    """CPU at the threshold or no more above it than at first; memory within what there is."""
    here: dict[int, list[int]] = {}
    for vm, node in on:
        here.setdefault(node, []).append(vm)
    start: dict[int, int] = {}
    for vm, node in enumerate(given["home"]):
        start[node] = start.get(node, 0) + given["cpu"][vm]
    above = []
    for node, vms in here.items():
        excess = max(0, start.get(node, 0) - given["limit"][node]) / 1000
        over = pulp.LpVariable(f"over_{node}", 0, excess)
        above.append(over)
        cpu = pulp.lpSum(given["cpu"][vm] / 1000 * on[vm, node] for vm in vms)
        program += cpu <= given["limit"][node] / 1000 + over
        program += pulp.lpSum(given["memory"][vm] * on[vm, node] for vm in vms) <= given["memory_room"][node]
    return HOT * pulp.lpSum(above)


def _rules(program: pulp.LpProblem, given: dict[str, Any], on: dict[tuple[int, int], Any]) -> Any:
    """Counts of groups per domain, with what exceeds them; VMs that are where their rules do not let them be."""
    faults = [on[vm, home] for vm, home in given["misplaced"]]
    for number, scope in enumerate(given["scopes"]):
        domains = scope["domains"] or range(given["nodes"])
        for which, group in enumerate(scope["groups"]):
            counts: dict[int, list[Any]] = {}
            at_first: dict[int, int] = {}
            members = set(group["members"])
            for vm in group["members"]:
                at_first[domains[given["home"][vm]]] = at_first.get(domains[given["home"][vm]], 0) + 1
                for node in range(given["nodes"]):
                    if (vm, node) in on:
                        counts.setdefault(domains[node], []).append(on[vm, node])
            for domain, terms in counts.items():
                most, before = group["most"], at_first.get(domain, 0)
                if len(members) > most:
                    over = pulp.LpVariable(f"crowd_{number}_{which}_{domain}", 0, max(0, before - most))
                    faults.append(over)
                    program += pulp.lpSum(terms) <= most + over
                if group["least"]:
                    short = pulp.LpVariable(f"short_{number}_{which}_{domain}", 0, max(0, group["least"] - before))
                    faults.append(short)
                    program += pulp.lpSum(terms) + short >= group["least"]
    return BROKEN * pulp.lpSum(faults)


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (given["memory_limit_mib"] * 2**20, before[1]))
    started = time.perf_counter()
    program, on = model(given)
    built = time.perf_counter() - started
    resource.setrlimit(resource.RLIMIT_AS, before)  # the limit is the model's; CBC may have what it wants
    log = Path("cbc.log")
    program.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=given["seconds"], threads=2, logPath=str(log)))
    answer: dict[str, Any] = {"seconds": time.perf_counter() - started, "built_seconds": built}
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("Result - ")]
    answer["said"] = said[-1].removeprefix("Result - ") if said else "nothing"
    found = program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    answer["end"] = "proven" if program.sol_status == pulp.LpSolutionOptimal else "limit" if found else "no plan"
    if found:
        at = list(given["home"])
        for (vm, node), variable in on.items():
            if (variable.value() or 0) > 0.5:
                at[vm] = node
        answer["at"] = at
    own, child = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    answer["cpu_seconds"] = sum(usage.ru_utime + usage.ru_stime for usage in (own, child))
    answer["mib"] = (own.ru_maxrss + child.ru_maxrss) // 1024
    answer["variables"] = len(on)
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
