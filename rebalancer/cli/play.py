"""`rebalancer simulate`: scenarios in virtual time, each with a verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rebalancer.cli.serve import daemon_params
from rebalancer.settings import Given, SettingsError, load
from rebalancer.sim.scenarios import ALL, BY_NAME
from rebalancer.sim.simulate import simulate
from rebalancer.sim.verdict import Verdict


def scenarios() -> str:
    """What can be simulated."""
    width = max(len(scenario.name) for scenario in ALL)
    return "".join(f"{scenario.name:{width}}  {scenario.about}\n" for scenario in ALL)


def verdicts(names: list[str], given: Given, *, seed: int) -> Iterator[Verdict]:
    """The scenarios' verdicts, one by one; all scenarios where none is named."""
    settings = load(given)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise SettingsError(f"there is no scenario {unknown[0]}; there are {', '.join(BY_NAME)}")
    params = daemon_params(settings, settings.lease_params("simulated"), http=False)
    for name in names or list(BY_NAME):
        if sys.stderr.isatty():
            print(f"{name}, seed {seed} …", file=sys.stderr)
        yield simulate(name, seed, params=params)
