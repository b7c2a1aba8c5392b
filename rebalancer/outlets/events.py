"""Writes Kubernetes Events, some a second and never in the way of the cycle: what cannot be written is dropped."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

import anyio

from rebalancer.control.clock import Clock
from rebalancer.domain.naming import MANAGER, PREFIX
from rebalancer.domain.report import Report
from rebalancer.kube.outcome import ApiError, Refusal
from rebalancer.kube.transport import Api
from rebalancer.present.events import LEASE, NODE, VMI, Event, events
from rebalancer.present.words import moment

VERSIONS = {VMI: "kubevirt.io/v1", NODE: "v1", LEASE: "coordination.k8s.io/v1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventParams:
    """`namespace` and `name` are our Lease's, which Events about the whole cluster are attached to.

    `backlog` Events wait at most, the oldest go first; one is written every `pause_seconds`: client-go allows a burst
    of 25 per object, and a plan of a hundred moves should not displace what a node has to say.
    """

    namespace: str
    name: str
    identity: str
    backlog: int = 200
    pause_seconds: float = 0.2
    timeout_seconds: float = 5.0


class EventWriter:
    """`observe` every Report; `run` writes until cancelled. Only a leader's Reports are told."""

    def __init__(self, api: Api, clock: Clock, params: EventParams) -> None:
        self._api = api
        self._clock = clock
        self._params = params
        self._before: Report | None = None
        self._waiting: deque[Event] = deque(maxlen=params.backlog)
        self._news = anyio.Event()
        self.dropped = 0

    def observe(self, report: Report) -> None:
        """Takes over a cycle's report."""
        if not report.leader:
            return
        for event in events(report, self._before):
            self.dropped += len(self._waiting) == self._params.backlog
            self._waiting.append(event)
        self._before = report
        self._news.set()

    async def run(self) -> None:
        """Writes what waits, one Event at a time."""
        while True:
            while self._waiting:
                await self._write(self._waiting.popleft())
                await anyio.sleep(self._params.pause_seconds)
            self._news = anyio.Event()
            await self._news.wait()

    async def _write(self, event: Event) -> None:
        namespace = self._params.namespace if event.kind == LEASE else event.namespace or "default"
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            answer = await self._api.create(
                path, self._manifest(event, namespace), timeout_seconds=self._params.timeout_seconds
            )
        except ApiError:
            self.dropped += 1
            return
        self.dropped += isinstance(answer, Refusal)

    def _manifest(self, event: Event, namespace: str) -> dict[str, object]:
        now = self._clock.now()
        name = event.name or self._params.name
        digest = hashlib.sha256(f"{event}{now}{self._params.identity}".encode()).hexdigest()[:16]
        regarding = {"apiVersion": VERSIONS[event.kind], "kind": event.kind, "name": name}
        if event.kind != NODE:
            regarding["namespace"] = namespace
        if event.uid:
            regarding["uid"] = event.uid
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name[:200]}.{digest}", "namespace": namespace},
            "eventTime": f"{moment(now)[:-1]}.{int(now % 1 * 1e6):06}Z",
            "reportingController": f"{PREFIX}{MANAGER}",
            "reportingInstance": self._params.identity[:128],
            "action": "Rebalance",
            "reason": event.reason,
            "type": event.type,
            "note": event.note,
            "regarding": regarding,
        }
