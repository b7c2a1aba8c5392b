"""Windows and blackouts, as a table of moments."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from rebalancer.policy.windows import BLACKOUT, OUTSIDE_WINDOWS, Calendar, Closed, Window, parse

NIGHT = "0 22 * * mon-fri 8h Europe/Berlin"
BERLIN = ZoneInfo("Europe/Berlin")


def at(moment: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone)).timestamp()


def closed(moment: str, windows: str = "", blackouts: str = "", zone: str = "Europe/Berlin") -> Closed | None:
    return Calendar(windows=parse(windows), blackouts=parse(blackouts)).closed(at(moment, zone))


# 2026-11-20 is a Friday.
@pytest.mark.parametrize(
    ("moment", "windows", "blackouts", "reason", "until"),
    [
        ("2026-11-20 12:00", "", "", "", ""),
        ("2026-11-20 21:59:59", NIGHT, "", OUTSIDE_WINDOWS, "2026-11-20 22:00"),
        ("2026-11-20 22:00", NIGHT, "", "", ""),
        ("2026-11-21 05:59:59", NIGHT, "", "", ""),
        ("2026-11-21 06:00", NIGHT, "", OUTSIDE_WINDOWS, "2026-11-23 22:00"),
        ("2026-11-21 06:00", f"{NIGHT}; 0 8 * * sat,sun 1h Europe/Berlin", "", OUTSIDE_WINDOWS, "2026-11-21 08:00"),
        ("2026-11-20 12:00", "", "0 10 * * * 4h Europe/Berlin", BLACKOUT, "2026-11-20 14:00"),
        ("2026-11-20 14:00", "", "0 10 * * * 4h Europe/Berlin", "", ""),
        ("2026-11-20 12:00", "", "0 10 * * * 4h Europe/Berlin;0 13 * * * 3h Europe/Berlin", BLACKOUT,
         "2026-11-20 16:00"),
        ("2026-11-20 22:30", NIGHT, "0 22 20 11 * 4h Europe/Berlin", BLACKOUT, "2026-11-21 02:00"),
        ("2026-11-20 22:30", NIGHT, "0 0 20 11 * 2d Europe/Berlin", BLACKOUT, "2026-11-23 22:00"),
        ("2026-11-20 12:00", NIGHT, "0 0 * * * 24h Europe/Berlin", BLACKOUT, "never"),
        ("2026-11-20 12:00:30.5", "* * * * * 1m", "", "", ""),
    ],
)  # fmt: skip
def test_a_moment_is_good_or_closed_until(moment: str, windows: str, blackouts: str, reason: str, until: str) -> None:
    found = closed(moment, windows, blackouts)
    if not reason:
        assert found is None
        return
    assert found is not None
    assert (found.reason, found.until) == (reason, 0.0 if until == "never" else at(until))


def test_what_is_closed_says_so_in_the_windows_own_zone() -> None:
    outside = closed("2026-11-20 12:00", NIGHT)
    assert outside is not None
    assert outside.message == "no window is open; migrations begin again at 2026-11-20 22:00 CET"
    blackout = closed("2026-07-31 12:00", blackouts="0 0 L * * 24h Europe/Berlin")
    assert blackout is not None
    assert blackout.message == (
        "the blackout `0 0 L * * 24h Europe/Berlin` is on; migrations begin again at 2026-08-01 00:00 CEST"
    )
    never = closed("2026-11-20 12:00", NIGHT, "* * * * * 24h")
    assert never is not None
    assert never.message.endswith("begin again at no time that is known")


@pytest.mark.parametrize(
    ("night", "start", "hours"),
    [
        ("2026-03-28 23:00", "2026-03-29 03:00", 2),  # 02:30 is skipped: it starts right after the gap
        ("2026-10-24 23:00", "2026-10-25 02:30", 2),  # 02:30 comes twice: it starts once
    ],
)
def test_the_clocks_may_change_a_window_lasts_as_long_as_it_says(night: str, start: str, hours: int) -> None:
    window = Window.parse(f"30 2 * * * {hours}h Europe/Berlin")
    begins = window.next_start(at(night))
    assert begins == at(start)
    assert window.end(begins) == begins + hours * 3600
    assert window.end(begins - 1) == 0.0
    assert window.end(begins + hours * 3600 - 1) == begins + hours * 3600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 22 * * 8h", "is not five fields of cron, a duration and perhaps a time zone"),
        ("0 22 * * * 8h Europe/Berlin now", "is not five fields"),
        ("0 25 * * * 8h", "`0 25 * * *` is no cron expression: bad hour"),
        ("0 0 31 2 * 8h", "is no cron expression: bad day-of-month"),
        ("0 22 * * * 8", "`8` is no duration such as 8h, 90m or 1d12h, of at most 31 days"),
        ("0 22 * * * 0m", "`0m` is no duration"),
        ("0 22 * * * 32d", "`32d` is no duration"),
        ("0 22 * * * 8h Europe/Berln", "`Europe/Berln` is no time zone such as Europe/Berlin"),
        ("0 22 * * * 8h ../passwd", "is no time zone"),
    ],
)
def test_a_window_that_cannot_be_read_says_why(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="`") as raised:
        parse(text)
    assert told in str(raised.value)


def test_windows_are_separated_by_semicolons() -> None:
    assert [window.text for window in parse(f" {NIGHT} ;; 0 0 * * sun  1d ; ")] == [NIGHT, "0 0 * * sun 1d"]
    assert parse("") == ()
