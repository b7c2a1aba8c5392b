"""Broken things do not block: what cannot be cured leaves the plan for the rest as good as it is without it."""

from __future__ import annotations

import pytest
from builders import cluster, node, vmi
from hypothesis import given, settings
from hypothesis import strategies as st
from planning.plans import planned
from planning.test_decide import random_cluster

from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot

TWIN = {"app": "twin"}
HOPELESS = {
    "one VM that cannot move": (
        node("full", cpu=10, cordoned=True),
        vmi("hopeless/pinned", on="full", cpu=9, migratable=False),
    ),
    "one node over capacity": (
        node("full", cpu=10, cordoned=True),
        vmi("hopeless/ignored", on="full", cpu=11, annotations={"kubevirt-rebalancer.io/policy": "ignore"}),
        vmi("hopeless/grown", on="full", cpu=2, spec={"cpu_requests_milli": 400_000}),
    ),
    "one impossible rule": (
        node("full", cpu=10, cordoned=True),
        *(vmi(f"hopeless/t{i}", on="full", cpu=1, labels=TWIN, apart_from=TWIN, migratable=False) for i in range(2)),
        vmi("hopeless/nowhere", on="full", cpu=1, select={"tier": "platinum"}),
    ),
}
"""What nobody can cure, on a node of its own that takes nothing in."""


def beside(snapshot: Snapshot, *objects: object) -> Snapshot:
    return cluster(*snapshot.nodes.values(), *snapshot.pods.values(), *snapshot.vmis.values(), *objects)


def reached(plan: Plan) -> tuple[float, ...]:
    """What a plan leaves and costs, without what is hopeless: broken rules, load above high, above low, cost."""
    ours = {name: load.cpu for name, load in plan.after.nodes.items() if name != "full"}
    hot = {t.hotspot.node for t in plan.triggers if t.hotspot is not None}
    return (
        sum(violation.degree for violation in plan.after.violations if not violation.vmi.startswith("hopeless/")),
        round(sum(max(0.0, cpu - 80) for cpu in ours.values()), 3),
        round(sum(max(0.0, cpu - 75) for name, cpu in ours.items() if name in hot), 3),
        sum(move.cost for move in plan.moves),
    )


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_the_rest_is_cured_as_if_nothing_else_were_wrong(seed: int) -> None:
    snapshot = random_cluster(seed)
    without = planned(snapshot)
    for name, objects in HOPELESS.items():
        plan = planned(beside(snapshot, *objects))
        assert reached(plan) <= reached(without), name
        hopeless = [left for left in plan.left if "full" in left.trigger.message or "hopeless" in left.trigger.message]
        assert hopeless, name
        assert all(left.why for left in plan.left)
        assert len(plan.triggers) > len(without.triggers)
