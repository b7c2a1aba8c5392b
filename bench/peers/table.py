"""The table, as Markdown, with what is to be said below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.peers.contestants import AT_ONCE, BUILD_SECONDS, CONTESTANTS, CYCLES, MEMORY_LIMIT_MIB, Answer
from bench.peers.judge import Verdict

TITLE = "Against peers"
OURS, META = CONTESTANTS[0].name, CONTESTANTS[-1].name
TENTH = 0.1
HEAD = (
    "instance", "who", "moves", "hot left", "broken left", "made hot", "newly broken", "waves", "that do not fit",
    "seconds", "CPU s", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line. `size` and `ills` describe the instance: nodes and VMs, hot nodes and broken rules at first."""

    instance: str
    size: tuple[int, int]
    ills: tuple[int, int]
    who: str
    answer: Answer
    verdict: Verdict

    @property
    def left(self) -> tuple[int, int]:
        return self.verdict.broken, self.verdict.hot


def section(results: Sequence[Result]) -> str:
    """The whole section of RESULTS.md."""
    lines = [head(), *(line(result, first=first) for result, first in _with_first(results))]
    findings = [f"- {text}" for text in findings_of(results)]
    return "\n".join([*lines, "", "What it says:", "", *findings, "", "Protocol:", "", *PROTOCOL])


def head() -> str:
    return "| " + " | ".join(HEAD) + " |\n|---|---|" + "---:|" * 9 + "---|"


def line(result: Result, *, first: bool) -> str:
    """A line; the instance is described in the first of its lines."""
    (nodes, vms), (hot, broken) = result.size, result.ills
    told = f"{result.instance} ({nodes:,} nodes, {vms:,} VMs; {hot} hot, {broken} broken)" if first else ""
    verdict, answer = result.verdict, result.answer
    counts = (
        verdict.moves, verdict.hot, verdict.broken, verdict.made_hot, verdict.newly_broken, verdict.waves,
        verdict.unfit,
    )  # fmt: skip
    shown = ["no plan", *["-"] * 6] if answer.failed else [str(count) for count in counts]
    times = [f"{seconds:.2f}" if any(answer.took) else "-" for seconds in answer.took]
    remark = answer.failed or ("proven; " if answer.proven else "") + answer.note
    return "| " + " | ".join([told, result.who, *shown, *times, remark]) + " |"


def findings_of(results: Sequence[Result]) -> Iterator[str]:
    """Where a peer is better than ours, in words; and how the times compare."""
    for instance in dict.fromkeys(result.instance for result in results):
        here = [result for result in results if result.instance == instance]
        mine = next((result for result in here if result.who == OURS), None)
        if mine is None:
            continue
        others = [result for result in here if result is not mine and not result.answer.failed]
        better = [other for other in others if _better(other, mine)]
        for other in better:
            yield (f"**{instance}: {other.who} is better**: {_told(other)}, where ours has {_told(mine)}.")
        same = [other for other in others if other.left <= mine.left]
        if not better and others:
            fewest = min((other.verdict.moves for other in same), default=None)
            rest = "no peer cures as much" if fewest is None else f"the best peer that cures as much needs {fewest}"
            yield f"{instance}: {_told(mine)}; {rest}."
    yield from _times(results)


def _times(results: Sequence[Result]) -> Iterator[str]:
    """Ours beside Meta's, by the clock."""
    mine = {result.instance: result.answer.took[0] for result in results if result.who == OURS}
    met: list[str] = []
    missed: list[str] = []
    for result in results:
        if result.who == META and result.instance in mine and not result.answer.failed:
            share = mine[result.instance] / max(result.answer.took[0], 1e-9)
            text = f"{result.instance} ({mine[result.instance]:.2f} s beside {result.answer.took[0]:.2f} s)"
            (met if share <= TENTH else missed).append(text)
    if met:
        yield f"At most a tenth of the time of {META}: {'; '.join(met)}."
    if missed:
        yield f"**More than a tenth of the time of {META}**: {'; '.join(missed)}."


def _better(other: Result, mine: Result) -> bool:
    """It leaves less (in no respect more) without moving more, or as little with fewer moves, and nothing worse."""
    harm = other.verdict.made_hot + other.verdict.newly_broken + other.verdict.unfit
    no_more = all(theirs <= own for theirs, own in zip(other.left, mine.left, strict=True))
    if not no_more or harm > mine.verdict.made_hot + mine.verdict.newly_broken + mine.verdict.unfit:
        return False
    return other.left != mine.left or other.verdict.moves < mine.verdict.moves


def _told(result: Result) -> str:
    verdict = result.verdict
    return f"{verdict.moves} moves, {verdict.hot} hot and {verdict.broken} broken left"


def _with_first(results: Sequence[Result]) -> Iterator[tuple[Result, bool]]:
    seen: set[str] = set()
    for result in results:
        yield result, result.instance not in seen
        seen.add(result.instance)


PROTOCOL = (
    "- One run on one machine, one after the other, each instance in memory before the clock starts; what takes less "
    "than five seconds is run three times and the fastest counts. All see the same numbers: CPU at most 80 % of a "
    "node's allocatable (high = low, no hysteresis), memory at most all of it, which nodes each VM may be on, which "
    "VMs cannot move, how many of a group each host or zone may hold. One judge (bench/peers/judge.py) does the "
    "arithmetic on those numbers and shares nothing with the planner. Broken counts VMs on nodes that their own rules "
    "refuse, and members of groups beyond what a domain may hold.",
    f"- Waves: ours are the plan's own, at most {AT_ONCE} moves at a time, two off a node and one onto it. A plan that "
    f"comes without waves is carried out in its own order, {AT_ONCE} at a time, which is KubeVirt's limit. A wave does "
    "not fit if a target has no room for what arrives while what leaves is still there, or a group's rule is broken on "
    "the way.",
    "- Ours: `decide` with its defaults (10 s limit), from snapshot to verified plan, waves, reasons and all.",
    "- LowNodeUtilization is a model of the documented behaviour that evicts as the descheduler's own 43 tests of the "
    "plugin do (tests/bench/test_low_node_utilization.py); KubeVirt migrates what is evicted, five at a time and two "
    "off a node, and the default scheduler (its filters, least allocated and balanced allocation) chooses the target. "
    "It knows the nodes labelled kubevirt.io/schedulable=true alone. "
    f"Thresholds on CPU alone; rounds until one evicts nothing, at most {CYCLES}. It looks at no rules: those are for "
    "other plugins of the descheduler, which bench/descheduler measures with the real one. Its time is the model's.",
    "- First fit: what breaks a rule goes to the first node that takes it; then the fullest nodes give away their "
    "largest VMs until they are no longer hot. It proves nothing and finds nothing that needs more than one move.",
    "- Integer program: a binary for each VM and each node it may be on, faults and moves in one weighted objective, "
    f"PuLP 3.3.0 with its CBC, 60 s of search, {BUILD_SECONDS:.0f} s more to build the model and start, "
    f"{MEMORY_LIMIT_MIB // 1024} GB of memory for the model. Seconds are building and solving.",
    "- Meta's Rebalancer: capacity, group count, non-accepting, avoid-moving, avoid-assignments and "
    "minimise-movement specs under its default policy for constraints that are broken at first; local search over "
    "single moves and swaps, 60 s (300 s at 5,000 nodes). Triple loops and chains were tried where there are "
    "100 nodes or fewer: no better plan, and at 100 nodes a search until its limit. Seconds are setting the problem up "
    "and solving it.",
)
