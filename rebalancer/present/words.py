"""Amounts, lists and names as people read them: the small words that all renderers share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from rebalancer.domain.resources import CPU, MEMORY

MAX_NAMED = 3
"""How many of many things a sentence names before it says how many more there are."""

RESOURCES = {CPU: "CPU", MEMORY: "memory"}


def count(number: int, thing: str, things: str = "") -> str:
    """A number with its noun: `1 move`, `14 moves`, `no moves`."""
    return f"{number or 'no'} {thing if number == 1 else things or thing + 's'}"


def listing(names: Sequence[str]) -> str:
    """Words as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def some(names: Collection[str], most: int = MAX_NAMED) -> str:
    """The first few names, and how many more there are."""
    ordered = list(names)
    if len(ordered) <= most + 1:
        return listing(ordered)
    return f"{', '.join(ordered[:most])} and {len(ordered) - most} more"


def percent(value: float) -> str:
    """A percentage with one decimal."""
    return f"{value:.1f} %"


def size(amount: int) -> str:
    """Bytes in the largest binary unit that leaves at least 1."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds as the two largest units: `45 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    rest = max(0, round(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if rest >= length:
            parts.append(f"{rest // length} {unit}")
            rest %= length
    return " ".join(parts[:2]) or "0 s"


def moment(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, to the second, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def resource(name: str) -> str:
    """A resource as a sentence names it."""
    return RESOURCES.get(name, name)
