"""Checks are a function of the log, each fires at the incident it is for and only there, and state stays small."""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.tick_files import raw_batches_from_file
from beam_pipelines.transforms.batches import RAW, TICKS, Span, from_bytes, to_bytes, with_span
from beam_pipelines.transforms.completeness import MINUTE_MS, Check, Completeness
from beam_pipelines.transforms.completeness.clock_skew import ClockSkew, lag_of
from beam_pipelines.transforms.completeness.pieces import Piece
from beam_pipelines.transforms.completeness.schemas import MOST_FIELDS
from beam_pipelines.transforms.completeness.state import MOST_SOURCES, MOST_SYMBOLS
from beam_pipelines.transforms.completeness.volume import Level, Volume
from beam_pipelines.transforms.dead_letters import dead_letters
from beam_pipelines.transforms.sessions import parse_calendars
from beam_pipelines.transforms.ticks import decode

TICKS_FOLDER = pathlib.Path(__file__).parents[2] / ".." / "shared" / "ticks"
needs_ticks = pytest.mark.skipif(not TICKS_FOLDER.exists(), reason="needs the recorded tick days of ../shared/ticks")


def ms(text: str) -> int:
    return int(np.datetime64(text, "ms").astype(np.int64))


WEDNESDAY = ms("2026-11-25T15:00")  # Wall Street is open until 21:00
NAMES = ("volume", "duplicates", "late", "dead_letters", "sequence", "schema", "clock_skew", "silent_symbols")


class Record(NamedTuple):
    at: int  # Kafka timestamp, ms
    value: bytes
    fate: str = ""  # "duplicate", "late" or ""


def tick(at: int, symbol: str = "BTC-USD", lag: int = 0, fate: str = "", **more: Any) -> Record:
    fields = {"symbol": symbol, "timestamp": at - lag, "price": 1.5, "volume": 10, **more}
    return Record(at, json.dumps({name: value for name, value in fields.items() if value is not None}).encode(), fate)


def take(state: Completeness, records: Sequence[Record], first: int) -> list[Check]:
    """Hands over records as the pipeline does, the first of them at offset `first`."""
    span = Span("raw", 0, first, first + len(records))
    offsets = np.arange(span.first, span.next)
    values = [pa.array(offsets), pa.array([r.at for r in records], pa.int64()), pa.nulls(len(records), pa.binary())]
    values.append(pa.array([r.value for r in records], pa.binary()))
    raw = with_span(pa.RecordBatch.from_arrays(values, schema=RAW), span)
    ticks, rejects = decode(raw)
    dead = dead_letters(raw, *rejects) if len(rejects.rows) else None
    fates = np.array([r.fate for r in records], object)
    fates[rejects.rows] = ""
    return state.take(Piece.of(raw, ticks, dead, offsets[fates == "duplicate"], offsets[fates == "late"]))


def checks_of(records: Sequence[Record], cuts: Iterable[int] = (), renew: bool = False) -> list[Check]:
    """The checks of a log that is cut into batches; with `renew` the state is written and read between them."""
    state, checks = Completeness(), []
    edges = sorted({0, len(records), *cuts})
    for begin, end in itertools.pairwise(edges):
        checks += take(state, records[begin:end], begin)
        if renew:
            state = Completeness.decode(state.encode())
    return checks


