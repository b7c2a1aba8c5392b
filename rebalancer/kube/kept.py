"""Objects by key, and which of them were stored lately."""

from __future__ import annotations

from typing import TypeVar

Key = str
V = TypeVar("V")

REMEMBERED = 10_000
"""Objects stored last of which it is known which they were. At 1,000 a second that is many cycles."""


class Kept:
    """`stored` grows with every object that is stored or taken away; `since` says which ones they were."""

    def __init__(self) -> None:
        self.items: dict[Key, object] = {}
        self._lately: list[Key] = []
        self._forgotten = 0

    @property
    def stored(self) -> int:
        """How much has been stored so far."""
        return self._forgotten + len(self._lately)

    def since(self, stored: int) -> frozenset[Key] | None:
        """All keys under which something was stored or taken away since `stored` was so much; None where nobody knows
        any more."""
        return frozenset(self._lately[stored - self._forgotten :]) if stored >= self._forgotten else None

    def put(self, key: Key, item: object | None) -> None:
        """Stores an object, or takes away what there is."""
        put(self.items, key, item)
        if len(self._lately) >= REMEMBERED:
            self._forget()
        self._lately.append(key)

    def replace(self, items: dict[Key, object]) -> None:
        """Everything at once."""
        self.items = items
        self._forget()

    def _forget(self) -> None:
        self._forgotten += len(self._lately) + 1
        self._lately.clear()


def put(values: dict[Key, V], key: Key, value: V | None) -> None:
    """None takes away what there is."""
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
