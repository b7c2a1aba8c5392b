"""The sentences of a cycle. They carry numbers and names, and are what the tests assert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rebalancer.control.backoff import Breaker
from rebalancer.domain.naming import RESUME
from rebalancer.domain.plan import Move, Plan, State
from rebalancer.domain.report import Held, Outcome, Sentence
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.verdict import Trigger
from rebalancer.policy.windows import Closed

NAMED = 3
"""How many of many things a sentence names."""


NOT_YET = " are not listed yet"
"""How the cache says that a kind is on its way, and nothing is wrong with it."""


def count(number: int, thing: str) -> str:
    """`1 move`, `14 moves`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def some(words: Sequence[str], separator: str = ", ") -> str:
    """The first few, and how many more there are."""
    more = len(words) - NAMED
    return separator.join(words[:NAMED]) + (f" and {more} more" if more > 0 else "")


def moment(seconds: float) -> str:
    """A wall time as people in any zone read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def move(found: Move) -> str:
    """`bank/db-0 w-01 → w-07`."""
    return f"{found.vmi} {found.source} → {found.target}"


def ended(outcome: Outcome) -> str:
    """How a move ended, and why."""
    return f"{move(outcome.move)} ended as {outcome.result}: {outcome.message or 'no reason given'}"


def not_synced(problems: Sequence[str]) -> Sentence:
    """What is only not there yet comes last and together, so that it hides nothing that somebody has to mend."""
    late = [found.removesuffix(NOT_YET) for found in problems if found.endswith(NOT_YET)]
    told = [found for found in problems if not found.endswith(NOT_YET)]
    told += [f"{some(late)}{NOT_YET}"] if late else []
    return Sentence(kind="NotSynced", text=f"Waiting for the cluster's picture: {some(told, '; ')}")


def standby(holder: str, problem: str) -> Sentence:
    who = f"{holder} leads" if holder else "nobody leads yet"
    return Sentence(kind="Standby", text=f"Standing by: {who}{f' ({problem})' if problem else ''}")


def balanced(snapshot: Snapshot, state: State) -> Sentence:
    size = f"{count(len(snapshot.nodes), 'node')} with {count(len(snapshot.vmis), 'VM')}"
    if state.hotspots:
        names = some(sorted({spot.node for spot in state.hotspots}))
        return Sentence(kind="Balanced", text=f"Nothing to do yet on {size}: {names} above the threshold, not for long")
    return Sentence(kind="Balanced", text=f"Balanced: no node above its threshold and no rule broken on {size}")


def gathering(triggers: Sequence[Trigger], soon: Sequence[str], seconds: float) -> Sentence:
    text = (
        f"{count(len(triggers), 'trigger')}, and no plan for {seconds:.0f} s more: by then it is clear whether "
        f"{some(soon)} stay{'s' if len(soon) == 1 else ''} above the threshold"
    )
    return Sentence(kind="Held", text=text)


def planned(plan: Plan, *, dry_run: bool) -> Sentence:
    size = f"{count(len(plan.moves), 'move')} in {count(len(plan.waves), 'wave')}"
    proof = (
        "proven minimal"
        if plan.bound.proven and plan.bound.moves == len(plan.moves)
        else (f"at least {plan.bound.moves} needed")
    )
    effect = f"{problems(plan.before)} now, {problems(plan.after)} after it"
    if dry_run:
        return Sentence(kind="DryRun", text=f"Dry run, nothing is moved: plan {plan.id} has {size} ({proof}): {effect}")
    return Sentence(kind="Planned", text=f"Plan {plan.id}: {size} ({proof}): {effect}")


def problems(state: State) -> str:
    return f"{count(len(state.hotspots), 'hotspot')} and {count(len(state.violations), 'broken rule')}"


def stuck(plan: Plan) -> Sentence:
    why = [f"{left.trigger.message}: {left.why[0]}" if left.why else left.trigger.message for left in plan.left]
    text = f"Nothing can be done about {count(len(plan.triggers), 'trigger')}: {some(why, '; ')}"
    return Sentence(kind="Stuck", text=text)


def started(moves: Sequence[Move], wave: int, waves: int, held: Sequence[Held]) -> Sentence:
    text = f"Wave {wave} of {waves}: started {count(len(moves), 'migration')}: {some([move(m) for m in moves])}"
    if held:
        text += f"; {count(len(held), 'move')} held ({held[0].sentence()})"
    return Sentence(kind="Started", text=text)


def wave_running(wave: int, waves: int, running: int, done: int, moves: int) -> Sentence:
    text = f"Wave {wave} of {waves}: {count(running, 'migration')} running, {done} of {count(moves, 'move')} done"
    return Sentence(kind="Running", text=text)


def giving_way(beside: Sentence, withdrawn: Mapping[str, str]) -> Sentence:
    """What else there is to say of migrations that have been deleted and go on: VM and why, "" for all others."""
    found = [f"{vmi}: {why}" for vmi, why in withdrawn.items() if why]
    text = f"{beside.text}; {len(found)} deleted, but not ended ({some(found, '; ')})" if found else beside.text
    return Sentence(kind=beside.kind, text=text)


def not_begun(beside: Sentence, refused: Sequence[Outcome]) -> Sentence:
    """What else there is to say of a wave some of whose moves were refused."""
    if not refused:
        return beside
    text = f"{beside.text}; {count(len(refused), 'move')} did not begin ({ended(refused[0])})"
    return Sentence(kind=beside.kind, text=text)


def settling(names: Sequence[str]) -> Sentence:
    text = f"Waiting for the cluster to show {some(names)} on the new node, and the old pod ended"
    return Sentence(kind="Running", text=text)


def earlier(names: Sequence[str]) -> Sentence:
    text = f"No new plan while {count(len(names), 'migration')} of ours from an earlier one still run: {some(names)}"
    return Sentence(kind="Running", text=text)


def held(wave: int, waves: int, found: Sequence[Held]) -> Sentence:
    by_reason: dict[str, list[str]] = {}
    for entry in found:
        by_reason.setdefault(entry.sentence(), []).append(entry.vmi)
    why = some([f"{some(vmis)}: {reason}" for reason, vmis in by_reason.items()], "; ")
    return Sentence(kind="Held", text=f"Wave {wave} of {waves} is held: {why}")


def dropped(plan: Plan, reason: str) -> Sentence:
    return Sentence(kind="Dropped", text=f"Dropped plan {plan.id}: {reason}")


def finished(plan: Plan, done: Sequence[Outcome], state: State, less: str = "") -> Sentence:
    """`less` is where others have taken what was won."""
    text = f"Finished plan {plan.id}: {count(len(done), 'migration')} done, {problems(state)} left"
    text += f"; {less}" if less else ""
    return Sentence(kind="Finished", text=text)


def paused(where: str, until: str = "that is taken away") -> Sentence:
    return Sentence(kind="Paused", text=f"Paused: {where}; nothing new is started until {until}")


def unfit(why: str) -> Sentence:
    return Sentence(kind="Unfit", text=f"Nothing can be started in this cluster: {why}")


def unsettled(why: str) -> Sentence:
    text = f"The cluster is not settled: {why}. Migrations of ours give way, and none is started until it is over"
    return Sentence(kind="Unsettled", text=text)


def closed(plan: Plan, closed: Closed) -> Sentence:
    size = f"{count(len(plan.moves), 'move')} in {count(len(plan.waves), 'wave')}"
    return Sentence(kind="Held", text=f"Plan {plan.id} with {size} waits: {closed.message}")


def broken(breaker: Breaker, since: float, until: float, own_namespace: str) -> Sentence:
    """`since` and `until` are the breaker's as wall times."""
    what = (
        f"{count(breaker.failures, 'migration')} in a row failed, the last: {breaker.message}"
        if breaker.failures
        else f"A plan did not bring what it had promised: {breaker.message}"
    )
    resume = f"{RESUME}={datetime.fromtimestamp(math.ceil(since), UTC):%Y-%m-%dT%H:%M:%SZ}"
    text = (
        f"{what}. Nothing is started before {moment(until)}; to resume sooner: "
        f"kubectl annotate --overwrite namespace {own_namespace} {resume}"
    )
    return Sentence(kind="Broken", text=text)


def failed(error: BaseException) -> Sentence:
    text = f"The cycle failed and will be tried again: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Sentence(kind="Failed", text=text)


def unwithdrawn(move: Move, reason: str, problem: str) -> Sentence:
    text = f"The migration of {move.vmi} to {move.target} must give way ({reason}) and cannot be deleted: {problem}"
    return Sentence(kind="Failed", text=text)


def refused(message: str) -> Sentence:
    return Sentence(kind="Failed", text=f"Nothing could be started: {message}")
