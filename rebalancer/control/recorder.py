"""Writes Events about VMs, nodes and ourselves: a courtesy, never a reason to wait or to fail."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import anyio

from rebalancer.control.clock import Clock
from rebalancer.domain.naming import MANAGER
from rebalancer.kube.lease import Leadership
from rebalancer.kube.outcome import ApiError, Refusal
from rebalancer.kube.transport import Api

LOG = logging.getLogger(__name__)

API_VERSIONS = {"VirtualMachineInstance": "kubevirt.io/v1", "Node": "v1", "Deployment": "apps/v1"}
COLLECTION = "/apis/events.k8s.io/v1/namespaces/{}/events"


class Note(Protocol):
    """What is to be told: about which object, in which words. `reason` is of a small fixed set."""

    @property
    def kind(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventParams:
    """`namespace` and `deployment` are our own, for what concerns no VM and no node.

    `waiting`: Events in line for a slow API server; the oldest is dropped first.
    `series_seconds`: the same words about the same object within this time become one Event with a count.
    `request_seconds`: time limit of one write.
    """

    namespace: str = "kubevirt-rebalancer"
    deployment: str = "kubevirt-rebalancer"
    instance: str = "kubevirt-rebalancer"
    waiting: int = 200
    series_seconds: float = 600.0
    request_seconds: float = 5.0


@dataclass(slots=True, kw_only=True)
class _Series:
    name: str
    since: float
    count: int = 1


class Recorder:
    """`tell` never blocks; `run` writes in the background until cancelled, and only as long as we lead.

    `lost` counts what could not be written.
    """

    def __init__(
        self,
        api: Api,
        leadership: Leadership,
        clock: Clock,
        params: EventParams,
        uid_of: Callable[[str, str, str], str] = lambda *_: "",
    ) -> None:
        self._api = api
        self._leadership = leadership
        self._clock = clock
        self._params = params
        self._uid_of = uid_of
        self._waiting: deque[Note] = deque()
        self._news = anyio.Event()
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._number = 0
        self._problem = ""
        self.lost = 0

    def tell(self, notes: Iterable[Note]) -> None:
        """Puts Events in line."""
        for note in notes:
            if len(self._waiting) >= self._params.waiting:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(note)
        self._news.set()

    async def run(self) -> None:
        """Writes Events one after the other."""
        while True:
            while self._waiting:
                await self._write(self._waiting.popleft())
            self._news = anyio.Event()
            await self._news.wait()

    async def _write(self, note: Note) -> None:
        if self._leadership.fence() <= 0.0:
            self.lost += 1
            return
        namespace, name = note.namespace, note.name
        if note.kind == "Deployment":
            namespace, name = self._params.namespace, self._params.deployment
        home = namespace or "default"  # where Events about objects without a namespace belong
        key = (note.kind, namespace, name, note.type, note.reason, note.note)
        now = self._clock.monotonic()
        series = self._series.get(key)
        try:
            if series is not None and now - series.since < self._params.series_seconds:
                series.count += 1
                body = {"series": {"count": series.count, "lastObservedTime": self._time()}}
                answer = await self._api.patch(
                    f"{COLLECTION.format(home)}/{series.name}", body, timeout_seconds=self._params.request_seconds
                )
            else:
                self._number += 1
                unique = f"{name}.{int(self._clock.now() * 1e6):x}{self._number:x}"
                regarding = {
                    "apiVersion": API_VERSIONS.get(note.kind, ""),
                    "kind": note.kind,
                    "name": name,
                    "namespace": namespace,
                    "uid": self._uid_of(note.kind, namespace, name),
                }
                answer = await self._api.create(
                    COLLECTION.format(home),
                    self._manifest(note, home, unique, {k: v for k, v in regarding.items() if v}),
                    timeout_seconds=self._params.request_seconds,
                )
                self._remember(key, _Series(name=unique, since=now))
        except ApiError as error:
            self._lose(str(error))
            return
        if isinstance(answer, Refusal):
            self._series.pop(key, None)
            self._lose(answer.message)
        else:
            self._problem = ""

    def _lose(self, problem: str) -> None:
        """Counts what could not be written, and says why when that is news."""
        self.lost += 1
        if problem != self._problem:
            LOG.warning("Events cannot be written: %s", problem)
        self._problem = problem

    def _remember(self, key: tuple[str, ...], series: _Series) -> None:
        self._series[key] = series
        self._series.move_to_end(key)
        while len(self._series) > self._params.waiting:
            self._series.popitem(last=False)

    def _manifest(self, note: Note, home: str, unique: str, regarding: dict[str, str]) -> dict[str, object]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": unique, "namespace": home},
            "eventTime": self._time(),
            "reportingController": MANAGER,
            "reportingInstance": self._params.instance[:128],
            "action": "Rebalance",
            "reason": note.reason,
            "type": note.type,
            "note": note.note[:1024],
            "regarding": regarding,
        }

    def _time(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
