"""Alerts and dashboard: promtool's own judgement, names that exist, and data from a daemon at work."""

from __future__ import annotations

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

from rebalancer.domain.plan import Bound, Plan, Solver, State
from rebalancer.domain.report import Report, Sentence
from rebalancer.present.metrics import Metrics

RECORDS = {rule["record"] for rule in rules() if "record" in rule}


def exposed() -> set[str]:
    """The names of all metrics that /metrics can have."""
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
        solver=Solver(status="OPTIMAL", seconds=0.0),
    )
    metrics = Metrics()
    sentence = Sentence(kind="Balanced", text="Balanced")
    metrics.observe(Report(cycle=1, time=1.0, mode="dry-run", sentence=sentence, plan=plan))
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def test_every_expression_is_about_metrics_that_there_are() -> None:
    asked = [*expressions(), *(rule["expr"] for rule in rules())]
    assert [text for text in asked if not names(text) and not any(record in text for record in RECORDS)] == []
    assert set().union(*map(names, asked)) - exposed() == set()


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = set().union(*map(names, [*expressions(), *(rule["expr"] for rule in rules())]))
    ours = {name for name in exposed() if name.startswith("rebalancer_")}
    assert ours - asked == {"rebalancer_plan_created_timestamp_seconds", "rebalancer_plan_expected_seconds"}


def test_every_metric_and_alert_is_explained() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [
        name for name in sorted(exposed()) if name.startswith("rebalancer_") and f"`{name}`" not in operations
    ] == []
    runbooks = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    for rule in rules():
        if "alert" in rule:
            assert f"## {rule['alert']}\n" in runbooks, rule["alert"]
            assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


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
    with at_work() as target, prometheus(tmp_path, target) as found:
        while empty and time.time() < begun + PATIENCE_SECONDS:
            time.sleep(2.0)
            now = time.time()
            empty = [expression for expression in empty if not found.points(expression, since=begun, until=now)]
        loaded = found.ask("/api/v1/rules")["groups"][0]["rules"]
    assert empty == []
    assert [rule["name"] for rule in loaded if rule["health"] != "ok"] == []
    assert len(loaded) == len(rules())
