"""Each alert fires in a live Prometheus when what it is about happens to a daemon, and clears when that is over.

Daemon and simulated cluster live 30 times as fast as Prometheus, and the rules wait less than in earnest: SHORTENED has
every duration that they name. Thresholds and expressions are those of the file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from deployed.monitoring import ALERTS, Prometheus, prometheus, rules
from page.live import Living, living

from rebalancer import daemon
from rebalancer.control.cycle import CycleParams
from rebalancer.domain.naming import RESUME
from rebalancer.kube.lease import LeaseParams
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.load import PolicyParams
from rebalancer.sim.faults import Entry, Fault, Faults, Refuse
from rebalancer.sim.objects import Obj, stamp
from rebalancer.sim.plane import Mishaps
from rebalancer.sim.scenarios import BY_NAME
from rebalancer.sim.shapes import Shape, build

pytestmark = pytest.mark.slow

SPEED = 30.0
SHORTENED = {"2h": "12s", "30m": "10s", "15m": "10s", "5m": "1s", "1m": "500ms"}
FIRES_SECONDS, CLEARS_SECONDS = 45.0, 40.0
NAMESPACE = "kubevirt"
Alerts = Set[tuple[str, str]]


@dataclass(slots=True)
class Trouble(Faults, Mishaps):
    """What goes wrong while it is on: transfers fail, or migrations may not be created."""

    transfers: bool = False
    forbidden: bool = False

    def transfer(self, vmi: Obj) -> str:
        return "operation failed: migration out job: unexpectedly failed" if self.transfers else ""

    def request(self, entry: Entry) -> Fault | None:
        creates = entry.verb == "create" and "virtualmachineinstancemigrations" in entry.path
        return Refuse(code=403, reason="Forbidden") if self.forbidden and creates else None


def crowded() -> list[Obj]:
    """Two of six workers are far too full, and their VMs would fit elsewhere."""
    return build(Shape(workers=6, control_planes=1, cpu=32, memory_gib=256, fill=0.95, packed=2))


def even() -> list[Obj]:
    return build(Shape(workers=3, control_planes=1, cpu=32, memory_gib=256, fill=0.4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A cluster in which something is wrong from `begin` to `end`, and the alerts for it."""

    name: str
    alerts: Set[str]
    items: Callable[[], list[Obj]]
    trouble: Trouble = field(default_factory=Trouble)
    begin: Callable[[Living], None] = lambda _: None
    end: Callable[[Living, Trouble], None] = lambda _, __: None


def relieve(alive: Living, _: Trouble) -> None:
    """The VMs of the two full nodes are stopped by their owners."""
    for number in range(7):
        alive.call(partial(alive.world.stop_vm, "bank", f"stuck-{number}"))
        alive.call(partial(alive.world.stop_vm, "shop", f"wide-{number}"))


def mend(alive: Living, trouble: Trouble) -> None:
    """Transfers succeed again, and somebody says so, as the sentence asks."""
    trouble.transfers = False

    def resume(namespace: Obj) -> None:
        namespace["metadata"].setdefault("annotations", {})[RESUME] = stamp(alive.world.clock.now() + 1.0)

    alive.call(lambda: alive.world.store.modify("namespaces", "", NAMESPACE, resume, actor="user"))


def allow(_: Living, trouble: Trouble) -> None:
    trouble.forbidden = False


def fall_silent(alive: Living) -> None:
    """The API server goes away."""
    alive.run(alive.world.api.stop())


def come_back(alive: Living, _: Trouble) -> None:
    alive.run(alive.world.api.start(port=alive.world.api.port))


CASES = (
    Case(
        name="stuck",
        alerts={"RebalancerStuck", "RebalancerNotImproving"},
        items=lambda: BY_NAME["nothing-curable"].items(0),
        end=relieve,
    ),
    Case(
        name="failing",
        alerts={"RebalancerMigrationsFailing", "RebalancerBreakerOpen", "RebalancerNotImproving"},
        items=crowded,
        trouble=Trouble(transfers=True),
        end=mend,
    ),
    Case(
        name="forbidden",
        alerts={"RebalancerCyclesFailing", "RebalancerNotImproving"},
        items=crowded,
        trouble=Trouble(forbidden=True),
        end=allow,
    ),
    Case(
        name="outage",
        alerts={"RebalancerStale", "RebalancerNoLeader"},
        items=even,
        begin=fall_silent,
        end=come_back,
    ),
    Case(name="calm", alerts=set(), items=even),
)


def params() -> daemon.DaemonParams:
    """An active daemon. Its lease lasts minutes of its time, or a hiccup of this machine would lose it."""
    policy = PolicyParams(hold_seconds=10.0)
    cycle = CycleParams(
        mode=daemon.ACTIVE, planning=PlanningParams(policy=policy, seconds=0.0), own_namespace=NAMESPACE
    )
    lease = LeaseParams.lasting(150, namespace=NAMESPACE, name="rebalancer", identity="me")
    return daemon.DaemonParams(cycle=cycle, lease=lease)


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """The rules, with SHORTENED durations."""
    text = ALERTS.read_text(encoding="utf-8")
    pattern = re.compile(r"(?<=\[)\d+\w+(?=\])|(?<=offset )\d+\w+|(?<=for: )\d+\w+")
    assert set(pattern.findall(text)) == set(SHORTENED)
    path = tmp_path / "alerts.yaml"
    path.write_text(pattern.sub(lambda found: SHORTENED[found[0]], text), encoding="utf-8")
    return path


def firing(found: Prometheus) -> Alerts:
    """(namespace, alert) of what fires now."""
    alerts = (found.ask("/api/v1/alerts") or {"alerts": []})["alerts"]
    return {
        (one["labels"].get("namespace", ""), one["labels"]["alertname"]) for one in alerts if one["state"] == "firing"
    }


def watched(found: Prometheus, seconds: float) -> Iterator[Alerts]:
    """What fires, looked at again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield firing(found)
        time.sleep(0.25)


def test_each_alert_fires_and_clears(tmp_path: Path, impatient: Path) -> None:
    expected = {(case.name, alert) for case in CASES for alert in case.alerts}
    assert {alert for _, alert in expected} == {rule["alert"] for rule in rules() if "alert" in rule}
    with ExitStack() as stack:
        alive = {
            case.name: stack.enter_context(
                living(
                    case.items(), params(), speed=SPEED, epoch=time.time(), faults=case.trouble, mishaps=case.trouble
                )
            )
            for case in CASES
        }
        for here in alive.values():
            here.until(lambda report: report.synced and report.leader)
        targets = {name: here.url.removeprefix("http://") for name, here in alive.items()}
        found = stack.enter_context(prometheus(tmp_path, targets, rules=impatient, interval="250ms"))
        for case in CASES:
            case.begin(alive[case.name])
        seen: set[tuple[str, str]] = set()
        for now in watched(found, FIRES_SECONDS):
            seen |= now
            if expected <= seen:
                break
        assert expected - seen == set(), "these have not fired"
        # The breaker ends the failures, so that alert clears by itself.
        assert expected - now <= {("failing", "RebalancerMigrationsFailing")}, "these have cleared by themselves"
        for case in CASES:
            case.end(alive[case.name], case.trouble)
        for now in watched(found, CLEARS_SECONDS):
            seen |= now
            if not now:
                break
        told = {name: here.reports[-1].sentence.text for name, here in alive.items()}
        assert now == set(), told
    assert {alert for alert in seen if alert[0]} == expected, "others have fired as well"
