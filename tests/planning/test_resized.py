"""VMs whose spec asks for something else than their running pod has: the next pod is rendered from the spec."""

from __future__ import annotations

import pytest
from builders import cluster, launcher, node, resources, vmi
from planning.plans import moves, planned

from rebalancer.domain.pod import PodSpec

NODES = (node("n1", cpu=10), node("n2", cpu=10), node("n3", cpu=10))


def resized(name: str, on: str, *, pod: float, spec: float, **fields: object) -> list[object]:
    """A VM that runs with `pod` CPUs; its spec has come to ask for `spec`."""
    vm = vmi(name, on=on, spec={"cpu_requests_milli": round(spec * 1000)}, **fields)  # type: ignore[arg-type]
    return [vm, launcher(vm, spec=PodSpec(requests=resources(pod)))]


def test_a_vm_that_would_grow_by_moving_weighs_what_its_pod_has_while_it_stays() -> None:
    """The node is hot by what is reserved on it now, and another VM goes."""
    snapshot = cluster(
        *NODES, *resized("grown", "n1", pod=1, spec=9), vmi("a", on="n1", cpu=4), vmi("b", on="n1", cpu=4)
    )
    plan = planned(snapshot)
    assert [move.vmi for move in plan.moves] in (["default/a"], ["default/b"])
    assert plan.after.nodes["n1"].cpu == pytest.approx(50)
    assert plan.bound.proven


def test_a_vm_that_grows_by_moving_needs_the_room_that_its_spec_asks_for() -> None:
    """It has to leave its node, and only the emptier one of the others can hold what it will be."""
    snapshot = cluster(
        node("n1", cpu=10, taints=("gone=yes:NoSchedule",)),
        *NODES[1:],
        *resized("grown", "n1", pod=1, spec=5),
        vmi("a", on="n2", cpu=3),
        vmi("b", on="n3", cpu=2),
    )
    plan = planned(snapshot)
    assert moves(plan) == ["grown n1>n3"]
    assert plan.after.nodes["n3"].cpu == pytest.approx(70)
    assert plan.after.nodes["n1"].cpu == 0


def test_a_vm_that_would_fit_nowhere_as_its_spec_has_it_stays() -> None:
    snapshot = cluster(*NODES, *resized("grown", "n1", pod=9, spec=9.5))
    plan = planned(snapshot)
    assert plan.is_noop()
    assert plan.before.nodes["n1"].cpu == pytest.approx(90)


def test_a_vm_whose_spec_asks_for_less_moves_with_what_its_pod_has() -> None:
    """KubeVirt's own overheads are on the pod alone, so nothing less is counted on: 3 CPUs do not fit beside 5."""
    snapshot = cluster(
        *NODES[:2], *resized("shrunk", "n1", pod=3, spec=1), vmi("a", on="n1", cpu=6), vmi("b", on="n2", cpu=5)
    )
    plan = planned(snapshot)
    assert plan.is_noop()
    roomier = cluster(
        *NODES[:2], *resized("shrunk", "n1", pod=3, spec=1), vmi("a", on="n1", cpu=6), vmi("b", on="n2", cpu=4)
    )
    plan = planned(roomier)
    assert moves(plan) == ["shrunk n1>n2"]
    assert plan.after.nodes["n2"].cpu == pytest.approx(70)
