"""The table, as Markdown."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence

from bench.descheduler import ROOT
from bench.descheduler.contest import LIMIT_SECONDS, Best, Result
from bench.descheduler.contestants import INTERVAL_SECONDS

TITLE = "Head to head with the descheduler"
HEAD = (
    "who", "runs", "migrations", "of them failed", "VMs moved more than once", "ended on a node above 80 %",
    "evictions asked for", "hotspots left", "rules broken still", "fullest node", "time to quiet",
)  # fmt: skip
MODULES = {
    "kubernetes": "k8s.io/kubernetes",
    "kubevirt": "kubevirt.io/kubevirt",
    "descheduler": "sigs.k8s.io/descheduler",
}


def section(results: Sequence[Result], best: Best) -> str:
    """The whole section of RESULTS.md."""
    unit = statistics.median(duration for result in results for duration in result.durations)
    names = list(dict.fromkeys(result.contestant for result in results))
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    for name in names:
        lines.append(_line(name, [result for result in results if result.contestant == name], unit))
    return "\n".join([*_intro(best, unit), "", *lines, "", *_notes(results)])


def _line(name: str, runs: Sequence[Result], unit: float) -> str:
    def spread(value: Callable[[Result], float], form: str = "{:.0f}") -> str:
        values = sorted(form.format(one) for one in map(value, runs))
        ordered = sorted(values, key=lambda text: float(text.rstrip(" %")))
        return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"

    quiet = [f"{result.quiet_seconds / unit:.0f}" if result.quiet else "never" for result in runs]
    shown = ", ".join(dict.fromkeys(quiet)) if "never" in quiet else spread(lambda one: one.quiet_seconds / unit)
    cells = (
        name,
        str(len(runs)),
        spread(lambda one: one.migrations),
        spread(lambda one: one.failed),
        spread(lambda one: one.moved_again),
        spread(lambda one: one.ended_hot),
        spread(lambda one: one.evictions),
        spread(lambda one: len(one.hotspots)),
        spread(lambda one: len(one.violations)),
        spread(lambda one: one.highest * 100, "{:.0f} %"),
        shown,
    )
    return "| " + " | ".join(cells) + " |"


def _intro(best: Best, unit: float) -> list[str]:
    versions = ", ".join(f"{name} {_version(name)}" for name in MODULES)
    proven = {low: "proven" if best.proven[low] else "not proven" for low in best.proven}
    return [
        f"Real parts: {versions}.",
        "",
        f"Start: {best.hotspots} of 12 workers above 80 % of their CPU, the fullest at {best.highest:.0%}, and "
        f"{best.violations} broken rules (each side of a broken anti-affinity counts). "
        "The least that cures all that can be cured "
        f"is **{best.bound['80']} migrations** ({proven['80']}) with every node at 80 % or less, and "
        f"{best.bound['75']} ({proven['75']}) where hotspots are brought down to 75 %; "
        f"{best.hotspots_left['80']} hotspots and {best.violations_left['80']} broken rules are then left, "
        "for VMs that cannot be migrated.",
        "",
        f"Ranges are over the runs. Time to quiet is in units of one migration ({unit:.1f} s, the median over all "
        f"runs from the moment KubeVirt has a slot for it); `never`: still at it after {LIMIT_SECONDS} s. "
        f"Load average over the last 15 minutes of it: {os.getloadavg()[2]:.0f}; times depend on it, counts hardly.",
    ]


def _notes(results: Sequence[Result]) -> list[str]:
    left: dict[str, list[str]] = {}
    for result in results:
        for sentence in result.violations:
            left.setdefault(result.contestant, []).append(sentence.partition(": ")[2])
    kinds = {who: sorted({re.sub(r"[\w.-]+/[\w.-]+|\bz\d\b|\b\d+\b", "…", text) for text in texts})
             for who, texts in left.items()}  # fmt: skip
    notes = [
        "Protocol:",
        "",
        "- The real kube-apiserver, kube-scheduler, virt-controller and virt-api; kubelets and virt-handlers are stood "
        "in for. The 12x130 start state was brought about live, once, and every run begins with a copy of that etcd. "
        "KubeVirt has its default limits: 5 migrations at a time, 2 off one node.",
        "- Every transfer takes one second whatever the VM's memory, so time is compressed: an interval of "
        f"{INTERVAL_SECONDS} s between the descheduler's rounds, and as long a hold time for the daemon, are what a "
        "minute is to migrations of half a minute.",
        "- Descheduler: LowNodeUtilization (CPU, below 50 %, above 80 %), RemovePodsViolatingInterPodAntiAffinity, "
        "RemovePodsViolatingNodeAffinity (required) and RemovePodsViolatingNodeTaints; nodeFit and "
        "evictLocalStoragePods on; nodes selected by kubevirt.io/schedulable=true. OpenShift's limits are 5 evictions "
        "in all and 2 per node, in each round. Topology spread has a plugin of its own, which was not enabled: it did "
        "not look at rules of that kind, be they left or newly broken.",
        "- Daemon: a process with the roles of our chart, mode active, no cool-down and no limit per hour (which "
        "compressed time would make meaningless), everything else by default.",
        "- Judged by the simulator's checkers from the API's JSON alone, which share nothing with the planner. "
        "A move ended on a node above 80 % if, on arrival and with all VMs counted where they run, the node was.",
    ]
    for who, sentences in kinds.items():
        notes.append(f"- Broken still after {who}: {'; '.join(sentences)}.")
    return notes


def _version(folder: str) -> str:
    text = (ROOT / "tests" / "controlplane" / "modules" / folder / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(MODULES[folder])} (v\S+)", text, re.M)
    return found[1] if found else "of an unknown version"
