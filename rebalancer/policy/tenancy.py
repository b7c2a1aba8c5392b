"""Which pods run which VM: its launchers, the active one among them, and those that its migration leaves behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rebalancer.domain.pod import Pod
from rebalancer.domain.snapshot import Snapshot
from rebalancer.domain.vmi import VMI, Migration
from rebalancer.policy.changes import Changes

VMI_KIND: Final = "VirtualMachineInstance"
MIGRATION_JOB: Final = "kubevirt.io/migrationJobUID"
"""The label that a target pod keeps for life: its value is the UID of the migration it was made for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tenancy:
    """What a snapshot says about VMs and their pods.

    `settled`: migrations in flight have landed. `launchers` are each VMI's pods that have not ended, bound or not, by
    the VMI's UID, perhaps none; `keys` the VMIs' keys by UID, "" for one that has gone. `unfinished` are migrations by
    key, and `in_flight` by the VMI's. `active` is the pod that each VMI runs in, by its key, in no order that means
    anything. `gone` are the keys of bound pods that do not count any more, as their VMs will have left them; `unclear`
    the VMIs with anything to choose from. `twins`: several VMIs have one UID.
    """

    settled: bool
    launchers: Mapping[str, tuple[Pod, ...]]
    keys: Mapping[str, str]
    unfinished: Mapping[str, Migration]
    in_flight: Mapping[str, Migration]
    active: dict[str, Pod]
    gone: frozenset[str]
    unclear: frozenset[str]
    twins: bool = False

    @classmethod
    def of(cls, snapshot: Snapshot, *, settled: bool) -> Tenancy:
        """Of a whole snapshot."""
        launchers: dict[str, tuple[Pod, ...]] = {}
        for pod in snapshot.pods.values():
            if pod.owner[0] == VMI_KIND and not pod.terminal:
                launchers[pod.owner[2]] = (*launchers.get(pod.owner[2], ()), pod)
        keys = {vmi.uid: key for key, vmi in snapshot.vmis.items()}
        unfinished = {key: one for key, one in snapshot.migrations.items() if not one.final}
        jobs = {one.uid for one in unfinished.values()}
        active: dict[str, Pod] = {}
        gone: set[str] = set()
        unclear = []
        for key, vmi in snapshot.vmis.items():
            pods = [pod for pod in launchers.get(vmi.uid, ()) if pod.node in snapshot.nodes]
            if len(pods) == 1 and vmi.node in ("", pods[0].node):
                active[key] = pods[0]  # nearly all VMs: nothing to choose from
                continue
            unclear.append(key)
            chosen, left = _choice(vmi, pods, jobs, settled=settled)
            gone.update(left)
            if chosen is not None:
                active[key] = chosen
        return cls(
            settled=settled,
            launchers=launchers,
            keys=keys,
            unfinished=unfinished,
            in_flight={one.vmi_key: one for one in unfinished.values()},
            active=active,
            gone=frozenset(gone),
            unclear=frozenset(unclear),
            twins=len(keys) < len(snapshot.vmis),
        )

    def advance(self, snapshot: Snapshot, changes: Changes) -> tuple[Tenancy, frozenset[str]] | None:
        """The same of the snapshot that the changes have led to, and the VMIs for which anything may be different.

        The set of nodes must be the same. None where two VMIs have one UID: changes of their pods cannot be followed.
        """
        keys = None if self.twins else self._keys_after(changes)
        if keys is None:
            return None
        launchers, uids = self._launchers_after(changes)
        touched = {*changes.vmis, *(keys[uid] for uid in uids if keys.get(uid))}
        unfinished, in_flight = self.unfinished, self.in_flight
        if changes.migrations:
            found = {key: one for key, one in unfinished.items() if key not in changes.migrations}
            found |= {k: new for k, (_, new) in changes.migrations.items() if new is not None and not new.final}
            unfinished = dict(sorted(found.items()))
            in_flight = {one.vmi_key: one for one in unfinished.values()}
            touched |= self.unclear
        jobs = {one.uid for one in unfinished.values()}
        active, gone, unclear = self._chosen_anew(snapshot, touched, launchers, jobs)
        made = Tenancy(
            settled=self.settled,
            launchers=launchers,
            keys=keys,
            unfinished=unfinished,
            in_flight=in_flight,
            active=active,
            gone=gone,
            unclear=unclear,
        )
        return made, frozenset(touched)

    def _keys_after(self, changes: Changes) -> Mapping[str, str] | None:
        """`keys`, None where two VMIs have one UID."""
        renamed = [pair for pair in changes.vmis.values() if not (pair[0] and pair[1] and pair[0].uid == pair[1].uid)]
        if not renamed:
            return self.keys
        keys = dict(self.keys)
        for old, _ in renamed:
            if old is not None:
                keys[old.uid] = ""
        for _, new in renamed:
            if new is not None:
                if keys.get(new.uid):
                    return None
                keys[new.uid] = new.key
        return keys

    def _launchers_after(self, changes: Changes) -> tuple[Mapping[str, tuple[Pod, ...]], set[str]]:
        """`launchers`, and the UIDs of the VMIs of which any has changed."""
        launchers, uids = dict(self.launchers), set[str]()
        for old, new in changes.pods.values():
            for pod, others in ((old, _without), (new, _with)):
                if pod is not None and pod.owner[0] == VMI_KIND and not pod.terminal:
                    uid = pod.owner[2]
                    launchers[uid] = others(launchers.get(uid, ()), pod)
                    uids.add(uid)
        return launchers, uids

    def _chosen_anew(
        self, snapshot: Snapshot, touched: Collection[str], launchers: Mapping[str, tuple[Pod, ...]], jobs: set[str]
    ) -> tuple[dict[str, Pod], frozenset[str], frozenset[str]]:
        """`active`, `gone` and `unclear`."""
        active = dict(self.active)
        gone, unclear = set(self.gone), set(self.unclear)
        # Pods that were left behind belong to VMs that had something to choose from: of those nothing is taken over.
        again = set(touched) | (self.unclear if gone else set())
        gone.clear()
        for key in again:
            vmi = snapshot.vmis.get(key)
            unclear.discard(key)
            chosen: Pod | None = None
            if vmi is not None:
                pods = [pod for pod in launchers.get(vmi.uid, ()) if pod.node in snapshot.nodes]
                if len(pods) == 1 and vmi.node in ("", pods[0].node):
                    chosen = pods[0]
                else:
                    unclear.add(key)
                    chosen, left = _choice(vmi, pods, jobs, settled=self.settled)
                    gone.update(left)
            if chosen is not None:
                active[key] = chosen
            else:
                active.pop(key, None)
        return active, frozenset(gone), frozenset(unclear)


