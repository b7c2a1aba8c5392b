"""One plan in three forms: text for people, JSON for programs, manifests for kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.node import HOSTNAME, Node
from rebalancer.domain.plan import Bound, NodeLoad, Plan, State
from rebalancer.domain.snapshot import Snapshot
from rebalancer.present.document import document, dumps
from rebalancer.present.manifests import manifests, migration_names
from rebalancer.present.text import summary, text

Golden = Callable[[str, str], None]
SNAPSHOT = Snapshot(
    nodes=FrozenMap({"w-02": Node(name="w-02", labels=FrozenMap({HOSTNAME: "w-02.example"}))}), resource_version="4711"
)


@pytest.mark.parametrize("width", [100, 60])
def test_text(plan: Plan, golden: Golden, width: int) -> None:
    shown = text(plan, width=width)
    golden(f"plan-{width}.txt", shown)
    assert max(map(len, shown.splitlines())) <= width


def test_json(plan: Plan, golden: Golden) -> None:
    golden("plan.json", dumps(document(plan, migration_names(plan, SNAPSHOT))))


def test_yaml(plan: Plan, golden: Golden) -> None:
    golden("plan.yaml", manifests(plan, SNAPSHOT))


def test_colour_is_only_there_when_asked_for(plan: Plan) -> None:
    assert "\x1b" not in text(plan)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text(plan, colour=True)).split() == text(plan).split()


def schema() -> Any:
    return json.loads(files("rebalancer.present").joinpath("plan.schema.json").read_text(encoding="utf-8"))


def test_json_is_what_the_schema_says(plan: Plan) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker())
    validator.validate(document(plan, migration_names(plan, SNAPSHOT)))
    validator.validate(document(replace(plan, waves=(), triggers=(), left=()), {}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "rebalancer.plan/v2"),
        (("waves", 0, "moves"), []),
        (("waves", 0, "moves", 0, "vmi"), "no-namespace"),
        (("waves", 0, "moves", 0, "migration"), "Not a name"),
        (("triggers", 0, "resource"), "disk"),
        (("triggers", 1, "vmis"), []),
        (("bound", "gap"), 1.5),
        (("before", "nodes", "w-00", "cpu"), "98 %"),
        (("left", 0, "why"), "a reason"),
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_no_plan(plan: Plan, path: tuple[str | int, ...], value: object) -> None:
    broken: Any = document(plan, migration_names(plan, SNAPSHOT))
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def test_manifests_are_directed_migrations_in_the_order_of_the_waves(plan: Plan) -> None:
    made = [item for item in yaml.safe_load_all(manifests(plan, SNAPSHOT)) if item]
    assert [(item["metadata"]["namespace"], item["spec"]["vmiName"]) for item in made] == [
        tuple(move.vmi.split("/")) for move in plan.moves
    ]
    assert [item["spec"]["addedNodeSelector"][HOSTNAME] for item in made] == ["w-01", "w-02.example", "w-02.example"]
    assert len({item["metadata"]["name"] for item in made}) == len(made)
    second = [item for item in yaml.safe_load_all(manifests(plan, SNAPSHOT, wave=2)) if item]
    assert second == made[1:]


def test_names_from_the_cluster_cannot_leave_their_comment(plan: Plan) -> None:
    wave = plan.waves[0]
    sly = replace(wave.moves[0], reasons=("harmless\n---\nkind: Secret",))
    made = manifests(replace(plan, waves=(replace(wave, moves=(sly,)),)), SNAPSHOT)
    assert {item["kind"] for item in yaml.safe_load_all(made) if item} == {"VirtualMachineInstanceMigration"}


def test_markup_in_names_is_shown_as_it_is(plan: Plan) -> None:
    assert "[bold]odd[/bold] :smile:" in text(replace(plan, warnings=("[bold]odd[/bold] :smile:",)))


def test_a_plan_without_moves_says_whether_all_is_well(plan: Plan) -> None:
    idle = replace(plan, waves=(), after=plan.before)
    assert summary(idle) == "Nothing to do: 1 thing cannot be cured, and no move would make it better."
    well = replace(idle, left=(), triggers=(), before=State(), after=State())
    assert summary(well) == "Nothing to do: no node is above its threshold and no rule is broken."
    assert list(yaml.safe_load_all(manifests(well, SNAPSHOT))) == [None] or manifests(well, SNAPSHOT).startswith("#")


def test_a_proven_plan_says_so(plan: Plan) -> None:
    proven = replace(plan, bound=Bound(moves=3, cost=3010, gap=0.0, proven=True))
    assert "proven: no plan that cures as much costs less" in text(proven)


def test_of_very_many_nodes_only_those_that_matter_are_shown(plan: Plan) -> None:
    steady = NodeLoad(cpu=50, memory=50, cpu_high=80, memory_high=90, vmis=3)
    many = FrozenMap({**{f"n-{number:04}": steady for number in range(5000)}, **plan.before.nodes})
    after = FrozenMap({**many, **plan.after.nodes})
    shown = text(replace(plan, before=replace(plan.before, nodes=many), after=replace(plan.after, nodes=after)))
    assert "n-0000" not in shown
    assert "and 5001 nodes more that the plan leaves as they are" in shown
