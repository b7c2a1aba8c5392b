"""Selectors against the API machinery's verdicts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebalancer.domain.selectors import (
    Expression,
    NodeSelector,
    NodeSelectorTerm,
    Requirement,
    SelectorError,
    is_label_key,
    is_label_value,
    label_selector,
    node_selector_term,
)

CORPUS = Path(__file__).parents[3] / "shared/data/corpus/selectors.json.gz"


def expressions(found: Iterable[Mapping[str, Any]] | None) -> list[Expression]:
    return [(one.get("key", ""), one.get("operator", ""), one.get("values") or ()) for one in found or ()]


def requirements(found: Iterable[Mapping[str, Any]] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(key=key, operator=op, values=tuple(values)) for key, op, values in expressions(found))


def label_verdict(case: Mapping[str, Any]) -> dict[str, bool]:
    found = case["ls"]
    if found is None:
        return {"match": False, "empty": False}
    try:
        selector = label_selector(found.get("matchLabels") or {}, expressions(found.get("matchExpressions")))
    except SelectorError:
        return {"err": True}
    return {"match": selector.matches(case["labels"]), "empty": not selector.requirements}


def node_verdict(case: Mapping[str, Any]) -> dict[str, bool]:
    terms = [term or {} for term in case["ns"].get("nodeSelectorTerms") or ()]
    selector = NodeSelector(
        terms=tuple(
            NodeSelectorTerm(
                match_expressions=requirements(term.get("matchExpressions")),
                match_fields=requirements(term.get("matchFields")),
            )
            for term in terms
        )
    )
    return {"match": selector.matches(case["labels"], case["name"])}


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not there")
def test_every_verdict_of_the_corpus_is_ours_too() -> None:
    cases = json.loads(gzip.decompress(CORPUS.read_bytes()))
    assert len(cases) >= 1_500
    wrong = []
    for case in cases:
        # Go reports a broken term of a node selector beside the verdict; the scheduler uses the verdict alone.
        of_nodes = case["kind"] == "na"
        expected = {"match": case["go"]["match"]} if of_nodes else case["go"]
        found = node_verdict(case) if of_nodes else label_verdict(case)
        if found != expected:
            wrong.append((case, found))
    assert wrong == []


@pytest.mark.parametrize(
    ("labels", "found", "message"),
    [
        ({"-bad": "x"}, [], "matchLabels: key: '-bad' is not a label key"),
        ({"app": "a b"}, [], "matchLabels: values[0]: 'a b' is not a label value"),
        ({}, [("app", "Near", ())], "matchExpressions[0].operator: 'Near' is not a selector operator"),
        ({}, [("n", "Gt", ("5",))], "matchExpressions[0].operator: 'Gt' is not a label selector operator"),
        (
            {},
            [("a", "Exists", ()), ("a", "In", ())],
            "matchExpressions[1].values: must not be empty when operator is In",
        ),
        ({}, [("a", "Exists", ("b",))], "matchExpressions[0].values: must be empty when operator is Exists"),
    ],
)
def test_a_label_selector_that_the_api_server_would_refuse(
    labels: dict[str, str], found: list[Expression], message: str
) -> None:
    with pytest.raises(SelectorError) as caught:
        label_selector(labels, found)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("found", "fields", "message"),
    [
        ([("a", "Gt", ("1", "2"))], [], "matchExpressions[0].values: must be one integer when operator is Gt"),
        ([], [("spec.unschedulable", "In", ("x",))], "matchFields[0].key: only metadata.name can be selected"),
        ([], [("metadata.name", "Exists", ())], "matchFields[0].operator: must be In or NotIn"),
        ([], [("metadata.name", "In", ("a", "b"))], "matchFields[0].values: must be one name"),
    ],
)
def test_a_node_selector_term_that_the_api_server_would_refuse(
    found: list[Expression], fields: list[Expression], message: str
) -> None:
    with pytest.raises(SelectorError) as caught:
        node_selector_term(found, fields)
    assert str(caught.value) == message


def test_a_limit_that_is_no_integer_is_admitted_and_never_matches() -> None:
    """The API server checks only that there is one value; the scheduler then finds no node."""
    term = node_selector_term([("cores", "Gt", ("many",))])
    assert not term.matches({"cores": "8"}, "n1")
    assert node_selector_term([("cores", "Gt", ("7",))]).matches({"cores": "+0008"}, "n1")


def test_selectors_from_labels_in_another_order_are_equal() -> None:
    assert label_selector({"a": "1", "b": "2"}) == label_selector({"b": "2", "a": "1"})
    assert label_selector().matches({})


KEYS = st.sampled_from(["app", "zone", "example.com/tier"])
VALUES = st.sampled_from(["", "a", "b", "7", "1.5"])


@given(KEYS, st.lists(VALUES, min_size=1, max_size=3), st.dictionaries(KEYS, VALUES))
def test_the_negative_operators_are_the_opposites_of_the_positive_ones(
    key: str, values: list[str], labels: dict[str, str]
) -> None:
    def matches(operator: str, given_values: list[str]) -> bool:
        return Requirement(key=key, operator=operator, values=tuple(given_values)).matches(labels)

    assert matches("In", values) is not matches("NotIn", values)
    assert matches("Exists", []) is not matches("DoesNotExist", [])


@given(st.text(), st.text(), st.lists(st.text(), max_size=2), st.dictionaries(st.text(), st.text(), max_size=3))
def test_whatever_is_given_is_a_selector_or_refused(
    key: str, operator: str, values: list[str], labels: dict[str, str]
) -> None:
    requirement = Requirement(key=key, operator=operator, values=tuple(values))
    assert requirement.matches(labels) in (False, requirement.problem == "")
    if all(is_label_key(key) and is_label_value(text) for key, text in labels.items()):
        assert label_selector(labels).matches(labels)
    else:
        with pytest.raises(SelectorError, match=r"^matchLabels: "):
            label_selector(labels)
