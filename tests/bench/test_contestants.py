"""What each of the bench's contestants makes of clusters small enough to know the answer."""

from __future__ import annotations

import pytest

from bench.peers import environment
from bench.peers.contestants import CONTESTANTS, THRESHOLDS, Answer, Case
from bench.peers.instances import chain, faulty, one_large_or_three_small
from bench.peers.judge import Verdict, judge
from bench.peers.numbers import numbers
from bench.peers.table import Result, findings_of
from rebalancer.domain.snapshot import Snapshot

OURS, LOW, DEVIATION, FIRST_FIT, PROGRAM, META = CONTESTANTS
elsewhere = pytest.mark.skipif(
    not environment.made(), reason="the peers' environment is not made; `python -m bench.peers` makes it"
)


def solved(who: object, snapshot: Snapshot) -> tuple[Verdict, Answer]:
    case = Case(snapshot=snapshot, numbers=numbers(snapshot, THRESHOLDS), seconds=10)
    assert who in CONTESTANTS
    answer = next(one for one in CONTESTANTS if one is who).solve(case)
    assert not answer.failed
    return judge(case.numbers, answer.waves), answer


@pytest.mark.parametrize("who", [OURS, FIRST_FIT], ids=lambda one: one.name)
def test_one_move_is_enough_where_three_small_ones_would_do(who: object) -> None:
    verdict, _ = solved(who, one_large_or_three_small())
    assert (verdict.moves, verdict.hot, verdict.unfit) == (1, 0, 0)


def test_a_chain_is_beyond_first_fit_but_not_beyond_ours() -> None:
    verdict, answer = solved(OURS, chain())
    assert (verdict.moves, verdict.hot, verdict.unfit, answer.proven) == (2, 0, 0, True)
    verdict, _ = solved(FIRST_FIT, chain())
    assert (verdict.moves, verdict.hot) == (0, 1)


def test_evictions_without_end_are_stopped_and_told() -> None:
    """The one VM that fits on the colder node makes that the hot one: back and forth, cycle after cycle."""
    verdict, answer = solved(LOW, chain())
    assert verdict.hot == 1
    assert verdict.moves == 24
    assert "still at it" in answer.note


def test_the_model_of_the_descheduler_cures_hotspots_with_more_moves_and_no_rules() -> None:
    snapshot = faulty(30, 3, 2)
    ours, _ = solved(OURS, snapshot)
    low, _ = solved(LOW, snapshot)
    deviation, _ = solved(DEVIATION, snapshot)
    assert (ours.hot, ours.broken, ours.unfit) == (0, 0, 0)
    assert (low.hot, low.broken) == (0, 2)
    assert ours.moves < low.moves < deviation.moves
    assert low.unfit == deviation.unfit == 0, "the default scheduler sees both sides reserved"


@pytest.mark.parametrize(("nodes", "hot", "pairs"), [(20, 2, 1), (40, 0, 3), (40, 5, 0)])
def test_a_made_cluster_has_exactly_the_ills_that_were_asked_for(nodes: int, hot: int, pairs: int) -> None:
    given = numbers(faulty(nodes, hot, pairs), THRESHOLDS)
    found = judge(given, ())
    assert (found.hot, found.broken) == (hot, pairs)


@elsewhere
@pytest.mark.slow
@pytest.mark.parametrize("who", [PROGRAM, META], ids=lambda one: one.name)
def test_other_peoples_solvers_answer_in_our_terms(who: object) -> None:
    verdict, answer = solved(who, one_large_or_three_small())
    assert (verdict.moves, verdict.hot) == (1, 0)
    verdict, answer = solved(who, faulty(12, 2, 1))
    ours, _ = solved(OURS, faulty(12, 2, 1))
    assert (verdict.hot, verdict.broken) == (0, 0)
    assert verdict.moves >= ours.moves
    if who is PROGRAM:
        assert answer.proven
        assert verdict.moves == ours.moves


def result(who: object, moves: int, *, hot: int = 0, seconds: float = 1.0, unfit: int = 0) -> Result:
    verdict = Verdict(moves=moves, hot=hot, broken=0, made_hot=0, newly_broken=0, waves=1, unfit=unfit)
    name = next(one.name for one in CONTESTANTS if one is who)
    answer = Answer(took=(seconds, seconds))
    return Result(instance="it", size=(1, 1), ills=(1, 0), who=name, answer=answer, verdict=verdict)


def test_the_table_says_where_a_peer_is_better() -> None:
    assert "**it: first fit is better**" in " ".join(findings_of([result(OURS, 5), result(FIRST_FIT, 4)]))
    assert "first fit is better" in " ".join(findings_of([result(OURS, 5, hot=1), result(FIRST_FIT, 9)]))
    for no in (result(FIRST_FIT, 5), result(FIRST_FIT, 4, hot=1), result(FIRST_FIT, 4, unfit=1)):
        assert "better" not in " ".join(findings_of([result(OURS, 5), no]))


def test_the_table_says_where_ours_takes_more_than_a_tenth_of_metas_time() -> None:
    slow = " ".join(findings_of([result(OURS, 5, seconds=0.2), result(META, 5, seconds=1.0)]))
    quick = " ".join(findings_of([result(OURS, 5, seconds=0.1), result(META, 5, seconds=1.0)]))
    assert "More than a tenth" in slow
    assert "At most a tenth" in quick