def failed(checks: Iterable[Check], name: str, start: int = WEDNESDAY) -> dict[int, Check]:
    """Those of one name that fail, by minute since `start`."""
    return {(check.window - start) // MINUTE_MS: check for check in checks if check.name == name and not check.passed}


def minutes(count: int, a_minute: int = 60, start: int = WEDNESDAY, first: int = 0, **more: Any) -> list[Record]:
    """Steady ticks, and one that ends the last minute."""
    step = MINUTE_MS // a_minute
    begin = start + first * MINUTE_MS
    return [tick(begin + step * at, **more) for at in range(count * a_minute)] + [tick(begin + count * MINUTE_MS)]


def real_week(kept: Callable[[Any], Any] = lambda times: times >= 0) -> list[Check]:
    """The checks of five days of IBM's trades in one log, of those whose times are `kept`."""
    state, checks, none, first = Completeness(), [], np.empty(0, np.int64), 0
    for path in sorted(TICKS_FOLDER.glob("lean_ibm_*_trade_tick.zip")):
        for _, raw in raw_batches_from_file(path, 1, 10_000):
            ticks = decode(raw).ticks
            rows = pa.array(kept(ticks["log_time"].to_numpy()))  # the file's event times
            raw, ticks = raw.filter(rows), ticks.filter(rows)
            offsets = pa.array(np.arange(first, first + len(raw)))
            raw = raw.set_column(0, raw.schema.field(0), offsets)
            for name in ("offset", "seq"):
                ticks = ticks.set_column(TICKS.get_field_index(name), TICKS.field(name), offsets)
            checks += state.take(Piece.of(raw, ticks, None, none, none))
            first += len(raw)
    return checks


# --- a function of the log ---


def troubled_log(seed: int, count: int) -> list[Record]:
    """Some of every incident, at a pace at which usual levels are learnt."""
    rng = np.random.default_rng(seed)
    at, numbers, records = WEDNESDAY, dict[tuple[str, str], int](), list[Record]()
    for row in range(count):
        at += int(rng.choice([0, 200, 1500, 3000], p=[0.2, 0.3, 0.45, 0.05])) + (
            900_000 if rng.random() < 0.0005 else 0
        )
        symbol, source = f"{'ABC'[rng.integers(3)]}{'XY'[rng.integers(2)]}", f"feed-{rng.integers(2)}"
        if 0.5 * count < row < 0.8 * count and symbol == "AX":
            symbol = "BX"
        number = numbers[symbol, source] = numbers.get((symbol, source), 0) + (5 if rng.random() < 0.01 else 1)
        more: dict[str, Any] = {"seq": number} if source == "feed-0" else {}
        more |= {"note": "x"} if row < 0.6 * count else {}
        more |= {f"field-{row}": 1} if rng.random() < 0.02 else {}
        lag = int(rng.integers(0, 3000)) + (20_000 if source == "feed-1" else 0)
        fate = str(rng.choice(["", "duplicate", "late"], p=[0.9, 0.05, 0.05]))
        stamped = at - int(rng.integers(0, 70_000)) if rng.random() < 0.05 else at
        record = tick(at, symbol, lag, fate, source=source, **more)._replace(at=-1 if rng.random() < 0.02 else stamped)
        records.append(record if rng.random() > 0.02 else Record(stamped, b"{}"))
    return records


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sets(st.integers(1, 2999), max_size=60), st.booleans())
def test_any_split_of_the_log_gives_the_same_checks(seed, cuts, renew):
    records = troubled_log(seed, 3000)
    whole = checks_of(records)
    assert {check.name for check in whole} == set(NAMES)
    assert checks_of(records, cuts, renew) == whole


def test_the_log_of_that_test_has_every_incident():
    failing = {check.name for seed in range(5) for check in checks_of(troubled_log(seed, 3000)) if not check.passed}
    assert failing == set(NAMES)


def test_one_record_at_a_time_gives_the_same_checks_and_state():
    records = troubled_log(7, 1200)
    whole, single = Completeness(), Completeness()
    expected = take(whole, records, 0)
    assert [check for row, record in enumerate(records) for check in take(single, [record], row)] == expected
    more = troubled_log(8, 300)
    assert take(Completeness.decode(single.encode()), more, 1200) == take(
        Completeness.decode(whole.encode()), more, 1200
    )


def test_a_minute_gives_each_check_once_when_the_next_begins():
    state = Completeness()
    assert take(state, minutes(1)[:-1], 0) == []
    assert state.clock == WEDNESDAY + 59_000
    checks = take(state, [tick(WEDNESDAY + 60_000)], 60)
    assert [check.name for check in checks] == list(NAMES)
    assert {check.window for check in checks} == {WEDNESDAY}


def test_a_record_that_is_stamped_earlier_belongs_to_the_open_minute():
    records = [tick(WEDNESDAY + 60_000), tick(WEDNESDAY), tick(WEDNESDAY + 120_000)]
    assert [(c.window, c.value) for c in checks_of(records) if c.name == "volume"] == [(WEDNESDAY + 60_000, 2)]


