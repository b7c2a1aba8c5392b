"""What happens in a month, written down before it begins: pure, by seed, and the same for whoever looks after the VMs.

Times are seconds since the month began, on a Monday at midnight. VMs are named by what they are to their owners, so
nothing here depends on where they run: every contestant gets the same life.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rebalancer.sim.chance import Dice

HOUR, DAY = 3600.0, 86_400.0
SIZES = ((1, 35), (2, 35), (4, 20), (8, 8), (16, 2))
"""(vCPU, how often in percent)"""
GIB_PER_VCPU = ((2, 30), (4, 45), (8, 25))
"""Some VMs want memory and others CPU: a scheduler that weighs both leaves nodes unequal in each."""
PLAIN, APART, SPREAD, GOLD, STUCK = "plain", "apart", "spread", "gold", "stuck"
KINDS = ((PLAIN, 84), (APART, 8), (SPREAD, 2), (GOLD, 3), (STUCK, 3))
"""What owners ask for: nothing, trios that are kept apart, sixes spread over zones, special nodes; and no migration."""
SPACES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A virtual machine as its owner knows it. `group` names those that a rule is about."""

    namespace: str
    name: str
    vcpus: int
    gib: int
    kind: str = PLAIN
    group: str = ""
    office: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happens. `what` is start, stop, resize, plug, migrate (of `vm`), cordon, drain, open, lose, regain
    (of `node`), install or upgrade. A resize is a restart with other CPUs, a plug gives them to the running VM."""

    time: float
    what: str
    vm: str = ""
    node: str = ""
    vcpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgendaParams:
    """How much happens, in shares of all VMs per day or in events per day.

    `office`: VMs that run from morning to evening on working days only. `churn`: as many begin as end for good.
    `resize`: of these two in five are plugged in while the VM runs. `migrate`: by their owners' hand.
    `upgrade_day`: KubeVirt itself, which renews all launchers; `rolling_day`: every node is drained, `rolling_at_once`
    at a time, for `rolling_seconds` each. -1: never. `quiet_day`: from then on nothing happens any more.
    """

    nodes: int = 200
    vms: int = 4000
    days: int = 30
    office: float = 0.075
    churn: float = 0.03
    resize: float = 0.01
    migrate: float = 0.005
    cordons: float = 1.0
    drains: float = 0.7
    losses: float = 0.25
    upgrade_day: int = 11
    rolling_day: int = 21
    rolling_at_once: int = 2
    rolling_seconds: float = 1200.0
    quiet_day: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Agenda:
    """`vms` run when the month begins; the office's come in the morning. `born` are those that come later."""

    params: AgendaParams
    seed: int
    vms: tuple[Vm, ...]
    born: tuple[Vm, ...]
    happenings: tuple[Happening, ...]


def node_name(number: int) -> str:
    return f"w-{number:03}"


def agenda(params: AgendaParams, seed: int) -> Agenda:
    """The month of a seed."""
    return _Writer(params, seed).write()


