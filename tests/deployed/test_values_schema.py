"""The chart's values.schema.json: its part about settings is the settings model's own, and values.yaml obeys it.

UPDATE_GOLDEN=1 writes the part about settings anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from rebalancer.settings.model import Settings, leaves, variable

CHART = Path(__file__).parents[2] / "deploy" / "chart"
SCHEMA = CHART / "values.schema.json"
SHAPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
}
IN_A_CHART: dict[tuple[str, ...], dict[str, Any]] = {
    # A port that the kernel picks could be neither probed nor scraped.
    ("http", "port"): {"minimum": 1},
    # Several windows are a list to people who write YAML.
    ("windows",): {"type": ["string", "array"], "items": {"type": "string"}},
    ("blackouts",): {"type": ["string", "array"], "items": {"type": "string"}},
}
"""What a setting may be in values where that is not what it may be in the environment."""


def expected() -> dict[str, Any]:
    """The schema of `settings`: an object per group, a leaf per setting, nothing else."""
    tree: dict[str, Any] = group("Settings of the daemon; each is an environment variable.")
    for path, field in leaves(Settings):
        at = tree
        for name in path[:-1]:
            at = at["properties"].setdefault(name, group(f"{variable(name)}__..."))
        at["properties"][path[-1]] = leaf(path, field)
    return tree


def group(description: str) -> dict[str, Any]:
    return {"description": description, "type": "object", "additionalProperties": False, "properties": {}}


def leaf(path: tuple[str, ...], field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    unit = extra["unit"] if isinstance(extra, dict) else ""
    text = f"{variable(*path)}: {field.description}" + (f" ({unit})" if unit else "")
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return {"description": text, "default": default} | shape(field) | IN_A_CHART.get(path, {})


def shape(field: FieldInfo) -> dict[str, Any]:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        words = list(get_args(get_args(kind)[0]))
        return {"type": "array", "uniqueItems": True, "items": {"enum": words}}
    assert isinstance(kind, type), kind
    limits = {
        word: getattr(limit, name) for limit in field.metadata for name, word in LIMITS.items() if hasattr(limit, name)
    }
    return {"type": SHAPES[kind]} | limits


def test_every_setting_has_its_place_and_nothing_else_has() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    if os.environ.get("UPDATE_GOLDEN"):
        schema["properties"]["settings"] = expected()
        SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    assert schema["properties"]["settings"] == expected(), "UPDATE_GOLDEN=1 writes it anew"


def test_the_schema_knows_the_values_that_the_chart_has_and_no_others() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    # Helm itself puts `global` into every chart's values.
    assert set(schema["properties"]) == {*values, "global"}
    for name, value in values.items():
        closed = schema["properties"][name].get("additionalProperties") is False
        if name != "settings" and closed:
            assert set(schema["properties"][name]["properties"]) == set(value), name
