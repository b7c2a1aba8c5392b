"""The pause that a person switches on and off by a signal. In memory only: a restart begins unpaused."""

from __future__ import annotations

from collections.abc import Callable


class Switch:
    """Paused since `since` (seconds since 1970), or not (None). `changed` is called on every toggle."""

    def __init__(self, now: Callable[[], float], changed: Callable[[], None] = lambda: None) -> None:
        self._now = now
        self._changed = changed
        self.since: float | None = None

    def toggle(self) -> None:
        """Pauses, or resumes."""
        self.since = self._now() if self.since is None else None
        self._changed()
