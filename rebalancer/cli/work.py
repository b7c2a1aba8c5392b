"""What the commands that end by themselves do: from a dump or a live cluster to the text that is printed."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, dataclass, replace

from rebalancer.domain.plan import Plan
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.policy.triggers import TriggerMemory, find
from rebalancer.present import explain as explaining
from rebalancer.present.document import document, dumps
from rebalancer.present.manifests import manifests, migration_names
from rebalancer.present.text import text
from rebalancer.settings import Given, Settings, load, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A plan as it is printed, and whether it holds any move."""

    shown: str
    to_do: bool


def plan(source: str, given: Given, *, output: str, wave: int = 0) -> Made:
    """A plan for a dump, or for the cluster where `source` is empty."""
    settings = load(given)
    snapshot = _snapshot(source, settings)
    made = decided(snapshot, settings)
    if output == "json":
        shown = dumps(document(made, migration_names(made, snapshot)))
    elif output == "yaml":
        shown = manifests(made, snapshot, wave=wave, limits=settings.pod_limits())
    elif output == "html":
        from rebalancer.present.page import standalone  # noqa: PLC0415  (templates are for this format alone)

        shown = standalone(made, snapshot, settings.policy(), tuple(asdict(row) for row in rows(settings, given)))
    else:
        shown = text(made, width=_width(), colour=_colour())
    return Made(shown=shown, to_do=not made.is_noop())


def decided(snapshot: Snapshot, settings: Settings) -> Plan:
    """The plan that the daemon would make of a snapshot, were all its hotspots older than the hold time."""
    from rebalancer.planning.decide import decide  # noqa: PLC0415  (OR-Tools takes most of a second to load)

    now = snapshot.taken
    triggers, _ = find(snapshot, replace(settings.policy(), hold_seconds=0.0), TriggerMemory(), now)
    return decide(snapshot, triggers, settings.planning(), now=now)


def explain(source: str, given: Given, *, vmi: str, node: str, output: str) -> str:
    """Where one VM is and could be."""
    settings = load(given)
    told = explaining.explain(_snapshot(source, settings), vmi, settings.policy())
    return dumps(explaining.document(told)) if output == "json" else explaining.text(told, node=node)


def dump(file: str, given: Given) -> None:
    """The live cluster as a file."""
    from rebalancer.cli import live  # noqa: PLC0415

    live.dump(load(given), file)


def settings(given: Given, *, output: str) -> str:
    """All settings as a table, or as JSON."""
    found = rows(load(given), given)
    if output == "json":
        return dumps({"schema": "rebalancer.settings/v1", "settings": [asdict(row) for row in found]})
    head = ("setting", "value", "default", "unit", "source")
    lines = [_columns(head), ""]
    for row in found:
        lines += [_columns((row.name, row.value, row.default, row.unit, row.source)), f"    {row.meaning}"]
    return "".join(f"{line}\n" for line in lines)


def _columns(cells: tuple[str, str, str, str, str]) -> str:
    """Wide enough for all values but lists of names, which push the rest of their line to the right."""
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, (40, 12, 12, 16, 0), strict=True)).rstrip()


def _snapshot(source: str, settings: Settings) -> Snapshot:
    if source:
        return read_dump(source)
    from rebalancer.cli import live  # noqa: PLC0415

    return live.snapshot(settings)


def _width() -> int:
    """Of the terminal; 100 columns where there is none, so that a file reads the same wherever it was written."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100


def _colour() -> bool:
    return sys.stdout.isatty()
