"""Faults planted in the daemon on purpose, each of which the matrix has to find: a check of the checkers.

Every one is a small, plausible mistake in one part, which stands in for the right one through `daemon.Makers`; nothing
is patched. Where a mistake matters only at some points, `where` names them, and the search begins there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from rebalancer.control.clock import Clock
from rebalancer.control.cycle import Cycle, CycleParams, Ports
from rebalancer.control.executor import REFUSED, Executor, ExecutorParams, Gone, NotStarted
from rebalancer.control.flight import Flight, is_ours
from rebalancer.control.flights import Flights
from rebalancer.control.starting import Starter
from rebalancer.daemon import Makers
from rebalancer.domain.frozen import FrozenMap
from rebalancer.domain.plan import Move
from rebalancer.domain.report import Held
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.kube.cache import Cache
from rebalancer.kube.cache_params import CacheParams
from rebalancer.kube.lease import Elector, Leadership
from rebalancer.kube.outcome import Refusal
from rebalancer.kube.reflector import Reflector
from rebalancer.kube.retry import Surroundings
from rebalancer.kube.transport import Api
from rebalancer.policy import budget
from rebalancer.sim import perturb
from rebalancer.sim.perturb import EVENT, WRITE

POST = "POST virtualmachineinstancemigrations"


# What acts


class Unfenced(Executor):
    """Writes as if the lease lasted for ever."""

    def _seconds_left(self) -> float:
        return self.params.request_seconds


class Guessing(Executor):
    """Makes names at random, and tries again where the answer to a POST was lost."""

    _numbers = itertools.count()

    async def _create(self, move: Move, plan: str, name: str, snapshot: Snapshot) -> Flight | NotStarted | None:
        return await super()._create(move, plan, f"{name}-{next(self._numbers)}", snapshot)

    async def _after_loss(
        self, move: Move, namespace: str, name: str, snapshot: Snapshot, problem: str
    ) -> Flight | NotStarted:
        again = await self._create(move, "", name, snapshot)
        return again or NotStarted(kind=REFUSED, reason="NameTaken", message=problem)


class Incurious(Executor):
    """Takes a lost answer for a refusal, and looks for nothing."""

    async def _after_loss(
        self, move: Move, namespace: str, name: str, snapshot: Snapshot, problem: str
    ) -> Flight | NotStarted:
        return NotStarted(kind=REFUSED, reason="Rejected", message=problem)


class Offended(Executor):
    """Takes AlreadyExists for a refusal."""

    async def _after_collision(
        self, move: Move, namespace: str, name: str, snapshot: Snapshot, answer: Refusal
    ) -> Flight | NotStarted | None:
        return NotStarted(kind=REFUSED, reason="Rejected", message=answer.message)


class Trusting(Executor):
    """Does not read a VM before it moves it: what the watches have shown is good enough."""

    _seen: VMI | None = None

    async def start(self, move: Move, plan: str, snapshot: Snapshot) -> Flight | NotStarted:
        self._seen = snapshot.vmis.get(move.vmi)
        try:
            return await super().start(move, plan, snapshot)
        finally:
            self._seen = None

    async def read_vmi(self, key: str, uid: str = "") -> VMI | Gone:
        return self._seen or await super().read_vmi(key, uid)


class Patient(Executor):
    """Knows no deadline."""

    def __init__(self, api: Api, leadership: Leadership, clock: Clock, params: ExecutorParams) -> None:
        never = replace(params.deadline, setup_seconds=1e6)
        super().__init__(api, leadership, clock, replace(params, deadline=never))


# What leads


class Clinging(Elector):
    """Leads for as long as it has not heard of another leader, whether it can renew or not."""

    def fence(self) -> float:
        mine = self._seen is not None and self._seen.spec.holder == self._params.identity
        return max(super().fence(), self._params.renew_deadline_seconds if mine else 0.0)


class Grabbing(Elector):
    """Takes the lease whoever holds it."""

    def _free(self, seen: object) -> bool:
        return True


# What sees


class Deaf(Reflector):
    """Goes on from an expired watch without what a list would tell it."""

    def listed(self, items: dict[str, object], set_aside: dict[str, SetAside], version: str) -> None:
        if self.synced:
            items, set_aside = self.items, self.set_aside
        super().listed(items, set_aside, version)


class DeafCache(Cache):
    """Made of those."""

    def __init__(self, api: Api, around: Surroundings, params: CacheParams) -> None:
        super().__init__(api, around, params)
        self.reflectors = tuple(Deaf(old.kind, api, around, params, old.shared) for old in self.reflectors)


# What decides


class Orphaning(Flights):
    """Adopts nothing that it has not begun itself."""

    def _adopt(self, migration: Migration, snapshot: Snapshot, *, seen: bool = True) -> None:
        pass


class Stubborn(Flights):
    """Never gives way."""

    async def _give_way(self, flight: Flight, snapshot: Snapshot, unsettled: str) -> None:
        pass


class Lonely(Starter):
    """Counts only what it has begun itself."""

    def _admit(
        self, waiting: tuple[Move, ...], snapshot: Snapshot, *more: object
    ) -> tuple[tuple[Move, ...], list[Held]]:
        own = FrozenMap((key, migration) for key, migration in snapshot.migrations.items() if is_ours(migration))
        return super()._admit(waiting, replace(snapshot, migrations=own), *more)  # type: ignore[arg-type]


def _without_strangers(snapshot: Snapshot) -> Snapshot:
    """As if nobody else's migration had ever ended."""
    kept = FrozenMap((key, one) for key, one in snapshot.migrations.items() if is_ours(one) or not one.final)
    return replace(snapshot, migrations=kept)


