"""Randomness keyed by (seed, subject): the fate of one object never depends on what others drew before it."""

from __future__ import annotations

import hashlib
from random import Random

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated Kubernetes names (apimachinery: util/rand), which spell no words."""


class Dice:
    """A source of reproducible draws. The same seed and subject give the same draw in every run and any order."""

    __slots__ = ("_seed",)

    def __init__(self, seed: int | str = 0) -> None:
        self._seed = str(seed)

    def of(self, *subject: object) -> Random:
        """A generator of its own for one subject."""
        return Random(self._digest(subject))

    def _digest(self, subject: tuple[object, ...]) -> bytes:
        return hashlib.sha256("\x1f".join((self._seed, *map(str, subject))).encode()).digest()

    def fraction(self, *subject: object) -> float:
        """A number in [0, 1)."""
        return int.from_bytes(self._digest(subject)[:7], "big") / (1 << 56)

    def between(self, low: float, high: float, *subject: object) -> float:
        return low + (high - low) * self.fraction(*subject)

    def happens(self, probability: float, *subject: object) -> bool:
        return self.fraction(*subject) < probability

    def uid(self, *subject: object) -> str:
        """A version 4 UUID."""
        text = self._digest(subject).hex()
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"

    def suffix(self, *subject: object, length: int = 5) -> str:
        """What the API server appends to generateName."""
        return "".join(NAME_ALPHABET[byte % len(NAME_ALPHABET)] for byte in self._digest(subject)[:length])
