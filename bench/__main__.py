"""`python -m bench [TABLE ...]`: every table, or those named; each is a module of its own with options of its own.

Tables that take hours are made only when they are named.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOURS = {"days"}


def tables() -> list[str]:
    """The tables there are: the folders and files of bench/ that can be run."""
    folders = (path.parent.name for path in HERE.glob("*/__main__.py"))
    files = (path.stem for path in HERE.glob("*.py") if "__main__" not in path.name and _runs(path))
    return sorted([*folders, *files])


def _runs(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text(encoding="utf-8")


def main() -> int:
    """Run the tables one after another, each in a process of its own. Returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"one of {', '.join(tables())}")
    names = parser.parse_args().tables or [name for name in tables() if name not in HOURS]
    unknown = sorted(set(names) - set(tables()))
    if unknown:
        parser.error(f"there is no table {unknown[0]!r}; there are {', '.join(tables())}")
    failed = 0
    for name in names:
        print(f"# {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