def test_records_without_a_timestamp_go_by_event_time_or_where_they_stand():
    untimed = [record._replace(at=-1) for record in (Record(0, b"?"), *minutes(2), Record(0, b"?"))]
    volumes = [(check.window, check.value) for check in checks_of(untimed) if check.name == "volume"]
    assert volumes == [(WEDNESDAY, 61), (WEDNESDAY + 60_000, 60)]


# --- counts ---


def test_shares_of_duplicates_late_and_dead_records():
    records = minutes(3, a_minute=500)
    for row in range(5):
        records[500 + row] = records[500 + row]._replace(fate="duplicate")
        records[1000 + row] = records[1000 + row]._replace(fate="duplicate")
        records[600 + 5 * row] = records[600 + 5 * row]._replace(fate="late")
    records[1005] = records[1005]._replace(fate="duplicate")
    for row in range(26):
        records[1100 + row] = records[1100 + row]._replace(fate="late")
    for row in range(8):
        records[1200 + row] = Record(records[1200 + row].at, b"[]" if row % 2 else b"no")
    checks = checks_of(records)
    assert {name: list(failed(checks, name)) for name in NAMES[1:4]} == {
        "duplicates": [2], "late": [2], "dead_letters": [2],
    }  # fmt: skip
    last = {check.name: check for check in checks if check.window == WEDNESDAY + 2 * MINUTE_MS}
    assert last["duplicates"][3:] == (6 / 492, 0.01, "6 of 492 ticks repeat an earlier one")
    assert last["late"].value == 26 / 492
    assert last["dead_letters"][3:] == (8 / 500, 0.01, "8 of 500 records are dead letters: 4 not_an_object, 4 not_json")


def test_a_few_bad_records_of_a_quiet_minute_prove_nothing():
    records = [tick(WEDNESDAY), *[Record(WEDNESDAY + 1, b"no")] * 4, tick(WEDNESDAY + MINUTE_MS)]
    dead = [check for check in checks_of(records) if check.name == "dead_letters"]
    assert [(check.passed, check.value) for check in dead] == [(True, 0.8)]


# --- sequence numbers ---


def numbered(numbers: Sequence[Sequence[int]], **more: Any) -> list[Record]:
    """Ticks with these numbers, minute by minute, and one that ends the last minute."""
    records = []
    for minute, inside in enumerate(numbers):
        at = WEDNESDAY + minute * MINUTE_MS
        records += [tick(at + row, seq=number, source="own", **more) for row, number in enumerate(inside)]
    return [*records, tick(WEDNESDAY + len(numbers) * MINUTE_MS)]


def stretch(first: int, last: int, but: Sequence[int] = ()) -> list[int]:
    return [number for number in range(first, last + 1) if number not in but]


def test_missing_numbers_are_counted_and_shown_once():
    log = numbered(
        [stretch(1000, 1099), stretch(1100, 1199), stretch(1200, 1299, but=(1250, 1251, 1280)), stretch(1300, 1400)]
    )
    gaps = failed(checks_of(log), "sequence")
    assert list(gaps) == [2]
    assert gaps[2][3:] == (3, 0, "own lacks 3 of the numbers 1200 to 1299 of BTC-USD")


def test_numbers_missing_between_two_minutes_are_counted():
    assert {
        at: gap.value for at, gap in failed(checks_of(numbered([stretch(1, 200), [231], [232]])), "sequence").items()
    } == {1: 30}


def test_disorder_within_a_minute_and_repeats_are_no_gap():
    mixed = [*stretch(201, 300)[::-1], 250, 150]
    records = numbered([stretch(1, 200), mixed, stretch(301, 400)])
    records[300], records[301] = records[300]._replace(fate="duplicate"), records[301]._replace(fate="duplicate")
    assert not failed(checks_of(records), "sequence")


def test_a_repeat_does_not_hide_a_missing_number():
    records = numbered([stretch(1, 200), [*stretch(201, 300, but=[222]), 250]])
    records[-2] = records[-2]._replace(fate="duplicate")
    assert {at: gap.value for at, gap in failed(checks_of(records), "sequence").items()} == {1: 1}


def test_a_feed_that_starts_again_from_one_is_followed():
    log = numbered([stretch(1, 500), stretch(1, 90), stretch(91, 180), stretch(181, 270, but=[200])])
    assert {at: gap.value for at, gap in failed(checks_of(log), "sequence").items()} == {3: 1}


