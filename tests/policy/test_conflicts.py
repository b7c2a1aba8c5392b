"""Rules that cannot all hold, named with those who are in each other's way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import ZONE, cluster, node, node_term, pod, required_nodes, spread, term, vmi

from rebalancer.domain.pod import Affinity
from rebalancer.domain.snapshot import Snapshot
from rebalancer.kube.dump import read_dump
from rebalancer.policy.cluster_state import ClusterState
from rebalancer.policy.conflicts import Conflict, find, sentences

DB = {"app": "db"}
RECORDED = Path(__file__).parents[1] / "data" / "kubevirt-12x130.json.gz"


def conflicts(snapshot: Snapshot) -> tuple[Conflict, ...]:
    return find(ClusterState.of(snapshot, settled=True), snapshot)


def said(*objects: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.message) for one in conflicts(cluster(*objects))]


def dbs(number: int, on: str = "n1", **fields: Any) -> list[Any]:
    return [vmi(f"db-{index}", on=on, labels=DB, **fields) for index in range(number)]


BY_ZONE = Affinity(anti_required=(term(DB, ZONE),))
BOTH = Affinity(pod_required=(term(DB, ZONE),), anti_required=(term(DB, ZONE),))
FINER = Affinity(pod_required=(term(DB, ZONE),), anti_required=(term(DB),))
TIERS = required_nodes(node_term("tier in gold,lead"), node_term("rack=r9"))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([node("n1"), node("n2"), *dbs(2, apart_from=DB)], []),
        (
            [node("n1"), node("n2"), *dbs(3, apart_from=DB)],
            [
                (
                    "TooFewDomains",
                    "default/db-0, default/db-1, default/db-2 must be apart, "
                    "but only 2 domains of kubernetes.io/hostname can take them",
                )
            ],
        ),
        (
            [node("n1"), node("n2"), vmi("other", on="n1", labels=DB), *dbs(2, apart_from=DB)],
            [
                (
                    "TooFewDomains",
                    "default/db-0, default/db-1 must be apart besides others that it selects, "
                    "but only 2 domains of kubernetes.io/hostname can take them",
                )
            ],
        ),
        ([node("n1", cordoned=True), node("n2"), *dbs(2, apart_from=DB)], []),
        ([node("n1", zone="a"), node("n2"), *dbs(3, affinity=BY_ZONE)], []),
        (
            [node("n1", taints=("gpu:NoSchedule",)), node("n2"), *dbs(2, apart_from=DB)],
            [
                (
                    "TooFewDomains",
                    "default/db-0, default/db-1 must be apart, "
                    "but only 1 domain of kubernetes.io/hostname can take them",
                )
            ],
        ),
        (
            [node("n1"), *dbs(2, select={"tier": "gold"})],
            [("NoNodeMatches", "no node meets node selector tier=gold, which default/db-0, default/db-1 must have")],
        ),
        (
            [node("n1"), vmi("db", on="n1", select={"a": "b"}, affinity=TIERS)],
            [
                (
                    "NoNodeMatches",
                    "no node meets node selector a=b and node affinity tier in (gold, lead) or rack=r9, "
                    "which default/db must have",
                )
            ],
        ),
        (
            [node("n1", cpu=8, memory=4), node("n2", cpu=64, labels={"tier": "gold"}), vmi("db", on="n1", cpu=16)],
            [],
        ),
        (
            [
                node("n1", cpu=8, memory=4, labels={"tier": "gold"}),
                node("n2", cpu=64),
                vmi("db", on="n1", cpu=16, memory=8, select={"tier": "gold"}),
            ],
            [
                (
                    "TooBig",
                    "default/db is too big for every node it may use: it asks for 16000m CPU where n1 has 8000m CPU "
                    "and 8192 MiB of memory where n1 has 4096 MiB of memory",
                )
            ],
        ),
        (
            [node("n1"), vmi("web", on="n1", close_to=DB)],
            [
                (
                    "AffinityToNobody",
                    "default/web has nobody to stand beside: "
                    "pod affinity to app=db in default by kubernetes.io/hostname",
                )
            ],
        ),
        ([node("n1"), vmi("db", on="n1", labels=DB, close_to=DB)], []),
        ([node("n1"), vmi("web", on="n1", close_to=DB), pod("db", on="n1", labels=DB)], []),
        (
            [node("n1", zone="a"), node("n2", zone="b"), *dbs(2, affinity=BOTH)],
            [
                (
                    "AffinityAgainstAntiAffinity",
                    "default/db-0, default/db-1 must stand beside each other and apart from them: "
                    "pod anti-affinity to app=db in default by topology.kubernetes.io/zone",
                )
            ],
        ),
        ([node("n1", zone="a"), node("n2", zone="a"), *dbs(2, affinity=FINER)], []),
        (
            [
                node("n1", zone="a"),
                vmi("web", on="n1", labels={"app": "web"}, close_to=DB),
                vmi("db", on="n1", labels=DB, affinity=Affinity(anti_required=(term({"app": "web"}, ZONE),))),
            ],
            [
                (
                    "AffinityAgainstAntiAffinity",
                    "default/web must stand beside default/db and apart from them: "
                    "pod anti-affinity to app=web in default by topology.kubernetes.io/zone",
                )
            ],
        ),
        ([node("n1", zone="a"), node("n2", zone="b"), *dbs(5, spread_by=(spread(DB),))], []),
        (
            [node("n1"), *dbs(2, spread_by=(spread(DB),))],
            [
                (
                    "SpreadCannotHold",
                    "default/db-0, default/db-1 must spread by topology.kubernetes.io/zone, "
                    "which none of their nodes carries",
                )
            ],
        ),
        (
            [
                node("n1", zone="a"),
                node("n2", zone="b", taints=("gpu:NoSchedule",)),
                *dbs(2, spread_by=(spread(DB),)),
            ],
            [
                (
                    "SpreadCannotHold",
                    "2 pods cannot spread over 1 domain of topology.kubernetes.io/zone with a skew of at most 1 "
                    "while another domain counts that none of them may enter",
                )
            ],
        ),
        (
            [node("n1", zone="a"), *dbs(3, spread_by=(spread(DB, 2, min_domains=2),))],
            [
                (
                    "SpreadCannotHold",
                    "3 pods cannot spread over 1 domain of topology.kubernetes.io/zone with a skew of at most 2 "
                    "while at least 2 domains are asked for",
                )
            ],
        ),
    ],
)
def test_conflicts(objects: list[Any], expected: list[tuple[str, str]]) -> None:
    assert said(*objects) == expected


def test_vms_that_do_not_run_are_not_judged() -> None:
    assert said(node("n1"), vmi("db", on="n1", select={"tier": "gold"}, phase="Scheduling")) == []


def test_witnesses_are_those_in_the_way() -> None:
    web = vmi("web", on="n1", close_to=DB, apart_from=DB)
    (found,) = conflicts(cluster(node("n1"), web, *dbs(2)))
    assert (found.vmis, found.witnesses) == (("default/web",), ("default/db-0", "default/db-1"))


def test_all_who_suffer_are_known_and_three_are_named() -> None:
    (found,) = conflicts(cluster(node("n1"), *dbs(30, apart_from=DB)))
    assert len(found.vmis) == 30
    assert found.message.startswith("default/db-0, default/db-1, default/db-10 and 27 more must be apart")


def test_no_more_sentences_than_people_read() -> None:
    found = conflicts(cluster(node("n1"), *(vmi(f"db-{n}", on="n1", select={"rack": str(n)}) for n in range(25))))
    told = sentences(found)
    assert told[:20] == tuple(one.message for one in found[:20])
    assert told[20:] == ("5 more conflicts between rules",)


def test_the_recorded_clusters_rules_can_all_be_kept() -> None:
    assert conflicts(read_dump(RECORDED)) == ()
