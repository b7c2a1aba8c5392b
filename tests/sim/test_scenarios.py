"""The whole daemon against whole clusters, in virtual time, under the checkers' eyes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sim.cluster import small, with_vm

from rebalancer.sim.checkers import Bounds, Broken
from rebalancer.sim.life import Life, LifeParams
from rebalancer.sim.scenarios import ALL, BY_NAME, RECORDING, Scenario
from rebalancer.sim.simulate import simulate
from rebalancer.sim.verdict import Said, Verdict, whats_left
from rebalancer.sim.virtualtime import run_virtual
from rebalancer.sim.world import World

QUICK = ("small", "dry-run")


@pytest.mark.parametrize("name", QUICK)
def test_quick_scenarios(name: str) -> None:
    verdict = simulate(name)
    assert verdict.good, verdict.text()
    assert verdict.speed > 100, "virtual time is no use if it is not fast"


@pytest.mark.slow
def test_what_cannot_be_cured_is_left_alone_with_a_reason() -> None:
    verdict = simulate("nothing-curable")
    assert verdict.good, verdict.text()
    assert verdict.migrations == 0
    last = verdict.said[-1]
    assert last.kind == "Stuck"
    assert "w-0" in last.text
    assert "w-1" in last.text


@pytest.mark.slow
def test_our_recording_is_cured_by_a_proven_minimum_of_moves() -> None:
    verdict = simulate("real-12x130")
    assert verdict.good, verdict.text()
    assert verdict.left == ()
    assert verdict.migrations == 37
    assert set(verdict.moved.values()) == {1}, "nobody moves twice"
    assert verdict.speed > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [one for one in ALL if one.name not in (*QUICK, "nothing-curable", "real-12x130")],
    ids=lambda one: one.name,
)
def test_all_scenarios(scenario: Scenario) -> None:
    verdict = simulate(scenario.name)
    assert verdict.good, verdict.text()


def test_equal_seeds_give_equal_worlds_and_others_do_not() -> None:
    """The digest is of every change to the cluster, byte for byte, times and names included."""
    first, second, other = (simulate("small", seed, seconds=600) for seed in (3, 3, 4))
    assert first.digest == second.digest
    assert first.said == second.said
    assert other.digest != first.digest


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_hash_seed_of_its_process() -> None:
    """Sets of strings are in another order in every process; nothing may hang on it."""
    code = "from rebalancer.sim.simulate import simulate; print(simulate('small', 3, seconds=600).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_an_unknown_scenario() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        simulate("nonsense")
    assert len(BY_NAME) == len(ALL)


VERDICT = Verdict(
    scenario="s", seed=1, broken=(), unmet=(), migrations=2, failed=0, others=1, moved={"a/b": 2}, left=(),
    said=(Said(time=1.0, kind="Balanced", text="Balanced: all is well"),), requests=10, virtual_seconds=1000.0,
    real_seconds=2.0, digest="d",
)  # fmt: skip


def test_a_verdict_in_words() -> None:
    assert VERDICT.text() == (
        "s, seed 1: as promised\n"
        "  2 migrations of ours, 0 of them failed, 1 of others; 0 promises broken; 10 requests\n"
        "  1000 s of its time in 2.0 s: 500 times faster\n"
        "  last said: Balanced: all is well\n"
    )
    broken = Broken(promise=7, time=0.0, about="a/m", text="two at once")
    worse = replace(VERDICT, broken=(broken,), unmet=("no migration at all",), left=("w-0: cpu at 90.0 %",))
    assert not worse.good
    assert "NOT AS PROMISED" in worse.text()
    assert "promise 7 at" in worse.text()
    assert "unmet: no migration at all" in worse.text()


def test_life_goes_on_by_itself_and_repeats_by_seed() -> None:
    params = LifeParams(start=300, stop=400, cordon=2000, drain=3000, loss=3000, migrate=600)

    async def main() -> tuple[list[str], int]:
        async with World([*small(workers=4), *with_vm("a"), *with_vm("b", "w-01")]) as world:
            life = Life(world, params)
            task = asyncio.create_task(life.run())
            await asyncio.sleep(4 * 3600)
            world.check()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return life.events, len(world.store.items("virtualmachineinstances"))

    events, left = run_virtual(main)
    assert run_virtual(main) == (events, left)
    for word in ("started", "stopped", "cordoned", "drained", "lost", "back", "by hand"):
        assert any(word in event for event in events), word


def test_what_is_left_is_said_in_sentences() -> None:
    async def main() -> list[str]:
        hot = [part for number in range(7) for part in with_vm(f"x-{number}", "w-00")]
        async with World([*small(), *hot]) as world:
            return whats_left(world.store, Bounds())

    assert run_virtual(main) == ["w-00: cpu at 90.5 %"]


KUBECTL = shutil.which("kubectl")


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
def test_kubectl_reads_creates_watches_and_deletes(tmp_path: Path) -> None:
    """With no proxy and no flags but the server: discovery, tables, validation and waiting deletes work."""
    assert KUBECTL is not None
    manifest = tmp_path / "move.yaml"
    manifest.write_text(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstanceMigration\n"
        "metadata: {name: by-hand, namespace: bank}\nspec: {vmiName: vm}\n"
    )

    async def kubectl(port: int, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            KUBECTL, f"--server=http://127.0.0.1:{port}", f"--cache-dir={tmp_path}", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={"HOME": str(tmp_path)},
        )  # fmt: skip
        output, _ = await process.communicate()
        return f"{process.returncode} {output.decode()}"

    async def main() -> list[str]:
        async with World([*small(), *with_vm()]) as world:
            await world.api.start(port=0)
            port = world.api.port
            said = [
                await kubectl(port, "get", "nodes,pods,vmi,vmim,namespaces,kubevirt", "-A"),
                await kubectl(port, "get", "nodes,pods,vmi", "-A", "-o", "json"),
                await kubectl(port, "create", "-f", str(manifest)),
                await kubectl(port, "create", "-f", str(manifest)),
                await kubectl(port, "cordon", "w-01"),
                await kubectl(port, "label", "node", "w-01", "tier=gold"),
                await kubectl(port, "delete", "vmim", "by-hand", "-n", "bank"),
                await kubectl(port, "get", "vmim", "-n", "bank"),
            ]
            assert world.store.get("nodes", "", "w-01")["spec"] == {"unschedulable": True}
            return said

    seen = asyncio.run(main())
    codes = [text.split()[0] for text in seen]
    assert codes == ["0", "0", "0", "1", "0", "0", "0", "0"], "\n".join(seen)
    assert "virtualmachineinstance.kubevirt.io/vm" in seen[0]
    assert '"kind": "List"' in seen[1]
    assert "by-hand created" in seen[2]
    assert "in-flight migration detected" in seen[3]
    assert "node/w-01 cordoned" in seen[4]
    assert '"by-hand" deleted' in seen[6]
    assert "No resources found" in seen[7]


def test_the_recording_that_ships_is_the_one_that_tests_use() -> None:
    assert RECORDING.read_bytes() == (Path(__file__).parent.parent / "data" / RECORDING.name).read_bytes()
