"""Every setting: its environment variable, default, unit, limits and meaning, and the params that it becomes.

The variables begin with REBALANCER_; `__` separates levels, as in REBALANCER_CPU__HIGH. The params dataclasses live
beside the code that uses them and own the defaults and the checks; this file is the only one that knows pydantic.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.verdict import KINDS
from rebalancer.kube.client import Access
from rebalancer.kube.lease import LeaseParams
from rebalancer.policy.load import PolicyParams, Thresholds

PREFIX = "REBALANCER_"

SERVICE_LINK = re.compile(r"REBALANCER_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""Variables that the kubelet adds to every pod in a namespace with a Service named "rebalancer"; none is a setting."""

POLICY = PolicyParams()
THRESHOLDS = POLICY.thresholds
LEASE = LeaseParams()


class SettingsError(ValueError):
    """Settings that cannot be used: one line for each, naming the variable, its value and what is allowed."""


def setting(default: object, meaning: str, unit: str = "", **limits: Any) -> Any:
    """A field with what `rebalancer settings` tells about it."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **limits)


def _words(value: object) -> object:
    """Lists are written with commas or, as Helm writes them, as JSON; an empty value is an empty list."""
    if not isinstance(value, str):
        return value
    bare = re.sub(r'[\[\]"]', "", value) if value.lstrip().startswith("[") else value
    return tuple(word.strip() for word in bare.split(",") if word.strip())


class Group(BaseModel):
    """Settings under one name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CpuSettings(Group):
    """When reserved CPU makes a node a hotspot."""

    counts: bool = setting(CPU in THRESHOLDS.resources, "whether reserved CPU can make a node a hotspot")
    high: float = setting(THRESHOLDS.cpu_high, "above it a node is a hotspot", "% of allocatable", gt=0, le=100)
    low: float = setting(
        THRESHOLDS.cpu_low,
        "a plan brings a hotspot down to it and lifts no node above it",
        "% of allocatable",
        gt=0,
        le=100,
    )


class MemorySettings(Group):
    """When reserved memory makes a node a hotspot."""

    counts: bool = setting(MEMORY in THRESHOLDS.resources, "whether reserved memory can make a node a hotspot")
    high: float = setting(
        THRESHOLDS.memory_high, "above it a node is a hotspot, where memory counts", "% of allocatable", gt=0, le=100
    )
    low: float = setting(
        THRESHOLDS.memory_low,
        "a plan brings a hotspot down to it and lifts no node above it",
        "% of allocatable",
        gt=0,
        le=100,
    )


class CostSettings(Group):
    """What a migration costs, for choosing among plans that cure as much."""

    move: int = setting(POLICY.move_cost, "what a migration costs, whatever it moves", "cost", ge=1)
    gib: int = setting(POLICY.gib_cost, "what each GiB of guest memory adds to that", "cost", ge=0)


class LeaseSettings(Group):
    """The lease that decides which replica leads."""

    namespace: str = setting(LEASE.namespace, "where the Lease is", min_length=1)
    name: str = setting(LEASE.name, "how the Lease is called", min_length=1)


Kind = Literal["NodeAffinity", "PodAffinity", "PodAntiAffinity", "TopologySpread", "Taints"]


