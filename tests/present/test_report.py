"""One Report in three forms: log lines, Events, metrics. What has been said once is not said again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Held, Outcome, Report, Running, Sentence
from rebalancer.domain.snapshot import SetAside
from rebalancer.present import log
from rebalancer.present.events import MAX_NOTE, events
from rebalancer.present.metrics import Metrics

NOW = 1_795_000_000.0


@pytest.fixture
def report(plan: Plan) -> Report:
    """The cycle that has just made the plan."""
    return Report(
        cycle=7,
        time=NOW,
        mode="active",
        sentence=Sentence(kind="Planned", text=f"Plan {plan.id} has 3 moves"),
        leader=True,
        synced=True,
        state=plan.before,
        plan=plan,
        set_aside=(SetAside(kind="Pod", name="bank/odd", reason="memory is not a quantity"),),
        seconds=0.5,
    )


@pytest.fixture
def balanced() -> Report:
    """A cycle with nothing to do."""
    return Report(cycle=1, time=NOW, mode="active", sentence=Sentence(kind="Balanced", text="Balanced: 3 nodes"))


def ended(plan: Plan, result: str) -> Outcome:
    return Outcome(move=plan.moves[2], migration="rb-1", result=result, message="no route", finished=NOW)


def test_a_log_line_for_people(report: Report) -> None:
    assert log.lines(report, None) == (
        "2026-11-18T11:06:40Z WARNING Pod bank/odd is set aside: memory is not a quantity",
        "2026-11-18T11:06:40Z INFO    Plan 3f9a2c71 has 3 moves",
    )


def test_a_log_line_for_machines(report: Report) -> None:
    warning, sentence = map(json.loads, log.lines(report, None, as_json=True))
    assert warning == {
        "time": "2026-11-18T11:06:40Z",
        "level": "warning",
        "kind": "SetAside",
        "message": "Pod bank/odd is set aside: memory is not a quantity",
    }
    assert sentence["kind"] == "Planned"
    assert (sentence["plan"], sentence["hotspots"], sentence["violations"]) == ("3f9a2c71", 1, 2)


def test_a_steady_cluster_is_a_quiet_log(balanced: Report) -> None:
    later = replace(balanced, cycle=2, sentence=Sentence(kind="Balanced", text="Balanced: 4 nodes"))
    stuck = replace(balanced, cycle=3, sentence=Sentence(kind="Stuck", text="Stuck: nothing can be done"))
    assert log.lines(balanced, None)
    assert log.lines(later, balanced) == ()
    assert log.lines(stuck, later) == ("2026-11-18T11:06:40Z WARNING Stuck: nothing can be done",)
    assert log.lines(stuck, stuck) == ()


def test_waiting_is_said_again_only_when_something_else_is_the_matter(balanced: Report) -> None:
    def waiting(text: str) -> Report:
        return replace(balanced, sentence=Sentence(kind="NotSynced", text=f"Waiting: {text}"))

    story = (
        "nodes, pods and 7 more are not listed yet",
        "pods are not listed yet",
        "cannot list pods: not permitted; nodes are not listed yet",
        "cannot list pods: not permitted",
        "nothing heard of pods for 130 s",
        "nothing heard of pods for 145 s",
    )
    reports = [waiting(text) for text in story]
    told = [log.lines(now, before) for before, now in zip([None, *reports], reports, strict=False)]
    assert [len(lines) for lines in told] == [1, 0, 1, 0, 1, 0]


def test_a_dry_run_says_a_plan_again_when_it_does_something_else(report: Report, plan: Plan) -> None:
    def dry(identity: str, moves: int) -> Report:
        sentence = Sentence(kind="DryRun", text=f"Dry run, nothing is moved: plan {identity} has {moves} moves")
        return replace(report, plan=replace(plan, id=identity), sentence=sentence, set_aside=())

    assert log.lines(dry("3f9a2c71", 3), dry("77aa0e12", 3)) == ()
    assert len(log.lines(dry("3f9a2c71", 4), dry("77aa0e12", 3))) == 1


def test_what_has_been_started_runs_without_saying(report: Report) -> None:
    started, running = (
        replace(report, sentence=Sentence(kind=kind, text=f"Wave 1 of 2: {kind}")) for kind in ("Started", "Running")
    )
    assert log.lines(running, started) == ()
    assert len(log.lines(started, running)) == 1


def test_events_tell_what_is_new_and_only_once(report: Report, plan: Plan) -> None:
    told = [(event.kind, event.name, event.type, event.reason) for event in events(report)]
    assert told == [
        ("Node", "w-00", "Warning", "ReservedCPUAboveThreshold"),
        ("Deployment", "", "Normal", "Planned"),
        ("Deployment", "", "Warning", "ObjectsSetAside"),
    ]
    started = replace(report, started=plan.waves[1].moves, sentence=Sentence(kind="Started", text="Wave 2"))
    first, second = events(started, report)
    assert (first.namespace, first.name, first.reason) == ("bank", "db-1", "RebalancingStarted")
    assert second.note == "Migrating from w-00 to w-02 (plan 3f9a2c71): makes room"
    held = Held(vmi="web/front", reason="PerHour", message="30 of 30")
    waiting = replace(report, held=(held,))
    assert [event.reason for event in events(waiting, report)] == ["RebalancingHeld"]
    assert events(waiting, waiting) == ()


@pytest.mark.parametrize(
    ("result", "kind"), [("Succeeded", "Normal"), ("Withdrawn", "Normal"), ("Failed", "Warning"), ("Lost", "Warning")]
)
def test_how_a_migration_ended_is_an_event_on_its_vm(report: Report, plan: Plan, result: str, kind: str) -> None:
    done = replace(report, done=(replace(ended(plan, result), landed_on="w-01"),))
    (event,) = events(done, report)
    assert (event.type, event.reason) == (kind, f"Rebalancing{result}")
    assert event.note == f"{result}: migration rb-1 from w-00 to w-02, it landed on w-01: no route"
    assert events(replace(done, cycle=8), done) == ()


def test_a_note_is_never_longer_than_the_api_takes(report: Report) -> None:
    held = Held(vmi="web/front", reason="PerHour", message="x" * 5000)
    (event,) = events(replace(report, held=(held,)), report)
    assert len(event.note) == MAX_NOTE


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name.removeprefix("rebalancer_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_before_the_first_cycle() -> None:
    found = samples(Metrics())
    assert found["build_info", "0.1.0"] == 1
    assert found["cycles_total", "Balanced"] == 0
    assert found["migrations_ended_total", "Deadline", "Failed"] == 0
    assert found["process_resident_memory_bytes",] > 0
    assert ("leader",) not in found


def test_requests_are_counted_by_what_they_were_answered() -> None:
    found = samples(Metrics(requests=lambda: {("GET", "200"): 3, ("WATCH", "none"): 1}))
    assert (found["api_requests_total", "200", "GET"], found["api_requests_total", "none", "WATCH"]) == (3, 1)


def test_metrics_of_a_cycle(report: Report, plan: Plan) -> None:
    running = Running(vmi="a/b", migration="rb-2", phase="Running", source="w-00", target="w-01", started=NOW)
    metrics = Metrics()
    metrics.observe(
        replace(
            report,
            started=plan.waves[0].moves,
            running=(running, replace(running, vmi="a/c", ours=False)),
            held=(Held(vmi="web/front", reason="PerHour", message="30 of 30"),),
        )
    )
    found = samples(metrics)
    assert found["node_reserved_ratio", "w-00", "cpu"] == 0.9375
    assert found["node_threshold_ratio", "w-00", "memory"] == 0.9
    assert (found["hotspots", "cpu"], found["hotspots", "memory"]) == (1, 0)
    assert (found["rule_violations", "PodAntiAffinity"], found["rule_violations", "Taints"]) == (1, 0)
    assert (found["migrations_running", "ours"], found["migrations_running", "others"]) == (1, 1)
    assert found["held_moves", "PerHour"] == 1
    assert found["objects_set_aside", "Pod"] == 1
    assert (found["plan_moves", "waiting"], found["plan_moves", "running"]) == (2, 1)
    assert found["plan_bound_moves",] == 2
    assert found["solver_stage_seconds", "violations"] == 0.25
    assert (found["cycles_total", "Planned"], found["plans_total",]) == (1, 1)
    assert found["migrations_started_total",] == 1
    assert (found["cycle_sentence", "Planned"], found["cycle_sentence", "Stuck"]) == (1, 0)
    assert found["plan_created_timestamp_seconds",] == plan.created


def test_an_outcome_counts_once_however_long_it_is_reported(report: Report, plan: Plan) -> None:
    metrics = Metrics()
    one = replace(report, done=(ended(plan, "Succeeded"),))
    two = replace(one, done=(*one.done, replace(ended(plan, "Failed"), migration="rb-2")))
    for cycle in (report, one, one, two, two):
        metrics.observe(cycle)
    found = samples(metrics)
    assert found["migrations_ended_total", "Landed", "Succeeded"] == 1
    assert found["migrations_ended_total", "Other", "Failed"] == 1


def test_moves_that_were_refused_have_no_migration_and_count_all_the_same(report: Report, plan: Plan) -> None:
    refused = [replace(ended(plan, "Refused"), migration="", move=move) for move in plan.moves[1:]]
    assert len(refused) == 2
    metrics = Metrics()
    metrics.observe(replace(report, done=tuple(refused)))
    assert samples(metrics)["migrations_ended_total", "Other", "Refused"] == 2


def test_what_moves_wait_for_is_a_closed_list(report: Report) -> None:
    metrics = Metrics()
    strange = Held(vmi="web/front", reason="db-0 is not ready", message="so")
    metrics.observe(replace(report, held=(strange, replace(strange, reason="TargetBackoff"))))
    found = samples(metrics)
    assert {labels[1]: value for labels, value in found.items() if labels[0] == "held_moves"} == {
        "Other": 1,
        "TargetBackoff": 1,
    }


def test_what_is_gone_leaves_no_metric_behind(report: Report, balanced: Report) -> None:
    metrics = Metrics()
    metrics.observe(report)
    metrics.observe(balanced)
    found = samples(metrics)
    assert ("node_reserved_ratio", "w-00", "cpu") not in found
    assert ("plan_moves", "waiting") not in found
    assert found["hotspots", "cpu"] == 0
