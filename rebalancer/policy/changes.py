"""What has become of one snapshot in another: only that is worked over again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import eq, is_not
from typing import TypeVar

from rebalancer.domain.frozen import revisions
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration

V = TypeVar("V")
Pair = tuple[V | None, V | None]
"""Before and after; None where there is nothing of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """By key, whatever is not equal in two snapshots. An object that is equal, but not the same, has not changed.

    `rebuilt`: something has changed that everything else hangs on, so that nothing known of the first snapshot helps
    with the second: which nodes there are, what they offer, their labels and taints, namespaces, volumes, KubeVirt.
    """

    nodes: Mapping[str, Pair[Node]]
    pods: Mapping[str, Pair[Pod]]
    vmis: Mapping[str, Pair[VMI]]
    migrations: Mapping[str, Pair[Migration]]
    rebuilt: bool

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Changes:
        """From one snapshot to another, any other. Fast where the two share most of their objects."""
        nodes = differences(before.nodes, after.nodes)
        return cls(
            nodes=nodes,
            pods=differences(before.pods, after.pods),
            vmis=differences(before.vmis, after.vmis),
            migrations=differences(before.migrations, after.migrations),
            rebuilt=any(map(_other_node, nodes.values())) or _surroundings(before) != _surroundings(after),
        )

    def __len__(self) -> int:
        return len(self.nodes) + len(self.pods) + len(self.vmis) + len(self.migrations)


def differences(before: Mapping[str, V], after: Mapping[str, V]) -> dict[str, Pair[V]]:
    """Where two maps differ: where it is known where they may, nothing else is looked at."""
    suspects: Iterable[str] | None = revisions(before, after)
    if suspects is not None:
        pass
    elif len(before) == len(after) and all(map(eq, before, after)):
        suspects = compress(after, map(is_not, before.values(), after.values()))
    else:
        suspects = compress(after, map(is_not, map(before.get, after), after.values()))
        suspects = (*suspects, *(before.keys() - after.keys()))
    pairs = ((key, before.get(key), after.get(key)) for key in suspects)
    return {key: (old, new) for key, old, new in pairs if old != new}


def _surroundings(snapshot: Snapshot) -> tuple[object, ...]:
    return (
        snapshot.kubevirt,
        snapshot.namespaces,
        snapshot.volumes,
        snapshot.claims,
        snapshot.csi_nodes,
    )


def _other_node(pair: Pair[Node]) -> bool:
    """Whether more of a node has changed than its condition and what somebody has noted on it."""
    before, after = pair
    return before is None or after is None or _built(before) != _built(after)


def _built(node: Node) -> tuple[object, ...]:
    return (
        node.labels,
        node.taints,
        node.unschedulable,
        node.allocatable,
        node.pods,
        node.capacity_known,
        node.declared_features,
    )
