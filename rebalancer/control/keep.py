"""Parts that run for ever: what one of them raises ends neither the daemon nor the other parts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from rebalancer.kube.retry import Retry, Surroundings

LOG = logging.getLogger(__name__)


async def keep(name: str, part: Callable[[], Awaitable[None]], around: Surroundings) -> None:
    """Runs a part until cancelled; one that raises is begun again, ever more slowly while it goes on raising.

    Only a bug comes here: what a cluster does is dealt with where it happens.
    """
    retry = Retry(around)
    while True:
        try:
            await part()
        except Exception:
            LOG.exception("%s failed and is begun again", name)
        await anyio.sleep(retry.delay())
