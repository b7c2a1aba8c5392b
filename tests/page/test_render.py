"""The page as text: what it holds before any script has run, for every state that we can be in."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bench.page.instance import large
from rebalancer.domain.plan import Plan
from rebalancer.domain.report import Report, Sentence
from rebalancer.domain.snapshot import SetAside, Snapshot
from rebalancer.policy.load import PolicyParams
from rebalancer.present.page import page, standalone
from rebalancer.present.picture import Picture

VOID = {"meta", "link", "input", "path", "rect", "line", "circle", "use", "br"}


class Outline(HTMLParser):
    """Sections, tables and text of a page; `unclosed` elements are mistakes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.captions = 0
        self.tables = 0
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.unclosed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] not in ("script", "style"):
            self.words.append(data)
        if self.unclosed and self.unclosed[-1] == "h2":
            self.headings.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_everything_is_there_without_scripts(picture: Picture, plan: Plan) -> None:
    told = Outline(page(picture))
    assert told.unclosed == []
    assert len(told.ids) == len(set(told.ids))
    headings = [heading for heading in told.headings if heading]
    assert headings == [
        "Cluster",
        "Findings",
        "Plan",
        "Running and held",
        "Why not?",
        "History",
        "Settings in force",
    ]
    assert told.captions == told.tables
    for move in plan.moves:
        assert f"{move.vmi} {move.source} → {move.target}" in told.text
    assert "w-03 21 → 0 97.7 % above its threshold of 80.0 % → 1.4 %" in told.text
    assert "the guest said <no>" in told.text
    assert "receives enough (PerTarget)" in told.text
    assert "1 VM resting after a migration" in told.text
    assert "REBALANCER_CPU__HIGH 85 (default 80)" in told.text
    assert "REBALANCER_KUBECONFIG" not in told.text


def test_nothing_that_the_policy_forbids(picture: Picture) -> None:
    told = page(picture)
    attributes = Outline(told).attributes
    assert "style" not in attributes
    assert not [name for name in attributes if name.startswith("on")]
    assert re.findall(r"<script(?![^>]*\bsrc=\"/assets/)", told) == []
    links = re.findall(r"(?:src|href|action)=\"([^\"]*)\"", told)
    assert [link for link in links if not link.startswith(("/", "#", "data:"))] == []


def report(kind: str, text: str = "It is so", **fields: object) -> Report:
    return replace(Report(cycle=1, time=1.8e9, mode="active", sentence=Sentence(kind=kind, text=text)), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (None, "The first look at the cluster is not over yet."),
        (report("NotSynced", "nodes are not listed yet"), "can-i list nodes"),
        (report("Standby", holder="rebalancer-1"), "port-forward pod/rebalancer-1 8080"),
        (report("Standby"), "our ServiceAccount may update our Lease"),
        (report("Paused", leader=True), "as soon as it is taken away"),
        (report("Broken", leader=True), "mend their cause"),
        (report("Failed", leader=True), "tried again by itself"),
        (report("DryRun", leader=True), "REBALANCER_MODE=active lets it act"),
        (report("Stuck", leader=True), "each of them says why it stays"),
        (report("Held", leader=True), "what each move waits for"),
    ],
    ids=[
        *("no cycle yet", "not synced", "standby", "nobody leads", "paused", "broken", "failed"),
        *("dry run", "stuck", "held"),
    ],
)
def test_what_is_the_matter_and_what_to_do(shown: Report | None, words: str) -> None:
    told = Outline(page(Picture(report=shown))).text
    assert "What to do." in told
    assert words in told
    if shown is not None:
        assert shown.sentence.text in told


def test_a_replica_that_stands_by_shows_the_cluster_all_the_same(snapshot: Snapshot) -> None:
    standby = report("Standby", holder="rebalancer-1", synced=True)
    told = Outline(page(Picture(report=standby, snapshot=snapshot))).text
    assert "Not the leader" in told
    assert "Hotspots –" in told
    assert "This replica judges nothing: it is not the leader." in told
    assert "No node is above its threshold" not in told
    assert "w-00 22 99.2 % above its threshold of 80.0 %" in told


def test_objects_that_are_set_aside_have_their_reasons() -> None:
    aside = SetAside(kind="Node", name="w-1", reason="its CPU is <b>fast</b>")
    told = page(Picture(report=report("Balanced", leader=True, set_aside=(aside,))))
    assert "Node w-1 is set aside: its CPU is &lt;b&gt;fast&lt;/b&gt;" in told


def test_a_large_cluster_makes_no_large_page() -> None:
    told = page(large(nodes=1000, vmis_per_node=10))
    assert len(told) < 300_000
    assert "200 of 1,000 nodes are shown here; /api/v1/cluster has all of them." in told


def test_a_file_holds_all_that_it_needs(snapshot: Snapshot, plan: Plan) -> None:
    told = standalone(plan, snapshot, PolicyParams())
    head = told.split("<main", 1)[0]
    assert "<style>" in head
    assert "/assets/" not in told
    assert "/api/v1/stream" not in head
    assert told.count("</script>") == told.count("<script")
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", told) == []
    assert f"{len(plan.moves)} moves in {len(plan.waves)} waves" in told
    assert "This file moves nothing. rebalancer plan -o yaml writes the same moves" in told
    assert told == standalone(plan, snapshot, PolicyParams())
