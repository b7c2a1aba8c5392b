"""A plan as one HTML file that needs no server: to be sent to a colleague."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Report, Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.load import PolicyParams
from rebalancer.present import api, explain
from rebalancer.present.page.render import page
from rebalancer.present.picture import Picture
from rebalancer.present.text import summary

EXPLAINED = 40_000
"""How many VMs are explained, times the cluster's nodes and VMs: about two seconds of work."""


def standalone(
    plan: Plan, snapshot: Snapshot, policy: PolicyParams, settings: tuple[Mapping[str, str], ...] = ()
) -> str:
    """The page of a plan with everything in it: style, scripts, the cluster, and why its VMs are where they are.

    In a large cluster only some VMs are explained, those that move and those that the plan has to leave first.
    """
    sentence = Sentence(kind="Balanced" if not plan.triggers else "Planned", text=summary(plan))
    report = Report(
        cycle=0,
        time=plan.created,
        mode="",
        sentence=sentence,
        leader=True,
        synced=True,
        state=plan.before,
        triggers=plan.triggers,
        plan=plan,
        set_aside=snapshot.set_aside,
    )
    picture = Picture(report=report, snapshot=snapshot, policy=policy, settings=settings)
    most = EXPLAINED // (len(snapshot.nodes) + len(snapshot.vmis) + 1)
    keys = islice(dict.fromkeys(key for key in _interesting(plan, snapshot) if key in snapshot.vmis), most)
    documents: dict[str, Any] = {
        "cluster": api.cluster(picture),
        "plan": api.plan(picture),
        "explanations": {key: explain.document(explain.explain(snapshot, key, policy)) for key in keys},
    }
    return page(picture, embedded=documents)


def _interesting(plan: Plan, snapshot: Snapshot) -> Iterator[str]:
    yield from (move.vmi for move in plan.moves)
    yield from (left.trigger.violation.vmi for left in plan.left if left.trigger.violation is not None)
    yield from snapshot.vmis
