"""Amounts of what a node offers and a pod requests, as exact integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CPU = "cpu"
MEMORY = "memory"
EPHEMERAL_STORAGE = "ephemeral-storage"
PODS = "pods"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """CPU in millicores, memory and storage in bytes, everything else in its own unit.

    The fields are those of kube-scheduler's framework.Resource. `scalars` holds extended resources and huge pages,
    sorted by name, without zeros, so that equal amounts compare equal.
    """

    cpu_milli: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0
    scalars: tuple[tuple[str, int], ...] = ()

    def get(self, name: str) -> int:
        """The amount of a resource by its Kubernetes name (CPU in millicores)."""
        if name == CPU:
            return self.cpu_milli
        if name == MEMORY:
            return self.memory_bytes
        if name == EPHEMERAL_STORAGE:
            return self.storage_bytes
        return dict(self.scalars).get(name, 0)

    def __add__(self, other: Resources) -> Resources:
        return self._combine(other, 1)

    def __sub__(self, other: Resources) -> Resources:
        return self._combine(other, -1)

    def _combine(self, other: Resources, sign: int) -> Resources:
        scalars = self.scalars
        if other.scalars:
            amounts = dict(self.scalars)
            for name, amount in other.scalars:
                amounts[name] = amounts.get(name, 0) + sign * amount
            scalars = tuple(sorted((name, amount) for name, amount in amounts.items() if amount))
        return Resources(
            cpu_milli=self.cpu_milli + sign * other.cpu_milli,
            memory_bytes=self.memory_bytes + sign * other.memory_bytes,
            storage_bytes=self.storage_bytes + sign * other.storage_bytes,
            scalars=scalars,
        )


ZERO = Resources()


def total(amounts: Iterable[Resources]) -> Resources:
    """The sum of many amounts."""
    result = ZERO
    for amount in amounts:
        result = result + amount
    return result
