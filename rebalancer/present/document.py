"""A plan as JSON: the form that programs read. Its shape is `plan.schema.json` beside this file; it only ever grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rebalancer.domain.plan import Left, Move, NodeLoad, Plan, State
from rebalancer.domain.verdict import Hotspot, Trigger, Violation
from rebalancer.present.manifests import Names
from rebalancer.present.words import moment

SCHEMA = "rebalancer.plan/v1"

Json = dict[str, Any]


def dumps(document: Mapping[str, Any]) -> str:
    """Any document of ours as text: keys in the order that reads best, indented, one line end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def document(plan: Plan, names: Names) -> Json:
    """The plan as plain dicts, lists, strings and numbers. Percentages have two decimals, times are RFC 3339 in UTC.

    `names` are those of the migrations (manifests.migration_names); a VM's is "" where they do not know it.
    """
    return {
        "schema": SCHEMA,
        "id": plan.id,
        "created": moment(plan.created),
        "snapshot": {
            "resourceVersion": plan.resource_version,
            "nodes": len(plan.before.nodes),
            "vmis": sum(load.vmis for load in plan.before.nodes.values()),
        },
        "settings": dict(plan.settings),
        "triggers": [_trigger(trigger) for trigger in plan.triggers],
        "waves": [{"moves": [_move(move, names) for move in wave.moves]} for wave in plan.waves],
        "before": state(plan.before),
        "after": state(plan.after),
        "left": [_left(left) for left in plan.left],
        "bound": {
            "moves": plan.bound.moves,
            "cost": plan.bound.cost,
            "gap": round(plan.bound.gap, 4),
            "proven": plan.bound.proven,
        },
        "solver": {
            "status": plan.solver.status,
            "seconds": round(plan.solver.seconds, 3),
            "stages": [
                {"name": stage.name, "value": stage.value, "bound": stage.bound, "seconds": round(stage.seconds, 3)}
                for stage in plan.solver.stages
            ],
        },
        "warnings": list(plan.warnings),
    }


def _move(move: Move, names: Names) -> Json:
    return {
        "vmi": move.vmi,
        "source": move.source,
        "target": move.target,
        "cost": move.cost,
        "reasons": list(move.reasons),
        "migration": names.get((move.vmi, move.source), ""),
        "memoryBytes": move.memory_bytes,
        "seconds": round(move.seconds, 1),
        "hop": move.hop,
    }


def state(shown: State) -> Json:
    """A state of the cluster, as a plan's before and after."""
    return {
        "hotspots": [_hotspot(hotspot) for hotspot in shown.hotspots],
        "violations": [_violation(violation) for violation in shown.violations],
        "nodes": {name: _load(load) for name, load in sorted(shown.nodes.items())},
    }


def _load(load: NodeLoad) -> Json:
    return {
        "cpu": round(load.cpu, 2),
        "memory": round(load.memory, 2),
        "cpuHigh": load.cpu_high,
        "memoryHigh": load.memory_high,
        "vmis": load.vmis,
    }


def _hotspot(hotspot: Hotspot) -> Json:
    return {
        "node": hotspot.node,
        "resource": hotspot.resource,
        "percent": round(hotspot.percent, 2),
        "threshold": hotspot.high,
        "low": hotspot.low,
    }


def _violation(violation: Violation) -> Json:
    return {
        "type": violation.kind,
        "rule": violation.rule,
        "vmis": [violation.vmi],
        "node": violation.node,
        "degree": violation.degree,
        "witnesses": list(violation.witnesses),
        "message": violation.message,
    }


def _trigger(trigger: Trigger) -> Json:
    if trigger.hotspot is not None:
        return {"kind": "Hotspot", **_hotspot(trigger.hotspot), "message": trigger.message}
    assert trigger.violation is not None, "a trigger is a hotspot or a violation"
    violation = _violation(trigger.violation)
    return {"kind": "RuleViolation", **violation, "message": trigger.message or violation["message"]}


def _left(left: Left) -> Json:
    return {"trigger": _trigger(left.trigger), "why": list(left.why)}
