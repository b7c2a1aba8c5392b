"""JSON text cut into pieces without recursion and without building values.

For what a decoder cannot take as a whole: objects nested deeper than its stack, several documents in one file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)
_OPENING = (b"{", b"[")
_CLOSING = (b"}", b"]")


class CutError(ValueError):
    """The text is not JSON, or ends too early."""


def documents(text: bytes) -> Iterator[bytes]:
    """The values that stand one after the other in a text (one document, JSON lines, or concatenated)."""
    depth, start = 0, 0
    for token, position in _tokens(text, 0):
        if depth == 0:
            if token not in _OPENING:
                raise CutError("there is something else between the objects")
            start = position
        depth += _step(token)
        if depth == 0:
            yield text[start : position + len(token)]
    if depth:
        raise CutError("the text ends in the middle of a value")


def elements(array: bytes) -> list[bytes]:
    """The elements of one JSON array."""
    return [array[start:end] for start, _, end in _split(array, b"[")]


def members(record: bytes) -> dict[str, bytes]:
    """The members of one JSON object by name; names that are not plain UTF-8 text are left out."""
    found: dict[str, bytes] = {}
    for start, colon, end in _split(record, b"{"):
        if colon < 0:
            raise CutError("an object with a member that has no value")
        name = record[start:colon].strip()[1:-1]
        if name.isascii() and b"\\" not in name:
            found[name.decode()] = record[colon + 1 : end].strip()
    return found


def _split(text: bytes, opening: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, position of the first colon or -1, end) of each comma-separated part of one array or object."""
    depth, start, colon, filled = 0, 0, -1, False
    for token, position in _tokens(text, 0):
        if depth == 0:
            if token != opening:
                raise CutError("another kind of value")
            start = position + 1
        elif depth == 1 and token == b":" and colon < 0:
            colon = position
        elif depth == 1 and (token == b"," or token in _CLOSING):
            if filled:
                yield start, colon, position
            start, colon, filled = position + 1, -1, False
        else:
            filled = True
        depth += _step(token)
        if depth == 0:
            return
    raise CutError("the text ends in the middle of a value")


def _tokens(text: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    end = start
    for match in _TOKEN.finditer(text, start):
        if text[end : match.start()].strip():
            break
        end = match.end()
        yield match[0], match.start()
    rest = text[end:].lstrip()
    if rest:
        raise CutError("the text ends in the middle of a value" if rest[:1] == b'"' else "the text is not JSON")


def _step(token: bytes) -> int:
    if token in _OPENING:
        return 1
    return -1 if token in _CLOSING else 0
