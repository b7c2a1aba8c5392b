"""Whatever the daemon does on the event loop, it must not block it: files, sleeps and locks there fail the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def never_block() -> Iterator[BlockBuster]:
    """Only what the daemon's own layers call counts: the simulated cluster stands in for other machines."""
    with blockbuster_ctx(scanned_modules=["rebalancer.control", "rebalancer.kube", "rebalancer.daemon"]) as found:
        yield found
