"""Quantities against Go's verdicts, and their arithmetic against exact fractions."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.quantity import MAX_INT64, QuantityError, milli_of, milli_value, nano_value, unit_of, value

CORPUS = Path(__file__).parents[3] / "shared/data/corpus/quantity.json"

SATURATED = {
    "8Ei": (MAX_INT64, MAX_INT64),
    "9Ei": (MAX_INT64, MAX_INT64),
    "9223372036854775807Ki": (MAX_INT64, MAX_INT64),
    "9223372036854775807": (MAX_INT64, MAX_INT64),
    "99999999999999999999999999": (MAX_INT64, MAX_INT64),
    "123456789012345678901234567890m": (MAX_INT64, MAX_INT64),
    "1e18": (10**18, MAX_INT64),
    "10E": (MAX_INT64, MAX_INT64),
    "1e400": (MAX_INT64, MAX_INT64),
    "1e1000": (MAX_INT64, MAX_INT64),
    "1e9999999999": (MAX_INT64, MAX_INT64),
}
"""Where we differ from Go on purpose: its int64 wraps around, so that the largest requests would count as none."""


def read(text: str) -> tuple[int, int] | None:
    try:
        return value(text), milli_value(text)
    except QuantityError:
        return None


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not there")
def test_every_string_of_the_corpus_is_read_as_go_reads_it() -> None:
    cases = {case["in"]: case["go"] for case in json.loads(CORPUS.read_text(encoding="utf-8"))}
    verdicts = {text: None if "err" in go else (int(go["value"]), int(go["milli"])) for text, go in cases.items()}
    assert len(verdicts) > 60
    assert verdicts.keys() >= SATURATED.keys()
    assert {text: read(text) for text in verdicts} == {**verdicts, **SATURATED}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100m", (1, 100)),
        ("1.3Mi", (1_363_149, 1_363_148_800)),
        ("0.1n", (1, 1)),
        ("1E", (10**18, MAX_INT64)),
        ("1E3", (1000, 1_000_000)),
        ("m", (0, 0)),
        ("Ki", (0, 0)),
        ("e3", (0, 0)),
        ("-1500m", (-2, -1500)),
        ("Ei", None),
        ("Pi", None),
        ("e-10", None),
        ("", None),
        ("1K", None),
        ("1n3", None),
        ("NaN", None),
        (" 1", None),
        ("1_000", None),
        ("1e99999999999999999999", None),
        ("9" * 65, None),
    ],
)
def test_amounts(text: str, expected: tuple[int, int] | None) -> None:
    assert read(text) == expected


def test_numbers_of_json_are_quantities_and_nothing_is_zero() -> None:
    assert [milli_value(given) for given in (1, 1.5, 1e3, 1e22, None)] == [1000, 1500, 1_000_000, MAX_INT64, 0]
    for hostile in (float("nan"), float("inf"), True):
        with pytest.raises(QuantityError):
            value(hostile)


SUFFIXES: dict[str, Fraction | int] = {
    "": 1,
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": 1000,
    "M": 10**6,
    "Ki": 1024,
    "Mi": 2**20,
    "Gi": 2**30,
    "e2": 100,
    "E-3": Fraction(1, 1000),
}


@given(st.integers(0, 10**9), st.integers(0, 6), st.sampled_from(sorted(SUFFIXES)))
def test_an_amount_is_its_exact_fraction_rounded_up_once_per_unit(digits: int, places: int, suffix: str) -> None:
    text = f"{digits:0{places + 1}d}"
    text = f"{text[:-places]}.{text[-places:]}{suffix}" if places else text + suffix
    nano = ceil(Fraction(digits, 10**places) * SUFFIXES[suffix] * 10**9)
    assert nano_value(text) == nano
    assert value(text) == ceil(Fraction(nano, 10**9))
    assert milli_value(text) == min(ceil(Fraction(nano, 10**6)), MAX_INT64)


@given(st.lists(st.integers(0, 10**12), max_size=5))
def test_sums_are_rounded_once(nanos: list[int]) -> None:
    total = sum(nano_value(f"{nano}n") for nano in nanos)
    assert milli_of(total) == ceil(Fraction(sum(nanos), 10**6))
    assert unit_of(total) == ceil(Fraction(sum(nanos), 10**9))


@given(st.text() | st.text(alphabet="0123456789.+-eEinumkKMGTP_ ", max_size=12) | st.floats() | st.integers())
def test_whatever_is_given_is_an_int64_or_refused(given_value: str | float) -> None:
    try:
        amounts = (value(given_value), milli_value(given_value))
    except QuantityError:
        return
    assert all(-MAX_INT64 <= amount <= MAX_INT64 for amount in amounts)
