"""Follows our migrations from the POST to what the VMI itself says at the end; adopts those of a predecessor."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from rebalancer.control.clock import Clock
from rebalancer.control.executor import Executor, Gone
from rebalancer.control.flight import (
    Flight,
    adopted,
    arrived,
    failure_message,
    is_ours,
    migration_key,
    overlay,
    unplaced,
    why_withdraw,
)
from rebalancer.control.ledger import Ledger
from rebalancer.domain.naming import PLAN
from rebalancer.domain.report import Outcome
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.outcome import ApiError
from rebalancer.policy.budget import Start

SUCCEEDED = "Succeeded"
FAILED = "Failed"
WITHDRAWN = "Withdrawn"
REFUSED = "Refused"
LOST = "Lost"

UNENDED_SECONDS = 450.0
"""So long after we have deleted it a migration that has not ended holds up nothing else any more. A target launcher
gives up after 360 s; what is left then waits for a node that is gone. It still counts in every budget."""
ARRIVAL_SECONDS = 120.0
"""How long the watches, or the end of the pod left behind, may lag behind a VMI that has landed."""
REMEMBERED = 1000
"""Ended VMIMs that a watch which lags behind must not bring back to life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    node: str
    since: float


class Flights:
    """The VMIMs of ours that are under way. State in memory only: all of it can be read back from the cluster."""

    def __init__(self, executor: Executor, clock: Clock) -> None:
        self._executor = executor
        self._clock = clock
        self._flying: dict[str, Flight] = {}
        self._arrivals: dict[str, _Arrival] = {}
        self._ended: deque[str] = deque(maxlen=REMEMBERED)
        self._ledger = Ledger(clock)
        self.unwithdrawn: tuple[tuple[Flight, str, str], ...] = ()
        """Those that must give way and could not be deleted just now: flight, why it must, why it could not."""

    def all(self) -> tuple[Flight, ...]:
        """Every flight, oldest first."""
        return tuple(self._flying.values())

    def begin(self, flight: Flight) -> None:
        """Follows a VMIM that was just made."""
        self._ledger.note(flight.migration, flight.move.uid, flight.begun)
        self._flying[flight.key] = flight

    def starts(self) -> tuple[Start, ...]:
        """What we have started within a day, whether or not its VMIM is still there."""
        return self._ledger.starts()

    def forget(self) -> None:
        """Lets go of everything that is under way: somebody else leads."""
        self._flying.clear()
        self._arrivals.clear()

    def overlay(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what we have set going and no watch has shown yet."""
        return overlay(snapshot, self.all())

    def awaited(self, snapshot: Snapshot) -> tuple[str, ...]:
        """VMIs that have landed although the snapshot does not show it yet."""
        now = self._clock.monotonic()
        for vmi, arrival in list(self._arrivals.items()):
            if arrived(snapshot, vmi, arrival.node) or now - arrival.since > ARRIVAL_SECONDS:
                del self._arrivals[vmi]
        return tuple(self._arrivals)

    async def settle(self, snapshot: Snapshot, *, act: bool, unsettled: str = "") -> tuple[Outcome, ...]:
        """Takes note of what the snapshot says, and gives the migrations that have ended since the last time.

        With `act`, those that must give way are deleted, all of them where the cluster is `unsettled`. `snapshot` is as
        watched, without the overlay.
        """
        for migration in snapshot.migrations.values():
            self._adopt(migration, snapshot)
        self.unwithdrawn = ()
        outcomes = []
        for flight in [self._refresh(flight, snapshot) for flight in self.all()]:
            outcome = await self._end(flight, shown=flight.key in snapshot.migrations) or self._given_up(flight)
            if outcome is not None:
                del self._flying[flight.key]
                self._ended.append(flight.migration.uid)
                outcomes.append(outcome)
            elif act and not flight.withdrawn:
                await self._give_way(flight, snapshot, unsettled)
        return tuple(outcomes)

    async def take_over(self, snapshot: Snapshot) -> tuple[Migration, ...]:
        """Reads what a predecessor has started in its last moments and our watches may not show yet, so that no budget
        is counted without it. Gives every migration of ours, ended ones too. Raises ApiError."""
        own = await self._executor.read_own()
        for migration in own:
            if migration_key(migration) not in snapshot.migrations:
                self._adopt(migration, snapshot, seen=False)
        return own

    def _adopt(self, migration: Migration, snapshot: Snapshot, *, seen: bool = True) -> None:
        if not is_ours(migration):
            return
        vmi = snapshot.vmis.get(migration.vmi_key)
        self._ledger.note(migration, vmi.uid if vmi is not None else "")
        if migration.final or migration_key(migration) in self._flying or migration.uid in self._ended:
            return
        now, wall = self._clock.monotonic(), self._clock.now()
        move = adopted(migration, snapshot)
        limit = self._executor.deadline.seconds(move.memory_bytes, snapshot.kubevirt)
        # The wall clock may have jumped: an adopted migration gets between none and all of its time.
        age = min(max(wall - migration.created, 0.0), limit)
        self.begin(
            Flight(
                move=move,
                migration=migration,
                plan=migration.labels.get(PLAN, ""),
                begun=now - age,
                started=migration.created,
                limit_seconds=limit,
                seen=seen,
                withdrawn="it was being withdrawn by an earlier leader" if migration.deleting else "",
                withdrawn_at=now,
            )
        )

    def _refresh(self, flight: Flight, snapshot: Snapshot) -> Flight:
        """The flight with its VMIM as the snapshot has it."""
        current = snapshot.migrations.get(flight.key)
        if current is not None:
            flight = replace(flight, migration=current, seen=True, unplaced=unplaced(flight, snapshot))
            self._flying[flight.key] = flight
        return flight

    async def _end(self, flight: Flight, *, shown: bool) -> Outcome | None:
        """How a flight has ended; None while it is under way, or where that cannot be told right now."""
        if shown and not flight.migration.final:
            return None
        ended = flight.migration if shown else None
        try:
            if not flight.seen:
                # The watches lag behind our POST, or it has come and gone between two looks: ask, ever more rarely.
                elapsed = self._clock.monotonic() - flight.begun
                if elapsed < flight.unseen_seconds:
                    return None
                self._flying[flight.key] = flight = replace(flight, unseen_seconds=2 * elapsed)
                ended = await self._executor.read_migration(flight.migration.namespace, flight.migration.name)
                if ended is not None and not ended.final:
                    return None
            vmi = await self._executor.read_vmi(flight.move.vmi, flight.move.uid)
        except ApiError:
            return None  # the API server is out of reach; the next cycle asks again
        return self._judge(flight, ended, vmi)

    def _judge(self, flight: Flight, ended: Migration | None, vmi: VMI | Gone) -> Outcome | None:
        """A VMIM that is gone does not say where the VM is: only the VMI does."""
        move = flight.move
        if isinstance(vmi, Gone):
            return self._outcome(flight, LOST, vmi.message, "")
        state = vmi.migration_state
        if ended is None and state.in_flight and not state.failed and state.migration_uid == flight.migration.uid:
            return None  # deleted, but the move goes on and may complete all the same
        if vmi.node == move.target:
            self._arrivals[move.vmi] = _Arrival(node=vmi.node, since=self._clock.monotonic())
            return self._outcome(flight, SUCCEEDED, "", vmi.node)
        if flight.withdrawn:
            return self._outcome(flight, FAILED if flight.overdue else WITHDRAWN, flight.withdrawn, vmi.node)
        if ended is not None and ended.phase == "Succeeded":
            return self._outcome(flight, FAILED, f"it landed on {vmi.node} instead of {move.target}", vmi.node)
        return self._outcome(flight, FAILED, failure_message(ended, flight.unplaced), vmi.node)

    def _outcome(self, flight: Flight, result: str, message: str, node: str) -> Outcome:
        return Outcome(
            move=flight.move,
            migration=migration_key(flight.migration),
            result=result,
            message=message,
            finished=self._clock.now(),
            landed_on=node,
        )

    def _given_up(self, flight: Flight) -> Outcome | None:
        """The end of a migration that was deleted and does not end."""
        since = self._clock.monotonic() - flight.withdrawn_at
        if not flight.withdrawn or since <= UNENDED_SECONDS:
            return None
        return self._outcome(flight, FAILED, f"{flight.withdrawn}; deleted {since:.0f} s ago, it has not ended", "")

    async def _give_way(self, flight: Flight, snapshot: Snapshot, unsettled: str) -> None:
        flight = self._flying[flight.key]
        elapsed = self._clock.monotonic() - flight.begun
        reason = why_withdraw(flight, snapshot, elapsed, unsettled)
        if not reason:
            return
        if problem := await self._executor.withdraw(flight):
            self.unwithdrawn += ((flight, reason, problem),)
            return
        overdue = elapsed > flight.limit_seconds
        self._flying[flight.key] = replace(
            flight, withdrawn=reason, withdrawn_at=self._clock.monotonic(), overdue=overdue
        )
