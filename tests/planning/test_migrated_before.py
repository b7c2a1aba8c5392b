"""VMs that have migrated before: KubeVirt leaves terms on their pods that say nothing about other VMs."""

from __future__ import annotations

from dataclasses import replace

from builders import cluster, launcher, node, term, vmi
from planning.plans import moves, planned

from rebalancer.domain.node import HOSTNAME
from rebalancer.domain.pod import Affinity


def test_what_the_pod_of_a_vm_that_has_migrated_holds_against_its_own_vm_keeps_no_other_vm_away() -> None:
    """One row of nodes stands for many VMs: the VM by which it was found out must leave nothing of itself in it."""
    moved = vmi("a", on="n2", cpu=3)
    itself = term({"kubevirt.io/created-by": moved.uid}, HOSTNAME)
    pod = launcher(moved)
    snapshot = cluster(
        *(node(name, cpu=10) for name in ("n1", "n2", "n3")),
        moved,
        replace(pod, spec=replace(pod.spec, affinity=Affinity(anti_required=(itself,)))),
        vmi("b", on="n1", cpu=5),
        vmi("c", on="n1", cpu=4),
        vmi("x", on="n2", cpu=1, migratable=False),
        vmi("y", on="n3", cpu=4.4, migratable=False),
    )
    assert moves(planned(snapshot)) == ["a n2>n3", "c n1>n2"]
