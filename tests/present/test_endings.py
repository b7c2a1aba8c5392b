"""Why moves ended, in one word: every message of our own has its word, and KubeVirt's have the right ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rebalancer.control.flight import Flight, failure_message, why_no_receiver, why_withdraw, why_yield
from rebalancer.control.gate import GateParams, why_unsettled
from rebalancer.domain.cluster import KubeVirt, Namespace
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.naming import POLICY
from rebalancer.domain.node import Condition, Node
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import RESULTS, Outcome
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.present.endings import OTHER, REASONS, reason

OURS = Migration(namespace="bank", name="rb-1", uid="m", vmi="db-1")
LOST = FrozenMap({"Ready": Condition(status="Unknown", since=1.0)})
VM = VMI(namespace="bank", name="db-1", uid="u", node="w-00")


def seen(vmi: VMI = VM, migration: Migration = OURS, namespace: Namespace | None = None) -> Snapshot:
    """A cluster of one VM and one migration."""
    return Snapshot(
        vmis=FrozenMap({vmi.key: vmi}),
        migrations=FrozenMap({f"bank/{migration.name}": migration}),
        namespaces=FrozenMap({namespace.name: namespace} if namespace else {}),
    )


@pytest.fixture
def flight(plan: Plan) -> Flight:
    return Flight(move=plan.moves[0], migration=OURS, plan="a", begun=0.0, started=0.0, limit_seconds=300.0)


def word(plan: Plan, result: str, message: str) -> str:
    return reason(Outcome(move=plan.moves[0], migration="bank/rb-1", result=result, message=message))


def test_every_result_has_its_reasons() -> None:
    assert tuple(REASONS) == RESULTS
    assert all(len(set(reasons)) == len(reasons) for reasons in REASONS.values())


def test_our_own_words(plan: Plan, flight: Flight) -> None:
    opted = FrozenMap({POLICY: "ignore"})
    cordoned = Node(name="w-01", unschedulable=True)
    updating = Snapshot(kubevirt=KubeVirt(infra_updating=True))
    away = Snapshot(nodes=FrozenMap({f"w-{n}": Node(name=f"w-{n}", conditions=LOST) for n in range(3)}))
    told = [
        ("Failed", why_withdraw(flight, Snapshot(), 301.0), "Deadline"),
        ("Failed", failure_message(None), "Disappeared"),
        ("Failed", failure_message(OURS), "NoReason"),
        ("Failed", failure_message(OURS, "0/3 nodes are available"), "NoNodeForPod"),
        ("Withdrawn", why_yield(replace(VM, evacuation_node="w-00"), seen()), "Evacuation"),
        ("Withdrawn", why_yield(replace(VM, annotations=opted), seen()), "OptedOut"),
        ("Withdrawn", why_yield(VM, seen(namespace=Namespace(name="bank", annotations=opted))), "OptedOut"),
        ("Withdrawn", why_yield(VM, seen(), "bank/another"), "OtherMigration"),
        ("Withdrawn", why_no_receiver(None), "Target"),
        ("Withdrawn", why_no_receiver(cordoned), "Target"),
        ("Withdrawn", why_no_receiver(Node(name="w-01", conditions=LOST)), "Target"),
        ("Withdrawn", why_unsettled(updating, GateParams(), 2.0), "Unsettled"),
        ("Withdrawn", why_unsettled(away, GateParams(), 2.0), "Unsettled"),
        ("Succeeded", "", "Landed"),
    ]
    assert [(result, message, word(plan, result, message)) for result, message, _ in told] == told


@pytest.mark.parametrize(
    ("result", "message", "expected"),
    [
        ("Failed", "Live migration has been aborted", "Aborted"),
        ("Failed", "operation failed: migration out job: unexpectedly failed", "Transfer"),
        ("Failed", "Live migration is not completed after 300 seconds and has been aborted", "Timeout"),
        ("Failed", "Live migration stuck for 150 seconds", "Timeout"),
        ("Failed", "Target pod is down", "TargetPod"),
        ("Failed", "exceeded quota: vms, requested: requests.cpu=4, used: requests.cpu=30", "Quota"),
        ("Failed", "it landed on w-09 instead of w-07", "LandedElsewhere"),
        ("Failed", "Ich weiß nicht, was soll es bedeuten", OTHER),
        ("Withdrawn", "it was being withdrawn by an earlier leader", "EarlierLeader"),
        ("Refused", 'virtualmachineinstancemigrations.kubevirt.io is forbidden: User "rb" cannot create', "Forbidden"),
        ("Refused", "rb-1 is somebody else's", "NameTaken"),
        ("Refused", 'admission webhook "x" denied the request: DisksNotLiveMigratable', "Webhook"),
        ("Refused", 'strict decoding error: unknown field "spec.addedNodeSelector"', "Field"),
        ("Refused", "so it is", OTHER),
        ("Lost", "no answer and no VMIM rb-1: timed out", "NoAnswer"),
        ("Lost", "bank/db-1 does not exist any more", "VMGone"),
        ("Lost", "bank/db-1 is another VM now, under the same name", "VMReplaced"),
    ],
)
def test_words_of_others(plan: Plan, result: str, message: str, expected: str) -> None:
    assert word(plan, result, message) == expected
