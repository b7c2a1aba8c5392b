"""Independent checkers: they hear of every write to the cluster and of every request, and know the promises.

Written apart from the code that they check and importing none of it. Numbers of promises are those of the design.
What others did to the cluster meanwhile is not held against us: each check compares with what would be without us.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from rebalancer.sim.check_conduct import MIGRATIONS, VMIS, Conduct, is_ours, vmi_of
from rebalancer.sim.check_picture import Known, Picture, broken_rules, loads, take
from rebalancer.sim.check_reading import Obj, amount, full_name, labels, need
from rebalancer.sim.faults import Entry
from rebalancer.sim.store import ADDED, DELETED, Change, Store

HOSTNAME = "kubernetes.io/hostname"
JOB = "kubevirt.io/migrationJobUID"
ENDED = ("Succeeded", "Failed")
OURS = "kubevirt-rebalancer/"
"""How our user agent begins."""
BLINK_SECONDS = 5.0
"""Others' doings reach us within this time, as long as nothing is wrong with the network."""
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the daemon was told to keep to. Percentages by resource; numbers of migrations.

    `high` are thresholds; the node annotations kubevirt-rebalancer.io/<resource>-high override them.
    `identities` maps the API user of each replica to its name in the lease; empty = one replica named `identity`.
    `cooldown_seconds`: how long a VM rests at least, 0 for not at all. A migration may take `deadline_seconds`, and
    more by its VM's memory. `blink_seconds`: what others did within this time before we acted we cannot have known,
    and what they want of us we cannot do sooner; `glance_seconds` for what the VM itself says, which we read last.
    """

    high: Mapping[str, float] = field(default_factory=lambda: {"cpu": 80.0})
    per_cluster: int = 5
    per_source: int = 2
    per_target: int = 1
    per_hour: int = 30
    per_vm_day: int = 4
    cooldown_seconds: float = 0.0
    deadline_seconds: float = float("inf")
    deadline_seconds_per_gib: float = 0.0
    blink_seconds: float = BLINK_SECONDS
    glance_seconds: float = BLINK_SECONDS
    dry_run: bool = False
    identity: str = "kubevirt-rebalancer"
    identities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A promise that was not kept. `time` in seconds since 1970."""

    promise: int
    time: float
    about: str
    text: str

    def sentence(self) -> str:
        moment = f"{datetime.fromtimestamp(self.time).astimezone():%d %H:%M:%S}"
        return f"promise {self.promise} at {moment}: {self.about}: {self.text}"


