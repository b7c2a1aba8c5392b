"""Leader election on a coordination.k8s.io Lease, on monotonic time.

The wall clock is written into the record for people and never read back: a foreign lease has expired when we have
not seen it change for its duration, measured here. We lead for `renew_deadline_seconds` after the *start* of the last
renewal that was answered; others wait `duration_seconds` after they saw it, so between the two nobody acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec

from rebalancer.kube.outcome import CONFLICT, NOT_FOUND, Answer, ApiError, Refusal
from rebalancer.kube.retry import Surroundings

if TYPE_CHECKING:
    from rebalancer.kube.transport import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseParams:
    """15 / 10 / 2 s are client-go's and KubeVirt's own. The gap between the first two absorbs slow clocks."""

    namespace: str = "kubevirt-rebalancer"
    name: str = "kubevirt-rebalancer"
    identity: str = "kubevirt-rebalancer"
    duration_seconds: int = 15
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds < self.renew_deadline_seconds < self.duration_seconds:
            raise ValueError("a lease needs 0 < retry < renew deadline < duration")

    @classmethod
    def lasting(cls, seconds: int, *, namespace: str, name: str, identity: str) -> LeaseParams:
        """A lease of another duration, with the other times in the same proportions."""
        return cls(
            namespace=namespace,
            name=name,
            identity=identity,
            duration_seconds=seconds,
            renew_deadline_seconds=seconds * 2 / 3,
            retry_seconds=seconds * 2 / 15,
        )


class Leadership(Protocol):
    """What acting needs to know of the lease."""

    @property
    def holder(self) -> str:
        """Who leads as far as we know, "" for nobody."""
        ...

    @property
    def problem(self) -> str:
        """What is wrong with the lease, "" when nothing is."""
        ...

    def fence(self) -> float:
        """Seconds for which we certainly lead still; 0.0 when we do not."""
        ...


class Alone:
    """Leadership without a lease: for a single process that nobody competes with."""

    holder = "this process"
    problem = ""

    def fence(self) -> float:
        """For ever."""
        return float("inf")


class _Metadata(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class _Spec(msgspec.Struct, frozen=True):
    holder: str | None = msgspec.field(name="holderIdentity", default=None)
    duration: int | None = msgspec.field(name="leaseDurationSeconds", default=None)
    acquired: str | None = msgspec.field(name="acquireTime", default=None)
    renewed: str | None = msgspec.field(name="renewTime", default=None)
    transitions: int | None = msgspec.field(name="leaseTransitions", default=None)


class _Lease(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = _Spec()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The record as we last saw it change, and when (monotonic)."""

    spec: _Spec
    resource_version: str
    at: float


_DECODER = msgspec.json.Decoder(_Lease)


