"""How resources are listed and watched, and when what we have of them is too old to act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParams:
    """How resources are watched.

    `page_limit`: 500 objects decode in about 20 ms and take about 25 MB while they do; larger pages stall the loop.
    `watch_seconds`: a watch's own end, drawn between the two so that watches do not end together (client-go's values).
    `idle_seconds`: silence after which a connection counts as half-open: two and a half missed bookmarks.
    `short_watch_seconds`: a watch that ended sooner counts as a failure; a bad server is not asked in a hot loop.
    `list_seconds`: the time limit of one page.
    `absent_seconds`: how often an optional resource that is not served is looked for again.
    `forbidden_seconds`: how often one that we may not see is asked for again; before it counts as gone we hold on to
    what we have for as long, because an API server that has just started refuses everybody for some seconds.
    `stale_seconds`: age of the oldest resource beyond which nobody should act on the cache.
    `broken_seconds`: the same for a watch that is known to be broken; one that is silent may be well.
    `comeback_seconds`: when one resource is heard of again, the others ask within so long, whatever their streaks.
    `watch_list`: whether lists are asked for as watches first.
    """

    page_limit: int = 500
    watch_seconds: tuple[float, float] = (300.0, 600.0)
    idle_seconds: float = 150.0
    short_watch_seconds: float = 1.0
    list_seconds: float = 60.0
    absent_seconds: float = 300.0
    forbidden_seconds: float = 15.0
    stale_seconds: float = 240.0
    broken_seconds: float = 10.0
    comeback_seconds: float = 1.0
    watch_list: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.idle_seconds < self.stale_seconds:
            raise ValueError("idle_seconds must be positive and below stale_seconds")


CACHE_DEFAULTS = CacheParams()
