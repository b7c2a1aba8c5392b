"""How long a decision stands that is not carried out."""

from __future__ import annotations

from builders import move, wave

from rebalancer.control.progress import PATIENCE_CAP_SECONDS, PATIENCE_SECONDS, Decision
from rebalancer.domain.plan import Bound, Plan, Solver, State, Wave


def plan(*waves: Wave) -> Plan:
    return Plan(
        id="p", created=0.0, resource_version="1", triggers=(), waves=waves, before=State(), after=State(), left=(),
        bound=Bound(moves=0, cost=0, gap=0.0, proven=True), solver=Solver(status="", seconds=0.0),
    )  # fmt: skip


def test_what_nothing_can_be_done_about_is_thought_over_ever_less_often() -> None:
    decision, now, waits = None, 0.0, []
    for number in range(6):
        decision = Decision.of(plan(), f"cluster {number}", "w-0 is hot", now, decision)
        waits.append(decision.until - now)
        assert decision.stands("another cluster", "w-0 is hot", decision.until - 1)
        assert not decision.stands("another cluster", "w-0 is hot", decision.until)
        assert decision.stands(f"cluster {number}", "w-0 is hot", decision.until + 9999), "nothing has changed at all"
        assert not decision.stands("another cluster", "w-1 is hot, too", now + 1), "a new reason is looked at at once"
        now = decision.until
    assert waits == [PATIENCE_SECONDS * 2**number for number in range(4)] + [PATIENCE_CAP_SECONDS] * 2
    other = Decision.of(plan(), "a cluster", "w-1 is hot", now, decision)
    assert other.until == now + PATIENCE_SECONDS


def test_a_plan_stands_only_for_the_cluster_that_it_was_made_for() -> None:
    decision = Decision.of(plan(wave(move("a", "n1", "n2"))), "cluster", "w-0 is hot", 0.0, None)
    assert decision.stands("cluster", "w-0 is hot", 1e6)
    assert not decision.stands("another cluster", "w-0 is hot", 0.0)
