"""A plan as VirtualMachineInstanceMigration manifests that `kubectl create -f -` takes, in the order of its waves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import yaml

from rebalancer.domain.naming import MANAGED_BY, MANAGER, migration_name
from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.manifests import PodLimits, migration
from rebalancer.present.text import summary, wave_title

POD_LIMITS = PodLimits()

Names = Mapping[tuple[str, str], str]
"""The name of the VMIM of each move of a plan, by VM and source: no plan moves a VM off the same node twice."""


def migration_names(plan: Plan, snapshot: Snapshot) -> Names:
    """How the VMIMs of a plan would be called if it was carried out now.

    The first move of a VM has the very name that the daemon would use, so the two cannot both start it. What a later
    move of the same VM is called depends on the UID of the VMIM before it; here that one's name stands in for it.
    """
    ended = Counter(
        migration.vmi_key
        for migration in snapshot.migrations.values()
        if migration.final and migration.labels.get(MANAGED_BY) == MANAGER
    )
    names: dict[tuple[str, str], str] = {}
    last: dict[str, str] = {}
    for move in plan.moves:
        vmi = snapshot.vmis.get(move.vmi)
        before = last.get(move.vmi) or (vmi.migration_state.migration_uid if vmi else "")
        name = migration_name(move.uid, move.source, before, ended[move.vmi])
        names[move.vmi, move.source] = last[move.vmi] = name
        ended[move.vmi] += 1
    return names


def manifests(plan: Plan, snapshot: Snapshot, *, wave: int = 0, limits: PodLimits = POD_LIMITS) -> str:
    """YAML documents with a comment for each wave and each move; a comment alone where there is nothing to do.

    `wave` from 1 on gives only that one, 0 gives all.
    """
    return "".join(_documents(plan, snapshot, wave, limits))


def _documents(plan: Plan, snapshot: Snapshot, only: int, limits: PodLimits) -> Iterator[str]:
    yield f"# Plan {plan.id}: {summary(plan)}\n"
    if len(plan.waves) > 1:
        yield "# Create one wave, wait until its migrations have succeeded, then the next one; --wave N prints one.\n"
    names = migration_names(plan, snapshot)
    for number, wave in enumerate(plan.waves, start=1):
        if only not in (0, number):
            continue
        yield f"# {wave_title(number, len(plan.waves), wave)}\n"
        for move in wave.moves:
            yield f"---\n# {move.vmi}: {move.source} to {move.target}: {_one_line('; '.join(move.reasons))}\n"
            manifest = migration(
                move,
                name=names[move.vmi, move.source],
                hostname=_hostname(snapshot, move.target),
                plan=plan.id,
                limits=limits,
            )
            yield yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=200)


def _hostname(snapshot: Snapshot, node: str) -> str:
    """The label that selects a node, which need not be its name."""
    return snapshot.nodes[node].labels.get(HOSTNAME, node) if node in snapshot.nodes else node


def _one_line(words: str) -> str:
    """A comment must not end early: names and rules come from the cluster."""
    return " ".join(words.split())
