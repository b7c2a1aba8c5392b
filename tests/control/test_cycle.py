"""The sentence that each cycle ends in, told by the whole daemon over HTTP in virtual time."""

from __future__ import annotations

import re
from dataclasses import replace

import anyio
import pytest
from control.harness import (
    MIGRATIONS,
    QUICK,
    SLOW,
    Story,
    annotate,
    another,
    hot_pair,
    loop_time,
    nodes,
    params,
    posts,
    serve,
    tell,
    vms,
)

from rebalancer.control.backoff import BackoffParams
from rebalancer.control.cycle import DRY_RUN
from rebalancer.control.executor import ExecutorParams
from rebalancer.control.flight import DeadlineParams
from rebalancer.sim.faults import EventRule, Hang, Late, Refuse, Reset, Rule, Script, Watch
from rebalancer.sim.objects import Obj
from rebalancer.sim.plane import Mishaps
from rebalancer.sim.store import Change


def test_a_hot_node_is_cooled_and_every_cycle_says_so() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Balanced")
        busy = [kind for kind in story.kinds if kind not in ("NotSynced", "Standby")]
        assert busy == ["Planned", "Started", "Running", "Finished", "Balanced"]
        assert re.fullmatch(
            r"Plan \w+: 1 move in 1 wave \(proven minimal\): 1 hotspot and 0 broken rules now, "
            r"0 hotspots and 0 broken rules after it",
            story.texts("Planned")[0],
        )
        assert re.fullmatch(r"Wave 1 of 1: started 1 migration: bank/v\d a → [bc]", story.texts("Started")[0])
        assert story.texts("Running")[0] == "Wave 1 of 1: 1 migration running, 0 of 1 move done"
        assert re.fullmatch(
            r"Finished plan \w+: 1 migration done, 0 hotspots and 0 broken rules left", story.texts("Finished")[0]
        )
        assert (
            story.last.sentence.text == "Balanced: no node above its threshold and no rule broken on 3 nodes with 4 VMs"
        )
        finished = next(report for report in story.reports if report.sentence.kind == "Finished")
        assert [(outcome.result, outcome.landed_on) for outcome in finished.done] == [
            ("Succeeded", finished.done[0].move.target)
        ]

    tell(hot_pair(), scenario)


def test_the_migration_is_directed_labelled_and_bounded_in_time() -> None:
    async def scenario(story: Story) -> None:
        report = await story.until("Started")
        (move,) = report.started
        (migration,) = story.migrations()
        assert migration["spec"]["addedNodeSelector"] == {"kubernetes.io/hostname": move.target}
        assert migration["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubevirt-rebalancer"
        assert report.plan is not None
        assert migration["metadata"]["labels"]["kubevirt-rebalancer.io/plan"] == report.plan.id
        assert migration["metadata"]["annotations"]["kubevirt.io/migrationUnschedulablePodTimeoutSeconds"] == "60"
        assert migration["metadata"]["annotations"]["kubevirt.io/migrationPendingPodTimeoutSeconds"] == "300"
        assert re.fullmatch("rb-[a-z2-7]{20}", migration["metadata"]["name"])
        assert [e.query.get("fieldValidation") for e in story.writes()] == ["Strict"]

    tell(hot_pair(), scenario)


def test_a_dry_run_says_what_it_would_do_once_and_writes_nothing_but_lease_and_events() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(1800)
        assert story.kinds[-1] == "DryRun"
        assert len(story.texts("DryRun")) == 1
        assert len({report.plan.id for report in story.reports if report.plan}) == 1
        written = {e.target.resource.plural for e in story.world.api.log if e.writes and e.user and e.target}
        assert written == {"leases", "events"}

    tell(hot_pair(), scenario, settings=params(DRY_RUN))


def test_a_dry_run_plans_again_when_the_cluster_is_another() -> None:
    async def scenario(story: Story) -> None:
        first = await story.until("DryRun")
        story.world.cordon(first.plan.moves[0].target if first.plan else "")
        await anyio.sleep(60)
        assert len({report.plan.id for report in story.reports if report.plan}) == 2
        assert story.last.plan is not None
        assert first.plan is not None
        assert story.last.plan.moves[0].target != first.plan.moves[0].target

    tell(hot_pair(), scenario, settings=params(DRY_RUN))


@pytest.mark.slow
def test_nothing_to_do_for_a_day() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(86_400)
        assert story.kinds[-1] == "Balanced"
        assert story.writes() == []

    # Without a lease: 43,200 renewals would be all that happens.
    settings = replace(params(), lease=None)
    tell([*nodes("a", "b"), *vms("a", "v0"), *vms("b", "v1")], scenario, settings=settings)


def test_what_cannot_be_cured_is_stuck_with_the_reason_and_not_solved_again_and_again() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(600)
        assert story.kinds[-1] == "Stuck"
        (text,) = story.texts("Stuck")
        assert text.startswith("Nothing can be done about 1 trigger: a has ")
        assert story.writes() == []

    tell([*nodes("a", "b"), *vms("a", "v0", "v1", "v2", "v3"), *vms("b", "w0", "w1", "w2")], scenario)


def test_a_node_that_comes_to_receive_ends_a_long_wait() -> None:
    async def scenario(story: Story) -> None:
        story.world.cordon("c")
        await anyio.sleep(1800)
        assert story.kinds[-1] == "Stuck"
        story.world.store.modify("nodes", "", "c", lambda item: item["spec"].pop("unschedulable"))
        await story.until("Planned", seconds=5)

    tell([*nodes("a", "c"), *vms("a", "v0", "v1", "v2", "v3")], scenario)


def test_a_node_that_is_hot_for_a_moment_is_watched() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(30)
        assert (
            story.last.sentence.text == "Nothing to do yet on 3 nodes with 4 VMs: a above the threshold, not for long"
        )
        story.world.stop_vm("bank", "v0")
        await anyio.sleep(600)
        assert story.writes() == []

    tell(hot_pair(), scenario, settings=params(policy=replace(QUICK, hold_seconds=60.0)))


def test_broken_rules_wait_for_nodes_that_heat_up_and_share_their_plan() -> None:
    apart = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        }
    }

    async def scenario(story: Story) -> None:
        await anyio.sleep(30)
        text = story.last.sentence.text
        assert re.fullmatch(
            r"2 triggers, and no plan for [34]\d s more: by then it is clear whether a stays above the threshold", text
        )
        await anyio.sleep(600)
        assert len(story.texts("Planned")) == 1
        assert story.kinds[-1] == "Balanced"

    items = [
        *nodes("a", "b", "c"),
        *vms("a", "db0", "db1", labels={"app": "db"}, affinity=apart),
        *vms("a", "v0", "v1"),
    ]
    tell(items, scenario, settings=params(policy=replace(QUICK, hold_seconds=60.0)))


