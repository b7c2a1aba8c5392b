"""Fixtures for tests on the real control plane. Where it cannot be had they are skipped, and say why."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from controlplane.binaries import UnavailableError, find
from controlplane.harness import PROGRAMS, ControlPlane
from controlplane.oracle import Oracle

PLANES = pytest.StashKey[list[ControlPlane]]()
MISSING = pytest.StashKey[dict[tuple[str, ...], str]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the session, in which a control plane may outlive a test."""
    return "asyncio"


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Build programs where they are missing, with progress on the terminal; skip (or fail) where that is impossible."""
    missing = request.config.stash.setdefault(MISSING, {})

    def need(*names: str) -> None:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        try:
            # What could not be had once is not asked for again by every test.
            if names not in missing:
                with capture.global_and_fixture_disabled():
                    find(*names)
        except UnavailableError as problem:
            missing[names] = " ".join(str(problem).split())
        if names not in missing:
            return
        if os.environ.get("REQUIRE_CONTROLPLANE") == "1":
            pytest.fail(f"the control plane is required here, and: {missing[names]}", pytrace=False)
        pytest.skip(f"no control plane: {missing[names]}")

    return need


@pytest.fixture(scope="module")
async def control_plane(request: pytest.FixtureRequest, programs: Callable[..., None]) -> AsyncIterator[ControlPlane]:
    """A control plane for the tests of one module."""
    programs(*PROGRAMS)
    async with ControlPlane() as plane:
        planes = request.config.stash.setdefault(PLANES, [])
        planes.append(plane)
        yield plane
        planes.remove(plane)


@pytest.fixture(scope="session")
def oracle(programs: Callable[..., None]) -> Iterator[Oracle]:
    """The filter oracle, one process for the session."""
    programs("oracle")
    with Oracle() as asked:
        yield asked


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the ends of the logs to the report of a test that failed on a control plane."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        for plane in item.config.stash.get(PLANES, []):
            report.sections.append(("control plane", plane.log_tails()))
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why tests were skipped; pytest alone would only count them."""
    for reason in sorted(set(config.stash.get(MISSING, {}).values())):
        terminalreporter.write_line(f"No real control plane was tested: {reason}", yellow=True)