@dataclass(slots=True, kw_only=True)
class _Wave:
    """What the cluster was like when the first of our migrations that run now was created.

    `origins`: where those that have arrived came from. `arrivals`: pods of others that came to a node since.
    """

    picture: Picture
    began: float
    origins: dict[str, str] = field(default_factory=dict)
    arrivals: dict[str, list[Obj]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Start:
    """A migration that a process has begun; `gone` with its VM."""

    moment: float
    vmi: str
    gone: bool = False


class Checkers:
    """Subscribe `change` to the store and `request` to the API server; `broken` grows."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds
        self.broken: list[Broken] = []
        self._wave: _Wave | None = None
        self._created: list[tuple[float, str, bool]] = []
        self._made: dict[str, list[_Start]] = {}
        self._touched: dict[str, float] = {}
        self._landings: dict[str, list[tuple[float, str, str]]] = {}
        self._posted: dict[str, float] = {}
        self._known: Known = {}
        self._conduct = Conduct(store, bounds, self._say)
        for vmi in store.items(VMIS):
            self._conduct.meet(vmi)
        self._open: dict[tuple[str, str], Obj] = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): item
            for item in store.items(MIGRATIONS)
            if (item.get("status") or {}).get("phase") not in ENDED
        }

    def _say(self, promise: int, about: str, text: str) -> None:
        self.broken.append(Broken(promise=promise, time=self._store.now(), about=about, text=text))

    # What is heard

    def request(self, entry: Entry) -> None:
        """A request has ended."""
        if not entry.user_agent.startswith(OURS) or not entry.writes or entry.target is None:
            return
        plural = entry.target.resource.plural
        if self._bounds.dry_run and plural not in ("leases", "events"):
            self._say(8, entry.path, f"{entry.method} in dry run")
        if plural not in ("leases", "events") and entry.code < 300 and entry.code:
            self._check_leader(entry)
        if entry.code == 201 and plural == MIGRATIONS:
            self._check_memory(entry)

    def change(self, change: Change) -> None:
        """The cluster has changed."""
        self._conduct.change(change)
        if change.resource == MIGRATIONS:
            if change.type == DELETED or (change.object.get("status") or {}).get("phase") in ENDED:
                self._open.pop((change.namespace, change.name), None)
            else:
                self._open[change.namespace, change.name] = change.object
            if change.type == ADDED:
                self._created_migration(change.object)
            if self._wave is not None and not self._unfinished(ours=True):
                self._end_wave(self._wave)
                self._wave = None
        elif change.resource == "pods":
            self._pod_changed(change)
        elif change.resource == VMIS and change.type == DELETED:
            # KubeVirt removes a VM's migrations with it: of those that do not exist, each process knows its own.
            gone = f"{change.namespace}/{change.name}"
            self._created = [entry for entry in self._created if entry[1] != gone]
            for start in itertools.chain.from_iterable(self._made.values()):
                start.gone = start.gone or start.vmi == gone
        elif change.resource == VMIS and change.previous is not None:
            before = (change.previous.get("status") or {}).get("nodeName")
            after = (change.object.get("status") or {}).get("nodeName")
            if before and after and before != after:
                self._landed(change.object, before, after)
        elif change.resource == "nodes" and (change.previous or {}).get("spec") != change.object.get("spec"):
            self._touched[change.name] = change.time

    # Looking

    def _unfinished(self, *, ours: bool = False) -> list[Obj]:
        return [self._open[key] for key in sorted(self._open) if is_ours(self._open[key]) or not ours]

    def _vmi(self, migration: Obj) -> Obj | None:
        return self._store.find(VMIS, migration["metadata"]["namespace"], migration["spec"].get("vmiName", ""))

    def _source(self, migration: Obj) -> str:
        """Where a migration comes from: once it is on its way the VM knows, before that it is where the VM runs."""
        status = (self._vmi(migration) or {}).get("status") or {}
        state = status.get("migrationState") or {}
        under_way = state.get("migrationUid") == migration["metadata"]["uid"]
        return str((state.get("sourceNode") if under_way else "") or status.get("nodeName", ""))

    def _target(self, migration: Obj) -> str:
        """Where a migration goes: by its selector, else by the node that its target pod is bound to."""
        wanted = (migration["spec"].get("addedNodeSelector") or {}).get(HOSTNAME)
        if wanted:
            named = [node for node in self._store.items("nodes") if labels(node).get(HOSTNAME) == wanted]
            return str(named[0]["metadata"]["name"]) if named else str(wanted)
        uid = migration["metadata"]["uid"]
        for pod in self._store.items("pods", migration["metadata"]["namespace"]):
            if labels(pod).get(JOB) == uid:
                return str(pod["spec"].get("nodeName", ""))
        return ""

    # Promise 7: leadership, and one at a time

    def _check_leader(self, entry: Entry) -> None:
        identity = self._bounds.identities.get(entry.user, self._bounds.identity)
        leases = self._store.items("leases")
        if not leases:
            return
        spec = leases[0]["spec"]
        renewed = datetime.fromisoformat(spec["renewTime"]).timestamp() if spec.get("renewTime") else 0.0
        if spec.get("holderIdentity") != identity:
            self._say(7, entry.path, f"{entry.method} by {identity}, but {spec.get('holderIdentity')!r} leads")
        elif renewed + spec["leaseDurationSeconds"] < entry.started:
            self._say(
                7, entry.path, f"{entry.method} by {identity}, whose lease ended {entry.started - renewed:.1f} s ago"
            )

    def _created_migration(self, item: Obj) -> None:
        vmi, ours = vmi_of(item), is_ours(item)
        now = self._store.now()
        # By the time that the API shows, in whole seconds: nobody can keep to a finer one.
        moment = datetime.fromisoformat(item["metadata"]["creationTimestamp"]).timestamp()
        self._created.append((moment, vmi, ours))
        self._created = [entry for entry in self._created if now - entry[0] < DAY]
        if not ours:
            return
        self._posted[item["metadata"]["uid"]] = now
        about = full_name(item)
        unfinished = self._unfinished()
        same = [other for other in unfinished if vmi_of(other) == vmi and other is not item]
        if any(is_ours(other) for other in same):
            self._say(7, about, f"a second unfinished migration of ours for {vmi}")
        self._check_rates(about, vmi, item, unfinished)
        self._check_yield(about, vmi, same)
        self._conduct.created(item, self._target(item))
        if self._wave is None:
            self._wave = _Wave(picture=take(self._store.items, self._known), began=now)

    # Promise 6: rates

    def _check_rates(self, about: str, vmi: str, item: Obj, unfinished: list[Obj]) -> None:
        bounds, now = self._bounds, self._store.now()
        source, target = self._source(item), self._target(item)
        unfinished = [other for other in unfinished if is_ours(other) or self._could_know(other)]
        created = [(moment, who) for moment, who, ours in self._created if ours or now - moment > bounds.blink_seconds]
        for name, found, limit in (
            ("in the cluster", len(unfinished), bounds.per_cluster),
            (f"off {source}", sum(self._source(other) == source for other in unfinished), bounds.per_source),
            (f"onto {target}", sum(self._target(other) == target for other in unfinished), bounds.per_target),
            ("within an hour", sum(now - moment < HOUR for moment, _ in created), bounds.per_hour),
            (f"of {vmi} within a day", sum(who == vmi for _, who in created), bounds.per_vm_day),
        ):
            if found > limit:
                self._say(6, about, f"migration {found} {name}, {limit} are allowed")

    def _check_memory(self, entry: Entry) -> None:
        """A process also counts what it has begun itself and what went with its VM."""
        assert entry.target is not None
        now, vmi = self._store.now(), f"{entry.target.namespace}/{entry.body['spec'].get('vmiName')}"
        made = self._made.setdefault(entry.user, [])
        gone = sum(start.gone and now - start.moment < HOUR for start in made)
        made.append(_Start(moment=now, vmi=vmi))
        blink = self._bounds.blink_seconds
        there = sum(now - moment < HOUR for moment, _, ours in self._created if ours or now - moment > blink)
        if gone and gone + there > self._bounds.per_hour:
            text = (
                f"migration {gone + there} within an hour, {gone} of VMs that are gone; {self._bounds.per_hour} allowed"
            )
            self._say(6, vmi, text)

    # Promise 9: others first

    def _check_yield(self, about: str, vmi: str, same: list[Obj]) -> None:
        foreign = [other for other in same if not is_ours(other) and self._could_know(other)]
        if foreign:
            self._say(9, about, f"{vmi} is being migrated by {full_name(foreign[0])} already")

    def _could_know(self, migration: Obj) -> bool:
        made = datetime.fromisoformat(migration["metadata"]["creationTimestamp"]).timestamp()
        return self._store.now() - made > self._bounds.blink_seconds

    # Promises 1 and 2: never worse, and room for both halves

    def _pod_changed(self, change: Change) -> None:
        pod = change.object
        job = labels(pod).get(JOB, "")
        ours = job in self._posted
        node = pod["spec"].get("nodeName")
        newly_bound = node and (change.previous is None or not change.previous["spec"].get("nodeName"))
        if newly_bound and not ours:
            self._touched[node] = change.time
            if self._wave is not None:
                self._wave.arrivals.setdefault(node, []).append(pod)
        if ours and change.type != DELETED:
            self._check_schedulable(pod, change, self._posted[job])

    def _check_schedulable(self, pod: Obj, change: Change, posted: float) -> None:
        """The scheduler must never refuse what we ask for, unless others changed the cluster under our hands."""

        def refusal(item: Obj | None) -> str:
            for condition in ((item or {}).get("status") or {}).get("conditions") or ():
                if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                    return str(condition.get("message", ""))
            return ""

        text = refusal(pod)
        recently = max(self._touched.values(), default=0.0)
        if text and not refusal(change.previous) and recently < posted - self._bounds.blink_seconds:
            self._say(2, full_name(pod), f"a target of ours finds no node: {text}")

    def _landed(self, vmi: Obj, source: str, target: str) -> None:
        """One VM has arrived: no rule may be broken now that holds without this move and held before the wave."""
        name = full_name(vmi)
        state = (vmi.get("status") or {}).get("migrationState") or {}
        if state.get("migrationUid") not in self._posted:
            return
        history = self._landings.setdefault(name, [])
        now = self._store.now()
        for moment, start, end in history:
            if start == target and end == source and now - moment < DAY:
                self._say(5, name, f"moved {start} → {end} {now - moment:.0f} s ago and back now")
        history.append((now, source, target))
        if self._wave is None:
            return
        self._wave.origins.setdefault(name, source)
        picture = take(self._store.items, self._known)
        known = broken_rules(self._wave.picture) | broken_rules(picture.moved({name: source}))
        for key, text in broken_rules(picture).items():
            if key not in known:
                self._say(1, name, f"a rule is broken by its move from {source} to {target}: {text}")

    def _end_wave(self, wave: _Wave) -> None:
        """All of ours have ended: no node may be above its threshold that is not without our moves."""
        picture = take(self._store.items, self._known)
        without = picture.moved({name: node for name, node in wave.origins.items() if name in picture.guests})
        for resource in self._bounds.high:
            before, after, otherwise = (loads(one, resource) for one in (wave.picture, picture, without))
            for name, node in picture.nodes.items():
                limit = self._limit(node, resource)
                others = sum((need(pod, resource) for pod in wave.arrivals.get(name, ())), Fraction(0))
                over = after[name] - others > limit
                if over and before.get(name, Fraction(0)) <= limit and otherwise[name] <= limit:
                    percent = float(after[name] / amount(node["status"]["allocatable"][resource]) * 100)
                    self._say(
                        1, name, f"{resource} is at {percent:.1f} % after our moves and was not above its threshold"
                    )

    def _limit(self, node: Obj, resource: str) -> Fraction:
        notes = node["metadata"].get("annotations") or {}
        percent = float(notes.get(f"kubevirt-rebalancer.io/{resource}-high", self._bounds.high[resource]))
        return amount(node["status"]["allocatable"][resource]) * Fraction(percent) / 100