def test_a_pair_that_rests_for_some_minutes_goes_on_where_it_was():
    rest = [tick(WEDNESDAY + minute * MINUTE_MS) for minute in (1, 2)]
    for first, missing in ((501, {}), (506, {3: 5})):
        log = numbered([stretch(1, 500), [], [], stretch(first, 600)])
        gaps = failed(checks_of([*log[:500], *rest, *log[500:]]), "sequence")
        assert {at: gap.value for at, gap in gaps.items()} == missing


def test_the_first_minute_of_a_symbol_is_not_judged():
    fresh = [tick(WEDNESDAY + MINUTE_MS, "NEW", seq=number, source="own") for number in (1, 9)]
    log = numbered([stretch(1, 500), stretch(501, 600)])
    assert not failed(checks_of([*log[:500], *fresh, *log[500:]]), "sequence")


def test_numbers_of_the_whole_exchange_are_not_judged():
    rng = np.random.default_rng(3)
    ids = np.cumsum(rng.integers(1, 30, 600)).reshape(6, 100)
    assert not failed(checks_of(numbered(ids.tolist())), "sequence")


def test_offsets_in_place_of_numbers_are_not_judged():
    records = minutes(6, a_minute=100)
    for row in range(5, 600, 20):  # offsets that are no ticks: 19 of 20 steps are one
        records[row] = Record(records[row].at, b"no")
    assert not failed(checks_of(records), "sequence")
    own = [tick(WEDNESDAY, seq=1, source="own")]
    assert not failed(checks_of([*own, *records]), "sequence")


def test_a_gap_is_found_although_other_symbols_and_sources_are_mixed_in():
    def mixed(numbers: Sequence[int], minute: int) -> list[Record]:
        at = WEDNESDAY + minute * MINUTE_MS
        return [
            record
            for number in numbers
            for record in (
                tick(at, "A", seq=number, source="own"), tick(at, "B", seq=number + 7, source="own"),
                tick(at, "A", seq=number * 31, source="global"), tick(at, "A", source="none"),
            )
        ]  # fmt: skip

    log = [*mixed(stretch(1, 99), 0), *mixed(stretch(100, 199), 1), *mixed(stretch(200, 300, but=[222]), 2)]
    gaps = failed(checks_of([*log, tick(WEDNESDAY + 3 * MINUTE_MS)]), "sequence")
    assert {at: gap.value for at, gap in gaps.items()} == {2: 2}
    assert gaps[2].detail == ("own lacks 1 of the numbers 200 to 300 of A, own lacks 1 of the numbers 207 to 307 of B")


def test_extreme_numbers_are_taken():
    extremes = [-(2**63), 2**63 - 1, 0]
    assert not failed(checks_of(numbered([extremes, extremes, extremes])), "sequence")


# --- volume ---


def paced(counts: Sequence[int]) -> list[Record]:
    """So many records in each minute, and one that ends the last."""
    records = [
        tick(WEDNESDAY + minute * MINUTE_MS + row) for minute, count in enumerate(counts) for row in range(count)
    ]
    return [*records, tick(WEDNESDAY + len(counts) * MINUTE_MS)]


def test_a_minute_of_far_more_or_fewer_records_fails():
    usual = [100, 104, 97, 110] * 10
    checks = checks_of(paced([*usual, 2000, 100, 5, 100, 0, 0, 101]))
    unusual = failed(checks, "volume")
    assert {at: check.value for at, check in unusual.items()} == {40: 2000, 42: 5, 44: 0, 45: 0}
    assert unusual[42].threshold == pytest.approx(103 / 3, abs=3)
    assert unusual[40].detail.startswith("2000 records, 103 are usual (34 to 31")


def test_nothing_is_unusual_in_the_first_half_hour():
    assert not failed(checks_of(paced([100] * 29 + [5000])), "volume")
    assert list(failed(checks_of(paced([100] * 30 + [5000])), "volume")) == [30]


def test_noise_of_a_sparse_partition_is_usual():
    counts = np.random.default_rng(5).poisson(4, 500)
    assert len(failed(checks_of(paced(counts.tolist())), "volume")) <= 1