class Elector:
    """One contender. `run` until cancelled; it gives the lease back on the way out. `changed` is called on news."""

    def __init__(
        self,
        api: Api,
        params: LeaseParams,
        around: Surroundings,
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._params = params
        self._around = around
        self._changed = changed
        self._seen: _Seen | None = None
        self._held_until = 0.0
        self.problem = ""

    @property
    def holder(self) -> str:
        """Who leads as far as we know, "" for nobody: we ourselves only as long as it is certain."""
        holder = (self._seen.spec.holder or "") if self._seen else ""
        return "" if holder == self._params.identity and self.fence() <= 0.0 else holder

    def fence(self) -> float:
        """Seconds for which we certainly lead still; 0.0 when we do not."""
        return max(0.0, self._held_until - self._around.monotonic())

    async def run(self) -> None:
        """Contends and renews for ever; cancelling releases."""
        leading = False
        try:
            while True:
                await self._attempt()
                if (self.fence() > 0.0) != leading:
                    leading = not leading
                    self._changed()
                # Contenders spread out (client-go's JitterFactor); a leader renews on time.
                jitter = 0.0 if leading else self._around.random() * 1.2
                await anyio.sleep(self._pause(jitter))
        finally:
            with anyio.CancelScope(shield=True):
                await self._release()

    def _pause(self, jitter: float) -> float:
        pause = self._params.retry_seconds * (1.0 + jitter)
        left = self.fence()
        # Wake up when the lease runs out, so that whoever waits for news learns of it then.
        return min(pause, left) if left > 0.0 else pause

    async def _attempt(self) -> None:
        """One try to acquire or renew. A failure changes nothing: time alone ends the leadership."""
        limit = self._params.renew_deadline_seconds / 2
        try:
            with anyio.fail_after(limit):
                self.problem = await self._acquire_or_renew()
        except TimeoutError:
            self.problem = f"the lease could not be written within {limit:.1f} s"
        except ApiError as error:
            self.problem = str(error)

    async def _acquire_or_renew(self) -> str:
        """What is wrong, or ""."""
        if self.fence() > 0.0 and self._seen is not None:
            answer = await self._write(self._seen)
            if not (isinstance(answer, Refusal) and answer.kind in (CONFLICT, NOT_FOUND)):
                return answer.message if isinstance(answer, Refusal) else ""
        current = await self._api.get(self._path)
        if isinstance(current, Refusal):
            if current.kind != NOT_FOUND:
                return current.message
            self._held_until = 0.0
            answer = await self._write(None)
        else:
            seen = self._observe(current)
            if not self._free(seen):
                self._held_until = 0.0
                return ""
            answer = await self._write(seen)
        return answer.message if isinstance(answer, Refusal) and answer.kind != CONFLICT else ""

    def _observe(self, answer: Answer) -> _Seen:
        try:
            lease = _DECODER.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(f"the lease cannot be read: {error}") from error
        seen = _Seen(spec=lease.spec, resource_version=lease.metadata.resource_version, at=self._around.monotonic())
        if self._seen is not None and self._seen.spec == seen.spec:
            seen = replace(seen, at=self._seen.at)
        self._seen = seen
        return seen

    def _free(self, seen: _Seen) -> bool:
        if seen.spec.holder in (None, "", self._params.identity):
            return True
        duration = seen.spec.duration or self._params.duration_seconds
        return self._around.monotonic() >= seen.at + duration

    async def _write(self, seen: _Seen | None) -> Answer | Refusal:
        """Takes or renews the lease over the record `seen`; a change in between is a Conflict."""
        started = self._around.monotonic()
        manifest = self._manifest(seen)
        if seen is None:
            answer = await self._api.create(self._collection, manifest)
        else:
            answer = await self._api.replace(self._path, manifest)
        if isinstance(answer, Answer):
            self._observe(answer)
            self._held_until = started + self._params.renew_deadline_seconds
        return answer

    def _manifest(self, seen: _Seen | None, *, release: bool = False) -> dict[str, object]:
        now = datetime.fromtimestamp(self._around.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = seen.spec if seen is not None else _Spec()
        mine = before.holder == self._params.identity
        spec = {
            "holderIdentity": "" if release else self._params.identity,
            # A released lease is free at once for those who judge by its duration.
            "leaseDurationSeconds": 1 if release else self._params.duration_seconds,
            "acquireTime": before.acquired if mine and before.acquired else now,
            "renewTime": now,
            "leaseTransitions": (before.transitions or 0) + (0 if mine or seen is None else 1),
        }
        metadata = {"name": self._params.name, "namespace": self._params.namespace}
        if seen is not None:
            metadata["resourceVersion"] = seen.resource_version
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        """Gives the lease back if it is ours. If that fails it runs out by itself."""
        left, seen = self.fence(), self._seen
        self._held_until = 0.0
        if left > 0.0 and seen is not None and seen.spec.holder == self._params.identity:
            try:
                limit = min(left, self._params.retry_seconds)
                await self._api.replace(self._path, self._manifest(seen, release=True), timeout_seconds=limit)
            except ApiError as error:
                self.problem = str(error)

    @property
    def _collection(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._params.namespace}/leases"

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self._params.name}"
