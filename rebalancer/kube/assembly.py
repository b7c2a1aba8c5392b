"""One snapshot made of the one before it: what has not changed is not looked at again.

assembly = Assembly.of(objects, set_aside, resource_version=..., taken=...)
assembly = assembly.advance(objects_now, set_aside_now, ...)    # equal to Assembly.of(objects_now, ...)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter, is_not
from typing import Any

from rebalancer.domain.frozen import Catalog, FrozenMap, revisions
from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.domain.vmi import VMI
from rebalancer.kube.snapshot import (
    KUBEVIRT,
    MIGRATION,
    NODE,
    POD,
    VMI_KIND,
    migration_warnings,
    pod_warning,
    vmi_warnings,
    with_silent,
    without_blurred,
    without_twins,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """What has been stored of one kind since the last assembly, by key; None for what was taken away."""

    items: Mapping[str, Any]


Objects = Mapping[str, Mapping[str, Any] | Stored]
"""The domain values of each kind by key: name, or "namespace/name"; the KubeVirt CR goes by its kind. All of them, or
those that have been stored."""

NONE: Catalog[Any] = Catalog()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembly:
    """A snapshot with what it takes to make the next one.

    `objects` are those of each kind as they came, sorted. `launched` counts the launcher pods that have not ended, by
    the VMI's UID. `pods` and `vmis` are the warnings about them, by key; `blurring` the pods of unknown requests.
    """

    snapshot: Snapshot
    objects: Mapping[str, Catalog[Any]]
    launched: Mapping[str, int]
    pods: Mapping[str, SetAside]
    vmis: Mapping[str, tuple[SetAside, ...]]
    blurring: frozenset[str]

    @classmethod
    def of(
        cls, objects: Objects, set_aside: Iterable[SetAside], *, resource_version: str = "", taken: float = 0.0
    ) -> Assembly:
        """From nothing."""
        empty = cls(snapshot=Snapshot(), objects={}, launched={}, pods={}, vmis={}, blurring=frozenset())
        return empty.advance(objects, set_aside, resource_version=resource_version, taken=taken)

    def advance(
        self, objects: Objects, set_aside: Iterable[SetAside], *, resource_version: str = "", taken: float = 0.0
    ) -> Assembly:
        """The assembly of what there is now. Maps in which nothing has changed are the same objects."""
        found = {kind: _following(self.objects.get(kind, NONE), now) for kind, now in objects.items()}
        pods, nodes = found.get(POD, NONE), found.get(NODE, NONE)
        vmis, twins = self._vmis(found.get(VMI_KIND, NONE))
        moved = nodes.keys() != self.objects.get(NODE, NONE).keys()
        changed_pods = tuple(_changed(self.objects.get(POD, NONE), pods))
        launched, turned = self._launched(changed_pods, pods)
        warned = dict(self.pods)
        for key in pods if moved else changed_pods:
            _set(warned, key, pod_warning(pods[key], nodes) if key in pods else None)
        doubtful = set(vmis) if moved else {*_changed(self.snapshot.vmis, vmis), *_keys_of(turned, vmis)}
        about = {key: told for key, told in self.vmis.items() if key not in doubtful}
        for key in doubtful:
            if key in vmis and (
                told := tuple(vmi_warnings(vmis[key], nodes, launched=launched.get(vmis[key].uid, 0) > 0))
            ):
                about[key] = told
        blurring = self.blurring.difference(changed_pods)
        blurring |= {key for key in changed_pods if key in pods and _blurs(pods[key])}
        marked, blurred = without_blurred(nodes, {key: pods[key] for key in sorted(blurring)})
        marked = with_silent(marked)
        warnings = {*set_aside, *twins, *blurred, *warned.values(), *(one for told in about.values() for one in told)}
        unread = {entry.name for entry in warnings if entry.kind == VMI_KIND}
        warnings.update(migration_warnings(found.get(MIGRATION, NONE), vmis, unread))
        snapshot = Snapshot(
            nodes=self.snapshot.nodes if _same(self.snapshot.nodes, marked) else marked,
            pods=pods,
            vmis=vmis,
            migrations=found.get(MIGRATION, NONE),
            namespaces=found.get("Namespace", NONE),
            volumes=found.get("PersistentVolume", NONE),
            claims=found.get("PersistentVolumeClaim", NONE),
            csi_nodes=found.get("CSINode", NONE),
            kubevirt=found.get(KUBEVIRT, NONE).get(KUBEVIRT),
            set_aside=tuple(sorted(warnings, key=lambda entry: (entry.kind, entry.name, entry.reason))),
            resource_version=resource_version,
            taken=taken,
        )
        return Assembly(
            snapshot=snapshot, objects=found, launched=launched, pods=warned, vmis=about, blurring=frozenset(blurring)
        )

    def _vmis(self, vmis: Catalog[VMI]) -> tuple[FrozenMap[str, VMI], list[SetAside]]:
        """Those that can be told apart, and a warning for each of the others."""
        before = self.objects.get(VMI_KIND, NONE)
        if len(before) != len(self.snapshot.vmis):
            return without_twins(vmis)  # there were twins
        fresh = [vmis[key].uid for key in _changed(before, vmis) if key in vmis and _uid(before, key) != vmis[key].uid]
        alike = sum(map(set(fresh).__contains__, map(attrgetter("uid"), vmis.values()))) if fresh else 0
        return without_twins(vmis) if alike != len(set(fresh)) or alike != len(fresh) else (vmis, [])

    def _launched(self, changed: Iterable[str], pods: Mapping[str, Pod]) -> tuple[Mapping[str, int], dict[str, str]]:
        """`launched`, and the UIDs of which the first launcher has come or the last one gone, each with the key that
        its VMI should have."""
        launched, before = dict(self.launched), self.objects.get(POD, NONE)
        turned: dict[str, str] = {}
        for key in changed:
            for pod, sign in ((before.get(key), -1), (pods.get(key), 1)):
                if pod is None or pod.owner[0] != VMI_KIND or pod.terminal:
                    continue
                uid = pod.owner[2]
                number = launched[uid] = launched.get(uid, 0) + sign
                if number == 0 or (sign > 0 and number == 1):
                    turned[uid] = f"{pod.namespace}/{pod.owner[1]}"
        if len(launched) > 2 * len(pods) + 1_000:
            launched = {uid: number for uid, number in launched.items() if number}
        return launched, turned


def _following(before: Catalog[Any], now: Mapping[str, Any] | Stored) -> Catalog[Any]:
    """What there is now, sorted by key; the map from before where nothing is another object."""
    if isinstance(now, Stored):
        changes = {key: value for key, value in now.items.items() if before.get(key) is not value}
        return before.revised(changes) if changes else before
    changed = dict.fromkeys(_others(before, now))
    if len(before) == len(now) and all(key in before for key in changed):
        return before.revised({key: now[key] for key in changed}) if changed else before
    keys = sorted(now)
    return Catalog(zip(keys, map(now.__getitem__, keys), strict=True))


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[str]:
    """The keys under which there is another object than before, or none any more."""
    known = revisions(before, now)
    return known if known is not None else (*_others(before, now), *(before.keys() - now.keys()))


def _others(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The keys under which there is another object than before. Hardly any, so nothing is done here key by key."""
    return compress(now, map(is_not, map(before.get, now), now.values()))


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return len(before) == len(now) and not any(_others(before, now))


def _uid(vmis: Mapping[str, VMI], key: str) -> str | None:
    return vmis[key].uid if key in vmis else None


def _keys_of(turned: Mapping[str, str], vmis: Mapping[str, VMI]) -> Iterator[str]:
    """The keys of the VMIs of these UIDs. A pod names its owner; where that name is wrong, all are asked."""
    lost = {uid for uid, key in turned.items() if key not in vmis or vmis[key].uid != uid}
    yield from (key for uid, key in turned.items() if uid not in lost)
    if lost:
        yield from (key for key, vmi in vmis.items() if vmi.uid in lost)


def _blurs(pod: Pod) -> bool:
    return not pod.load_known and not pod.terminal


def _set(found: dict[str, SetAside], key: str, entry: SetAside | None) -> None:
    if entry is None:
        found.pop(key, None)
    else:
        found[key] = entry
