"""Alerts and dashboard: promtool's own judgement, names that exist, and data from a daemon at work."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from deployed.monitoring import (
    ALERTS,
    FOLDER,
    PATIENCE_SECONDS,
    ROOT,
    at_work,
    expressions,
    names,
    prometheus,
    promtool,
    rules,
)
from prometheus_client.parser import text_string_to_metric_families

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Bound, NodeLoad, Plan, Solver, Stage, State
from rebalancer.domain.report import Held, Report, Sentence
from rebalancer.domain.snapshot import SetAside
from rebalancer.present.endings import REASONS
from rebalancer.present.metrics import Metrics

RECORDS = {rule["record"] for rule in rules() if "record" in rule}


def families() -> dict[str, tuple[str, ...]]:
    """All metrics that /metrics can have, and their labels."""
    plan = Plan(
        id="a",
        created=1.0,
        resource_version="1",
        triggers=(),
        waves=(),
        before=State(),
        after=State(),
        left=(),
        bound=Bound(moves=0, cost=0, gap=0.0, proven=True),
        solver=Solver(status="OPTIMAL", seconds=0.0, stages=(Stage(name="a", value=0, bound=0, seconds=0.0),)),
    )
    metrics = Metrics(requests=lambda: {("GET", "200"): 1})
    load = NodeLoad(cpu=1.0, memory=1.0, cpu_high=80.0, memory_high=90.0, vmis=1)
    report = Report(
        cycle=1,
        time=1.0,
        mode="dry-run",
        sentence=Sentence(kind="Balanced", text="Balanced"),
        plan=plan,
        state=State(nodes=FrozenMap({"w-0": load})),
        held=(Held(vmi="a/b", reason="PerHour", message="so"),),
        set_aside=(SetAside(kind="Pod", name="a/b", reason="so"),),
    )
    metrics.observe(report)
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: tuple(sorted(family.samples[0].labels))
        for family in text_string_to_metric_families(metrics.exposition().decode())
    }


def exposed() -> set[str]:
    """Their names."""
    return set(families())


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the operations document."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    part = re.split(r"^#{2,3} ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line[1:].split("|")] for line in lines[2:]]


def words(cell: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in cell.split(",") if word.strip())


def test_every_expression_is_about_metrics_that_there_are() -> None:
    asked = [*expressions(), *(rule["expr"] for rule in rules())]
    assert [text for text in asked if not names(text) and not any(record in text for record in RECORDS)] == []
    assert set().union(*map(names, asked)) - exposed() == set()


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = set().union(*map(names, [*expressions(), *(rule["expr"] for rule in rules())]))
    ours = {name for name in exposed() if name.startswith("rebalancer_")}
    assert ours - asked == {"rebalancer_plan_created_timestamp_seconds", "rebalancer_plan_expected_seconds"}


def test_the_documents_tell_every_metric_with_its_labels_and_no_other() -> None:
    told = {row[0]: tuple(sorted(words(row[1]))) for row in rows("Metrics")}
    assert told == {name: labels for name, labels in families().items() if name.startswith("rebalancer_")}
    assert {row[0]: words(row[1]) for row in rows("Why a move ended")} == dict(REASONS)


def test_the_documents_tell_every_alert_and_no_other() -> None:
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    assert sorted(row[0] for row in rows("Alerts")) == sorted(names)
    runbooks = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (\w+)$", runbooks, re.MULTILINE)) == sorted(names)
    values = yaml.safe_load((ROOT / "deploy" / "chart" / "values.yaml").read_text(encoding="utf-8"))
    base = values["metrics"]["prometheusRule"]["runbookBaseUrl"]
    found = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules() if "alert" in rule}
    assert found == {name: f"{base}/runbooks.md#{name.lower()}" for name in names}


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", "--lint-fatal", ALERTS.name)


def test_every_alert_fires_and_clears() -> None:
    promtool("test", "rules", "alerts_test.yaml")
    cases = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    for name in [rule["alert"] for rule in rules() if "alert" in rule]:
        told = [
            [bool(check["exp_alerts"]) for check in case["alert_rule_test"] if check["alertname"] == name]
            for case in cases
        ]
        assert [False, True, False] in told, name


@pytest.mark.slow
def test_every_panel_shows_data_of_a_daemon_at_work(tmp_path: Path) -> None:
    begun = time.time()
    empty = expressions()
    with at_work() as target, prometheus(tmp_path, {"rebalancer": target}) as found:
        while empty and time.time() < begun + PATIENCE_SECONDS:
            time.sleep(2.0)
            now = time.time()
            empty = [expression for expression in empty if not found.points(expression, since=begun, until=now)]
        loaded = found.ask("/api/v1/rules")["groups"][0]["rules"]
    assert empty == []
    assert [rule["name"] for rule in loaded if rule["health"] != "ok"] == []
    assert len(loaded) == len(rules())
