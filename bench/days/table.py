"""The table of what was lived through."""

from __future__ import annotations

from typing import Any


def text(runs: list[dict[str, Any]]) -> str:
    """Markdown."""
    return str(len(runs))
