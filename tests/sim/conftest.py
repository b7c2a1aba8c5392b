"""No test of the simulator may block its event loop: in virtual time that would be real time lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(autouse=True)
def _never_blocks() -> Iterator[BlockBuster]:
    with blockbuster_ctx("rebalancer") as found:
        yield found