def test_two_replicas_one_acts_and_the_other_says_who() -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(1)
        async with another(story, params(identity="b")) as twin:
            await anyio.sleep(300)
            assert twin.kinds[-1] == "Standby"
            assert twin.texts("Standby")[-1] == "Standing by: a leads"
        assert {entry.user for entry in story.writes()} == {"a"}
        assert story.kinds[-1] == "Balanced"

    tell(hot_pair(), scenario)


def test_a_leader_that_is_told_to_stop_leaves_at_once_and_its_successor_adopts_what_runs() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Started")
        left = loop_time()
        story.stop.set()
        async with another(story, params(identity="b")) as twin:
            await twin.until("Running")
            assert loop_time() - left < 10
            assert twin.texts("Running")[0].startswith(
                "No new plan while 1 migration of ours from an earlier one still run"
            )
            await twin.until("Balanced")
            assert [o.result for report in twin.reports for o in report.done] == ["Succeeded"]
        assert len(story.migrations()) == 1

    tell(hot_pair(), scenario)


def test_a_successor_whose_watches_lag_behind_counts_what_its_predecessor_has_just_started() -> None:
    """b's watch of migrations is five minutes late; two moves wait, one at a time is allowed."""

    def late(watch: Watch, change: Change) -> bool:
        return watch.entry.user == "b" and change.resource == MIGRATIONS

    most = 0

    async def scenario(story: Story) -> None:
        def count(_: Change) -> None:
            nonlocal most
            phases = [(found.get("status") or {}).get("phase") for found in story.migrations()]
            most = max(most, sum(phase not in ("Succeeded", "Failed") for phase in phases))

        story.world.store.subscribe(count)
        async with another(story, params(identity="b", per_cluster=1)) as twin:
            await story.until("Started")
            story.stop.set()
            await twin.until("Balanced", 7200)
            assert twin.texts("Running")[0].startswith("No new plan while 1 migration of ours")
        assert most == 1

    items = [*nodes("a", "b", "c", "d"), *vms("a", "v0", "v1", "v2", "v3"), *vms("b", "w0", "w1", "w2", "w3")]
    faults = Script(events=[EventRule(fault=Late(seconds=300), matches=late, times=99)])
    tell(items, scenario, settings=params(per_cluster=1), faults=faults, plane=SLOW)


