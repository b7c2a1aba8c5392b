"""Rules that no plan can keep are told, and everything else is cured as if they were not there."""

from __future__ import annotations

from typing import Any

import pytest
from builders import ZONE, cluster, launcher, node, resources, spread, term, vmi
from planning.plans import planned

from rebalancer.domain.plan import Plan
from rebalancer.domain.pod import Affinity, PodSpec

ODD = {"app": "odd"}
CLUSTER = (
    node("n1", cpu=20, zone="a"),
    node("n2", cpu=20, zone="b"),
    node("n3", cpu=20, zone="a", labels={"tier": "gold"}),
    *(vmi(f"load-{number}", on="n1", cpu=4) for number in range(4)),
    vmi("left", on="n1", cpu=1, labels={"app": "db"}, apart_from={"app": "db"}),
    vmi("right", on="n1", cpu=1, labels={"app": "db"}, apart_from={"app": "db"}),
    vmi("gold", on="n2", cpu=1, select={"tier": "gold"}),
)
"""A hotspot, two VMs that must part, and one on the wrong node: all curable."""

BOTH = Affinity(pod_required=(term(ODD, ZONE),), anti_required=(term(ODD, ZONE),))
EVERYWHERE = {"n1", "n2", "n3"}


def odd(number: int, **fields: Any) -> list[Any]:
    return [vmi(f"odd-{one}", on="n2", cpu=0.1, labels=ODD, **fields) for one in range(number)]


GROWN = vmi("odd-0", on="n2", spec={"cpu_requests_milli": 90_000}, migratable=False)
"""Its spec was changed after its pod was made, and will hold for the next one."""

CONFLICTS = {
    "TooFewDomains": odd(4, apart_from=ODD),
    "NoNodeMatches": odd(1, select={"tier": "platinum"}),
    "AffinityAgainstAntiAffinity": odd(2, affinity=BOTH),
    "AffinityToNobody": odd(1, close_to={"app": "nobody"}),
    "SpreadCannotHold": odd(3, spread_by=(spread(ODD, topology_key="rack"),)),
    "TooBig": [GROWN, launcher(GROWN, spec=PodSpec(requests=resources(0.1)))],
}


def cured(plan: Plan) -> set[str]:
    """The triggers of others that a plan leaves nothing of."""
    left = {one.trigger.message for one in plan.left}
    return {t.message for t in plan.triggers if t.message not in left and "odd" not in t.message}


@pytest.mark.parametrize("kind", CONFLICTS)
def test_a_conflict_is_told_and_does_not_block_the_rest(kind: str) -> None:
    without = planned(cluster(*CLUSTER))
    assert len(cured(without)) == 4, "the hotspot, either of the pair, and the misplaced one"
    plan = planned(cluster(*CLUSTER, *CONFLICTS[kind]))
    assert cured(plan) == cured(without)
    told = [warning for warning in plan.warnings if "odd-0" in warning]
    assert len(told) == 1, plan.warnings
    for left in plan.left:
        assert left.why[0] == told[0], "the reason why it stays broken comes first"
    assert without.left == ()
    assert without.warnings == ()