class Settings(BaseSettings):
    """All settings. Read them with `load`, which turns every mistake into one line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", allow_inf_nan=False
    )

    mode: Literal["dry-run", "active"] = setting("dry-run", "dry-run says what it would do; active does it")
    cpu: CpuSettings = CpuSettings()
    memory: MemorySettings = MemorySettings()
    hold_seconds: float = setting(POLICY.hold_seconds, "how long a node must be a hotspot before it counts", "s", ge=0)
    rules: Annotated[tuple[Kind, ...], NoDecode, BeforeValidator(_words)] = setting(
        KINDS, "kinds of broken rules that are a reason to move; the others only limit where VMs may go"
    )
    cost: CostSettings = CostSettings()
    lease: LeaseSettings = LeaseSettings()
    kubeconfig: str = setting("", "file with access to the cluster; empty: the pod's own, else kubectl's default")
    context: str = setting("", "the kubeconfig's context; empty: its current one")

    def policy(self) -> PolicyParams:
        """What is wrong with a cluster, and what mending it costs. Raises SettingsError where two settings disagree."""
        counted = tuple(name for name, group in ((CPU, self.cpu), (MEMORY, self.memory)) if group.counts)
        if not counted:
            raise SettingsError(
                f"{variable('cpu', 'counts')}=false and {variable('memory', 'counts')}=false: one of them must be true"
            )
        try:
            thresholds = Thresholds(
                cpu_high=self.cpu.high,
                cpu_low=self.cpu.low,
                memory_high=self.memory.high,
                memory_low=self.memory.low,
                resources=counted,
            )
        except ValueError as error:
            raise SettingsError(_in_our_names(str(error))) from None
        return PolicyParams(
            thresholds=thresholds,
            kinds=self.rules,
            hold_seconds=self.hold_seconds,
            move_cost=self.cost.move,
            gib_cost=self.cost.gib,
        )

    def access(self) -> Access:
        """Which cluster."""
        return Access(kubeconfig=self.kubeconfig, context=self.context)

    def lease_params(self, identity: str) -> LeaseParams:
        """Leader election for one replica."""
        return LeaseParams(namespace=self.lease.namespace, name=self.lease.name, identity=identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting as `rebalancer settings` shows it. `source` is default, environment or command line."""

    name: str
    value: str
    default: str
    unit: str
    meaning: str
    allowed: str
    source: str


def load(**given: Any) -> Settings:
    """The settings of the environment, with those of the command line (as keyword arguments) before them.

    Raises SettingsError with one line per mistake.
    """
    unknown = _unknown_names(os.environ)
    if unknown:
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError(
            "\n".join(dict.fromkeys(_told(one["loc"], one["input"]) for one in error.errors()))
        ) from None
    settings.policy()
    return settings


def rows(settings: Settings, **given: Any) -> tuple[Row, ...]:
    """Every setting, in the order of this file; `given` are those that the command line gave to `load`."""
    here = {name.upper() for name in os.environ}
    return tuple(
        Row(
            name=variable(*path),
            value=written(_at(settings, path)),
            default=written(field.default),
            unit=_unit(field),
            meaning=field.description or "",
            allowed=allowed(field),
            source="command line" if _given(given, path) else "environment" if variable(*path) in here else "default",
        )
        for path, field in leaves(Settings)
    )


def variable(*path: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + "__".join(path).upper()


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """All settings with their paths, in order."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*path, name))
        else:
            yield (*path, name), field


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


def _told(path: tuple[int | str, ...], value: object) -> str:
    """One bad value in one line."""
    for names, field in leaves(Settings):
        if tuple(path[: len(names)]) == names:
            given = {name.upper(): text for name, text in os.environ.items()}.get(variable(*names), value)
            return f"{variable(*names)}={str(given)[:80]}: allowed is {allowed(field)}"
    return f"{variable(*map(str, path))}={str(value)[:80]}: this is a group, set its parts one by one"


def _unknown_names(environment: Mapping[str, str]) -> list[str]:
    known = [variable(*path) for path, _ in leaves(Settings)]
    told = []
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not SERVICE_LINK.fullmatch(name.upper()):
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            told.append(f"{name}={environment[name][:80]}: there is no such setting; did you mean {near}?")
    return told


def _in_our_names(message: str) -> str:
    """A params' complaint, `cpu_high = 70: ...`, with the names of the variables: `REBALANCER_CPU__HIGH=70: ...`."""
    for path, _ in leaves(Settings):
        message = re.sub(rf"\b{'_'.join(path)} = ", f"{variable(*path)}=", message)
    return message


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _at(settings: BaseModel, path: tuple[str, ...]) -> object:
    value: object = settings
    for name in path:
        value = getattr(value, name)
    return value


def _given(given: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    value: Any = given
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True
