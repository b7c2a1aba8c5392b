"""VMs that the same nodes would take: one evaluation of the scheduler's filters for all of a class."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rebalancer.domain.cluster import KubeVirt
from rebalancer.domain.frozen import EMPTY
from rebalancer.domain.node import Node
from rebalancer.domain.pod import Affinity, Pod
from rebalancer.domain.resources import ZERO, Resources
from rebalancer.domain.vmi import VMI
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import feasible_nodes
from rebalancer.policy.target import CPU_VENDOR, HOST_MODEL_CPU, HOST_MODEL_FEATURES, target_guard, target_pod


class Classes:
    """Rows of nodes that would take a VM's target pod if it were not for load and rules between pods.

    Load and rules between pods are the solver's business, as they change with every move; what is left of the target
    pod's spec says the same about every node for the whole plan. The state is the real one, so that kube-scheduler's
    verdict is the one it will give while the source still runs.
    """

    def __init__(self, state: ClusterState, kubevirt: KubeVirt) -> None:
        self._state, self._kubevirt = state, kubevirt
        self._positions = {name: position for position, name in enumerate(state.nodes)}
        self._by_object: dict[Hashable, tuple[int, Resources]] = {}
        self._by_spec: dict[Hashable, int] = {}
        self._by_mask: dict[bytes, int] = {}
        self._cpus: dict[str, tuple[tuple[str, str], ...]] = {}
        self.rows: list[NDArray[np.bool_]] = []

    def of(self, vmi: VMI, source: Pod) -> tuple[int, Resources]:
        """(row, requests of the target pod) of a VM that runs as `source`."""
        node = self._state.nodes[source.node]
        # Equal specs are one object after decoding, so most VMs are told by the identity of theirs.
        key = (id(vmi.spec), id(source.spec), vmi.machine_type, vmi.tsc_frequency, vmi.namespace, self._cpu(node))
        found = self._by_object.get(key)
        if found is None:
            target = target_pod(vmi, source, node, self._kubevirt)
            found = self._by_object[key] = (self._row(vmi, target, node), target.spec.requests)
        return found

    def without(self, row: int, nodes: Collection[str]) -> int:
        """A row as another one has it, less some nodes."""
        mask = self.rows[row].copy()
        mask[[self._positions[name] for name in nodes if name in self._positions]] = False
        found = self._by_mask.setdefault(mask.tobytes(), len(self.rows))
        if found == len(self.rows):
            self.rows.append(mask)
        return found

    def allowed(self) -> NDArray[np.bool_]:
        """allowed[K, N] of all classes so far; at least one row."""
        return np.array(self.rows or [np.zeros(len(self._state.nodes), dtype=np.bool_)])

    def _row(self, vmi: VMI, target: Pod, node: Node) -> int:
        affinity = Affinity(node_required=target.spec.affinity.node_required)
        spec = replace(target.spec, requests=ZERO, affinity=affinity, spread=())
        key = (spec, target.namespace if spec.volumes else "", vmi.spec.cpu_model, self._cpu(node))
        if key not in self._by_spec:
            # Without labels no other pod's anti-affinity is about it: that is a rule between pods, too. The pod of a VM
            # that has migrated before keeps, by a label of KubeVirt's, all pods of this VM off its node.
            alone = replace(target, spec=spec, uid="class", labels=EMPTY)
            mask = np.zeros(len(self._state.nodes), dtype=np.bool_)
            feasible = feasible_nodes(self._state, alone, target_guard(replace(vmi, node=""), node))
            mask[[self._positions[name] for name in feasible]] = True
            self._by_spec[key] = self._by_mask.setdefault(mask.tobytes(), len(self.rows))
            if self._by_spec[key] == len(self.rows):
                self.rows.append(mask)
        return self._by_spec[key]

    def _cpu(self, node: Node) -> tuple[tuple[str, str], ...]:
        """What a node's labels say about its CPU, as far as migrations away from it depend on it."""
        found = self._cpus.get(node.name)
        if found is None:
            prefixes = (HOST_MODEL_CPU, HOST_MODEL_FEATURES, CPU_VENDOR)
            found = tuple(sorted(label for label in node.labels.items() if label[0].startswith(prefixes)))
            self._cpus[node.name] = found
        return found
