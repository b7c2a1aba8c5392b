"""Plans of small clusters, and what every one of them must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.planning.decide import decide
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.triggers import TriggerMemory, find
from rebalancer.policy.verify import verify

AT_ONCE = PolicyParams(hold_seconds=0)
NO_HYSTERESIS = PolicyParams(hold_seconds=0, thresholds=Thresholds(cpu_high=80, cpu_low=80))


def planned(
    snapshot: Snapshot,
    policy: PolicyParams = AT_ONCE,
    *,
    immovable: Mapping[str, str] | None = None,
    **fields: Any,
) -> Plan:
    """The plan of a snapshot for all of its triggers, which has passed the judge and whose values are the judge's.

    `fields` are further ones of PlanningParams.
    """
    triggers, _ = find(snapshot, policy, TriggerMemory(), snapshot.taken)
    params = PlanningParams(policy=policy, **fields)
    plan = decide(snapshot, triggers, params, now=snapshot.taken, immovable=immovable)
    assert verify(snapshot, plan, policy, immovable=immovable) == ()
    assert not [warning for warning in plan.warnings if "judge" in warning or "cut short" in warning], plan.warnings
    return plan


def moves(plan: Plan) -> list[str]:
    """ "vmi source>target" of each move, in order."""
    return [f"{move.vmi.removeprefix('default/')} {move.source}>{move.target}" for move in plan.moves]
