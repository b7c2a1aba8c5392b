"""What is to be had over HTTP, path by path: the page, its parts, and the API. Functions from a Picture to bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec

from rebalancer.domain.report import Report
from rebalancer.present import api, explain
from rebalancer.present.page import page, script, style
from rebalancer.present.picture import Picture, problem

JSON, HTML = "application/json", "text/html; charset=utf-8"
CSS, JAVASCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
STREAM = "/api/v1/stream"
"""Server-sent events named "report", each with a `note`."""

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A body and what it is; an empty body says that there is nothing to say (204)."""

    body: bytes
    content_type: str = JSON
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One path. `parameters` of the query reach `render`; `lasting` where the answer is the same for ever."""

    path: str
    render: Callable[[Picture, Query], Answer]
    parameters: tuple[str, ...] = ()
    lasting: bool = False


def note(report: Report) -> bytes:
    """What the stream says of a report: one line."""
    return msgspec.json.encode(api.summary(report))


def openapi() -> bytes:
    """The OpenAPI document."""
    return resources.files(__package__).joinpath("openapi.json").read_bytes()


def _page(picture: Picture, query: Query) -> Answer:
    """The page; with ?vmi= (and &node=) it answers "why not" at once, for browsers without scripts."""
    asked = {name: value.strip() for name, value in query.items()}
    answer = _explained(picture, asked["vmi"])[1] if asked.get("vmi") else None
    return Answer(body=page(picture, asked=asked, answer=answer).encode(), content_type=HTML)


def _explain(picture: Picture, query: Query) -> Answer:
    if not query.get("vmi"):
        return _refusal(400, "vmi is missing", "Name a VM as in ?vmi=NAMESPACE/NAME, and a node with &node= if wanted.")
    status, told = _explained(picture, query["vmi"].strip())
    node = query.get("node", "").strip()
    if status == 200 and node:
        if node not in told["nodes"]:
            return _refusal(404, f"there is no node {node}", "/api/v1/cluster lists the nodes.")
        told = {**told, "nodes": {node: told["nodes"][node]}}
    return _json(told, status)


def _explained(picture: Picture, vmi: str) -> tuple[int, dict[str, Any]]:
    try:
        return 200, explain.document(explain.explain(picture.snapshot, vmi, picture.policy))
    except explain.NoSuchVMError as error:
        trouble = problem(picture.report)
        if not picture.snapshot.vmis and trouble is not None:
            return 503, _error(trouble.what, trouble.todo)
        return 404, _error(f"{error}.", "VMs are named NAMESPACE/NAME.")


def _plan(picture: Picture, _: Query) -> Answer:
    told = api.plan(picture)
    return _json(told) if told is not None else Answer(body=b"", status=204)


def _json(told: object, status: int = 200) -> Answer:
    return Answer(body=msgspec.json.encode(told), status=status)


def _refusal(status: int, what: str, todo: str) -> Answer:
    return _json(_error(what, todo), status)


def _error(what: str, todo: str) -> dict[str, Any]:
    return {"schema": "rebalancer.error/v1", "what": what, "todo": todo}


_STYLE = Answer(body=style().encode(), content_type=CSS)
_SCRIPT = Answer(body=script().encode(), content_type=JAVASCRIPT)
_OPENAPI = Answer(body=openapi())

DOCUMENTS = (
    Document(path="/", render=_page, parameters=("vmi", "node")),
    Document(path="/assets/page.css", render=lambda *_: _STYLE, lasting=True),
    Document(path="/assets/page.js", render=lambda *_: _SCRIPT, lasting=True),
    Document(path="/api/v1/cluster", render=lambda picture, _: _json(api.cluster(picture))),
    Document(path="/api/v1/plan", render=_plan),
    Document(path="/api/v1/history", render=lambda picture, _: _json(api.history(picture))),
    Document(path="/api/v1/settings", render=lambda picture, _: _json(api.settings(picture))),
    Document(path="/api/v1/explain", render=_explain, parameters=("vmi", "node")),
    Document(path="/api/v1/openapi.json", render=lambda *_: _OPENAPI, lasting=True),
)
"""Read when this module is imported, so that no request ever waits for a file."""