class _Writer:
    """Goes through the month in the order of time and keeps book of who is there."""

    def __init__(self, params: AgendaParams, seed: int) -> None:
        self.params = params
        self.seed = seed
        self.dice = Dice(f"agenda {seed}")
        self.alive: dict[str, Vm] = {}
        self.born: list[Vm] = []
        self.busy: dict[str, float] = {}
        self.end = params.quiet_day * DAY

    def write(self) -> Agenda:
        params = self.params
        residents = [self._vm(number) for number in range(params.vms)]
        office = round(params.vms * params.office)
        residents = [
            replace(vm, office=True, kind=PLAIN, group="") if number < office else vm
            for number, vm in enumerate(residents)
        ]
        self.alive = {vm.key: vm for vm in residents if not vm.office}
        found = list(self._upgrades())
        streams = [
            self._draw("churn", params.churn * params.vms),
            self._draw("resize", params.resize * params.vms),
            self._draw("migrate", params.migrate * params.vms),
            self._draw("cordon", params.cordons),
            self._draw("drain", params.drains),
            self._draw("loss", params.losses),
        ]
        for time, name, number in heapq.merge(*streams):
            found += self._happen(time, name, number)
        for vm in residents:
            if vm.office:
                found += self._office_hours(vm)
        found.sort(key=lambda one: (one.time, one.what, one.vm, one.node))
        return Agenda(
            params=params,
            seed=self.seed,
            vms=tuple(vm for vm in residents),
            born=tuple(self.born),
            happenings=tuple(one for one in found if one.time < self.end),
        )

    # VMs

    def _weighted(
        self, table: tuple[tuple[int, int], ...] | tuple[tuple[str, int], ...], *subject: object
    ) -> int | str:
        point = self.dice.fraction(*subject) * sum(weight for _, weight in table)
        for value, weight in table:
            point -= weight
            if point < 0:
                return value
        return table[-1][0]

    def _vm(self, number: int) -> Vm:
        """Groups are made of neighbours in number: of a trio or a six all are of the same kind."""
        kind = str(self._weighted(KINDS, "kind", number // 6))
        size = {APART: 3, SPREAD: 6}.get(kind, 1)
        group = f"{kind}-{number // size}" if size > 1 else ""
        vcpus = int(self._weighted(SIZES, "size", number // size))
        gib = min(64, vcpus * int(self._weighted(GIB_PER_VCPU, "memory", number // size)))
        namespace = f"team-{number // 6 % SPACES:02}"
        return Vm(namespace=namespace, name=f"vm-{number:05}", vcpus=vcpus, gib=gib, kind=kind, group=group)

    def _office_hours(self, vm: Vm) -> Iterator[Happening]:
        for day in range(self.params.quiet_day):
            if day % 7 >= 5:
                continue
            draw = self.dice.of("office", vm.name, day)
            come, go = (8.0 + draw.gauss(0, 0.75)) * HOUR, (17.5 + draw.gauss(0, 1.0)) * HOUR
            yield Happening(time=day * DAY + come, what="start", vm=vm.key)
            yield Happening(time=day * DAY + max(go, come + HOUR), what="stop", vm=vm.key)

    # Chance

    def _draw(self, name: str, per_day: float) -> Iterator[tuple[float, str, int]]:
        """Moments of a Poisson process with the rhythm of working days."""
        if per_day <= 0:
            return
        draw, moment, number = self.dice.of("times", name), 0.0, 0
        busiest = max(map(_rhythm, (hour * HOUR for hour in range(24))))
        while True:
            moment += draw.expovariate(per_day * busiest / DAY)
            if moment >= self.end:
                return
            if draw.random() * busiest < _rhythm(moment):
                number += 1
                yield moment, name, number

    def _happen(self, time: float, name: str, number: int) -> Iterator[Happening]:
        draw = self.dice.of("what", name, number)
        if name in ("cordon", "drain", "loss"):
            free = [one for one in map(node_name, range(self.params.nodes)) if self.busy.get(one, 0.0) < time]
            if not free:
                return
            node = draw.choice(free)
            least, most = {"cordon": (0.5, 4.0), "drain": (1.0, 3.0), "loss": (0.3, 1.0)}[name]
            until = time + draw.uniform(least, most) * HOUR
            self.busy[node] = until + HOUR
            yield Happening(time=time, what={"loss": "lose"}.get(name, name), node=node)
            yield Happening(time=until, what="regain" if name == "loss" else "open", node=node)
            return
        key = draw.choice(list(self.alive))
        vm = self.alive[key]
        if name == "migrate":
            yield Happening(time=time, what="migrate", vm=key)
        elif name == "resize":
            plugged = draw.random() < 0.4 and vm.vcpus <= 8
            vcpus = (
                vm.vcpus * 2 if plugged or vm.vcpus == 1 else vm.vcpus // 2 if draw.random() < 0.75 else vm.vcpus * 2
            )
            self.alive[key] = replace(vm, vcpus=min(vcpus, 16))
            yield Happening(time=time, what="plug" if plugged else "resize", vm=key, vcpus=min(vcpus, 16))
        else:
            new = self._vm(self.params.vms + 6 * number)
            new = replace(new, kind=PLAIN if new.group else new.kind, group="")
            del self.alive[key]
            self.alive[new.key] = new
            self.born.append(new)
            yield Happening(time=time, what="stop", vm=key)
            yield Happening(time=time + draw.uniform(60, 4 * HOUR), what="start", vm=new.key)

    def _upgrades(self) -> Iterator[Happening]:
        params = self.params
        if params.upgrade_day >= 0:
            evening = params.upgrade_day * DAY + 20 * HOUR
            yield Happening(time=evening, what="install")
            yield Happening(time=evening + 600.0, what="upgrade")
        if params.rolling_day < 0:
            return
        for number in range(params.nodes):
            begun = params.rolling_day * DAY + 6 * HOUR + number // params.rolling_at_once * params.rolling_seconds
            until = begun + params.rolling_seconds - 60.0
            yield Happening(time=begun, what="drain", node=node_name(number))
            yield Happening(time=until, what="open", node=node_name(number))


def _rhythm(time: float) -> float:
    """How busy people are, about 1 on the mean of a working day."""
    hour, weekend = time % DAY / HOUR, time // DAY % 7 >= 5
    return 0.3 if weekend or not 7 <= hour < 19 else 1.9
