"""Work in a process of its own, with so much memory and no more."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar, cast

T = TypeVar("T")

MEMORY_MB = 1_024
"""What a process may take for its data."""


class FailedError(Exception):
    """Work that gave nothing, and why."""


def isolated(work: Callable[..., T], *arguments: object) -> T:
    """What work gives. It and its arguments must be importable by name. Raises FailedError."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_confined, args=(sending, work, *arguments))
    process.start()
    sending.close()
    try:
        result = receiving.recv()
    except EOFError:
        raise FailedError("failed") from None
    finally:
        process.join()
    if isinstance(result, MemoryError):
        raise FailedError(f"needs more than {MEMORY_MB:,} MB")
    return cast("T", result)


def _confined(results: Connection, work: Callable[..., object], *arguments: object) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MB << 20, MEMORY_MB << 20))
    try:
        results.send(work(*arguments))
    except MemoryError as error:
        results.send(error)
