"""From the environment and the command line to Settings, and back to a table; each mistake becomes one line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rebalancer.domain.frozen import EMPTY
from rebalancer.settings.model import PREFIX, Settings, SettingsError, leaves, variable

SERVICE_LINK = re.compile(r"REBALANCER_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""Variables that the kubelet adds to every pod in a namespace with a Service named "rebalancer"; none is a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting as `rebalancer settings` shows it. `source` is default, folder, environment or command line."""

    name: str
    value: str
    default: str
    unit: str
    meaning: str
    allowed: str
    source: str


Given = Mapping[str, str]
"""Settings that come before the environment: dotted names, as in `cpu.high`, to values as they are written."""


def load(given: Given = EMPTY) -> Settings:
    """The settings in force. Raises SettingsError with one line per mistake."""
    files = _files(given)
    unknown = [*_unknown_names(os.environ), *_unknown_names(files), *_unknown_given(given)]
    if unknown:
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings(**_nested({**_dotted(files), **given}))
    except ValidationError as error:
        told = dict.fromkeys(
            _told(mistake["loc"], mistake["input"], given, files) + _why(mistake.get("ctx", {}))
            for mistake in error.errors()
        )
        raise SettingsError("\n".join(told)) from None
    settings.policy()
    settings.budget()
    return settings


def rows(settings: Settings, given: Given = EMPTY) -> tuple[Row, ...]:
    """Every setting, in the order of this file; `given` are those that `load` was given."""
    here = {name.upper() for name in os.environ}
    files = _files(given)
    return tuple(
        Row(
            name=variable(*path),
            value=written(_at(settings, path)),
            default=written(field.default),
            unit=_unit(field),
            meaning=field.description or "",
            allowed=allowed(field),
            source=_source(path, given, here, files),
        )
        for path, field in leaves(Settings)
    )


def written(value: object) -> str:
    """A value as it is written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    kind = field.annotation
    if _extra(field, "allowed"):
        return _extra(field, "allowed")
    if get_origin(kind) is tuple:
        return f"any of {', '.join(get_args(get_args(kind)[0]))}, with commas between"
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if kind is bool:
        return "true or false"
    if kind is str:
        return "any text" if any(getattr(limit, "min_length", 0) for limit in field.metadata) else "any text, or empty"
    words = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
    limits = [
        f"{word} {written(getattr(limit, name))}"
        for name, word in words
        for limit in field.metadata
        if hasattr(limit, name)
    ]
    number = "a whole number" if kind is int else "a number"
    unit = f" ({_unit(field)})" if _unit(field) else ""
    return " ".join([number, " and ".join(limits)]).rstrip() + unit


def _files(given: Given) -> dict[str, str]:
    """The settings folder's files by name. What kubelet puts beside them begins with a dot. Raises SettingsError."""
    name = given.get("folder") or os.environ.get(variable("folder"), "")
    if not name:
        return {}
    try:
        found = sorted(path for path in Path(name).iterdir() if not path.name.startswith("."))
        return {path.name: path.read_text(encoding="utf-8").strip() for path in found if path.is_file()}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable('folder')}={name}: cannot be read: {error}") from None


def _dotted(files: Mapping[str, str]) -> dict[str, str]:
    """The files that the environment leaves in force, as given settings are named."""
    here = {name.upper() for name in os.environ}
    names = {variable(*path): ".".join(path) for path, _ in leaves(Settings)}
    return {names[name.upper()]: text for name, text in files.items() if name.upper() not in here}


def _told(path: tuple[int | str, ...], value: object, given: Given, files: Mapping[str, str]) -> str:
    """One bad value in one line, named as it was given."""
    told: dict[str, object] = {name.upper(): text for name, text in {**files, **os.environ}.items()}
    for names, field in leaves(Settings):
        if tuple(path[: len(names)]) == names:
            name = ".".join(names) if ".".join(names) in given else variable(*names)
            shown = {**told, **given}.get(name, value)
            return f"{name}={str(shown)[:80]}: allowed is {allowed(field)}"
    return f"{variable(*map(str, path))}={str(value)[:80]}: this is a group, set its parts one by one"


def _why(context: Mapping[str, object]) -> str:
    """What a reader of ours had to say about a value; the library's own words are no help."""
    return f" ({context['error']})" if isinstance(context.get("error"), ValueError) else ""


def _unknown_names(environment: Mapping[str, str]) -> list[str]:
    known = [variable(*path) for path, _ in leaves(Settings)]
    return [
        f"{name}={environment[name][:80]}: there is no such setting; did you mean {_nearest(name.upper(), known)}?"
        for name in sorted(environment)
        if name.upper().startswith(PREFIX) and name.upper() not in known and not SERVICE_LINK.fullmatch(name.upper())
    ]


def _unknown_given(given: Given) -> list[str]:
    known = [".".join(path) for path, _ in leaves(Settings)]
    return [
        f"{name}={value[:80]}: there is no such setting; did you mean {_nearest(name, known)}?"
        for name, value in given.items()
        if name not in known
    ]


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _nested(given: Given) -> dict[str, Any]:
    """`cpu.high=70` as the models take it: `{"cpu": {"high": "70"}}`."""
    tree: dict[str, Any] = {}
    for name, value in given.items():
        *groups, leaf = name.split(".")
        at = tree
        for group in groups:
            at = at.setdefault(group, {})
        at[leaf] = value
    return tree


def _unit(field: FieldInfo) -> str:
    return _extra(field, "unit")


def _extra(field: FieldInfo, name: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(name, "")) if isinstance(extra, dict) else ""


def _at(settings: BaseModel, path: tuple[str, ...]) -> object:
    value: object = settings
    for name in path:
        value = getattr(value, name)
    return value


def _source(path: tuple[str, ...], given: Given, environment: set[str], files: Mapping[str, str]) -> str:
    if ".".join(path) in given:
        return "command line"
    if variable(*path) in environment:
        return "environment"
    return "folder" if variable(*path) in {name.upper() for name in files} else "default"