def _choice(vmi: VMI, pods: list[Pod], jobs: Collection[str], *, settled: bool) -> tuple[Pod | None, list[str]]:
    """Of a VMI's bound pods the active one, and those that its migration leaves behind."""
    chosen = active_pod(vmi, pods)
    if not settled:
        return chosen, []
    chosen = _landed(pods, jobs) or chosen
    return chosen, [pod.key for pod in pods if chosen is not None and pod is not chosen]


def active_pod(vmi: VMI, launchers: Iterable[Pod]) -> Pod | None:
    """The pod a VMI runs in (KubeVirt: CurrentVMIPod): the newest on the VMI's node that has not ended."""
    here = [pod for pod in launchers if vmi.node in ("", pod.node)]
    return max(here, key=lambda pod: (pod.created, pod.uid), default=None)


def _landed(launchers: Iterable[Pod], jobs: Collection[str]) -> Pod | None:
    """The target pod of a VMI's migration in flight, if it has one."""
    targets = [pod for pod in launchers if pod.labels.get(MIGRATION_JOB, "") in jobs]
    return max(targets, key=lambda pod: (pod.created, pod.uid), default=None)


def _with(pods: tuple[Pod, ...], pod: Pod) -> tuple[Pod, ...]:
    return tuple(sorted((*pods, pod), key=lambda one: one.key))


def _without(pods: tuple[Pod, ...], pod: Pod) -> tuple[Pod, ...]:
    return tuple(one for one in pods if one.key != pod.key)