def test_a_few_records_where_none_are_usual_are_not_many():
    volume = Volume()
    for minute in range(60):
        volume.close(minute, 0)
    assert volume.copy().close(60, 20).passed
    assert not volume.copy().close(60, 21).passed


def test_a_new_level_becomes_usual():
    unusual = failed(checks_of(paced([100] * 60 + [1500] * 60)), "volume")
    assert 60 in unusual
    assert max(unusual) == 74  # after a quarter of an hour


def market_week(volume: Volume, week: int, opens: int) -> list[int]:
    """Minutes that fail of a week in which the market opens for 390 minutes on five days."""
    unusual = []
    for minute in range(7 * 1440):
        is_open = minute // 1440 < 5 and opens <= minute % 1440 < opens + 390
        check = volume.close(4 * 1440 + week * 7 * 1440 + minute, 3000 if is_open else 20)
        unusual += [] if check.passed else [minute]
    return unusual


def test_the_open_is_unusual_in_the_first_week_only_also_when_the_clocks_change():
    volume = Volume()
    assert 14 * 60 + 30 in market_week(volume, 2900, 14 * 60 + 30)
    assert market_week(volume, 2901, 14 * 60 + 30) == []
    assert market_week(volume, 2902, 13 * 60 + 30) == []
    volume.close(4 * 1440 + 2903 * 7 * 1440, 20)
    assert not volume.close(4 * 1440 + 2903 * 7 * 1440 + 18 * 60, 20).passed  # the market is open


# --- fields ---


def test_a_new_field_fails_once():
    log = minutes(10)[:-1] + minutes(3, first=10, flag=1)
    drift = failed(checks_of(log), "schema")
    assert {at: check[3:] for at, check in drift.items()} == {10: (1, 0, "unknown: new field 'flag'")}


def test_another_type_fails_once_but_null_is_of_any():
    log = minutes(10, bid=1.0)[:-1] + minutes(2, first=10, bid="1.0")[:-1] + minutes(2, first=12, bid=1)
    drift = failed(checks_of(log), "schema")
    assert {at: check.detail for at, check in drift.items()} == {
        10: "unknown: field 'bid' is of type string, was number"
    }
    records = [r._replace(value=r.value.replace(b'"seen"', b"null")) for r in minutes(2, first=10, venue="seen")]
    assert not failed(checks_of(minutes(10, venue="seen")[:-1] + records), "schema")


def test_a_field_that_most_records_had_vanishes_and_comes_back():
    log = minutes(10, bid=1.0)[:-1] + minutes(3, first=10)[:-1] + minutes(2, first=13, bid=1.0)
    drift = failed(checks_of(log), "schema")
    assert list(drift) == [10, 11, 12]
    assert drift[10].detail == "unknown: field 'bid' has vanished"


def test_a_field_that_is_gone_for_good_becomes_usual():
    drift = failed(checks_of(minutes(20, bid=1.0)[:-1] + minutes(60, first=20)), "schema")
    assert min(drift) == 20
    assert max(drift) <= 42  # 400 samples with it, 20 a minute without it


def test_a_rare_field_may_be_absent():
    log = minutes(30)
    for row in range(0, len(log), 5):
        log[row] = tick(log[row].at, venue="A")
    assert not failed(checks_of(log[:-1] + minutes(5, first=30)), "schema")


def test_each_source_has_fields_of_its_own():
    log = sorted(minutes(12, source="a", bid=1)[:-1] + minutes(12, source="b")[:-1])
    drift = failed(checks_of([*log, *minutes(1, first=12, source="b", bid=1)]), "schema")
    assert {at: check.detail for at, check in drift.items()} == {12: "b: new field 'bid'"}


# --- clocks ---


def test_a_source_ahead_of_the_log_fails():
    log = [
        *minutes(2, source="a")[:-1],
        tick(WEDNESDAY + 2 * MINUTE_MS, lag=-1500, source="fast"),
        *minutes(2, first=2),
    ]
    skew = failed(checks_of(log), "clock_skew")
    assert {at: check[3:] for at, check in skew.items()} == {
        2: (-1500, -1000, "fast is up to 1500 ms ahead of the log")
    }
    assert not failed(checks_of(minutes(3, lag=-1000)), "clock_skew")


