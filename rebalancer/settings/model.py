"""Every setting with its default, unit, limits and meaning, and the params that it becomes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rebalancer.control.executor import ExecutorParams
from rebalancer.control.flight import DeadlineParams
from rebalancer.control.loop import LoopParams
from rebalancer.control.recorder import EventParams
from rebalancer.control.server import HttpParams
from rebalancer.domain.resources import CPU, MEMORY
from rebalancer.domain.verdict import KINDS
from rebalancer.kube.client import Access
from rebalancer.kube.lease import LeaseParams
from rebalancer.kube.manifests import PodLimits
from rebalancer.planning.params import PlanningParams
from rebalancer.policy.budget import DAY, KEPT_BY_KUBEVIRT, Limits
from rebalancer.policy.load import PolicyParams, Thresholds
from rebalancer.policy.windows import Calendar, parse

PREFIX = "REBALANCER_"

POLICY = PolicyParams()
LIMITS = Limits()
PLANNING = PlanningParams()
HTTP = HttpParams()
EVENTS = EventParams()
THRESHOLDS = POLICY.thresholds
LEASE = LeaseParams()
LOOP = LoopParams()
POD_LIMITS = PodLimits()
DEADLINE = DeadlineParams()


class SettingsError(ValueError):
    """Settings that cannot be used: one line for each, naming the variable, its value and what is allowed."""


def setting(default: object, meaning: str, unit: str = "", *, allowed: str = "", **limits: Any) -> Any:
    """A field with what `rebalancer settings` tells about it. `allowed` are the words where limits do not say it."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "allowed": allowed}, **limits)


def _words(value: object) -> object:
    """Lists are written with commas or, as Helm writes them, as JSON; an empty value is an empty list."""
    if not isinstance(value, str):
        return value
    bare = re.sub(r'[\[\]"]', "", value) if value.lstrip().startswith("[") else value
    return tuple(word.strip() for word in bare.split(",") if word.strip())


def _semicolons(value: object) -> object:
    """Windows are written with semicolons or, as Helm writes a list, as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return "; ".join(map(str, json.loads(value)))
    return value


def _readable(value: str) -> str:
    parse(value)
    return value


Windows = Annotated[str, BeforeValidator(_semicolons), AfterValidator(_readable)]
WINDOWS = "five fields of cron, a duration and perhaps a time zone, with ; between several of them"


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


class LimitSettings(Group):
    """How much may go on at a time, and how much within an hour or a day."""

    per_cluster: int = setting(
        LIMITS.per_cluster, "unfinished migrations at a time, others' included", "migrations", ge=1
    )
    drain_reserve: int = setting(
        LIMITS.drain_reserve, "slots of KubeVirt's own limit that are left to drains and people", "migrations", ge=0
    )
    per_source: int = setting(LIMITS.per_source, "unfinished migrations off one node", "migrations", ge=1)
    per_target: int = setting(LIMITS.per_target, "unfinished migrations onto one node", "migrations", ge=1)
    per_namespace: int = setting(
        LIMITS.per_namespace, "unfinished migrations of one namespace's VMs; 0 for no limit", "migrations", ge=0
    )
    per_hour: int = setting(LIMITS.per_hour, "migrations that begin within an hour", "migrations", ge=1)
    per_vm_day: int = setting(
        LIMITS.per_vm_day, "migrations of one VM within 24 hours", "migrations", ge=1, le=KEPT_BY_KUBEVIRT
    )
    cooldown_seconds: float = setting(
        LIMITS.cooldown_seconds,
        "how long a VM rests after a migration; doubles with each further one",
        "s",
        ge=0,
        le=DAY,
    )
    cooldown_max_seconds: float = setting(LIMITS.cooldown_max_seconds, "the longest such rest", "s", ge=0, le=DAY)


class SolverSettings(Group):
    """The search for a plan."""

    seconds: float = setting(PLANNING.seconds, "the limit of a search; 0 takes the first plan", "s", ge=0, le=3600)
    seed: int = setting(PLANNING.seed, "of the search; equal seeds give equal plans", ge=0, le=2**31 - 1)


class MigrationSettings(Group):
    """How long a migration is expected to take, and how long it may take at most."""

    bandwidth_mib: float = setting(PLANNING.bandwidth_mib, "what one migration copies", "MiB/s", gt=0)
    overhead_seconds: float = setting(PLANNING.overhead_seconds, "what it takes besides copying", "s", ge=0)
    unschedulable_seconds: int = setting(
        POD_LIMITS.unschedulable_seconds, "how long its target pod may fit nowhere before KubeVirt gives up", "s", ge=1
    )
    pending_seconds: int = setting(
        POD_LIMITS.pending_seconds, "how long its target pod may take to start before KubeVirt gives up", "s", ge=1
    )
    setup_seconds: float = setting(
        DEADLINE.setup_seconds, "how long it may take besides copying before we withdraw it", "s", gt=0
    )


class HttpSettings(Group):
    """The daemon's own HTTP server."""

    host: str = setting(
        HTTP.host,
        "the address at which /metrics, /healthz and /readyz are served; as with the port, a change needs a restart",
        min_length=1,
    )
    port: int = setting(HTTP.port, "the port of the same; 0 takes a free one", ge=0, le=65535)


class LogSettings(Group):
    """The log, on standard error."""

    format: Literal["text", "json"] = setting("text", "how log lines are written; a change needs a restart")


