"""Where a VM must not go back to: nodes that we have taken it away from within a day. Pure.

A VM that comes back has been moved twice for nothing, whatever the reasons were each time; that its first reason is
gone by now was to be expected of a cluster that lives. Counted from the VMIMs that exist, like all that we remember.
"""

from __future__ import annotations

from collections.abc import Mapping

from rebalancer.domain.naming import MANAGED_BY, MANAGER
from rebalancer.domain.snapshot import Snapshot

RETURN_SECONDS = 24 * 3600.0


def left_lately(snapshot: Snapshot, now: float) -> Mapping[str, frozenset[str]]:
    """By the key of each VM the nodes that it has left by migrations of ours; `now` in seconds since 1970."""
    found: dict[str, frozenset[str]] = {}
    for migration in snapshot.migrations.values():
        if migration.phase != "Succeeded" or migration.labels.get(MANAGED_BY) != MANAGER:
            continue
        ended = migration.state.ended or migration.created
        if migration.state.source_node and now - ended <= RETURN_SECONDS:
            found[migration.vmi_key] = found.get(migration.vmi_key, frozenset()) | {migration.state.source_node}
    return found