def test_a_source_steadily_behind_fails_after_three_minutes():
    log = sorted(minutes(5, source="slow", lag=15_000)[:-1] + minutes(5, source="good", lag=80))
    skew = failed(checks_of(log), "clock_skew")
    assert list(skew) == [2, 3, 4]
    assert skew[2].value == pytest.approx(15_000, rel=1 / 32)
    assert skew[2].detail.startswith("slow is steadily 1")
    assert not failed(checks_of(minutes(5, source="slow", lag=9_000)), "clock_skew")


def test_replays_and_wide_spreads_are_no_skew():
    replay = [record for m in range(6) for record in minutes(1, first=m, lag=86_400_000)[:-1]]
    fast = [tick(WEDNESDAY + 1000 * at, lag=1_800_000 - 4000 * at) for at in range(360)]
    spread = [tick(WEDNESDAY + 1000 * at, lag=(at % 60) * 1000) for at in range(360)]
    for records in (replay, fast, spread):
        assert not failed(checks_of([*records, tick(WEDNESDAY + 6 * MINUTE_MS)]), "clock_skew")


@given(st.integers(0, 2**45))
def test_a_buckets_lag_is_within_a_thirty_second_of_each_in_it(lag):
    skew = ClockSkew()
    skew.add(np.array([0]), np.array([lag]), 1)
    (bucket,) = np.flatnonzero(skew._lags[0])
    assert lag_of(int(bucket)) == pytest.approx(lag, rel=1 / 30, abs=1)


# --- silent symbols ---


def trading(symbol: str, since: str, until: str, every_s: int) -> list[Record]:
    return [tick(at, symbol) for at in range(ms(since), ms(until), every_s * 1000)]


def silences(records: list[Record]) -> dict[str, str]:
    """What is told of silence, by minute: of those that came or went."""
    checks = [check for check in checks_of(sorted(records)) if check.name == "silent_symbols"]
    return {
        str(np.datetime64(check.window, "ms").astype("datetime64[m]")): check.detail.split("; ")[0]
        for check in checks
        if ";" in check.detail
    }


def test_a_symbol_that_stops_is_told_once_and_once_when_it_is_back():
    told = silences(
        trading("BTC-USD", "2026-11-25T15:00", "2026-11-25T17:00", 10)
        + trading("AAPL", "2026-11-25T15:00", "2026-11-25T16:00", 10)
        + trading("AAPL", "2026-11-25T16:30", "2026-11-25T17:00", 10)
    )
    assert told == {
        "2026-11-25T16:04": "1 became silent: AAPL (300 s of its sessions, usually 10.0 s)",
        "2026-11-25T16:30": "1 came back: AAPL",
    }


def test_a_symbol_that_seldom_trades_may_rest_longer():
    told = silences(
        trading("BTC-USD", "2026-11-24T14:30", "2026-11-25T21:00", 60)
        + trading("IBM", "2026-11-24T14:30", "2026-11-24T21:00", 600)
        + trading("IBM", "2026-11-25T16:00", "2026-11-25T16:02", 60)
        + trading("IBM", "2026-11-25T18:50", "2026-11-25T18:51", 60)
    )
    # usually 9 whole minutes lie between two, 20 times as many are 3 hours, and two in a row are an exception
    assert told == {}


def test_nights_weekends_and_holidays_do_not_count():
    told = silences(
        trading("BTC-USD", "2026-11-25T19:00", "2026-11-27T18:00", 30)
        + trading("AAPL", "2026-11-25T19:00", "2026-11-25T21:00", 10)
    )
    # Thanksgiving is on the 26th; the 27th opens at 14:30
    assert told == {"2026-11-27T14:34": "1 became silent: AAPL (300 s of its sessions, usually 10.0 s)"}


def test_after_the_early_close_nothing_is_silent():
    told = silences(
        trading("BTC-USD", "2026-11-27T15:00", "2026-11-28T00:00", 30)
        + trading("AAPL", "2026-11-27T15:00", "2026-11-27T18:00", 10)
    )
    assert told == {}


