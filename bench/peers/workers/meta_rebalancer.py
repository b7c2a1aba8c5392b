"""Meta's Rebalancer 1.0.4: local search over single moves and swaps.

Capacity of CPU (the threshold) and memory, group counts, nodes that accept nothing, VMs that must not move or must not
be on some nodes, and as few moves as possible. The default policy for constraints that are broken at first: mend them
before anything else, and make none worse.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from rebalancer import ProblemSolver

ABSOLUTE, MAX, MIN = 1, 1, 2
"""Enumerations go by their numbers: of a limit, and of a bound."""
MOVE_TYPES = {
    "single": {"singleMoveTypeSpec": {}},
    "swap": {"swapMoveTypeSpec": {}},
    "chain": {"singleEndChainMoveTypeSpec": {}},
    "triple": {"tripleLoopMoveTypeSpec": {}},
}


def problem(given: dict[str, Any]) -> ProblemSolver:
    """The instance in Rebalancer's terms; nodes and VMs by their numbers."""
    solver = ProblemSolver(service_name="bench", service_scope="peers")
    solver.set_object_name("vm")
    solver.set_container_name("node")
    on: dict[str, list[str]] = {str(node): [] for node in range(given["nodes"])}
    for vm, node in enumerate(given["home"]):
        on[str(node)].append(str(vm))
    solver.set_assignment(on)
    for name, sizes, rooms in (("cpu", "cpu", "limit"), ("memory", "memory", "memory_room")):
        solver.add_object_dimension(name, {str(vm): float(size) for vm, size in enumerate(given[sizes])}, 0.0)
        solver.add_container_dimension(name, {str(n): float(max(0, room)) for n, room in enumerate(given[rooms])}, 0.0)
        solver.add_constraint({"capacitySpec": {"name": name, "scope": "node", "dimension": name}})
    _places(solver, given)
    for number, scope in enumerate(given["scopes"]):
        _groups(solver, f"scope{number}", scope)
    fewest = {"name": "moves", "scope": "node", "dimension": "vm_count", "doNotNormalize": True}
    solver.add_goal({"minimizeMovementSpec": fewest}, 1.0, 1)
    moves = [MOVE_TYPES[name] for name in given["move_types"]]
    search = {"moveTypeList": moves, "solveTime": int(given["seconds"])}
    solver.add_solver({"localSearchSolverSpec": search})
    return solver


def _places(solver: ProblemSolver, given: dict[str, Any]) -> None:
    """Where VMs may not go."""
    closed = {"name": "closed", "scope": "node", "items": [str(node) for node in given["closed"]]}
    if given["closed"]:
        solver.add_constraint({"nonAcceptingSpec": closed})
    if given["pinned"]:
        pinned = {"name": "pinned", "objects": [str(vm) for vm in given["pinned"]]}
        solver.add_constraint({"avoidMovingSpec": pinned})
    avoided = [
        {"object": str(vm), "scopeItems": [str(node) for node in given["forbidden"][str(kind)] if node != home]}
        for vm, (kind, home) in enumerate(zip(given["kind"], given["home"], strict=True))
        if given["forbidden"].get(str(kind))
    ]
    for vm, home in given["misplaced"]:
        avoided.append({"object": str(vm), "scopeItems": [str(home)]})
    if avoided:
        solver.add_constraint({"avoidAssignmentsSpec": {"name": "places", "scope": "node", "assignments": avoided}})


def _groups(solver: ProblemSolver, name: str, scope: dict[str, Any]) -> None:
    """One partition of VMs into groups, counted per node or per zone."""
    where = "node"
    if scope["domains"] is not None:
        where = name
        solver.add_scope(name, {str(node): f"{name}-{domain}" for node, domain in enumerate(scope["domains"])})
    partition = f"{name} groups"
    members = {str(number): [str(vm) for vm in group["members"]] for number, group in enumerate(scope["groups"])}
    solver.add_partition(partition, members)
    for bound, kind in (("most", MAX), ("least", MIN)):
        limits = {str(number): float(group[bound]) for number, group in enumerate(scope["groups"])}
        if not any(limits.values()):
            continue
        spec = {
            "name": f"{name} {bound}",
            "scope": where,
            "partitionName": partition,
            "bound": kind,
            "limit": {"type": ABSOLUTE, "groupLimits": limits},
        }
        solver.add_constraint({"groupCountSpec": spec})


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    resource.setrlimit(resource.RLIMIT_AS, (given["memory_limit_mib"] * 2**20,) * 2)
    started, used = time.perf_counter(), time.process_time()
    solver = problem(given)
    built = time.perf_counter() - started
    solution = solver.solve()
    steps = [
        [(int(move["object"]), int(move["dstContainer"])) for move in entry["moves"]]
        for entry in solution["movesSummary"]
    ]
    answer = {
        "at": [int(solution["assignment"][str(vm)]) for vm in range(len(given["home"]))],
        "steps": steps,
        "seconds": time.perf_counter() - started,
        "built_seconds": built,
        "cpu_seconds": time.process_time() - used,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "end": str(solution["solverSummaries"][0]["endReason"]),
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
