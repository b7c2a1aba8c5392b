"""A month of a living cluster: `python -m bench.days`, each contestant of each seed in a process of its own.

What has been lived through already is kept as JSON in a folder and not lived through again; --table only reads it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.days.agenda import AgendaParams, agenda
from bench.days.contestants import CONTESTANTS
from bench.days.run import live
from bench.days.table import text
from bench.results import publish

FOLDER = Path(__file__).parent / "runs"
SEEDS = (1, 2, 3)
DAYS = 30
TITLE, COMMAND = "Thirty days of a living cluster", "python -m bench.days"


def path_of(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{CONTESTANTS.index(name)}-{seed}.json"


def one(name: str, seed: int, params: AgendaParams, folder: Path) -> None:
    """Live through one month; what is known is written down every day."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, name, seed)

    def note(figures: dict[str, Any]) -> None:
        path.write_text(json.dumps(figures), encoding="utf-8")
        last = figures["days"][-1]
        told = f"{last['above']:.2%} above, {last['cpu_seconds']} s, {last['issued']}, {len(figures['broken'])} broken"
        print(f"{name}, seed {seed}, day {len(figures['days'])}: {told}", flush=True)

    live(agenda(params, seed), name, each_day=note)


def found(folder: Path) -> list[dict[str, Any]]:
    """Every month that there is."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def main() -> None:
    """Lives through what is missing, prints the table and publishes it."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", choices=CONTESTANTS, help="live through the months of one contestant here and stop")
    parser.add_argument("--table", action="store_true", help="of what there is")
    parser.add_argument("--keep", action="store_true", help="print only, leave RESULTS.md as it is")
    options = parser.parse_args()
    params = AgendaParams(days=options.days, quiet_day=options.days)
    if options.only:
        for seed in options.seeds:
            one(options.only, seed, params, options.folder)
        return
    for seed in () if options.table else options.seeds:
        for name in CONTESTANTS:
            path = path_of(options.folder, name, seed)
            if not path.exists() or len(json.loads(path.read_text(encoding="utf-8"))["days"]) < options.days:
                same = ["--seeds", str(seed), "--days", str(options.days), "--folder", str(options.folder)]
                subprocess.run([sys.executable, "-m", "bench.days", "--only", name, *same], check=True)
    shown = text(found(options.folder))
    print(shown)
    if not options.keep:
        publish(TITLE, COMMAND, shown)


if __name__ == "__main__":
    main()
