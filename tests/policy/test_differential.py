"""Our filters against kube-scheduler's own: plugin, verdict and words must be equal for every pod and node.

Both sides read the same JSON. DIFFERENTIAL_VERDICTS says how many verdicts to compare; where it is set, the seeds are
new ones. A disagreement is shrunk by Hypothesis; the seed printed with it finds it again (DIFFERENTIAL_SEED).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from random import Random, SystemRandom
from typing import Any

import pytest
from controlplane.binaries import UnavailableError, find
from controlplane.oracle import Oracle, Verdict
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from policy import hostile

from rebalancer.domain.pod import Pod
from rebalancer.domain.verdict import Rejection
from rebalancer.kube.decode import decode
from rebalancer.kube.snapshot import build_snapshot
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.feasibility import feasible_nodes, rejection, survey

pytestmark = pytest.mark.controlplane

GOAL = int(os.environ.get("DIFFERENTIAL_VERDICTS", "6000"))
SEED = os.environ.get("DIFFERENTIAL_SEED")
EXAMPLES = 100
KINDS = {
    "nodes": "Node",
    "pods": "Pod",
    "namespaces": "Namespace",
    "persistentVolumes": "PersistentVolume",
    "persistentVolumeClaims": "PersistentVolumeClaim",
    "csiNodes": "CSINode",
}
Said = tuple[str, bool, tuple[str, ...]]
"""Plugin ("" for a node that fits), whether eviction would not help, and the reasons, sorted."""
FITS: Said = ("", False, ())
RULED_OUT = "node(s) didn't satisfy plugin(s) [NodeAffinity]"


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    try:
        find("oracle")
    except UnavailableError as problem:
        if os.environ.get("REQUIRE_CONTROLPLANE") == "1":
            pytest.fail(f"the oracle is required here, and: {problem}", pytrace=False)
        pytest.skip(f"no oracle: {problem}")
    with Oracle() as asked:
        yield asked


def read(kind: str, raw: dict[str, Any]) -> Any:
    found = decode(kind, json.dumps(raw).encode())
    assert found.set_aside is None, f"{found.set_aside.sentence()}: {raw}"
    return found.value


def state_of(case: dict[str, Any]) -> ClusterState:
    objects = {kind: [read(kind, raw) for raw in case[field]] for field, kind in KINDS.items()}
    return ClusterState.of(build_snapshot(objects, resource_version="1", taken=0.0))


def theirs(verdict: Verdict, node: str) -> Said:
    status = verdict.pre_filter or verdict.nodes[node]
    if status.fits:
        return FITS
    # The framework itself rules nodes out on NodeAffinity's word, and names no plugin.
    plugin = "NodeAffinity" if status.reasons == (RULED_OUT,) else status.plugin
    return plugin, status.code == "UnschedulableAndUnresolvable", tuple(sorted(status.reasons))


def ours(refusal: Rejection | None) -> Said:
    return FITS if refusal is None else (refusal.plugin, refusal.unresolvable, tuple(sorted(refusal.reasons)))


def compare(case: dict[str, Any], oracle: Oracle, counts: Counter[str]) -> None:
    """Every candidate on every node of one case."""
    state = state_of(case)
    cluster = {field: items for field, items in case.items() if field != "candidates"}
    for raw, verdict in zip(case["candidates"], oracle.judge_all(case["candidates"], cluster), strict=True):
        pod = read("Pod", raw)
        assert isinstance(pod, Pod)
        found = survey(state, pod)
        expected = {name: theirs(verdict, name) for name in state.nodes}
        assert {name: ours(found.rejections.get(name)) for name in state.nodes} == expected, pod
        assert found.message() == verdict.message
        assert feasible_nodes(state, pod) == found.feasible
        last = state.table.names[-1]
        assert rejection(state, pod, last) == found.rejections.get(last)
        counts.update(plugin or "fits" for plugin, _, _ in expected.values())


def explore(number: int, oracle: Oracle, counts: Counter[str]) -> None:
    """A hundred cases from one seed."""

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def agree(random: Random) -> None:
        compare(hostile.cluster(random), oracle, counts)

    agree()


def test_every_verdict_is_the_schedulers(oracle: Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    fuzzing = "DIFFERENTIAL_VERDICTS" in os.environ
    first = int(SEED) if SEED else SystemRandom().randrange(2**32) if fuzzing else 0
    counts: Counter[str] = Counter()
    number = first
    while counts.total() < GOAL:
        with capsys.disabled():
            print(f"\nseed {number}: ", end="", flush=True)
        explore(number, oracle, counts)
        number += 1
    with capsys.disabled():
        print(f"\n{counts.total()} verdicts agree: {dict(counts.most_common())}")