def test_a_symbol_without_a_calendar_is_not_expected():
    records = sorted(
        trading("BTC-USD", "2026-11-25T15:00", "2026-11-25T17:00", 10)
        + trading("0700.HK", "2026-11-25T15:00", "2026-11-25T16:00", 10)
    )
    assert not failed(checks_of(records), "silent_symbols")
    state = Completeness(parse_calendars([r".*\.HK=24/7"]))
    assert list(failed(take(state, records, 0), "silent_symbols")) == [64]


def test_all_symbols_of_a_partition_that_stops_are_told_when_it_goes_on():
    told = silences(
        trading("BTC-USD", "2026-11-25T15:00", "2026-11-25T16:00", 10)
        + trading("AAPL", "2026-11-25T15:00", "2026-11-25T16:00", 10)
        + trading("BTC-USD", "2026-11-25T17:00", "2026-11-25T17:02", 10)
    )
    assert list(told) == ["2026-11-25T17:00"]
    assert told["2026-11-25T17:00"].startswith(
        "2 became silent: AAPL (3660 s of its sessions, usually 10.0 s), BTC-USD (3600 s of"
    )


def test_an_idle_partition_tells_silence_and_volume_without_changing():
    state = Completeness()
    take(state, sorted(trading("BTC-USD", "2026-11-25T15:00", "2026-11-25T16:00", 10)), 0)
    encoded = state.encode()
    told = {at: state.idle(state.clock + at * MINUTE_MS) for at in range(10)}
    assert state.encode() == encoded
    assert told[0] == told[1] == []  # the minute with the last records is open, or just over
    silent = {at: failed(checks, "silent_symbols") for at, checks in told.items() if failed(checks, "silent_symbols")}
    assert list(silent) == [6]  # the clock is ten seconds before the hour, so at 6 the minute 16:04 is over
    assert silent[6][64].detail.startswith("1 became silent: BTC-USD (300 s of its sessions, usually 10.0 s)")
    assert [len(failed(checks, "volume")) for checks in told.values()] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


# --- bounds ---


def distinct(
    first: int, count: int, names: Sequence[str], sources: Sequence[str]
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """A batch of ticks with these symbols and sources, and its records."""
    offsets = np.arange(first, first + count)
    times = pa.array(WEDNESDAY + offsets)
    columns = {
        "symbol": pa.array(names).dictionary_encode(), "timestamp": times, "price": np.ones(count),
        "volume": np.ones(count, np.int64), "source": pa.array(sources).dictionary_encode(), "seq": offsets * 3 + 1,
        "updates": np.full(count, 7, np.uint8), "partition": np.zeros(count, np.int32), "offset": offsets,
        "log_time": times,
    }  # fmt: skip
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in TICKS]
    ticks = pa.RecordBatch.from_arrays([pa.array(a) if isinstance(a, np.ndarray) else a for a in arrays], schema=TICKS)
    values = pa.array([b"{}"] * count, pa.binary())
    return pa.RecordBatch.from_arrays(
        [pa.array(offsets), times, pa.nulls(count, pa.binary()), values], schema=RAW
    ), ticks


def test_a_million_symbols_and_sources_leave_a_small_state_that_still_knows_the_old():
    state, none = Completeness(), np.empty(0, np.int64)
    for at in range(100):
        first, count = at * 10_000, 10_000
        rows = range(first, first + count)
        names = ["BTC-USD" if row % 1000 == 0 else f"S{row}" for row in rows]
        sources = ["good" if row % 1000 == 0 else f"source-{row}" for row in rows]
        state.take(Piece.of(*distinct(first, count, names, sources), None, none, none))
    state.take(Piece.of(*distinct(1_020_000, 1, ["ETH-USD"], ["new"]), None, none, none))
    assert "ETH-USD" in state._symbols.words()
    assert "new" in state._sources.words()
    assert state._symbols.minutes[state._symbols.words().index("BTC-USD")] > 10
    assert len(state._symbols) <= MOST_SYMBOLS
    assert len(state._sources) <= MOST_SOURCES
    assert "BTC-USD" in state._symbols.words()
    assert "good" in state._sources.words()
    assert len(state.encode()) < 4_000_000


