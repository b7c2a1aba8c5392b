"""From a Picture to HTML. Tables are bounded: a page of a large cluster is as light as one of a small one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rebalancer import __version__
from rebalancer.domain.plan import NodeLoad, Plan
from rebalancer.domain.report import Report
from rebalancer.present import api, words
from rebalancer.present.page import rows
from rebalancer.present.picture import Picture, Problem, problem

SCRIPTS = ("base.js", "paint.js", "map.js", "why.js", "live.js")
"""In the order in which a browser must run them."""

TONES = {
    "good": ("Balanced", "Finished"),
    "busy": ("Planned", "DryRun", "Started", "Running"),
    "wait": ("NotSynced", "Standby", "Held", "Paused", "Unfit", "Unsettled"),
}
"""How a kind of sentence looks; whatever is in none of them wants attention."""

OF_A_FILE = Problem(
    what="This file moves nothing.",
    todo=(
        "This file moves nothing. rebalancer plan -o yaml writes the same moves as manifests, to be created wave by "
        "wave; the daemon in active mode plans and moves by itself."
    ),
)

Json = dict[str, Any]


def page(
    picture: Picture,
    *,
    answer: Mapping[str, Any] | None = None,
    asked: Mapping[str, str] | None = None,
    embedded: Mapping[str, Any] | None = None,
) -> str:
    """The page as HTML.

    `asked` is the form's own input (vmi, node) and `answer` the explanation document, or {"what", "todo"}, for it.
    `embedded` makes a file that needs no server: style and scripts are in it, and these documents ("cluster", "plan",
    "explanations") stand for the API's.
    """
    report, made = picture.report, picture.plan
    return (
        _environment()
        .get_template("page.html")
        .render(
            picture=picture,
            report=report,
            plan=made,
            version=__version__,
            summary=api.summary(report),
            size=api.size(picture.snapshot),
            problem=problem(report) if embedded is None else OF_A_FILE if made is not None and made.waves else None,
            tone=tone(report),
            judged=api.judging(report),
            nodes=rows.nodes(picture),
            changed=rows.changed(made) if made is not None else rows.NONE,
            warnings=_warnings(report, made),
            findings=rows.findings(report) if report is not None else (),
            waves=rows.waves(report, made) if report is not None and made is not None else (),
            running=rows.running(report) if report is not None else (),
            history=api.history(picture)["plans"],
            settings=picture.public_settings(),
            asked={"vmi": "", "node": "", **(asked or {})},
            answer=answer,
            verdicts=rows.verdicts(answer, (asked or {}).get("node", ""))
            if answer and "nodes" in answer
            else rows.NONE,
            embedded=_embedded(embedded) if embedded is not None else None,
        )
    )


def _warnings(report: Report | None, plan: Plan | None) -> tuple[str, ...]:
    """A plan's warnings, less those on objects that are set aside, which have a list of their own."""
    known = {aside.sentence() for aside in report.set_aside} if report is not None else set()
    return tuple(text for text in plan.warnings if text not in known)[:20] if plan is not None else ()


def tone(report: Report | None) -> str:
    """good, busy, wait or bad."""
    kind = report.sentence.kind if report is not None else "NotSynced"
    return next((tone for tone, kinds in TONES.items() if kind in kinds), "bad")


@cache
def style() -> str:
    """The style sheet."""
    return _file("page.css")


@cache
def script() -> str:
    """All scripts as one."""
    return "".join(_file(name) for name in SCRIPTS)


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _embedded(documents: Mapping[str, Any]) -> Json:
    """What a file carries with it. No text in it can end the element that it stands in."""
    data = json.dumps(documents, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return {"style": Markup(style()), "script": Markup(script()), "data": Markup(data)}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "percent": words.percent,
        "size": words.size,
        "duration": words.duration,
        "moment": words.moment,
        "resource": words.resource,
        "number": lambda value: "–" if value is None else f"{value:,}",
    }
    environment.globals |= {"count": words.count, "proof": proof, "span": span, "loads": loads}
    return environment


def proof(plan: Plan) -> str:
    """How good a plan is, as its bound says."""
    if plan.bound.proven:
        return "proven minimal"
    return f"at least {words.count(plan.bound.moves, 'move')} needed, gap {100 * plan.bound.gap:.0f} %"


def span(value: float) -> str:
    """A percentage as a length on an axis from 0 to 100 that nothing leaves."""
    return f"{min(max(value, 0.0), 100.0):.2f}%"


def loads(load: NodeLoad, resource: str) -> tuple[float, float]:
    """(percent, high) of a resource."""
    return (load.cpu, load.cpu_high) if resource == "cpu" else (load.memory, load.memory_high)
