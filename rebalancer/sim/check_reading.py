"""What the checkers read out of JSON objects, in words of their own: amounts, requests, selectors, taints.

Nothing here is shared with the code under test, so that a misreading on one side shows as a difference.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

Obj = dict[str, Any]

_UNITS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "E": Fraction(10**18), "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40),
    "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip


def amount(quantity: object) -> Fraction:
    """A quantity of a healthy object; anything else is a mistake of the test and raises ValueError."""
    text = str(quantity or 0).strip()
    digits = text.rstrip("numkKMGTPEi")
    unit = text[len(digits) :]
    if unit not in _UNITS:
        raise ValueError(f"not a quantity: {quantity!r}")
    return Fraction(digits) * _UNITS[unit]


def _asked(container: Obj, resource: str) -> Fraction:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return amount(requests.get(resource, limits.get(resource)))


def need(pod: Obj, resource: str) -> Fraction:
    """What a pod takes from its node: containers and sidecars together, or its greediest start, and its overhead."""
    spec = pod["spec"]
    sidecars = peak = Fraction(0)
    for container in spec.get("initContainers") or ():
        asked = _asked(container, resource)
        if container.get("restartPolicy") == "Always":
            sidecars += asked
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + asked)
    running = sidecars + sum(_asked(container, resource) for container in spec.get("containers") or ())
    return max(running, peak) + amount((spec.get("overhead") or {}).get(resource))


def labels(item: Obj) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def full_name(item: Obj) -> str:
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _holds(expression: Obj, have: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    found = have.get(key)
    match expression["operator"]:
        case "In":
            return found is not None and found in values
        case "NotIn":
            return found is None or found not in values
        case "Exists":
            return key in have
        case "DoesNotExist":
            return key not in have
        case "Gt":
            return found is not None and int(found) > int(values[0])
        case "Lt":
            return found is not None and int(found) < int(values[0])
    raise ValueError(f"unknown operator in {expression}")


def selects(selector: Obj | None, have: dict[str, str]) -> bool:
    """A label selector: none selects nothing, an empty one everything."""
    if selector is None:
        return False
    exact = all(have.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(_holds(expression, have) for expression in selector.get("matchExpressions") or ())


def wants_node(spec: Obj, node: Obj) -> bool:
    """Node selector and required node affinity of a VMI's spec."""
    have = labels(node)
    if any(have.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    name = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_holds(expression, have) for expression in term.get("matchExpressions") or ())
        and all(_holds(expression, name) for expression in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
    )


def tolerated(spec: Obj, taint: Obj) -> bool:
    """True if one of the spec's tolerations covers the taint."""
    for toleration in spec.get("tolerations") or ():
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        exists = toleration.get("operator") == "Exists"
        if not toleration.get("key"):
            if exists:
                return True
        elif toleration["key"] == taint["key"] and (
            exists or (toleration.get("value") or "") == (taint.get("value") or "")
        ):
            return True
    return False


def required_terms(spec: Obj, kind: str) -> list[Obj]:
    """The required terms of podAffinity or podAntiAffinity."""
    found = (spec.get("affinity") or {}).get(kind) or {}
    return list(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
