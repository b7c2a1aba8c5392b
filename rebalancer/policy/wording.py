"""Rules in words that never change: a violation is known by them from one cycle to the next."""

from __future__ import annotations

from collections.abc import Mapping

from rebalancer.domain.node import Taint
from rebalancer.domain.selectors import LabelSelector, NodeSelector, Requirement
from rebalancer.policy.pod_counts import Group, Scope

_COMPARISONS = {"Gt": ">", "Lt": "<"}


def taint_text(taint: Taint) -> str:
    """As kubectl writes it."""
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect}"


def labels_text(labels: Mapping[str, str]) -> str:
    """ "a=1, b=2", by key."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def requirement_text(requirement: Requirement) -> str:
    """One expression, as kubectl would take it in a selector."""
    key, operator, values = requirement.key, requirement.operator, requirement.values
    if operator in ("In", "NotIn"):
        if len(values) == 1:
            return f"{key}{'=' if operator == 'In' else '!='}{values[0]}"
        return f"{key} {operator.lower()} ({', '.join(sorted(values))})"
    if operator == "Exists":
        return key
    if operator == "DoesNotExist":
        return f"!{key}"
    return f"{key}{_COMPARISONS.get(operator, f' {operator} ')}{', '.join(values)}"


def selector_text(selector: LabelSelector) -> str:
    """All requirements, in the order of their text."""
    return ", ".join(sorted(requirement_text(r) for r in selector.requirements)) or "any pod"


def node_selector_text(selector: NodeSelector) -> str:
    """The terms, any of which may hold."""
    terms = (
        ", ".join(requirement_text(r) for r in (*term.match_expressions, *term.match_fields)) for term in selector.terms
    )
    return " or ".join(terms)


def group_text(group: Group) -> str:
    """Whom a rule between pods is about, and in which namespaces."""
    texts = (f"{selector_text(chosen.selector)} in {scope_text(chosen.scope)}" for chosen in group.selections)
    return " and ".join(texts) or "no pod"


def scope_text(scope: Scope) -> str:
    """The namespaces of a rule."""
    return "all namespaces" if scope.everything else ", ".join(sorted(scope.names)) or "no namespace"


def names_text(names: tuple[str, ...], total: int) -> str:
    """ "a, b and 7 more" of `total`; at most three are named."""
    shown = names[:3]
    rest = total - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
