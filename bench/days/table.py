"""The tables of what was lived through."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.days.contestants import DAEMON, DESCHEDULER, DEVIATION, NOBODY, PACE_SECONDS, PER_NODE, TOTAL
from bench.days.meters import DRAINS, OURS, PEOPLE, THEIRS, UPDATES

Run = dict[str, Any]
ORDER = (NOBODY, DESCHEDULER, DEVIATION, DAEMON)
STRETCHES = ((5, 11), (13, 21), (24, 30))
"""After the first days, in which everything is met once, and without those on which every VM migrates."""
HOLDS = """What each process holds (resident memory, blocks of Python's allocator, open files, tasks). KubeVirt
keeps the newest five VMIMs of each VM, so the cluster itself comes to hold more: at once on days 12, 22 and 23, when
every VM is migrated, and a little on the days between. In a small world, where that soon ends, the month is flat
(tests/days)."""


def own(run: Run) -> str:
    """By which hand a contestant moves VMs."""
    return OURS if run["contestant"] == DAEMON else THEIRS


def percentile(histogram: Counter[int], share: float) -> int:
    """The smallest count that so large a share of all does not exceed."""
    left = share * histogram.total()
    for count in sorted(histogram):
        left -= histogram[count]
        if left <= 0:
            return count
    return max(histogram, default=0)


def without(run: Run, runs: list[Run]) -> float | None:
    """Share of node-hours above in the same world with nobody at work, over as many days as this run has."""
    same = [one for one in runs if one["contestant"] == NOBODY and one["seed"] == run["seed"]]
    days = same[0]["days"][: len(run["days"])] if same else []
    return sum(day["above"] for day in days) / len(days) if days and len(days) == len(run["days"]) else None


def row(runs: list[Run], everybody: list[Run]) -> list[str]:
    """One contestant's figures over all of its months."""
    days = [day for run in runs for day in run["days"]]
    histogram: Counter[int] = Counter()
    for run in runs:
        histogram.update({int(count): times for count, times in run["per_vm_day"].items()})
    issued = sum(run["issued"].get(own(run), 0) for run in runs)
    moved = sum(count * times for count, times in histogram.items())
    seeds = ", ".join(f"{run['seed']} ({len(run['days'])} d)" for run in runs)
    if runs[0]["contestant"] == NOBODY:
        moves = ["0", "", "", "", "", ""]
    else:
        moves = [
            f"{issued / len(days):.1f}",
            f"{moved / max(histogram.total(), 1):.4f}",
            f"{percentile(histogram, 0.99)}",
            f"{max(run['most_in_24h'] for run in runs)}",
            f"{sum(run['pingpongs'].get(own(run), 0) for run in runs)}",
            f"{sum(run['failed'].get(own(run), 0) for run in runs)}",
        ]
    idle = [without(run, everybody) for run in runs]
    weighted = sum((share or 0.0) * len(run["days"]) for share, run in zip(idle, runs, strict=True)) / len(days)
    return [
        runs[0]["contestant"],
        seeds,
        f"{sum(day['above'] for day in days) / len(days):.2%}",
        f"{weighted:.2%}" if None not in idle else "",
        f"{sum(day['excess_cpu_hours'] for day in days) / len(days):.1f}",
        *moves,
    ]


def compared(runs: list[Run]) -> str:
    """The contestants beside each other."""
    head = (
        "contestant", "seeds (days)", "node-hours above 80 %", "the same days, nobody at work",
        "CPU-hours above, a day", "own migrations a day",
        "per VM and day: mean", "p99", "max in 24 h", "ping-pongs", "failed",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * (len(head) - 2)}"]
    for name in ORDER:
        chosen = [run for run in runs if run["contestant"] == name]
        if chosen:
            lines.append(f"| {' | '.join(row(chosen, runs))} |")
    return "\n".join(lines)


def by_seed(runs: list[Run]) -> str:
    """Every month on its own."""
    lines = [
        "| seed | contestant | days | node-hours above 80 % | the first day | the others | own migrations, first day "
        "| the others, a day |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for run in sorted(runs, key=lambda run: (run["seed"], ORDER.index(run["contestant"]))):
        days = run["days"]
        above = [day["above"] for day in days]
        moves = [day["moves"] for day in days]
        rest = max(len(days) - 1, 1)
        lines.append(
            f"| {run['seed']} | {run['contestant']} | {len(days)} | {sum(above) / len(days):.2%} | {above[0]:.2%} "
            f"| {sum(above[1:]) / rest:.2%} | {moves[0]} | {sum(moves[1:]) / rest:.1f} |"
        )
    return "\n".join(lines)


def promises(runs: list[Run]) -> str:
    """What our daemon was held to, and what it said."""
    ours = [run for run in runs if run["contestant"] == DAEMON]
    broken = [sentence for run in ours for sentence in run["broken"]]
    days = sum(len(run["days"]) for run in ours)
    words: Counter[str] = Counter()
    for run in ours:
        words.update(run["seconds_by_sentence"])
    shares = ", ".join(f"{word} {seconds / words.total():.1%}" for word, seconds in words.most_common(8))
    faults, requests = sum(run["faults"] for run in ours), sum(run["requests"] for run in ours)
    plans = sum(run["plans"] for run in ours) / max(days, 1)
    lines = [
        f"Promises broken, as the independent checkers saw all of it: **{len(broken)}**, in {days} days with "
        f"{faults:,} faults in {requests:,} requests.",
        *(f"- {sentence}" for sentence in broken[:10]),
        f"Plans made: {plans:.1f} a day. Time by what the daemon said: {shares}.",
    ]
    return "\n".join(lines)


def flat(runs: list[Run]) -> str:
    """What a process holds as days go by, between the days on which the cluster itself comes to hold more."""
    spans = [f"day {first} → {last}" for first, last in STRETCHES]
    head = ["seed", "contestant", *(f"MiB, {span}" for span in spans), *(f"blocks, {span}" for span in spans)]
    head += [f"{what}, day {STRETCHES[0][0]} → last" for what in ("files", "tasks")]
    lines = [f"| {' | '.join(head)} |", f"|---:|---|{'---:|' * (len(head) - 2)}"]
    for run in runs:
        days = run["days"]
        if run["contestant"] not in (NOBODY, DAEMON) or len(days) < STRETCHES[0][0]:
            continue
        cells = [
            f"{days[first - 1][what]:,.0f} → {days[last - 1][what]:,.0f}" if len(days) >= last else ""
            for what in ("rss_mib", "blocks")
            for first, last in STRETCHES
        ]
        cells += [f"{days[STRETCHES[0][0] - 1][what]:,} → {days[-1][what]:,}" for what in ("files", "tasks")]
        lines.append(f"| {run['seed']} | {run['contestant']} | {' | '.join(cells)} |")
    return f"{HOLDS}\n\n" + "\n".join(lines)


def life(runs: list[Run]) -> str:
    """What the others did meanwhile."""
    counts = [
        f"{who} {sum(run['issued'].get(who, 0) for run in runs) / sum(len(run['days']) for run in runs):.0f}"
        for who in (DRAINS, UPDATES, PEOPLE)
    ]
    return f"Migrations that others asked for, a day in the mean: {', '.join(counts)}."


def unfinished(runs: list[Run]) -> str:
    """What is missing of three seeds and thirty days each, in plain words."""
    seeds = len({run["seed"] for run in runs})
    cut = [f"{run['contestant']} (seed {run['seed']}): {len(run['days'])}" for run in runs if len(run["days"]) < 30]
    found = [f"Lived through with {seeds} {'seed' if seeds == 1 else 'seeds'} of three."] if seeds < 3 else []
    if cut:
        found.append(f"Months that were stopped before their thirtieth day, by the days they lasted: {', '.join(cut)}.")
    return " ".join(found)


def lived(runs: list[Run]) -> str:
    """At which commits, as months take longer than a table."""
    commits = {name: sorted({run["commit"] for run in runs if run["contestant"] == name}) for name in ORDER}
    told = [f"{name} at {', '.join(found)}" for name, found in commits.items() if found]
    return f"Lived through: {'; '.join(told)}."


def text(runs: list[Run]) -> str:
    """Everything, as markdown."""
    parts = [part for part in (compared(runs), unfinished(runs)) if part]
    parts += [promises(runs), by_seed(runs), life(runs), flat(runs), PROTOCOL, lived(runs)]
    return "\n\n".join(parts)


PROTOCOL = f"""200 nodes of 80 CPUs, 4,000 VMs of 1 to 16. Of these 7.5 % run in office hours; 3 % a day end for good
and as many begin; 1 % a day get other CPUs, two in five of these while they run; people migrate 20 VMs a day; nodes are
cordoned, drained and lost; KubeVirt is upgraded on day 12, which renews every launcher, and from day 22 on every node
is drained in turn, two at a time for 33 hours, in which drains take KubeVirt's slots and the daemon waits. One VM in
ten is under a rule, three of a hundred cannot migrate, three migrations of a hundred fail. What happens is written down
by seed before it begins and is the same for every contestant; where VMs run is up to kube-scheduler (least allocated,
CPU and memory alike) and to the contestant. Nodes count at what is reserved by the VMs that run there, the other half
of a migration left out. The first day begins with the inequality of years and ten empty nodes. The daemon's limits,
cooldown and thresholds are its defaults; other than by default it looks every {PACE_SECONDS:.0f} s at most (the default
is a second after a change), takes its first plan without search, and renews its lease every two minutes: that is what a
month of simulation can afford. virt-handler's heartbeats are left out. Every request and every line of a watch may meet
a fault: 3 % of requests, and outages of up to 15 minutes. LowNodeUtilization looks every five minutes, by reserved CPU,
with at most {TOTAL} evictions at a time and {PER_NODE} per node; KubeVirt turns each eviction into a migration, and it
picks no VM that cannot migrate. A ping-pong is a VM that the same hand takes from A to B and back to A within 24 hours.
The simulated cluster is in the same process as the contestant, so what the process holds is both; nobody's row is the
cluster alone."""
