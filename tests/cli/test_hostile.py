"""A real recording with one value replaced by something hostile: no traceback reaches a user, and the plan goes on."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rebalancer.cli import app

DUMP = Path(__file__).parent.parent / "data" / "kubevirt-12x130.json.gz"
NODES = ("w-00", "w-01", "w-06", "w-07")
KINDS = ("Node", "Pod", "VirtualMachineInstance", "Namespace", "KubeVirt")

HOSTILE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 2**63, 1e308, "", "NaN", "-1", "1e99", "9" * 400, "\x00", "💥" * 50, [], {}, [[]], {"": None}]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def small() -> dict[str, Any]:
    """Four nodes of the recording with what runs on them: a hotspot, broken rules, and room."""
    items = json.loads(gzip.decompress(DUMP.read_bytes()))["items"]
    kept = [item for item in items if item["kind"] in KINDS and home(item) in ("", *NODES)]
    return {"apiVersion": "v1", "kind": "List", "items": kept}


def home(item: dict[str, Any]) -> str:
    """The node that an object is, or is on."""
    if item["kind"] == "Node":
        return str(item["metadata"]["name"])
    return str(item.get("spec", {}).get("nodeName") or item.get("status", {}).get("nodeName") or "")


SMALL = small()


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """The small cluster with one value, at any depth of one object, replaced."""
    index = draw(st.integers(0, len(SMALL["items"]) - 1))
    item = copy.deepcopy(SMALL["items"][index])
    at: Any = item
    while True:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            at[key] = draw(HOSTILE)
            break
        at = inner
    items = list(SMALL["items"])
    items[index] = item
    return {**SMALL, "items": items}


@pytest.mark.parametrize("command", [["plan", "-o", "json"], ["plan"], ["explain", "bank/vm-000"]], ids=" ".join)
@settings(
    max_examples=settings().max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(dump=broken())
def test_a_hostile_value_costs_at_most_its_object(command: list[str], tmp_path: Path, dump: dict[str, Any]) -> None:
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(dump), encoding="utf-8", errors="surrogatepass")
    result = CliRunner().invoke(app, [*command, "--from", str(path), "--set", "solver.seconds=0"])
    assert "mistake of ours" not in result.stderr
    assert result.exit_code in (0, 2 if command[0] == "explain" else 0)
    assert bool(result.stdout) == (result.exit_code == 0)
