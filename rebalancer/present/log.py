"""One line per cycle that has something new to say, for people or as JSON for machines."""

from __future__ import annotations

import json
import re

from rebalancer.domain.report import Report
from rebalancer.present.words import moment

LOUD = ("Broken", "Stuck", "Failed", "Unfit")
QUIET = ("Balanced", "Running", "Held", "Paused", "Unfit", "Unsettled")
"""States that last: said once when they begin, whatever numbers change in their words."""


def lines(report: Report, before: Report | None, *, as_json: bool = False) -> tuple[str, ...]:
    """What a cycle adds to the log after the one before it: objects newly set aside, and its sentence if it is news."""
    told = [_warning(report.time, words, as_json) for words in _set_aside(report, before)]
    if worth_saying(report, before):
        told.append(line(report, as_json=as_json))
    return tuple(told)


def line(report: Report, *, as_json: bool = False) -> str:
    """A report as one log line, without its end. JSON lines have the keys of `fields`."""
    if as_json:
        return json.dumps(fields(report), ensure_ascii=False)
    text = report.sentence.text
    plan = f" (plan {report.plan.id})" if report.plan and report.plan.id not in text else ""
    return f"{moment(report.time)} {level(report).upper():7} {text}{plan}"


def level(report: Report) -> str:
    """`warning` where somebody should look, else `info`."""
    return "warning" if report.sentence.kind in LOUD else "info"


def fields(report: Report) -> dict[str, object]:
    """What a JSON log line holds."""
    return {
        "time": moment(report.time),
        "level": level(report),
        "kind": report.sentence.kind,
        "message": report.sentence.text,
        "cycle": report.cycle,
        "mode": report.mode,
        "leader": report.leader,
        "plan": report.plan.id if report.plan else "",
        "wave": report.wave,
        "running": len(report.running),
        "held": len(report.held),
        "hotspots": len(report.state.hotspots),
        "violations": len(report.state.violations),
        "seconds": round(report.seconds, 3),
    }


def worth_saying(report: Report, before: Report | None) -> bool:
    """Whether a cycle says something that the one before it did not: a steady cluster is a quiet log."""
    if before is None:
        return True
    kind, was = report.sentence.kind, before.sentence.kind
    if kind != was:
        # That what has been started is running goes without saying.
        return (was, kind) != ("Started", "Running")
    return kind not in QUIET and _gist(report) != _gist(before)


def _gist(report: Report) -> str:
    """What is the matter, less what changes all the time and matters to nobody.

    While waiting: how long, and which kinds are simply on their way. In a dry run: the id of a plan that does as much
    as the one before it; where VMs come and go there is another every minute.
    """
    kind, text = report.sentence.kind, report.sentence.text
    if kind == "NotSynced":
        return re.sub(r"\d+", "", re.sub(r"[^:;]* are not listed yet$", "", text)).rstrip(" ;")
    return text.replace(report.plan.id, "") if kind == "DryRun" and report.plan is not None else text


def _set_aside(report: Report, before: Report | None) -> tuple[str, ...]:
    known = set(before.set_aside) if before else set()
    return tuple(aside.sentence() for aside in report.set_aside if aside not in known)


def _warning(time: float, text: str, as_json: bool) -> str:
    if as_json:
        return json.dumps({"time": moment(time), "level": "warning", "kind": "SetAside", "message": text})
    return f"{moment(time)} {'WARNING':7} {text}"