class Restless(Starter):
    """Lets only those rest that it has moved itself."""

    def _admit(
        self, waiting: tuple[Move, ...], snapshot: Snapshot, *more: object
    ) -> tuple[tuple[Move, ...], list[Held]]:
        return super()._admit(waiting, _without_strangers(snapshot), *more)  # type: ignore[arg-type]


def _cycle(
    flights: type[Flights] = Flights, starter: type[Starter] = Starter, base: type[Cycle] = Cycle
) -> Callable[..., Cycle]:
    """A cycle with other parts in it."""

    class Other(base):  # type: ignore[misc, valid-type]
        def __init__(self, ports: Ports, params: CycleParams) -> None:
            super().__init__(ports, params)
            self._flights = flights(ports.executor, ports.clock)
            self._starter = starter(ports.executor, ports.clock, params.starting)

    return Other


class RestlessCycle(Cycle):
    """The same for what the planner may move."""

    async def _look(self, watched: Snapshot) -> None:
        await super()._look(watched)
        now, mine = self._ports.clock.now(), self._flights.starts()
        self._view.resting = budget.resting(_without_strangers(self._view.snapshot), self._params.limits, now, mine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A planted fault. `found_by`: words of the finding that tells of it; `worlds` and `kinds` (at and kind) are where
    it can show, at points whose mark begins with `what`."""

    makers: Makers
    found_by: str
    worlds: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    what: str = ""


def _points(at: str, *kinds: str) -> tuple[tuple[str, str], ...]:
    return tuple((at, kind) for kind in kinds)


CRASHES = (*_points(WRITE, perturb.CRASH_AFTER), *_points(EVENT, perturb.CRASH_BEFORE, perturb.CRASH_AFTER))
ANY = tuple((at, kind) for at, kinds in perturb.KINDS.items() for kind in kinds)

PLANTED = {
    "no fence before a POST": Plant(
        makers=Makers(executor=Unfenced),
        found_by="promise 7",
        worlds=("hot", "apart", "failing", "replicas"),
        kinds=_points(WRITE, perturb.LEADER),
    ),
    "a lease that is kept in mind after it has run out": Plant(
        makers=Makers(elector=Clinging),
        found_by="promise 7",
        worlds=("hot", "apart", "failing", "replicas"),
        kinds=_points(WRITE, perturb.LEADER),
    ),
    "a lease that is taken whoever holds it": Plant(
        makers=Makers(elector=Grabbing),
        found_by="promise 7",
        worlds=("replicas",),
        kinds=_points(WRITE, perturb.DELAYED, perturb.SLOW, perturb.LEADER),
    ),
    "random names, and a second try after a lost answer": Plant(
        makers=Makers(executor=Guessing),
        found_by="a second unfinished migration of ours",
        worlds=("hot", "chain", "drained"),
        kinds=_points(WRITE, perturb.LOST, perturb.SLOW, perturb.ERROR),
        what=POST,
    ),
    "no look for what became of a POST whose answer was lost": Plant(
        makers=Makers(executor=Incurious),
        found_by="it says that the API server refused",
        worlds=("hot", "chain", "drained"),
        kinds=_points(WRITE, perturb.LOST, perturb.SLOW, perturb.ERROR),
        what=POST,
    ),
    "AlreadyExists taken for a refusal": Plant(
        makers=Makers(executor=Offended),
        found_by="it says that the API server refused",
        worlds=("hot", "chain", "drained"),
        kinds=_points(WRITE, perturb.DUPLICATED),
        what=POST,
    ),
    "no reading of a VM before it is moved": Plant(
        makers=Makers(executor=Trusting),
        found_by="promise 9",
        worlds=("opt-out",),
        kinds=_points(EVENT, perturb.DROPPED),
        what="MODIFIED virtualmachineinstances",
    ),
    "no deadline": Plant(makers=Makers(executor=Patient), found_by="after its deadline", worlds=("stuck",), kinds=ANY),
    "nothing adopted after a crash": Plant(
        makers=Makers(cycle=_cycle(flights=Orphaning)),
        found_by="promise",
        worlds=("stuck", "opt-out", "drained"),
        kinds=CRASHES,
    ),
    "no giving way to drains and opt-outs": Plant(
        makers=Makers(cycle=_cycle(flights=Stubborn)), found_by="promise 9", worlds=("opt-out", "drained"), kinds=ANY
    ),
    "budgets counted from what it has begun itself": Plant(
        makers=Makers(cycle=_cycle(starter=Lonely)), found_by="promise 6", worlds=("busy", "stranger"), kinds=ANY
    ),
    "no rest for a VM that somebody else has moved": Plant(
        makers=Makers(cycle=_cycle(starter=Restless, base=RestlessCycle)),
        found_by="promise 5",
        worlds=("stranger",),
        kinds=ANY,
    ),
    "an expired watch goes on without a list": Plant(
        makers=Makers(cache=DeafCache),
        found_by="has not seen what became of",
        worlds=("hot", "chain"),
        kinds=_points(EVENT, perturb.DROPPED, perturb.EXPIRED),
    ),
}
"""By what is wrong with them."""