class LeaseSettings(Group):
    """The lease that decides which replica leads."""

    namespace: str = setting("", "where the Lease is; empty: the pod's own namespace; a change needs a restart")
    name: str = setting(LEASE.name, "how the Lease is called; a change needs a restart", min_length=1)
    duration_seconds: int = setting(
        LEASE.duration_seconds,
        "how long a leader that has fallen silent is waited for; it stops acting after two thirds of that; the same "
        "for all replicas; a change needs a restart",
        "s",
        ge=3,
        le=600,
    )


Kind = Literal["NodeAffinity", "PodAffinity", "PodAntiAffinity", "TopologySpread", "Taints"]


class Settings(BaseSettings):
    """All settings. Read them with `load`, which turns every mistake into one line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", allow_inf_nan=False
    )

    mode: Literal["dry-run", "active"] = setting("dry-run", "dry-run says what it would do; active does it")
    paused: bool = setting(False, "whether nothing new is started, whatever the mode")
    cpu: CpuSettings = CpuSettings()
    memory: MemorySettings = MemorySettings()
    hold_seconds: float = setting(POLICY.hold_seconds, "how long a node must be a hotspot before it counts", "s", ge=0)
    interval_seconds: float = setting(
        LOOP.interval_seconds,
        "the longest pause between two looks at a cluster in which nothing changes",
        "s",
        ge=LOOP.debounce_seconds,
        le=300,
    )
    rules: Annotated[tuple[Kind, ...], NoDecode, BeforeValidator(_words)] = setting(
        KINDS, "kinds of broken rules that are a reason to move; the others only limit where VMs may go"
    )
    windows: Windows = setting(
        "", "when migrations may begin, as in `0 22 * * mon-fri 8h Europe/Berlin`; empty: at any time", allowed=WINDOWS
    )
    blackouts: Windows = setting("", "when none may begin, in a window or not, written alike", allowed=WINDOWS)
    cost: CostSettings = CostSettings()
    limits: LimitSettings = LimitSettings()
    solver: SolverSettings = SolverSettings()
    migration: MigrationSettings = MigrationSettings()
    events: bool = setting(True, "whether Kubernetes Events are written, in dry-run too; a change needs a restart")
    deployment: str = setting(
        EVENTS.deployment, "our own Deployment, which Events about us belong to; a change needs a restart", min_length=1
    )
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    lease: LeaseSettings = LeaseSettings()
    folder: str = setting(
        "",
        "a folder with a file per setting, named as its variable, as a mounted ConfigMap has them; the environment "
        "comes before it; read again on SIGHUP and twice a minute",
    )
    kubeconfig: str = setting(
        "", "file with access to the cluster; empty: the pod's own, else kubectl's default; a change needs a restart"
    )
    context: str = setting("", "the kubeconfig's context; empty: its current one; a change needs a restart")

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

    def planning(self) -> PlanningParams:
        """How plans are made."""
        return PlanningParams(
            policy=self.policy(),
            seconds=self.solver.seconds,
            seed=self.solver.seed,
            per_source=self.limits.per_source,
            per_target=self.limits.per_target,
            per_cluster=self.limits.per_cluster,
            per_namespace=self.limits.per_namespace,
            drain_reserve=self.limits.drain_reserve,
            bandwidth_mib=self.migration.bandwidth_mib,
            overhead_seconds=self.migration.overhead_seconds,
        )

    def budget(self) -> Limits:
        """How much may go on at a time. Raises SettingsError where two settings disagree."""
        try:
            return Limits(**self.limits.model_dump())
        except ValueError as error:
            raise SettingsError(_in_our_names(str(error))) from None

    def calendar(self) -> Calendar:
        """When migrations may begin."""
        return Calendar(windows=parse(self.windows), blackouts=parse(self.blackouts))

    def loop(self) -> LoopParams:
        """When the daemon looks at the cluster."""
        return LoopParams(interval_seconds=self.interval_seconds)

    def pod_limits(self) -> PodLimits:
        """How long KubeVirt waits for the target pods of our migrations."""
        return PodLimits(
            unschedulable_seconds=self.migration.unschedulable_seconds,
            pending_seconds=self.migration.pending_seconds,
        )

    def executor(self) -> ExecutorParams:
        """How migrations are started and when they have taken too long."""
        return ExecutorParams(
            pod_limits=self.pod_limits(), deadline=DeadlineParams(setup_seconds=self.migration.setup_seconds)
        )

    def http_params(self) -> HttpParams:
        """Where the daemon's own HTTP server listens."""
        return HttpParams(host=self.http.host, port=self.http.port)

    def event_params(self, lease: LeaseParams) -> EventParams | None:
        """Where Events about ourselves belong; None where none are wanted."""
        if not self.events:
            return None
        return EventParams(namespace=lease.namespace, deployment=self.deployment, instance=lease.identity)

    def access(self) -> Access:
        """Which cluster."""
        return Access(kubeconfig=self.kubeconfig, context=self.context)

    def lease_params(self, identity: str) -> LeaseParams:
        """Leader election for one replica."""
        namespace = self.lease.namespace or os.environ.get("POD_NAMESPACE") or LEASE.namespace
        return LeaseParams.lasting(
            self.lease.duration_seconds, namespace=namespace, name=self.lease.name, identity=identity
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


def _in_our_names(message: str) -> str:
    """A params' complaint, `cpu_high = 70: ...`, with the names of the variables: `REBALANCER_CPU__HIGH=70: ...`."""
    for path, _ in leaves(Settings):
        field = "_".join(path[1:] if path[0] == "limits" else path)
        message = re.sub(rf"\b{field} = ", f"{variable(*path)}=", message)
    return message
