"""How plans are made: what counts, how long the search may take, and what the cluster can bear at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rebalancer.domain.frozen import FrozenMap
from rebalancer.policy.load import PolicyParams, Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningParams:
    """Parameters of `decide`.

    `seconds`: the limit of the search. Ten seconds prove or nearly prove clusters of thousands of nodes, and a plan
    that is executed for minutes to hours deserves them. 0 gives the first plan, without search.
    `seed`: of the search; equal seeds give equal plans.
    `per_source`, `per_target`, `per_cluster`, `per_namespace`, `drain_reserve`: migrations at once, as in
    `policy.budget.Limits`: no wave holds more than may run together. Two out is KubeVirt's own default, one in because
    KubeVirt has no limit there and a target must copy in what several sources send.
    `bandwidth_mib`: MiB per second that one migration copies, for the estimated time of a move; 10 Gbit/s links, shared
    and with some pages copied twice, come to about that.
    `overhead_seconds`: what a migration takes besides copying: scheduling, starting the target pod, switching over.
    """

    policy: PolicyParams = PolicyParams()
    seconds: float = 10.0
    seed: int = 0
    per_source: int = 2
    per_target: int = 1
    per_cluster: int = 5
    per_namespace: int = 0
    drain_reserve: int = 1
    bandwidth_mib: float = 512.0
    overhead_seconds: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= 3600:
            raise ValueError(f"seconds = {self.seconds:g}: must be between 0 and 3600")
        for name, least in (
            ("per_source", 1),
            ("per_target", 1),
            ("per_cluster", 1),
            ("per_namespace", 0),
            ("drain_reserve", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if not self.bandwidth_mib > 0:
            raise ValueError(f"bandwidth_mib = {self.bandwidth_mib:g}: must be above 0")
        if not self.overhead_seconds >= 0:
            raise ValueError(f"overhead_seconds = {self.overhead_seconds:g}: must be 0 or more")

    def told(self) -> FrozenMap[str, str]:
        """Everything that shapes a plan, as text by name: part of the plan, and of its identity."""
        shown: dict[str, object] = {}
        for holder in (self.policy.thresholds, self.policy, self):
            shown |= {field.name: getattr(holder, field.name) for field in fields(holder)}
        pairs = ((name, value) for name, value in shown.items() if not isinstance(value, PolicyParams | Thresholds))
        return FrozenMap((name, ",".join(value) if isinstance(value, tuple) else f"{value}") for name, value in pairs)
