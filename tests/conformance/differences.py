"""Where the simulator is not held to the real control plane, and why. Everything that is not listed must agree."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from conformance.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference that stays.

    `where` is a pattern of "scene: object: facet", the facet of events being "events". `key` names the one key of a
    facet's JSON objects, or the reason of an event, that is not compared; without it the facet is not.
    """

    where: str
    key: str = ""
    why: str
    chance: bool = False
    """It comes and goes."""


_UPKEEP = "a mark of KubeVirt's for its own upgrades, consoles and backups; neither the simulator nor we read it"

DIFFERENCES = (
    Difference(where="*: Pod *: annotations", key="kubectl.kubernetes.io/default-container", why=_UPKEEP),
    Difference(where="*: Pod *: annotations", key="kubevirt.io/pci-topology-version", why=_UPKEEP),
    Difference(where="*: Pod *: annotations", key="kubevirt.io/nonroot", why=_UPKEEP),
    Difference(where="*: Pod *: annotations", key="*.hook.backup.velero.io/*", why=_UPKEEP),
    Difference(where="*: VMI *: annotations", key="kubevirt.io/pci-topology-version", why=_UPKEEP),
    Difference(where="*: VMI *: annotations", key="kubevirt.io/*-observed-api-version", why=_UPKEEP),
    Difference(where="*: VMI *: annotations", key="kubevirt.io/nonroot", why=_UPKEEP),
    Difference(
        where="vm-stopped*: VMI vm: phase",
        why="virt-handler would shut the guest down and say Succeeded, as the simulator does; the node plane, which "
        "stands in for it, does not, and virt-controller finds the pod gone and says Failed",
    ),
    Difference(
        where="vm-stopped*: VirtualMachineInstanceMigration move: events",
        key="FailedMigration",
        why="which of the two pods of a VM that is deleted ends first, and so the reason",
        chance=True,
    ),
    Difference(
        where="*: VirtualMachineInstanceMigration *: events",
        key="FailedDelete",
        why="virt-controller deletes the target pod of a migration that is called back, and before it has heard that "
        "the pod is gone sometimes again",
        chance=True,
    ),
    Difference(
        where="vm-stopped*: Migration move: [tfm]*",
        why="whether the migration has ended, with its finalizer and its copy of the state, when its VM goes; where it "
        "has its finalizer still, KubeVirt 1.8 now and then leaves it there for ever, failed",
        chance=True,
    ),
    Difference(
        where="five-are-kept: Pod virt-launcher-vm-1: there",
        why="the simulator is KubeVirt 1.9, which removes the pod that a removed migration has left; 1.8 does not",
    ),
)


def comparable(scene: str, trace: Trace, differences: tuple[Difference, ...] = DIFFERENCES) -> dict[str, list[Any]]:
    """A trace as `object: facet` to values, without what is not compared; and the requests under `asked`."""
    facets: dict[str, list[Any]] = {"asked": trace["asked"]}
    for name, found in trace["objects"].items():
        facets |= {f"{name}: {facet}": values for facet, values in found.items()}
    facets |= {f"{name}: events": told for name, told in trace["events"].items()}
    for difference in differences:
        for path in [path for path in facets if fnmatchcase(f"{scene}: {path}", difference.where)]:
            if difference.key:
                facets[path] = _without(facets[path], difference.key)
            else:
                del facets[path]
    return {path: values for path, values in facets.items() if values}


def _without(values: list[Any], key: str) -> list[Any]:
    """The values without a key; a step that changed nothing else is no step."""
    left: list[Any] = []
    for number, value in enumerate(values):
        if isinstance(value, dict):
            kept = {name: one for name, one in value.items() if not fnmatchcase(name, key)}
            if kept or not number:
                left.append(kept)
        elif not (isinstance(value, list) and len(value) > 2 and fnmatchcase(value[2], key)):
            left.append(value)
    return left
