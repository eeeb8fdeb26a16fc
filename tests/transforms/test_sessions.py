"""Time of sessions agrees with the exchanges' published hours, holidays and half days."""

import datetime
import subprocess
import sys
import zoneinfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.errors import UsageError
from beam_pipelines.transforms.sessions import ALWAYS, DEFAULT, parse_calendars, session_ms

HOUR = 3_600_000
NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
# https://www.nyse.com/markets/hours-calendars, of September to December 2026
CLOSED = {datetime.date(2026, 9, 7), datetime.date(2026, 11, 26), datetime.date(2026, 12, 25)}
EARLY = {datetime.date(2026, 11, 27), datetime.date(2026, 12, 24)}


def ms(text: str) -> int:
    return int(np.datetime64(text, "ms").astype(np.int64))


def hours(calendar: str, since: str, until: str) -> float:
    return session_ms(calendar, np.array([ms(since)]), np.array([ms(until)]))[0] / HOUR


def new_york_ms(since: int, until: int) -> int:
    """Day by day, by the clocks on Wall Street."""
    total, day = 0, datetime.date(2026, 9, 1)
    while day <= datetime.date(2026, 12, 31):
        if day.weekday() < 5 and day not in CLOSED:
            close = datetime.time(13 if day in EARLY else 16)
            begin, end = (
                int(datetime.datetime.combine(day, at, NEW_YORK).timestamp() * 1000)
                for at in (datetime.time(9, 30), close)
            )
            total += max(min(end, until) - max(begin, since), 0)
        day += datetime.timedelta(days=1)
    return total


@pytest.mark.parametrize(
    ("calendar", "since", "until", "expected"),
    [
        ("XNYS", "2026-11-25T00", "2026-11-26T00", 6.5),
        ("XNYS", "2026-11-26T00", "2026-11-27T00", 0),  # Thanksgiving
        ("XNYS", "2026-11-27T00", "2026-11-28T00", 3.5),  # to 13:00 in New York
        ("XNYS", "2026-11-27T17:59", "2026-11-27T21:00", 1 / 60),
        ("XNYS", "2026-10-30T13:30", "2026-10-30T14:30", 1),  # summer time: 09:30 is 13:30 UTC
        ("XNYS", "2026-11-02T13:30", "2026-11-02T14:30", 0),  # from 1 November on 14:30 UTC
        ("XNYS", "2026-10-30T20:00", "2026-11-02T14:31", 1 / 60),
        ("XNYS", "2026-12-31T20:59", "2027-01-04T14:31", 2 / 60),  # over New Year's Day and a weekend
        ("XTKS", "2026-11-26T00:00", "2026-11-26T06:30", 5.5),  # 9:00 to 15:30 with an hour for lunch
        ("XTKS", "2026-11-26T02:30", "2026-11-26T03:30", 0),
        ("XASX", "2026-01-04T22", "2026-01-05T00", 1),  # 10:00 of Monday in Sydney is 23:00 of Sunday
        (ALWAYS, "2026-11-26T00", "2026-11-28T12", 60),
        ("XNYS", "2026-11-25T20", "2026-11-25T15", 0),
        ("XNYS", "2600-01-01", "2601-01-01", 0),  # of which nothing is known
        ("XNYS", "1960-01-01", "1961-01-01", 0),
    ],
)
def test_time_of_sessions(calendar, since, until, expected):
    assert hours(calendar, since, until) == pytest.approx(expected, abs=1e-9)


MOMENTS = st.integers(ms("2026-09-01"), ms("2026-12-31T22"))


@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=20))
def test_wall_streets_autumn_is_as_its_clocks_say(pairs):
    since, until = np.array(pairs).T
    expected = [new_york_ms(*pair) for pair in pairs]
    assert session_ms("XNYS", since, until).tolist() == expected


@pytest.mark.parametrize(
    ("symbol", "calendar"),
    [
        ("AAPL", "XNYS"),
        ("BRK.B", "XNYS"),
        ("BTC-USD", ALWAYS),
        ("ETH/BTC", ALWAYS),
        ("BTCUSDT", ALWAYS),
        ("0700.HK", None),
        ("VOD.L", "XNYS"),
        ("EURUSD", None),
    ],
)
def test_default_calendars(symbol, calendar):
    assert DEFAULT.of(symbol) == calendar


def test_rules_of_the_user_come_first_and_match_whole_symbols():
    calendars = parse_calendars([r".*\.L=XLON", "A=B=XTKS", "EUR.*=24/7"])
    assert [calendars.of(symbol) for symbol in ("VOD.L", "A=B", "EURUSD", "VOD.LX", "AAPL")] == [
        "XLON",
        "XTKS",
        ALWAYS,
        None,
        "XNYS",
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("AAPL", "takes PATTERN=CALENDAR, such as"),
        ("=XNYS", "'=XNYS'"),
        ("AAPL=", "'AAPL='"),
        ("AAPL=NASDOQ", "'NASDOQ' in 'AAPL=NASDOQ', which does not exist"),
        ("A(=XNYS", "'A(', which is no regular expression"),
    ],
)
def test_a_wrong_rule_is_named(text, named):
    with pytest.raises(UsageError) as told:
        parse_calendars([text])
    assert named in str(told.value)


def test_what_trades_around_the_clock_needs_no_library():
    program = (
        "import sys, numpy as np; from beam_pipelines.transforms import sessions as s; "
        "s.parse_calendars(['X.*=24/7']); s.session_ms(s.ALWAYS, np.array([0]), np.array([1])); "
        "sys.exit('exchange_calendars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
