"""Rules between items as pairs: what may be, and what may not, whichever way the search takes."""

from __future__ import annotations

import pytest
from placement.worlds import Item, World

from rebalancer.placement.groups import NOWHERE
from rebalancer.placement.solve import solve
from rebalancer.placement.stop import Stop

HOSTS, ZONES = [0, 1, 2], [0, 0, 1]


def pressed(**rules: object) -> World:
    """Node 0 is too full by one item of two; nodes 1 and 2 have room, and one small item each."""
    items = [
        Item(home=0, cpu=50),
        Item(home=0, cpu=45, movable=False),
        Item(home=1, cpu=5, movable=False),
        Item(home=2, cpu=5, movable=False),
    ]
    return World(nodes=3, items=items, **rules)  # type: ignore[arg-type]  # rules are fields of World


@pytest.mark.parametrize(
    ("rules", "targets"),
    [
        pytest.param({}, {1, 2}, id="no rule"),
        pytest.param({"apart": [([0, 2], HOSTS)]}, {2}, id="apart by host"),
        pytest.param({"apart": [([0, 2, 3], HOSTS)]}, {0}, id="apart by host, everywhere"),
        pytest.param({"apart": [([0], ZONES)]}, {2}, id="apart by zone: its own source is in the zone"),
        pytest.param({"holders": [([0], [2], HOSTS)]}, {2}, id="it holds the rule"),
        pytest.param({"holders": [([2], [0], HOSTS)]}, {2}, id="the other holds the rule"),
        pytest.param({"holders": [([0], [1, 3], ZONES)]}, {0}, id="a foe in either zone"),
        pytest.param({"beside": [([0], [2], HOSTS)]}, {1}, id="beside a host's item"),
        pytest.param({"beside": [([0], [3], ZONES)]}, {2}, id="beside a zone's item"),
        pytest.param({"beside": [([1], [0], ZONES)]}, {1}, id="another needs it in the zone"),
        pytest.param({"beside": [([1], [0], HOSTS)]}, {0}, id="another needs it on the host"),
        pytest.param({"spread": [([0, 2], [0, 2], ZONES, 1)]}, {2}, id="the zone has its share"),
        pytest.param({"spread": [([0, 3], [0, 3], ZONES, 1)]}, {1}, id="the other zone would have two"),
        pytest.param({"spread": [([0], [0], [0, 1, NOWHERE], 1)]}, {1}, id="a node without the key takes none"),
    ],
)
def test_where_an_item_may_go(rules: dict[str, object], targets: set[int]) -> None:
    assert int(solve(pressed(**rules).problem(), Stop(5.0)).at[0]) in targets


@pytest.mark.parametrize(
    ("rules", "first", "left"),
    [
        ({"apart": [([0, 1, 2], HOSTS)]}, 6, 0),
        ({"apart": [([0, 1, 2, 3], HOSTS)]}, 12, 2),
        ({"holders": [([0], [1, 2], HOSTS)]}, 4, 0),
        ({"beside": [([0], [4], HOSTS)]}, 1, 0),
        ({"spread": [([0, 1, 2, 3], [0, 1, 2, 3], ZONES, 1)]}, 12, 0),
    ],
    ids=["apart", "more than hosts", "one against two", "beside", "spread"],
)
def test_what_is_broken_is_cured_as_far_as_can_be(rules: dict[str, object], first: int, left: int) -> None:
    items = [Item(home=0, cpu=5), Item(home=0, cpu=5), Item(home=0, cpu=5), Item(home=0, cpu=5, movable=False)]
    world = World(nodes=3, items=[*items, Item(home=2, cpu=5, movable=False)], **rules)  # type: ignore[arg-type]
    solution = solve(world.problem(), Stop(5.0))
    assert (solution.first.violations, solution.values.violations) == (first, left)
    assert solution.proven
