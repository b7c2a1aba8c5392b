"""When migrations may begin at all: windows, in which they may, and blackouts, in which they may not.

    22:00 to 06:00 on weekdays      0 22 * * mon-fri 8h Europe/Berlin
    the last day of every month     0 0 L * * 24h

Five fields of cron, a duration, a time zone (UTC where none is named). What runs when a window closes goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from rebalancer.domain.plan import Move
from rebalancer.domain.report import Held

OUTSIDE_WINDOWS = "OutsideWindows"
BLACKOUT = "Blackout"

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?")
_LONGEST_SECONDS = 31 * 86_400.0
_STEPS = 1000
"""Ends of blackouts and starts of windows that are tried one after the other, before we say that no time is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time that comes again and again: from each moment that `cron` names in `zone`, for `seconds` of real time.

    Make one with `parse`. Over a change of the clocks cron's own rules hold (Debian's: a start in the skipped hour
    happens right after it, one in the repeated hour happens once).
    """

    text: str
    cron: str
    seconds: float
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """`CRON DURATION [ZONE]`. Raises ValueError, which says what is wrong with which part."""
        words = text.split()
        if len(words) not in (6, 7):
            raise ValueError(f"`{text}` is not five fields of cron, a duration and perhaps a time zone")
        cron = " ".join(words[:5])
        zone = _zone(words[6] if len(words) == 7 else "UTC")
        try:
            next(CronSim(cron, datetime(2000, 1, 1, tzinfo=zone)))
        except CronSimError as error:
            raise ValueError(f"`{cron}` is no cron expression: {str(error).lower()}") from None
        except StopIteration:
            raise ValueError(f"`{cron}` never comes") from None
        return cls(text=" ".join(words), cron=cron, seconds=_seconds(words[5]), zone=zone)

    def end(self, now: float) -> float:
        """When the window that is open at `now` ends; 0.0 where none is."""
        # In reverse, a start at this very moment would be left out: a millisecond later it is in.
        starts = CronSim(self.cron, datetime.fromtimestamp(now + 0.001, self.zone), reverse=True)
        start = next(starts, None)
        end = start.timestamp() + self.seconds if start is not None else 0.0
        return end if end > now else 0.0

    def next_start(self, now: float) -> float | None:
        """The next start after `now`."""
        found = next(CronSim(self.cron, datetime.fromtimestamp(now, self.zone)), None)
        return found.timestamp() if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Nothing may begin: `reason` is OUTSIDE_WINDOWS or BLACKOUT, `until` 0.0 where no end is known.

    `why` in a few words, `message` with the moment too, as people in the window's zone read it.
    """

    reason: str
    why: str
    message: str
    until: float

    def held(self, moves: Iterable[Move]) -> tuple[Held, ...]:
        """What these moves wait for."""
        return tuple(Held(vmi=move.vmi, reason=self.reason, message=self.why, until=self.until) for move in moves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """Without windows every time is good, but for blackouts."""

    windows: tuple[Window, ...] = ()
    blackouts: tuple[Window, ...] = ()

    def closed(self, now: float) -> Closed | None:
        """Why nothing may begin at `now` (seconds since 1970), and until when; None where it may."""
        if blackout := _open(self.blackouts, now):
            until = self._opens(now)
            why = f"the blackout `{blackout.text}` is on"
            message = f"{why}; migrations begin again {_moment(until, blackout.zone)}"
            return Closed(reason=BLACKOUT, why=why, message=message, until=until)
        if not self.windows or _open(self.windows, now):
            return None
        until = self._opens(now)
        zone = (_open(self.windows, until) or self.windows[0]).zone
        why = "no window is open"
        message = f"{why}; migrations begin again {_moment(until, zone)}"
        return Closed(reason=OUTSIDE_WINDOWS, why=why, message=message, until=until)

    def _opens(self, now: float) -> float:
        """The first moment from `now` on that lies in a window, if there are any, and in no blackout; 0.0 for never."""
        moment = now
        for _ in range(_STEPS):
            if blackout := _open(self.blackouts, moment):
                moment = blackout.end(moment)
            elif not self.windows or _open(self.windows, moment):
                return moment
            else:
                starts = [start for window in self.windows if (start := window.next_start(moment)) is not None]
                if not starts:
                    break
                moment = min(starts)
        return 0.0


def parse(text: str) -> tuple[Window, ...]:
    """Windows with `;` between them. Raises ValueError."""
    return tuple(Window.parse(part) for part in text.split(";") if part.strip())


def _open(windows: tuple[Window, ...], now: float) -> Window | None:
    return next((window for window in windows if window.end(now)), None)


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    days, hours, minutes = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    seconds = days * 86_400.0 + hours * 3600.0 + minutes * 60.0
    if not 0.0 < seconds <= _LONGEST_SECONDS:
        raise ValueError(f"`{text}` is no duration such as 8h, 90m or 1d12h, of at most 31 days")
    return seconds


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"`{name}` is no time zone such as Europe/Berlin") from None


def _moment(seconds: float, zone: ZoneInfo) -> str:
    if not seconds:
        return "at no time that is known"
    return f"at {datetime.fromtimestamp(seconds, UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}"
