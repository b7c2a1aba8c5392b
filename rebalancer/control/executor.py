"""Starts and withdraws migrations, at most one per VM, and never after the lease has gone. It decides nothing.

Every write stands behind the same gate: seconds left on the lease bound the request, and a quorum read of the VMI just
before shows that the plan's picture of it is still true. The name makes a repeated POST harmless, so an answer that is
lost is followed by a read of that name, never by a second guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from rebalancer.control.clock import Clock
from rebalancer.control.flight import (
    CLEARING,
    DEADLINE_DEFAULTS,
    DeadlineParams,
    Flight,
    finalised_own,
    is_ours,
    target_name,
    why_no_receiver,
    why_yield,
)
from rebalancer.domain.naming import MANAGED_BY, MANAGER, PLAN, migration_name
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.plan import Move
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.decode import DecodeError, decode_list, decode_object
from rebalancer.kube.lease import Leadership
from rebalancer.kube.manifests import KUBEVIRT, MIGRATIONS, VMIS, PodLimits, migration, path
from rebalancer.kube.outcome import (
    ALREADY_EXISTS,
    FORBIDDEN,
    NOT_FOUND,
    TOO_MANY_REQUESTS,
    Answer,
    ApiError,
    Refusal,
)
from rebalancer.kube.transport import Api

OUTDATED = "Outdated"
"""The cluster is no longer what the plan was made for: plan again."""
WAITING = "Waiting"
"""Nothing is wrong with the move; it may start later."""
REFUSED = "Refused"
"""The API server will not have it: leave this VM alone for a while."""
LOST = "Lost"
"""No answer and nothing found: it may still appear, under a name that we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorParams:
    """`request_seconds`: time limit of one request; less when the lease ends sooner.

    `margin_seconds`: with less than this left on the lease no write begins.
    `reads_after_loss` and `read_pause_seconds`: how often a name is looked for after a lost answer.
    `renames`: how many ended VMIMs may stand in the way of a name before we give up.
    `clearing_seconds`: how long after the end of a VM's last migration we wait for KubeVirt to clear up behind it.
    Where the target pod died it never does, and the next migration is none the worse for it.
    """

    request_seconds: float = 10.0
    margin_seconds: float = 1.0
    reads_after_loss: int = 3
    read_pause_seconds: float = 1.0
    renames: int = 5
    clearing_seconds: float = 60.0
    pod_limits: PodLimits = PodLimits()
    deadline: DeadlineParams = DEADLINE_DEFAULTS


