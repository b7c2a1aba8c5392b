"""What our ended migrations tell a new leader, so that a restart forgets no failure.

KubeVirt keeps the newest five ended VMIMs of each VMI, which is more than a back-off needs. One that was withdrawn says
nothing about its VM or its target, and a migration that the API server refused has left no trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rebalancer.control.backoff import Backoff
from rebalancer.control.flight import failure_message, is_ours, target_name
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import Migration

DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One migration of ours that has ended `ago_seconds` ago; `failure` is "" where it succeeded."""

    vmi: str
    target: str
    ago_seconds: float
    failure: str


def learn(backoff: Backoff, found: Iterable[Ending]) -> None:
    """Tells a back-off what happened before its time."""
    for ending in found:
        if ending.failure:
            backoff.failed(ending.vmi, ending.target, f"{ending.vmi}: {ending.failure}", ending.ago_seconds)
        else:
            backoff.succeeded(ending.vmi, ending.target)


def endings(migrations: Iterable[Migration], snapshot: Snapshot, now: float) -> tuple[Ending, ...]:
    """Ours that have ended within a day, oldest first. `now` in seconds since 1970; an end in the future was just now.

    `snapshot` knows the nodes.
    """
    found = []
    for migration in {migration.uid: migration for migration in migrations}.values():
        ago = max(0.0, now - (migration.phase_times.get(migration.phase, 0.0) or migration.created))
        if not is_ours(migration) or not migration.final or ago >= DAY or migration.state.abort_requested:
            continue
        target = target_name(migration, snapshot.nodes)
        landed = migration.state.target_node or target
        if migration.phase != "Succeeded":
            failure = failure_message(migration)
        else:
            failure = "" if landed == target else f"it landed on {landed} instead of {target}"
        found.append(Ending(vmi=migration.vmi_key, target=target, ago_seconds=ago, failure=failure))
    return tuple(sorted(found, key=lambda ending: (-ending.ago_seconds, ending.vmi)))