@pytest.mark.parametrize("where", ["KubeVirt", "namespace"])
def test_paused_by_annotation_and_resumed(where: str) -> None:
    async def scenario(story: Story) -> None:
        place = (
            ("kubevirts", "kubevirt", "kubevirt") if where == "KubeVirt" else ("namespaces", "", "kubevirt-rebalancer")
        )
        annotate(story, *place, paused="true")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, story, params())
            await anyio.sleep(120)
            assert story.kinds[-1] == "Paused"
            assert story.texts("Paused")[0].endswith(
                "is annotated kubevirt-rebalancer.io/paused=true; nothing new is started until that is taken away"
            )
            assert story.writes() == []
            annotate(story, *place, paused="false")
            await story.until("Finished")
            tasks.cancel_scope.cancel()

    tell(hot_pair(), scenario, start=False)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"observedKubeVirtVersion": "v1.5.2"},
            "KubeVirt v1.5.2 cannot direct a migration to a node; 1.6 and later can",
        ),
        (None, "there is no readable KubeVirt resource in this cluster"),
    ],
)
def test_a_kubevirt_that_cannot_do_it_is_left_alone(status: dict[str, str] | None, words: str) -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(120)
        assert story.last.sentence.text == f"Nothing can be started in this cluster: {words}"
        assert story.last.sentence.kind == "Unfit"
        assert story.writes() == []

    items = hot_pair()
    if status is None:
        items = items[1:]
    else:
        items[0]["status"] |= status
    tell(items, scenario)


def test_a_plan_that_the_cluster_has_overtaken_is_dropped_with_the_reason() -> None:
    """Its only target is cordoned in the second between planning and acting."""

    async def scenario(story: Story) -> None:
        plan = (await story.until("Planned")).plan
        assert plan is not None
        story.world.cordon(plan.moves[0].target)
        await story.until("Dropped")
        (text,) = story.texts("Dropped")
        assert text.startswith(f"Dropped plan {plan.id}: wave 1: bank/")
        await story.until("Finished")
        assert len(story.migrations()) == 1

    tell(hot_pair(), scenario)


class Failing(Mishaps):
    """Every transfer fails."""

    def transfer(self, vmi: Obj) -> str:
        return "the network is gone"


def test_failures_are_backed_off_and_a_streak_opens_the_breaker_that_says_how_to_resume() -> None:
    settings = params()
    quick = BackoffParams(
        vm_seconds=10, vm_cap_seconds=10, node_seconds=5, node_cap_seconds=5, streak=3, pause_seconds=1800
    )
    settings = replace(
        settings,
        cycle=replace(settings.cycle, backoff=quick, limits=replace(settings.cycle.limits, cooldown_seconds=0.0)),
    )

    async def scenario(story: Story) -> None:
        report = await story.until("Broken", 86_400)
        assert re.fullmatch(
            r"3 migrations in a row failed, the last: bank/v\d: the network is gone. Nothing is started before "
            r"2026-11-2\d \d\d:\d\d:\d\d UTC; to resume sooner: kubectl annotate --overwrite namespace "
            r"kubevirt-rebalancer kubevirt-rebalancer.io/resume=2026-11-2\dT\d\d:\d\d:\d\dZ",
            report.sentence.text,
        )
        broken_at = loop_time()
        await story.until("Planned", 86_400)
        assert loop_time() - broken_at == pytest.approx(1800, abs=20)
        assert [o.result for r in story.reports for o in r.done][-1] == "Failed"

    tell(hot_pair(), scenario, settings=settings, mishaps=Failing())


def test_a_vm_whose_migration_failed_rests_and_another_one_goes() -> None:
    class First(Mishaps):
        def transfer(self, vmi: Obj) -> str:
            return "no luck" if vmi["metadata"]["name"] == chosen[0] else ""

    chosen: list[str] = [""]

    async def scenario(story: Story) -> None:
        plan = (await story.until("Planned")).plan
        assert plan is not None
        chosen[0] = plan.moves[0].vmi.split("/")[1]
        dropped = await story.until("Dropped")
        assert dropped.sentence.text.endswith("ended as Failed: no luck")
        await story.until("Balanced")
        assert len({migration["spec"]["vmiName"] for migration in story.migrations()}) == 2

    tell(hot_pair(), scenario, mishaps=First())


def test_a_node_that_failed_to_take_a_vm_is_not_planned_for_again_at_once() -> None:
    class Bad(Mishaps):
        def transfer(self, vmi: Obj) -> str:
            return "no luck" if vmi["status"]["migrationState"]["targetNode"] == bad[0] else ""

    bad: list[str] = [""]

    async def scenario(story: Story) -> None:
        plan = (await story.until("Planned")).plan
        assert plan is not None
        bad[0] = plan.moves[0].target
        again = (await story.until("Planned")).plan
        assert again is not None
        assert {move.target for move in again.moves} == {"b", "c"} - {bad[0]}
        await story.until("Balanced")

    tell(hot_pair(), scenario, mishaps=Bad())


