"""What all decoders share: times, amounts, conditions, sharing of equal values, and salvage of broken objects."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw

from rebalancer.domain import quantity
from rebalancer.domain.frozen import EMPTY, FrozenMap, Labels
from rebalancer.domain.node import Condition
from rebalancer.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, Resources
from rebalancer.domain.selectors import is_label_key
from rebalancer.kube import pieces, wire

T = TypeVar("T")
W = TypeVar("W", bound=wire.Wire)

BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding text from outside can raise: wrong JSON, wrong types, broken Unicode, nesting beyond the stack."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_WHITE = " \t\n\v\f\r"
_LONGEST_ANNOTATION = 256 * 1024
"""Bytes; the API server's own limit for all annotations of an object."""


class UnreadableError(ValueError):
    """A value that the API server would have refused; the message begins with the field's path."""


def join(path: str, rest: str) -> str:
    """A field path and what stands below it, or a reason."""
    if not path or rest.startswith(("[", ":")):
        return path + rest
    return f"{path}.{rest}"


class inside:  # noqa: N801 - reads as a word: with inside("spec")
    """Turns whatever text from outside makes raise within into an UnreadableError that begins with a path.

    A class, as contextlib's decorator costs more than most of the reading that is done within.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and isinstance(error, BROKEN):
            raise UnreadableError(join(self._path, explain(error))) from None


def plain(text: str) -> str:
    """Text from outside that is safe in a line of a log: printable, of bounded length."""
    shown = text if len(text) <= 300 else f"{text[:300]}..."
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)


def explain(error: BaseException) -> str:
    """A decoder's error as "path: reason"."""
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, RecursionError):
        return ": nested too deeply"
    reason, _, place = str(error).partition(" - at `$")
    reason = reason.replace("Expected", "expected", 1)[:160]
    return f"{place.rstrip('`').removeprefix('.')}: {reason}"


# -- Sharing


@lru_cache(maxsize=32_768)
def _shared_labels(labels: Labels) -> Labels:
    return labels


def labels(found: Mapping[str, str] | None) -> Labels:
    """Labels as one object for all who carry the same ones; their strings are shared too."""
    if not found:
        return EMPTY
    return _shared_labels(FrozenMap((sys.intern(key), sys.intern(text)) for key, text in found.items()))


HEARTBEAT = "kubevirt.io/heartbeat"