EXECUTOR_DEFAULTS = ExecutorParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """Why a move did not start. `kind` is OUTDATED, WAITING, REFUSED or LOST; `reason` a word, `message` a sentence.

    `alone`: it waits for something of its own, and others may start.
    """

    kind: str
    reason: str
    message: str
    retry_after_seconds: float = 0.0
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The VMI does not exist any more, or another one has its name."""

    message: str


class Executor:
    """Acts on one cluster through `api`, for as long as `leadership` has time left."""

    def __init__(
        self, api: Api, leadership: Leadership, clock: Clock, params: ExecutorParams = EXECUTOR_DEFAULTS
    ) -> None:
        self._api = api
        self._leadership = leadership
        self._clock = clock
        self._quiet_until = 0.0
        self.params = params

    @property
    def deadline(self) -> DeadlineParams:
        """When a migration has taken too long."""
        return self.params.deadline

    async def start(self, move: Move, plan: str, snapshot: Snapshot) -> Flight | NotStarted:
        """Creates the VMIM of a move, or takes over the one that is there already. Raises nothing of the API's."""
        try:
            vmi = await self.read_vmi(move.vmi, move.uid)
        except ApiError as error:
            return _unreadable(error)
        if isinstance(vmi, Gone):
            return NotStarted(kind=OUTDATED, reason="Gone", message=vmi.message)
        if (outdated := _why_outdated(move, vmi, snapshot) or self._why_not_yet(vmi)) is not None:
            return outdated
        ended = finalised_own(snapshot.migrations.values(), move.vmi)
        for attempt in range(self.params.renames):
            name = migration_name(move.uid, vmi.node, vmi.migration_state.migration_uid, ended + attempt)
            result = await self._create(move, plan, name, snapshot)
            if result is not None:
                return result
        message = f"{self.params.renames} ended migrations of {move.vmi} stand in the way of a new name"
        return NotStarted(kind=REFUSED, reason="NameTaken", message=message)

    async def withdraw(self, flight: Flight) -> str:
        """Deletes a VMIM of ours; "" when that was accepted, else why not. The move may complete all the same."""
        seconds, quiet = self._seconds_left(), self._quiet_until - self._clock.monotonic()
        if seconds <= 0.0:
            return "the lease has run out"
        if quiet > 0.0:
            return f"the API server asks to wait, {quiet:.0f} s still"
        found = flight.migration
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": found.uid}}
        where = path(MIGRATIONS, found.namespace, found.name)
        try:
            answer = await self._api.delete(where, options if found.uid else None, timeout_seconds=seconds)
        except ApiError as error:
            self._quiet_until = self._clock.monotonic() + error.retry_after_seconds
            return str(error)
        if not isinstance(answer, Refusal) or answer.kind == NOT_FOUND:
            return ""
        self._quiet_until = self._clock.monotonic() + answer.retry_after_seconds
        return answer.message

    async def read_vmi(self, key: str, uid: str = "") -> VMI | Gone:
        """The VMI as it is, by quorum read. Raises ApiError."""
        namespace, name = key.split("/", 1)
        answer = await self._api.get(path(VMIS, namespace, name), timeout_seconds=self.params.request_seconds)
        if isinstance(answer, Refusal):
            if answer.kind == NOT_FOUND:
                return Gone(message=f"{key} does not exist any more")
            raise _error(answer)
        vmi = _decode("VirtualMachineInstance", answer)
        assert isinstance(vmi, VMI)
        if uid and vmi.uid != uid:
            return Gone(message=f"{key} is another VM now, under the same name")
        return vmi

    async def read_migration(self, namespace: str, name: str) -> Migration | None:
        """A VMIM by name, None where there is none. Raises ApiError."""
        answer = await self._api.get(path(MIGRATIONS, namespace, name), timeout_seconds=self.params.request_seconds)
        if isinstance(answer, Refusal):
            if answer.kind == NOT_FOUND:
                return None
            raise _error(answer)
        found = _decode("VirtualMachineInstanceMigration", answer)
        assert isinstance(found, Migration)
        return found

    async def read_own(self) -> tuple[Migration, ...]:
        """Every VMIM of ours that exists, by quorum read. Raises ApiError."""
        pages = await self._api.list_all(f"{KUBEVIRT}/{MIGRATIONS}", labels=f"{MANAGED_BY}={MANAGER}")
        if isinstance(pages, Refusal):
            raise _error(pages)
        try:
            found = [item for page in pages for item in decode_list("VirtualMachineInstanceMigration", page).items]
        except DecodeError as error:
            raise ApiError(f"the answer cannot be read: {error}") from error
        return tuple(item for item in found if isinstance(item, Migration))

    def _why_not_yet(self, vmi: VMI) -> NotStarted | None:
        """A migration that is handed over while KubeVirt still clears up behind the last one fails."""
        left = self.params.clearing_seconds - abs(self._clock.now() - vmi.migration_state.ended)
        if CLEARING not in vmi.labels or left <= 0.0:
            return None
        message = f"the last migration of {vmi.key} is still being cleared up"
        return NotStarted(kind=WAITING, reason="ClearingUp", message=message, retry_after_seconds=left, alone=True)

    def _seconds_left(self) -> float:
        """The time limit of the next write; 0.0 where none may begin."""
        left = self._leadership.fence()
        return min(self.params.request_seconds, left) if left > self.params.margin_seconds else 0.0

    async def _create(self, move: Move, plan: str, name: str, snapshot: Snapshot) -> Flight | NotStarted | None:
        """One POST. None where an ended VMIM has the name."""
        hostname = snapshot.nodes[move.target].labels.get(HOSTNAME, move.target)
        manifest = migration(move, name=name, hostname=hostname, plan=plan, limits=self.params.pod_limits)
        seconds = self._seconds_left()
        if seconds <= 0.0:
            return NotStarted(kind=WAITING, reason="NotLeader", message="the lease has run out")
        namespace = move.vmi.split("/", 1)[0]
        try:
            # Whoever stops us waits for the answer, and only then gives the lease back: the next leader must be able to
            # see what we have begun. Strict: KubeVirt before 1.6 would drop addedNodeSelector and migrate anywhere.
            with anyio.CancelScope(shield=True):
                answer = await self._api.create(
                    path(MIGRATIONS, namespace), manifest, {"fieldValidation": "Strict"}, timeout_seconds=seconds
                )
        except ApiError as error:
            return await self._after_loss(move, namespace, name, snapshot, str(error))
        if isinstance(answer, Answer):
            try:
                return self._flight(move, plan, _migration(answer), snapshot)
            except ApiError as error:
                return await self._after_loss(move, namespace, name, snapshot, str(error))
        if answer.kind == ALREADY_EXISTS or (answer.status == 400 and "in-flight" in answer.message):
            return await self._after_collision(move, namespace, name, snapshot, answer)
        if answer.kind == TOO_MANY_REQUESTS:
            return NotStarted(
                kind=WAITING,
                reason="Throttled",
                message=f"the API server asks to wait: {answer.message}",
                retry_after_seconds=max(answer.retry_after_seconds, 1.0),
            )
        reason = "Forbidden" if answer.kind == FORBIDDEN else "Rejected"
        return NotStarted(kind=REFUSED, reason=reason, message=answer.message)

    async def _after_loss(
        self, move: Move, namespace: str, name: str, snapshot: Snapshot, problem: str
    ) -> Flight | NotStarted:
        """The answer to a POST was lost: only the cluster knows whether it was carried out."""
        for _ in range(self.params.reads_after_loss):
            await anyio.sleep(self.params.read_pause_seconds)
            try:
                found = await self.read_migration(namespace, name)
            except ApiError:
                continue
            if found is not None:
                # It may even have ended by now; the VMI tells how.
                return self._flight(move, found.labels.get(PLAN, ""), found, snapshot)
        return NotStarted(kind=LOST, reason="Lost", message=f"no answer and no VMIM {name}: {problem}")

    async def _after_collision(
        self, move: Move, namespace: str, name: str, snapshot: Snapshot, answer: Refusal
    ) -> Flight | NotStarted | None:
        """The name or the VM is taken. virt-api says 400 in-flight where one expects 409, so the name decides."""
        try:
            found = await self.read_migration(namespace, name)
        except ApiError as error:
            return _unreadable(error)
        if found is None:
            return NotStarted(kind=OUTDATED, reason="Migrating", message=answer.message)
        if found.final:
            return (
                None
                if answer.kind == ALREADY_EXISTS
                else NotStarted(kind=OUTDATED, reason="Migrating", message=answer.message)
            )
        if not is_ours(found) or found.vmi_key != move.vmi:
            return NotStarted(kind=REFUSED, reason="NameTaken", message=f"{name} is somebody else's")
        return self._flight(move, found.labels.get(PLAN, ""), found, snapshot)

    def _flight(self, move: Move, plan: str, found: Migration, snapshot: Snapshot) -> Flight:
        target = target_name(found, snapshot.nodes)
        if target and target != move.target:
            # Another leader's idea of where this VM goes; it is under way, so it is what happens.
            move = _redirected(move, target)
        return Flight(
            move=move,
            migration=found,
            plan=plan,
            begun=self._clock.monotonic(),
            started=self._clock.now(),
            limit_seconds=self.params.deadline.seconds(move.memory_bytes, snapshot.kubevirt),
        )


