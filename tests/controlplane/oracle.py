"""kube-scheduler's own verdicts, from a process that lives for many cases (modules/kubernetes/oracle)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import IO, Any, Self

from controlplane.binaries import find
from controlplane.kubeclient import Object

SUCCESS = "Success"


class OracleError(Exception):
    """The oracle could not judge a case: unreadable, contradictory, or a plugin that panicked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one plugin said. `plugin` is empty for success, and where PreFilter had ruled the node out."""

    plugin: str
    code: str
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the pod may run there."""
        return self.code == SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The scheduler's opinion of one pod. Where PreFilter rejects, no node is asked and `nodes` is empty.

    `message` is the scheduler's FitError without the part that preemption adds; empty when some node fits.
    """

    pre_filter: Status | None
    nodes: dict[str, Status]
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why the API server refuses a field, in its own words, e.g. type "FieldValueInvalid"."""

    field: str
    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A posted pod as the API server would store it, or its faults; admission plugins are not asked."""

    pod: Object | None
    faults: tuple[Fault, ...]


class Oracle:
    """One oracle process. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([str(find("oracle")["oracle"])], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipes()[0].close()
        self._process.wait(timeout=30)
        self._pipes()[1].close()

    def judge(self, pod: Object, cluster: Object) -> Verdict:
        """Verdicts for one pod; `cluster` has the lists that modules/kubernetes/oracle/case.go names."""
        return self.judge_all([pod], cluster)[0]

    def judge_all(self, pods: Sequence[Object], cluster: Object) -> list[Verdict]:
        """Verdicts for several pods on one cluster, which is read once."""
        return self.answers([cluster | {"candidates": list(pods)}])[0]

    def answers(self, cases: Iterable[Object]) -> list[list[Verdict]]:
        """Many cases in bulk, each {"candidates": [...], "nodes": [...], ...}."""
        return [[_verdict(one) for one in answer.get("verdicts", ())] for answer in self._ask(cases)]

    def create(self, pods: Sequence[Object]) -> list[Created]:
        """What the API server makes of posted pods: defaults filled in, matchLabelKeys merged, or faults."""
        return [_created(one) for one in self._ask([{"create": list(pods)}])[0].get("created", ())]

    def _ask(self, cases: Iterable[Object]) -> list[Object]:
        lines = [json.dumps(case, separators=(",", ":")).encode() + b"\n" for case in cases]
        stdin, stdout = self._pipes()
        # The oracle answers while it reads: whoever only wrote would fill both pipes and wait for ever.
        writer = Thread(target=_write, args=(stdin, lines))
        writer.start()
        answers = [stdout.readline() for _ in lines]
        writer.join()
        return [_answer(answer) for answer in answers]

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _write(stdin: IO[bytes], lines: list[bytes]) -> None:
    stdin.writelines(lines)
    stdin.flush()


def _answer(line: bytes) -> Object:
    if not line:
        raise OracleError("the oracle has ended")
    answer: Object = json.loads(line)
    if "error" in answer:
        raise OracleError(answer["error"])
    return answer


def _created(raw: dict[str, Any]) -> Created:
    return Created(pod=raw.get("pod"), faults=tuple(Fault(**fault) for fault in raw.get("errors", ())))


def _verdict(raw: dict[str, Any]) -> Verdict:
    nodes = {one["node"]: _status(one) for one in raw["nodes"]}
    pre_filter = _status(raw["preFilter"]) if "preFilter" in raw else None
    return Verdict(pre_filter=pre_filter, nodes=nodes, message=raw["message"])


def _status(raw: dict[str, Any]) -> Status:
    return Status(plugin=raw.get("plugin", ""), code=raw["code"], reasons=tuple(raw.get("reasons", ())))
