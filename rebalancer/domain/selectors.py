"""Label selectors and node selectors, with the API machinery's own verdicts.

Sources: k8s.io/apimachinery/pkg/labels, k8s.io/component-helpers/scheduling/corev1/nodeaffinity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

IN = "In"
NOT_IN = "NotIn"
EXISTS = "Exists"
DOES_NOT_EXIST = "DoesNotExist"
GREATER_THAN = "Gt"
LESS_THAN = "Lt"

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_NAME = re.compile(_NAME, re.ASCII)
_LABEL_VALUE = re.compile(f"(?:{_NAME})?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,19})", re.ASCII)


class SelectorError(ValueError):
    """An expression that the API server would refuse; the message begins with the field's path."""


def is_label_key(key: str) -> bool:
    """Whether a label may have this key: an optional DNS subdomain and "/", then a name of up to 63 characters."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        return False
    return _LABEL_NAME.fullmatch(name) is not None


def is_label_value(value: str) -> bool:
    """Whether a label may have this value: empty, or a name of up to 63 characters."""
    return _LABEL_VALUE.fullmatch(value) is not None


def int64(text: str) -> int | None:
    """The number as Go's strconv.ParseInt(text, 10, 64) reads it, None where it refuses."""
    match = _INTEGER.fullmatch(text)
    if not match:
        return None
    number = int(match[2]) if match[1] != "-" else -int(match[2])
    return number if -(2**63) <= number < 2**63 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One expression; `operator` as in the API: In, NotIn, Exists, DoesNotExist, Gt, Lt.

    `problem` says what is wrong with it, "" for nothing, and begins with the field that is wrong.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()
    problem: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", _problem(self))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it; an expression that is wrong is never satisfied."""
        if self.problem:
            return False
        found = labels.get(self.key)
        if self.operator == IN:
            return found is not None and found in self.values
        if self.operator == NOT_IN:
            return found is None or found not in self.values
        if self.operator == EXISTS:
            return found is not None
        if self.operator == DOES_NOT_EXIST:
            return found is None
        number, limit = int64(found) if found is not None else None, int64(self.values[0])
        if number is None or limit is None:
            return False
        return number > limit if self.operator == GREATER_THAN else number < limit


