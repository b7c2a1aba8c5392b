"""An instance as JSON for programs that run elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers.numbers import Numbers

MEMORY_LIMIT_MIB = 8 * 1024
MIB = 2**20


def given(numbers: Numbers, seconds: float) -> dict[str, Any]:
    """Everything by number. Memory in MiB, sizes rounded up and rooms down.

    `closed` nodes take nobody; `forbidden` are, by kind of VM, the further nodes that it cannot go to; `misplaced` VMs
    are where their own rules do not let them be; `scopes` hold the groups that are counted over the same domains.
    """
    closed = ~numbers.open.any(axis=0)
    scopes: dict[tuple[int, ...] | None, list[dict[str, Any]]] = {}
    for group in numbers.groups:
        scopes.setdefault(None if group.by_host else group.domains, []).append(
            {"members": list(group.members), "most": group.most, "least": group.least}
        )
    misplaced = np.flatnonzero(~numbers.lawful[numbers.kind, numbers.home] & numbers.movable)
    return {
        "seconds": seconds,
        "memory_limit_mib": MEMORY_LIMIT_MIB,
        "nodes": len(numbers.nodes),
        "home": numbers.home.tolist(),
        "kind": numbers.kind.tolist(),
        "cpu": numbers.size[:, 0].tolist(),
        "memory": (-(-numbers.size[:, 1] // MIB)).tolist(),
        "limit": numbers.limit.tolist(),
        "memory_room": (numbers.room[:, 1] // MIB).tolist(),
        "closed": np.flatnonzero(closed).tolist(),
        "pinned": np.flatnonzero(~numbers.movable).tolist(),
        "forbidden": {
            str(kind): np.flatnonzero(~row & ~closed).tolist()
            for kind, row in enumerate(numbers.open)
            if (~row & ~closed).any()
        },
        "misplaced": [(vm, int(numbers.home[vm])) for vm in misplaced.tolist()],
        "scopes": [{"domains": domains, "groups": groups} for domains, groups in scopes.items()],
    }
