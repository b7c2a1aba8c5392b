"""The documents of /api/v1 as plain values. Their shapes are in `openapi.json` beside this file; they only ever grow.

Nothing private of VMs is in them: names, places, sizes and rules, but no labels, annotations, user data or addresses
beyond what a message has to name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.history import Chapter, Landing
from rebalancer.domain.node import Node
from rebalancer.domain.plan import NodeLoad, State
from rebalancer.domain.pod import Pod
from rebalancer.domain.report import Held, Report, Running
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.snapshot import Snapshot
from rebalancer.policy.cluster_state import VMI_KIND, ClusterState, settled_pods
from rebalancer.policy.load import Thresholds, node_loads, node_thresholds
from rebalancer.present import document as plans
from rebalancer.present.manifests import migration_names
from rebalancer.present.picture import Picture, problem
from rebalancer.present.words import moment

Json = dict[str, Any]
Size = tuple[int, int, str]
"""Minus CPU, minus memory, key: VMs in this order are largest first."""

ZONE = "topology.kubernetes.io/zone"
CORDONED, NOT_READY, UNKNOWN, READY = "Cordoned", "NotReady", "CapacityUnknown", "Ready"


def cluster(picture: Picture) -> Json:
    """The cluster as it will be when running migrations have landed, and how we are doing.

    Takes time in the number of pods, half a second for 100,000: not for an event loop.
    """
    report, snapshot = picture.report, picture.snapshot
    state = report.state if report is not None else State()
    return {
        "schema": "rebalancer.cluster/v1",
        **summary(report),
        "size": size(snapshot),
        "nodes": _nodes(snapshot, state, picture.policy.thresholds),
        **_findings(state),
        "running": [running(entry) for entry in report.running] if report is not None else [],
        "held": [held(entry) for entry in report.held] if report is not None else [],
        "cooldowns": {vmi: moment(until) for vmi, until in report.cooldowns.items()} if report is not None else {},
        "setAside": [
            {"kind": aside.kind, "name": aside.name, "reason": aside.reason}
            for aside in (report.set_aside if report is not None else snapshot.set_aside)
        ],
    }


def size(snapshot: Snapshot) -> Json:
    """How large the cluster is."""
    return {"nodes": len(snapshot.nodes), "vmis": len(snapshot.vmis)}


def summary(report: Report | None) -> Json:
    """The last cycle in a few words and numbers: also what /api/v1/stream sends."""
    trouble = problem(report)
    return {
        "time": moment(report.time) if report is not None else None,
        "cycle": report.cycle if report is not None else 0,
        "mode": report.mode if report is not None else "",
        "leader": report is not None and report.leader,
        "holder": report.holder if report is not None else "",
        "synced": report is not None and report.synced,
        "sentence": {
            "kind": report.sentence.kind if report is not None else "NotSynced",
            "text": report.sentence.text if report is not None else trouble.what if trouble is not None else "",
        },
        "problem": {"what": trouble.what, "todo": trouble.todo} if trouble is not None else None,
        "counts": {**_counts(report), "setAside": len(report.set_aside) if report is not None else 0},
    }


def judging(report: Report | None) -> bool:
    """Whether a report has anything to say on the cluster: only who leads and sees all of it judges."""
    return report is not None and report.leader and report.synced


def _counts(report: Report | None) -> Json:
    """How many of each; None where nobody has counted."""
    if report is None or not judging(report):
        return dict.fromkeys(("hotspots", "violations", "moves", "running", "held"))
    return {
        "hotspots": len(report.state.hotspots),
        "violations": len(report.state.violations),
        "moves": len(report.plan.moves) if report.plan is not None else 0,
        "running": len(report.running),
        "held": len(report.held),
    }


def plan(picture: Picture) -> Json | None:
    """The plan in force as `rebalancer plan -o json` prints it, and how far it has come; None where there is none."""
    report, made = picture.report, picture.plan
    if report is None or made is None:
        return None
    ended = {(done.move.vmi, done.move.target): done.result for done in report.done}
    told = plans.document(made, migration_names(made, picture.snapshot))
    for wave, moves in zip(made.waves, told["waves"], strict=True):
        for move, entry in zip(wave.moves, moves["moves"], strict=True):
            entry["result"] = ended.get((move.vmi, move.target), "")
    return {**told, "mode": report.mode, "wave": report.wave}


def history(picture: Picture) -> Json:
    """What was planned beside what came of it, newest plan first."""
    return {
        "schema": "rebalancer.history/v1",
        "since": moment(picture.since),
        "plans": [_chapter(chapter) for chapter in reversed(picture.history)],
    }


def settings(picture: Picture) -> Json:
    """The settings in force, as `rebalancer settings -o json` prints them."""
    return {"schema": "rebalancer.settings/v1", "settings": [dict(row) for row in picture.public_settings()]}


def running(entry: Running) -> Json:
    """A migration in flight; `deadline` is when we give up on it, null where it is not ours to end."""
    return {
        "vmi": entry.vmi,
        "migration": entry.migration,
        "phase": entry.phase,
        "source": entry.source,
        "target": entry.target,
        "started": moment(entry.started),
        "deadline": moment(entry.deadline) if entry.deadline else None,
        "ours": entry.ours,
    }


def held(entry: Held) -> Json:
    """A move that waits; `until` is null where no time is known."""
    return {
        "vmi": entry.vmi,
        "reason": entry.reason,
        "message": entry.message,
        "until": moment(entry.until) if entry.until else None,
    }


def standing(node: Node) -> str:
    """Whether a node takes VMs, in one word."""
    ready = node.conditions.get("Ready")
    if ready is not None and ready.status != "True":
        return NOT_READY
    if node.unschedulable:
        return CORDONED
    return READY if node.capacity_known else UNKNOWN


def homes(snapshot: Snapshot) -> Iterator[tuple[str, Pod]]:
    """The pod that each VM will run in, as `settled_pods` has it, which is asked only where there is a choice."""
    only: dict[str, Pod | None] = {}
    for pod in snapshot.pods.values():
        kind, _, uid = pod.owner
        if kind == VMI_KIND and not pod.terminal:
            only[uid] = None if uid in only else pod
    unclear = {}
    for key, vmi in snapshot.vmis.items():
        home = only.get(vmi.uid)
        if home is not None and home.node in snapshot.nodes and vmi.node in ("", home.node):
            yield key, home
        elif vmi.uid in only:
            unclear[key] = vmi
    if unclear:
        uids = {vmi.uid for vmi in unclear.values()}
        pods = {key: pod for key, pod in snapshot.pods.items() if pod.owner[2] in uids}
        yield from settled_pods(replace(snapshot, vmis=FrozenMap(unclear), pods=FrozenMap(pods))).items()


def _nodes(snapshot: Snapshot, state: State, thresholds: Thresholds) -> list[Json]:
    """Every node with its load and its VMs, largest first."""
    vmis: dict[str, list[Size]] = {name: [] for name in snapshot.nodes}
    for key, pod in homes(snapshot):
        requests = pod.spec.requests
        vmis[pod.node].append((-requests.cpu_milli, -requests.memory_bytes, key))
    # Who stands by has judged nothing. Adding up all pods takes a second in a large cluster.
    loads = state.nodes or node_loads(ClusterState.of(snapshot, settled=True), thresholds)
    return [_node(node, loads.get(node.name), thresholds, vmis[node.name]) for node in snapshot.nodes.values()]


def _node(node: Node, load: NodeLoad | None, thresholds: Thresholds, vmis: list[Size]) -> Json:
    own = node_thresholds(node, thresholds)[0]
    vms = [{"vmi": key, "cpu": -cpu, "memory": -memory} for cpu, memory, key in sorted(vmis)]
    percents = {CPU: load.cpu, MEMORY: load.memory} if load is not None else {CPU: 0.0, MEMORY: 0.0}
    loads = {
        name: {
            "reserved": round(percent * node.allocatable.get(name) / 100),
            "allocatable": node.allocatable.get(name),
            "high": own.percent(name, "high"),
            "low": own.percent(name, "low"),
            "counts": name in thresholds.resources,
        }
        for name, percent in percents.items()
    }
    return {"name": node.name, "zone": node.labels.get(ZONE, ""), "state": standing(node), **loads, "vmis": vms}


def _findings(state: State) -> Json:
    told = plans.state(state)
    return {"hotspots": told["hotspots"], "violations": told["violations"]}


def _chapter(chapter: Chapter) -> Json:
    before, after, reached = chapter.plan.before, chapter.plan.after, chapter.reached
    return {
        "id": chapter.plan.id,
        "standing": chapter.standing,
        "why": chapter.why,
        "begun": moment(chapter.begun),
        "ended": moment(chapter.ended) if chapter.ended else None,
        "planned": {
            **_numbers(before, after),
            "moves": len(chapter.plan.moves),
            "seconds": round(chapter.plan.quiet_seconds, 1),
        },
        "actual": {
            **_numbers(before, reached),
            "moves": sum(landing.outcome.result == "Succeeded" for landing in chapter.landings),
            "seconds": round(chapter.ended - chapter.begun, 1) if chapter.ended else None,
        },
        "moves": list(_moves(chapter)),
    }


def _numbers(before: State, after: State | None) -> Json:
    return {
        "hotspotsBefore": len(before.hotspots),
        "hotspotsAfter": len(after.hotspots) if after is not None else None,
        "violationsBefore": len(before.violations),
        "violationsAfter": len(after.violations) if after is not None else None,
    }


def _moves(chapter: Chapter) -> Iterator[Json]:
    landings = {(landing.outcome.move.vmi, landing.outcome.move.target): landing for landing in chapter.landings}
    for number, wave in enumerate(chapter.plan.waves, start=1):
        for move in wave.moves:
            landed: Landing | None = landings.get((move.vmi, move.target))
            outcome = landed.outcome if landed is not None else None
            yield {
                "wave": number,
                "vmi": move.vmi,
                "source": move.source,
                "target": move.target,
                "seconds": round(move.seconds, 1),
                "result": outcome.result if outcome is not None else "",
                "landedOn": outcome.landed_on if outcome is not None else "",
                "message": outcome.message if outcome is not None else "",
                "actualSeconds": round(landed.seconds, 1) if landed is not None and landed.seconds else None,
            }