def _problem(requirement: Requirement) -> str:
    """What labels.NewRequirement would refuse."""
    values = requirement.values
    if not is_label_key(requirement.key):
        return f"key: {requirement.key[:80]!r} is not a label key"
    if requirement.operator in (IN, NOT_IN):
        if not values:
            return f"values: must not be empty when operator is {requirement.operator}"
    elif requirement.operator in (EXISTS, DOES_NOT_EXIST):
        if values:
            return f"values: must be empty when operator is {requirement.operator}"
    elif requirement.operator in (GREATER_THAN, LESS_THAN):
        if len(values) != 1 or int64(values[0]) is None:
            return f"values: must be one integer when operator is {requirement.operator}"
    else:
        return f"operator: {requirement.operator[:80]!r} is not a selector operator"
    for index, value in enumerate(values):
        if not is_label_value(value):
            return f"values[{index}]: {value[:80]!r} is not a label value"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """All requirements must hold; matchLabels are In requirements. Without requirements it matches everything.

    `required` is the label that it asks for with the fewest values, and these values: whatever it matches has it. None
    where it asks for none. It is worked out once, as every rule between pods is found by it.
    """

    requirements: tuple[Requirement, ...] = ()
    required: tuple[str, tuple[str, ...]] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        asked = [(len(r.values), r.key, r.values) for r in self.requirements if r.operator == IN and r.values]
        if asked:
            _, key, values = min(asked)
            object.__setattr__(self, "required", (key, tuple(dict.fromkeys(values))))

    def __hash__(self) -> int:
        """Rules between pods are looked up by whom they select, again and again: the rarest label tells most apart."""
        return hash(self.required or self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        for requirement in self.requirements:  # noqa: SIM110 - the hottest line of every filter
            if not requirement.matches(labels):
                return False
        return True


Expression = tuple[str, str, Iterable[str]]
"""(key, operator, values) as they stand in the API."""


def label_selector(match_labels: Mapping[str, str] = {}, expressions: Iterable[Expression] = ()) -> LabelSelector:
    """A checked selector from the API's two halves, the labels in the order of their keys.

    Raises SelectorError, e.g. "matchExpressions[0].operator: 'Near' is not a selector operator".
    """
    requirements = []
    for key in sorted(match_labels):
        requirement = Requirement(key=key, operator=IN, values=(match_labels[key],))
        if requirement.problem:
            raise SelectorError(f"matchLabels: {requirement.problem}")
        requirements.append(requirement)
    for index, (key, operator, values) in enumerate(expressions):
        requirement = Requirement(key=key, operator=operator, values=tuple(values))
        if operator in (GREATER_THAN, LESS_THAN):
            raise SelectorError(f"matchExpressions[{index}].operator: {operator!r} is not a label selector operator")
        if requirement.problem:
            raise SelectorError(f"matchExpressions[{index}].{requirement.problem}")
        requirements.append(requirement)
    return LabelSelector(requirements=tuple(requirements))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSelectorTerm:
    """All expressions must hold; a term without any, or with one that is wrong, matches nothing."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a node with these labels and this name satisfies the term."""
        if not self.match_expressions and not self.match_fields:
            return False
        if not all(requirement.matches(labels) for requirement in self.match_expressions):
            return False
        return all(_field_matches(requirement, name) for requirement in self.match_fields)


def _field_matches(requirement: Requirement, name: str) -> bool:
    """A node has one field, metadata.name; the others read as "", and a node without a name skips the look-up."""
    if requirement.operator not in (IN, NOT_IN) or len(requirement.values) != 1:
        return False
    if not name:
        return True
    found = name if requirement.key == "metadata.name" else ""
    return (found == requirement.values[0]) == (requirement.operator == IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSelector:
    """Any term may hold; without terms nothing matches."""

    terms: tuple[NodeSelectorTerm, ...] = ()

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a node with these labels and this name satisfies any term."""
        return any(term.matches(labels, name) for term in self.terms)


def node_selector_term(
    expressions: Iterable[Expression], fields: Iterable[Expression] = (), *, preferred: bool = False
) -> NodeSelectorTerm:
    """A checked term. Raises SelectorError with the path inside the term.

    In preferred terms the API server lets values pass that no label can have.
    """
    match_expressions = tuple(
        Requirement(key=key, operator=op, values=tuple(values)) for key, op, values in expressions
    )
    match_fields = tuple(Requirement(key=key, operator=op, values=tuple(values)) for key, op, values in fields)
    for index, requirement in enumerate(match_expressions):
        # The API server lets a single value that is no integer pass with Gt and Lt; the scheduler never matches it.
        comparable = requirement.operator not in (GREATER_THAN, LESS_THAN) or len(requirement.values) != 1
        if preferred and requirement.problem.startswith("values["):
            continue
        if requirement.problem and (comparable or not requirement.problem.startswith("values:")):
            raise SelectorError(f"matchExpressions[{index}].{requirement.problem}")
    for index, requirement in enumerate(match_fields):
        if requirement.key != "metadata.name":
            raise SelectorError(f"matchFields[{index}].key: only metadata.name can be selected")
        if requirement.operator not in (IN, NOT_IN):
            raise SelectorError(f"matchFields[{index}].operator: must be In or NotIn")
        if len(requirement.values) != 1:
            raise SelectorError(f"matchFields[{index}].values: must be one name")
    return NodeSelectorTerm(match_expressions=match_expressions, match_fields=match_fields)


def _requirements(expressions: Iterable[Expression]) -> tuple[Requirement, ...]:
    return tuple(Requirement(key=key, operator=operator, values=tuple(values)) for key, operator, values in expressions)