def test_a_million_field_names_leave_a_small_state():
    state, checks = Completeness(), []
    for minute in range(50):
        records = []
        for row in range(20):
            first = (minute * 20 + row) * 1000
            more = {f"field-{first + name}-{'x' * 20}": 1 for name in range(1000)}
            records.append(tick(WEDNESDAY + minute * MINUTE_MS + row, **more))
        checks += take(state, records, minute * 20)
    assert len(state._schemas.known["unknown"].fields) == MOST_FIELDS
    assert len(state.encode()) < 100_000
    assert max(len(check.detail) for check in checks) < 1000


def test_records_that_only_decode_can_read_are_no_samples():
    odd = [
        Record(WEDNESDAY + row, b'{"symbol":"A-USD","timestamp":0,"price":1,"volume":1,"x":1e999}') for row in range(9)
    ]
    assert all(check.passed for check in checks_of([*odd, tick(WEDNESDAY + MINUTE_MS)]))


def test_a_state_of_a_newer_version_is_refused():
    batch = from_bytes(Completeness().encode())
    scalars = json.loads(batch.schema.metadata[b"state"]) | {"version": 99}
    newer = to_bytes(batch.replace_schema_metadata({"state": json.dumps(scalars)}))
    with pytest.raises(ValueError, match=r"has version 99, this code reads up to 1: use a newer release"):
        Completeness.decode(newer)


def test_the_week_after_a_holiday_is_as_usual():
    volume = Volume()
    for week in range(2900, 2903):
        market_week(volume, week, 14 * 60 + 30)
    holiday = [volume.close(4 * 1440 + 2903 * 7 * 1440 + minute, 20).passed for minute in range(1440)]
    assert holiday.count(False) == 390 - 120  # it is usual that the market opens and closes an hour later or earlier
    for minute in range(1440, 7 * 1440):
        is_open = minute // 1440 < 5 and 14 * 60 + 30 <= minute % 1440 < 21 * 60
        assert volume.close(4 * 1440 + 2903 * 7 * 1440 + minute, 3000 if is_open else 20).passed
    assert market_week(volume, 2904, 14 * 60 + 30) == []


def test_a_weekly_level_that_changes_for_good_is_told_for_a_week():
    volume = Volume()
    for week in range(2900, 2903):
        for minute in range(7 * 1440):
            volume.close(4 * 1440 + week * 7 * 1440 + minute, 100)
    failing = [
        sum(not volume.close(4 * 1440 + week * 7 * 1440 + minute, 1000).passed for minute in range(7 * 1440))
        for week in (2903, 2904)
    ]
    assert failing == [7 * 1440, 0]


def test_levels_are_means_of_logarithms():
    level = Level()
    for records in (10, 20, 40):
        level = level.moved(records, 30)
    assert level.mean == pytest.approx(np.log1p([10, 20, 40]).mean())


def test_a_record_stamped_in_the_far_future_ends_one_minute_and_no_more():
    state = Completeness()
    take(state, trading("AAPL", "2026-11-25T15:00", "2026-11-25T16:00", 10), 0)
    (far,) = minutes(0)
    checks = take(state, [far._replace(at=2**62)], 360)
    assert len(checks) < 24 * 60 + 10  # the day that follows is told, not the million years
    assert [check.window for check in checks if check.name == "silent_symbols"] == [ms("2026-11-25T15:59")]
    assert state.clock == 2**62
    assert take(state, [far._replace(at=2**62 + MINUTE_MS)], 361)[-1].name == "silent_symbols"


# --- a real week ---


@needs_ticks
def test_a_real_week_of_ibm_gives_a_false_alarm_in_two_hundred_minutes_at_most():
    checks = real_week()
    assert all(check.passed for check in checks if check.name != "volume")
    later = [check.passed for check in checks if check.window >= ms("2013-10-08")]  # the first open cannot be known
    assert later.count(False) < len(later) / len(NAMES) / 200


@needs_ticks
def test_half_an_hour_that_is_cut_out_of_a_real_week_is_found():
    begin, end = ms("2013-10-09T15:00"), ms("2013-10-09T15:30")
    checks = real_week(lambda times: (times < begin) | (times >= end))
    (back,) = (check for check in checks if check.name == "silent_symbols" and not check.passed)
    assert begin <= back.window <= end + MINUTE_MS  # the only symbol: noticed when the log goes on
    assert failed(checks, "volume", begin).keys() >= set(range(15))