@lru_cache(maxsize=4096)
def _is_read(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    # virt-handler's heartbeat changes on every node every minute; it has a field of its own, which is not compared.
    return bool(slash and key != HEARTBEAT) and (
        domain in ("kubevirt.io", "kubevirt-rebalancer.io", "descheduler.alpha.kubernetes.io")
        or domain.endswith(".kubevirt.io")
    )


def kept_annotations(found: Mapping[str, str] | None) -> FrozenMap[str, str]:
    """Only those that we, KubeVirt or the descheduler read, and none longer than an API server would store."""
    if not found:
        return EMPTY
    return labels({key: text for key, text in found.items() if _is_read(key) and len(text) <= _LONGEST_ANNOTATION})


# -- Plain values


@lru_cache(maxsize=4096)
def epoch(time: str | None) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0.0 where there is none. Raises UnreadableError."""
    if not time:
        return 0.0
    try:
        if not _TIME.fullmatch(time):
            raise ValueError
        return max(datetime.fromisoformat(time).timestamp(), 0.0)
    except (ValueError, OverflowError):
        raise UnreadableError(f": {time[:40]!r} is not a time") from None


def conditions(found: list[wire.Condition] | None) -> FrozenMap[str, Condition]:
    """Conditions by type; the last of a type counts. Raises UnreadableError."""
    result = {}
    for index, condition in enumerate(found or ()):
        with inside(f"[{index}].lastTransitionTime"):
            since = epoch(condition.last_transition_time)
        result[sys.intern(condition.type)] = Condition(
            status=sys.intern(condition.status),
            reason=sys.intern(condition.reason or ""),
            message=condition.message or "",
            since=since,
        )
    return FrozenMap(result)


def nano(amount: wire.Quantity) -> int:
    """A quantity in 10^-9, not negative, white space around it ignored as Go does. Raises UnreadableError."""
    try:
        result = quantity.nano_value(amount.strip(_WHITE) if isinstance(amount, str) else amount)
    except quantity.QuantityError as error:
        raise UnreadableError(f": {error}") from None
    if result < 0:
        raise UnreadableError(f": {amount} is negative")
    return result


def amounts(found: Mapping[str, wire.Quantity] | None) -> dict[str, int]:
    """A resource list in 10^-9 of each unit. Raises UnreadableError."""
    result = {}
    for name, amount in (found or {}).items():
        with inside(name):
            result[name] = nano(amount)
    return result


@lru_cache(maxsize=1024)
def _is_scalar(name: str) -> bool:
    """Whether kube-scheduler counts a resource beyond CPU, memory and storage (util.IsScalarResourceName)."""
    if name.startswith(("hugepages-", "attachable-volumes-")) or "kubernetes.io/" in name:
        return True
    return "/" in name and not name.startswith("requests.") and is_label_key(f"requests.{name}")


def resources(nanos: Mapping[str, int]) -> Resources:
    """A resource list as kube-scheduler holds it: rounded up once, unknown names without a prefix left out."""
    scalars = ((name, quantity.unit_of(amount)) for name, amount in nanos.items() if amount and _is_scalar(name))
    return Resources(
        cpu_milli=quantity.milli_of(nanos.get(CPU, 0)),
        memory_bytes=quantity.unit_of(nanos.get(MEMORY, 0)),
        storage_bytes=quantity.unit_of(nanos.get(EPHEMERAL_STORAGE, 0)),
        scalars=tuple(sorted(scalars)),
    )


# -- Sections and salvage


def attempt(problems: list[str], path: str, read: Callable[[], T], default: T) -> T:
    """What `read` gives, or the default and one more problem."""
    try:
        return read()
    except BROKEN as error:
        problems.append(join(path, explain(error)))
        return default


def salvage(struct: type[W], raw: bytes, problems: list[str], path: str = "") -> W:
    """An object of which some fields cannot be decoded, without those; each is named in `problems`."""
    nothing: dict[str, bytes] = {}
    found = attempt(problems, path, partial(_members, raw), nothing)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        text = found.get(field.encode_name)
        if text is None:
            continue
        if field.type is Raw:
            values[field.name] = Raw(text)
            continue
        try:
            values[field.name] = msgspec.json.decode(text, type=field.type)
        except BROKEN as error:
            place = join(path, field.encode_name)
            inner, repeated = _struct_in(field.type)
            if inner is None or text[:1] != (b"[" if repeated else b"{"):
                problems.append(join(place, explain(error)))
            elif repeated:
                items = enumerate(attempt(problems, place, partial(_elements, text), list[bytes]()))
                values[field.name] = [salvage(inner, item, problems, f"{place}[{index}]") for index, item in items]
            else:
                values[field.name] = salvage(inner, text, problems, place)
    return struct(**values)


def _members(raw: bytes) -> dict[str, bytes]:
    try:
        return {name: bytes(text) for name, text in msgspec.json.decode(raw, type=dict[str, Raw]).items()}
    except msgspec.ValidationError:
        raise
    except BROKEN:
        return pieces.members(raw)


def _elements(raw: bytes) -> list[bytes]:
    try:
        return [bytes(text) for text in msgspec.json.decode(raw, type=list[Raw])]
    except msgspec.ValidationError:
        raise
    except BROKEN:
        return pieces.elements(raw)


def _struct_in(annotation: Any) -> tuple[type[wire.Wire] | None, bool]:
    """The one struct in a type such as `Meta` or `list[Container] | None`, and whether it is a list of them."""
    for option in (annotation, *get_args(annotation)):
        if get_origin(option) is list:
            return _struct_in(get_args(option)[0])[0], True
        if isinstance(option, type) and issubclass(option, wire.Wire):
            return option, False
    return None, False
