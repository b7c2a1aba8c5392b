"""Whatever the API server answers, or a cluster is: a sentence, a metric, an Event, and never a hot loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from control.harness import Story, hot_pair, nodes, posts, tell, vms

from rebalancer.domain.naming import MANAGER
from rebalancer.present.metrics import Metrics
from rebalancer.sim.faults import Entry, Fault, Hang, Refuse, Reset, Rule, Script
from rebalancer.sim.objects import Obj

MINUTES = 30
MOST = 120
"""Requests for one kind of object within that time: a failing list or watch is tried twice a minute at most."""
OURS = ("leases", "events")


def of(plural: str, *, also: Callable[[Entry], bool] = lambda _: True) -> Callable[[Entry], bool]:
    """Requests for objects of a kind."""
    return lambda entry: bool(entry.target and entry.target.resource.plural == plural and also(entry))


def asked(story: Story) -> Counter[str]:
    """Requests by what they were for; our lease and our Events have their own pace."""
    plurals = (entry.target.resource.plural for entry in story.world.api.log if entry.target)
    return Counter(plural for plural in plurals if plural not in OURS)


def exposed(story: Story) -> set[str]:
    """The lines of /metrics as of the last cycle."""
    metrics = Metrics()
    for report in story.reports:
        metrics.observe(report)
    return set(metrics.exposition().decode().splitlines())


def told(story: Story) -> set[str]:
    """The reasons of our Events."""
    events = story.world.store.items("events")
    return {event["reason"] for event in events if MANAGER in (event.get("reportingComponent"), event.get("source"))}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Refuse(code=200, html=True), "200 text/html: <html>"),
        (Refuse(code=502, html=True), "502 text/html: <html>"),
        (Refuse(code=500), "500 application/json"),
        (Refuse(code=403), "not permitted to list pods"),
        (Refuse(code=429, retry_after_seconds=20), "injected"),
        (Reset(), "pods"),
        (Hang(), "no answer within 60.0 s"),
    ],
    ids=["a page", "a proxy's page", "500", "403", "429", "reset", "silence"],
)
def test_what_is_no_answer_is_a_state_with_a_sentence_a_metric_and_an_event(fault: Fault, words: str) -> None:
    rule = Rule(fault=fault, matches=of("pods"), times=10**6)

    async def scenario(story: Story) -> None:
        await anyio.sleep(60 * MINUTES)
        sentence = story.last.sentence
        assert sentence.kind == "NotSynced"
        assert sentence.text.startswith("Waiting for the cluster's picture: pods are not listed yet (")
        assert words in sentence.text
        assert 'rebalancer_cycle_sentence{sentence="NotSynced"} 1.0' in exposed(story)
        assert "rebalancer_synced 0.0" in exposed(story)
        assert told(story) == {"NotSynced"}
        assert asked(story)["pods"] <= MOST
        assert len(story.reports) <= 4 * MINUTES + MOST
        assert story.writes() == []

    tell(hot_pair(), scenario, faults=Script([rule]))


def test_credentials_that_are_revoked_stop_everything_and_new_ones_start_it_again() -> None:
    """Not even an Event can be written meanwhile."""
    revoked = [False]

    async def scenario(story: Story) -> None:
        await story.until("Balanced")
        before = len(story.world.api.log)
        revoked[0] = True
        await anyio.sleep(60 * MINUTES)
        assert story.last.sentence.kind == "NotSynced"
        assert "401, the credentials are not accepted" in story.last.sentence.text
        assert not story.last.leader
        assert max(asked(story).values()) <= 2 * MOST, "each is tried once more with credentials read anew"
        leases = [e for e in story.world.api.log[before:] if e.target and e.target.resource.plural == "leases"]
        assert len(leases) <= 2 * 60 * MINUTES
        revoked[0] = False
        await story.until("Balanced", 120)
        assert story.last.leader

    refused = Rule(fault=Refuse(code=401), matches=lambda _: revoked[0], times=10**6)
    tell(hot_pair(), scenario, faults=Script([refused]))


def odd(item: Obj, **fields: Any) -> Obj:
    """An object with fields that no schema would let through."""
    item.update(fields)
    return item


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        (lambda: odd(vms("b", "w0")[0], spec={"domain": 5}), "VirtualMachineInstance", "bank/w0"),
        (lambda: odd(nodes("x")[-1], status={"allocatable": {"cpu": "1_000"}}), "Node", "x"),
        (lambda: odd(vms("b", "w0")[1], spec={"nodeName": "b", "containers": "many"}), "Pod", "bank/"),
    ],
    ids=["VMI", "node", "pod"],
)
def test_one_bad_object_is_one_warning_and_the_rest_is_cured(broken: Callable[[], Obj], kind: str, words: str) -> None:
    async def scenario(story: Story) -> None:
        await anyio.sleep(60 * MINUTES)
        asides = [aside for aside in story.last.set_aside if aside.kind == kind]
        assert asides
        assert asides[0].name.startswith(words)
        assert f'rebalancer_objects_set_aside{{kind="{kind}"}} 1.0' in exposed(story)
        assert "ObjectsSetAside" in told(story)
        assert [m["status"]["phase"] for m in story.migrations()] == ["Succeeded"]
        assert max(asked(story).values()) <= MOST

    tell([*hot_pair(), broken()], scenario)


@pytest.mark.parametrize(
    ("status", "migrations", "words"),
    [
        ({"observedKubeVirtVersion": "v1.5.2"}, {}, "KubeVirt v1.5.2 cannot direct a migration to a node"),
        ({}, {"parallelMigrationsPerCluster": 0}, "parallelMigrationsPerCluster is 0"),
        ({}, {"parallelOutboundMigrationsPerNode": 0}, "parallelOutboundMigrationsPerNode is 0"),
    ],
    ids=["before 1.6", "none in the cluster", "none off a node"],
)
def test_a_kubevirt_that_cannot_or_must_not_migrate_is_left_alone(
    status: dict[str, str], migrations: dict[str, int], words: str
) -> None:
    items = hot_pair()
    items[0]["status"] |= status
    items[0]["spec"].setdefault("configuration", {})["migrations"] = migrations

    async def scenario(story: Story) -> None:
        await anyio.sleep(60 * MINUTES)
        assert story.last.sentence.kind == "Unfit"
        assert words in story.last.sentence.text
        assert 'rebalancer_cycle_sentence{sentence="Unfit"} 1.0' in exposed(story)
        assert "Unfit" in told(story)
        assert max(asked(story).values()) <= MOST
        assert story.writes() == []

    tell(items, scenario)


def test_a_kubevirt_that_does_not_know_the_field_is_found_out_by_its_refusal() -> None:
    """Its version cannot be read; what is strictly validated is not dropped in silence."""
    text = 'strict decoding error: unknown field "spec.addedNodeSelector"'
    refuse = Rule(fault=Refuse(code=400, reason="BadRequest", message=text), matches=posts, times=10**6)

    async def scenario(story: Story) -> None:
        dropped = await story.until("Dropped")
        assert text in dropped.sentence.text
        await anyio.sleep(60 * MINUTES)
        strict = [entry.query.get("fieldValidation") for entry in story.writes()]
        assert set(strict) == {"Strict"}
        assert len(strict) <= 6, "where nobody is let in it is no matter of single VMs"
        assert story.kinds[-1] in {"Broken", "Started", "Dropped"}
        (broken, *_) = story.texts("Broken")
        assert broken.startswith("5 migrations in a row failed, the last: bank/v")
        assert text in broken
        assert "RebalancingRefused" in told(story)
        assert story.migrations() == []

    tell(hot_pair(), scenario, faults=Script([refuse]))
