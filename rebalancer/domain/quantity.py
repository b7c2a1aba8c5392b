"""Kubernetes quantities as exact integers, with the verdicts of Go's resource.Quantity.

Where Go wraps around at 64 bits, amounts saturate here instead: a wrapped amount would make a huge request look
like none. Source: k8s.io/apimachinery/pkg/api/resource (ParseQuantity, Value, MilliValue).
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_INT64 = 2**63 - 1
NANO = 10**9
_MILLI_IN_NANO = 10**6

_MAX_LENGTH = 64
"""Characters. The longest quantity that an API server writes has about 30."""
_MAX_EXPONENT = 1000
"""Decimal exponents beyond it saturate; an exact 1e9999999999 would fill the memory."""

_SHAPE = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*(?:[+-]?[0-9]*))", re.ASCII)
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)", re.ASCII)
_DECIMAL = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class QuantityError(ValueError):
    """Not a quantity; the message says what was found."""


def nano_value(quantity: str | int | float | None) -> int:
    """The exact amount in units of 10^-9, rounded away from zero; the only form that may be summed.

    A missing quantity is 0. Raises QuantityError.
    """
    if isinstance(quantity, str):
        if len(quantity) > _MAX_LENGTH:
            raise QuantityError(f"a quantity of {len(quantity)} characters ({quantity[:16]!r}...)")
        return _parse(quantity)
    if quantity is None:
        return 0
    if isinstance(quantity, bool):
        raise QuantityError(f"not a quantity: {quantity}")
    if isinstance(quantity, int):
        return quantity * NANO
    return _parse(repr(quantity))


def milli_value(quantity: str | int | float | None) -> int:
    """Thousandths, rounded up, within int64; None is 0. Raises QuantityError."""
    return milli_of(nano_value(quantity))


def value(quantity: str | int | float | None) -> int:
    """Whole units, rounded up, within int64; None is 0. Raises QuantityError."""
    return unit_of(nano_value(quantity))


def milli_of(nano: int) -> int:
    """Thousandths of an amount in 10^-9, rounded away from zero, within int64."""
    return _scaled(nano, _MILLI_IN_NANO)


def unit_of(nano: int) -> int:
    """Whole units of an amount in 10^-9, rounded away from zero, within int64."""
    return _scaled(nano, NANO)


def _scaled(nano: int, unit: int) -> int:
    if nano >= 0:
        return min(-(-nano // unit), MAX_INT64)
    return max(nano // unit, -MAX_INT64)


@lru_cache(maxsize=16_384)
def _parse(text: str) -> int:
    shape = _SHAPE.fullmatch(text)
    if not text or not shape:
        raise QuantityError(f"not a quantity: {text!r}")
    sign, whole, fraction, suffix = shape[1], shape[2], shape[3] or "", shape[4]
    digits = whole + fraction
    if suffix in _BINARY:
        # Go reads its digits on a slow path that wants at least one where the suffix alone exceeds its precision.
        if not digits and suffix in ("Pi", "Ei"):
            raise QuantityError(f"a quantity without digits: {text!r}")
        nano = min(_round_up(digits, -len(fraction), factor=2 ** _BINARY[suffix]), MAX_INT64 * NANO)
    else:
        exponent = _decimal_exponent(text, suffix)
        if not digits and exponent < -9:
            raise QuantityError(f"a quantity without digits: {text!r}")
        nano = _round_up(digits, exponent - len(fraction))
    return -nano if sign == "-" else nano


def _decimal_exponent(text: str, suffix: str) -> int:
    if suffix in _DECIMAL:
        return _DECIMAL[suffix]
    exponent = _EXPONENT.fullmatch(suffix)
    # Go reads the exponent as an int64 and refuses what does not fit.
    if not exponent or not -(2**63) <= int(exponent[1]) <= MAX_INT64:
        raise QuantityError(f"a quantity with an unknown suffix: {text!r}")
    return max(-_MAX_EXPONENT, min(int(exponent[1]), _MAX_EXPONENT))


def _round_up(digits: str, exponent: int, *, factor: int = 1) -> int:
    """digits x factor x 10^exponent in 10^-9, rounded up."""
    mantissa = int(digits or "0") * factor
    shift = exponent + 9
    scale: int = 10 ** abs(shift)
    return mantissa * scale if shift >= 0 else -(-mantissa // scale)