def test_budgets_hold_moves_and_say_which() -> None:
    async def scenario(story: Story) -> None:
        await story.until("Finished")
        started = [report for report in story.reports if report.started]
        assert [len(report.started) for report in started] == [1, 1]
        assert started[0].held[0].reason == "PerCluster"
        assert started[0].sentence.text.endswith(
            "; 1 move held (1 migration goes on in the cluster, 1 at a time is allowed)"
        )

    items = [*nodes("a", "b", "c", "d"), *vms("a", "v0", "v1", "v2", "v3"), *vms("b", "w0", "w1", "w2", "w3")]
    tell(items, scenario, settings=params(per_cluster=1))


@pytest.mark.parametrize(
    ("fault", "after", "sentence"),
    [
        (Reset(), True, "Started"),
        (Reset(), False, "Dropped"),
        (Hang(), True, "Started"),
        (Refuse(code=500), False, "Dropped"),
        (Refuse(code=502, html=True), True, "Started"),
        (Refuse(code=429, retry_after_seconds=40), False, "Held"),
        (Refuse(code=403, reason="Forbidden"), False, "Failed"),
        (Refuse(code=422, reason="Invalid"), False, "Dropped"),
    ],
    ids=["lost answer", "lost request", "hanging answer", "500", "HTML instead of the answer", "429", "403", "422"],
)
def test_whatever_becomes_of_a_post_there_is_one_migration_and_the_plan_is_carried_out(
    fault: Reset | Hang | Refuse, after: bool, sentence: str
) -> None:
    async def scenario(story: Story) -> None:
        await story.until(sentence, 120)
        await story.until("Balanced", 3600)
        succeeded = [m for m in story.migrations() if m["status"]["phase"] == "Succeeded"]
        assert len(succeeded) == len(story.migrations()) == 1

    tell(hot_pair(), scenario, faults=Script([Rule(fault=fault, matches=posts, after=after)]))


def test_a_migration_that_takes_too_long_is_deleted_and_the_vm_asked_where_it_is() -> None:
    deadline = DeadlineParams(setup_seconds=20.0, slack=1.0, bandwidth_bytes=2**40)
    settings = replace(params(), executor=ExecutorParams(deadline=deadline))

    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        began = loop_time()
        dropped = await story.until("Dropped")
        assert dropped.sentence.text.endswith("ended as Failed: it passed its deadline of 20 s")
        assert 20 < loop_time() - began < 60
        (outcome,) = dropped.done
        assert (outcome.result, outcome.landed_on) == ("Failed", "a")
        assert [entry.method for entry in story.writes() if entry.user] == ["POST", "DELETE"]
        assert story.world.places()[move.vmi] == "a"

    tell(hot_pair(), scenario, settings=settings, plane=SLOW)


@pytest.mark.parametrize("trouble", ["cordoned", "opted out", "migrated by hand"])
def test_a_migration_gives_way_when_the_reason_for_it_is_gone(trouble: str) -> None:
    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        await anyio.sleep(8)
        if trouble == "cordoned":
            story.world.cordon(move.target)
        elif trouble == "opted out":
            annotate(story, "virtualmachineinstances", *move.vmi.split("/"), policy="ignore")
        else:
            namespace, name = move.vmi.split("/")
            body = {"metadata": {"namespace": namespace, "name": "by-hand"}, "spec": {"vmiName": name}}
            story.world.store.create(MIGRATIONS, body)
        dropped = await story.until("Dropped")
        assert [outcome.result for outcome in dropped.done] == ["Withdrawn"]
        words = {"cordoned": "is cordoned", "opted out": "has been opted out", "migrated by hand": "migration, by-hand"}
        assert dropped.sentence.text.endswith(words[trouble])

    tell(hot_pair(), scenario, plane=SLOW)


def test_a_drain_goes_first_ours_is_withdrawn() -> None:
    async def scenario(story: Story) -> None:
        (move,) = (await story.until("Started")).started
        await anyio.sleep(5)
        story.world.drain("a")
        await story.until("Dropped")
        (outcome,) = [o for o in story.last.done if o.move == move]
        assert outcome.result == "Withdrawn"
        assert outcome.message == f"{move.vmi} is being evacuated from a"
        await anyio.sleep(1200)
        assert set(story.world.places().values()) == {"b", "c"}

    tell(hot_pair(), scenario, plane=SLOW)