def _redirected(move: Move, target: str) -> Move:
    return Move(
        vmi=move.vmi,
        uid=move.uid,
        source=move.source,
        target=target,
        cost=move.cost,
        reasons=("started by an earlier leader",),
        memory_bytes=move.memory_bytes,
    )


def _why_outdated(move: Move, vmi: VMI, snapshot: Snapshot) -> NotStarted | None:
    """Why the plan no longer fits the VMI as just read, or its target as last seen."""
    if vmi.deleting or vmi.phase != "Running":
        return _outdated("NotRunning", f"{move.vmi} is {'being deleted' if vmi.deleting else vmi.phase}")
    if vmi.node != move.source:
        return _outdated("Moved", f"{move.vmi} runs on {vmi.node}, not on {move.source} any more")
    if vmi.migration_state.in_flight:
        return _outdated("Migrating", f"{move.vmi} is migrating already")
    if message := why_yield(vmi, snapshot):
        return _outdated("Yields", message)
    if message := why_no_receiver(snapshot.nodes.get(move.target)):
        return _outdated("NoReceiver", message)
    return None


def _unreadable(error: ApiError) -> NotStarted:
    wait = error.retry_after_seconds
    return NotStarted(kind=WAITING, reason="Unreadable", message=str(error), retry_after_seconds=wait)


def _error(answer: Refusal) -> ApiError:
    return ApiError(answer.message, status=answer.status, retry_after_seconds=answer.retry_after_seconds)


def _outdated(reason: str, message: str) -> NotStarted:
    return NotStarted(kind=OUTDATED, reason=reason, message=message)


def _migration(answer: Answer) -> Migration:
    found = _decode("VirtualMachineInstanceMigration", answer)
    assert isinstance(found, Migration)
    return found


def _decode(kind: str, answer: Answer) -> object:
    try:
        return decode_object(kind, answer.body)
    except DecodeError as error:
        raise ApiError(f"the answer cannot be read: {error}") from error
