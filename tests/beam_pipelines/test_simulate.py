import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from beam_pipelines.bad_records import BAD_RECORDS
from beam_pipelines.simulate import KINDS, Ledger, Session, raw_batches, records
from beam_pipelines.transforms.records import RECORDS
from beam_pipelines.transforms.ticks import decode

WILD = Session(
    seed=5,
    symbols=50,
    duration_ms=1_800_000,
    ticks=100_000,
    disorder=0.1,
    late=0.02,
    too_late=0.01,
    bad=0.03,
    duplicate=0.02,
    tie=0.04,
)
VALID = KINDS[:4]


def table(session: Session) -> pa.Table:
    return pa.Table.from_batches(list(records(session)), RECORDS)


def ticks(session: Session) -> list[dict[str, Any]]:
    """The valid ticks in order of arrival, with kind and arrival."""
    columns = (table(session)[name].to_pylist() for name in ("value", "kind", "time"))
    return [
        {**json.loads(value), "kind": kind, "arrival": time}
        for value, kind, time in zip(*columns, strict=True)
        if kind in VALID
    ]


@pytest.fixture(scope="module")
def wild() -> list[dict[str, Any]]:
    return ticks(WILD)


def test_a_seed_means_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256()
    for batch in records(dataclasses.replace(WILD, ticks=2000)):
        for time, key, value, kind in zip(*(batch[name].to_pylist() for name in RECORDS.names), strict=True):
            digest.update(repr((time, key, value, kind)).encode())
    assert digest.hexdigest() == "c8915a2e9b1af02aa989ab1bab72b961c5949ea4af18c010c35aa758e052f8ff"


def test_another_seed_means_other_bytes() -> None:
    small = dataclasses.replace(WILD, ticks=1000)
    assert not table(small).equals(table(dataclasses.replace(small, seed=6)))


def test_records_arrive_in_order_across_blocks() -> None:
    batches = list(records(WILD))
    assert len(batches) > 3
    assert (np.diff(table(WILD)["time"].to_numpy()) >= 0).all()


def test_the_log_does_not_depend_on_the_size_of_its_batches() -> None:
    def log(rows: int) -> dict[int, list[Any]]:
        found = defaultdict(list)
        for partition, batch in raw_batches(dataclasses.replace(WILD, ticks=40_000), 3, rows):
            found[partition] += zip(*(column.to_pylist() for column in batch.columns), strict=True)
        return found

    assert log(10_000) == log(777)


def test_every_valid_tick_is_sent_once_and_has_its_own_identity(wild: list[dict[str, Any]]) -> None:
    identities = {(tick.get("source"), tick["symbol"], tick["timestamp"], tick["seq"]) for tick in wild}
    assert len(wild) == len(identities) == WILD.ticks


def test_shares_are_those_asked_for() -> None:
    kinds = Ledger.of(records(WILD)).kinds
    shares = {"disordered": 0.1, "late": 0.02, "too_late": 0.01, "duplicate": 0.02 * 0.97}
    for kind, share in shares.items():
        assert kinds[kind] == pytest.approx(share * WILD.ticks, rel=0.1)
    assert sum(Ledger(kinds).bad.values()) == pytest.approx(0.03 * WILD.ticks, rel=0.1)


def test_nothing_unwanted_is_sent_by_default() -> None:
    ledger = Ledger.of(records(Session(ticks=20_000)))
    assert ledger.valid == ledger.kinds.total() == 20_000


def test_delays_are_within_what_their_kind_says(wild: list[dict[str, Any]]) -> None:
    bounds = {"in_order": (0, 0), "disordered": (1, 900), "late": (1001, 61_000), "too_late": (121_000, 241_000)}
    for tick in wild:
        least, most = bounds[tick["kind"]]
        assert least <= tick["arrival"] - tick["timestamp"] <= most


def test_disorder_is_real(wild: list[dict[str, Any]]) -> None:
    newest = np.maximum.accumulate([tick["timestamp"] for tick in wild])
    behind = newest - [tick["timestamp"] for tick in wild]
    assert np.count_nonzero(behind) > 0.1 * len(wild)


def test_duplicates_repeat_an_earlier_record_byte_for_byte() -> None:
    seen: set[bytes] = set()
    duplicates = 0
    for value, kind in zip(*(table(WILD)[name].to_pylist() for name in ("value", "kind")), strict=True):
        if kind == "duplicate":
            duplicates += 1
            assert value in seen
        elif kind in VALID:
            seen.add(value)
    assert duplicates > 1000


def test_ties_share_symbol_and_millisecond(wild: list[dict[str, Any]]) -> None:
    sizes = Counter((tick["symbol"], tick["timestamp"]) for tick in wild)
    assert sum(size - 1 for size in sizes.values()) >= 0.03 * len(wild)


def test_activity_over_the_day_is_u_shaped() -> None:
    session = Session(ticks=100_000)
    times = [tick["timestamp"] - session.start_ms for tick in ticks(session)]
    counts, _ = np.histogram(times, bins=13, range=(0, session.duration_ms))
    assert counts.sum() == session.ticks
    assert min(counts[0], counts[-1]) > 2 * counts[5:8].max()


def test_arrivals_come_in_bursts() -> None:
    session = Session(ticks=200_000)
    counts, _ = np.histogram([tick["timestamp"] for tick in ticks(session)], bins=session.duration_ms // 1000)
    noon = counts[len(counts) // 2 - 1000 : len(counts) // 2 + 1000]
    assert noon.var() > 1.5 * noon.mean()  # a Poisson process would have them equal
    assert np.corrcoef(noon[:-1], noon[1:])[0, 1] > 0.2


def test_a_steady_session_has_as_many_ticks_each_second() -> None:
    session = Session(ticks=100_030, duration_ms=60_000, activity="steady", tie=0)
    counts, _ = np.histogram([tick["timestamp"] - session.start_ms for tick in ticks(session)], range(0, 61_000, 1000))
    assert counts.sum() == session.ticks
    assert set(counts.tolist()) == {1667, 1668}


def test_symbols_are_traded_by_zipfs_law(wild: list[dict[str, Any]]) -> None:
    counts = Counter(tick["symbol"] for tick in wild)
    assert [counts[name] for name in WILD.names[:2]] == [count for _, count in counts.most_common(2)]
    assert counts[WILD.names[0]] == pytest.approx(10 * counts[WILD.names[9]], rel=0.3)


def test_each_symbol_is_numbered_in_the_order_of_its_events(wild: list[dict[str, Any]]) -> None:
    for name in WILD.names:
        mine = sorted((tick for tick in wild if tick["symbol"] == name), key=lambda tick: tick["seq"])
        assert [tick["seq"] for tick in mine] == list(range(1, len(mine) + 1))
        assert (np.diff([tick["timestamp"] for tick in mine]) >= 0).all()


def test_prices_lie_on_the_grid_at_the_bid_or_the_ask(wild: list[dict[str, Any]]) -> None:
    for tick in wild:
        assert tick["price"] == round(tick["price"], 2) >= 1
        if "bid" in tick:
            assert tick["bid"] < tick["ask"]
            assert tick["price"] in (tick["bid"], tick["ask"])


def test_prices_walk_without_jumps(wild: list[dict[str, Any]]) -> None:
    mine = sorted((tick for tick in wild if tick["symbol"] == WILD.names[0]), key=lambda tick: tick["seq"])
    prices = np.array([tick["price"] for tick in mine])
    assert (np.abs(np.diff(prices)) < 0.001 * prices[1:] + 0.01).all()
    assert len(set(prices)) > 100


def test_optional_fields_are_sometimes_absent_and_odd_lots_change_volume_only(wild: list[dict[str, Any]]) -> None:
    for field in ("bid", "source", "updates"):
        assert 0 < sum(field in tick for tick in wild) < len(wild)
    assert {tick["updates"] for tick in wild if "updates" in tick} == {4}
    assert all((tick["volume"] < 100) == ("updates" in tick) for tick in wild)


def test_every_sort_of_bad_record_is_labelled_with_its_reason() -> None:
    session = Session(ticks=20_000, bad=0.1)
    rows = zip(*(table(session)[name].to_pylist() for name in ("value", "kind")), strict=True)
    fixed = {
        bad.spoil(b'{"symbol":"A"}'): bad.reason for bad in BAD_RECORDS if bad.name in ("tombstone", "array", "empty")
    }
    found = {value: kind for value, kind in rows if value in fixed}
    assert found == fixed
    assert Ledger.of(records(session)).bad.keys() == {bad.reason for bad in BAD_RECORDS}


def test_the_decoder_gives_every_record_the_reason_on_its_label() -> None:
    session = Session(ticks=20_000, bad=0.1)
    labels = dict(zip(*(table(session)[name].to_pylist() for name in ("value", "kind")), strict=True))
    for _, batch in raw_batches(session, 2):
        decoded = decode(batch)
        values = batch["value"].to_pylist()
        rejects = decoded.rejects
        for row, reason, detail in zip(rejects.rows, rejects.reasons, rejects.details, strict=True):
            assert reason == labels[values[row]], (values[row], detail)
        assert decoded.ticks.num_rows == sum(labels[value] in VALID for value in values)


@pytest.mark.parametrize("symbols", [1, ("ONE", "TWO"), 70_000])
def test_any_number_of_symbols_can_be_traded(symbols: int | tuple[str, ...]) -> None:
    session = Session(symbols=symbols, ticks=5000)
    found = set(table(session)["key"].to_pylist())
    assert found <= {name.encode() for name in session.names}
    assert Ledger.of(records(session)).valid == 5000


@pytest.mark.parametrize("shape", [{"ticks": 1}, {"duration_ms": 1}, {"ticks": 40_000, "duration_ms": 1500}])
def test_the_smallest_sessions_work(shape: dict[str, int]) -> None:
    session = dataclasses.replace(Session(ticks=10, bad=1, duplicate=1), **shape)
    assert Ledger.of(records(session)).valid == session.ticks
    ends = {tick["timestamp"] - session.start_ms for tick in ticks(session)}
    assert max(ends) < session.duration_ms


@pytest.mark.parametrize(
    "mistake",
    [{"bad": 1.5}, {"bad": -0.1}, {"tie": float("nan")}, {"ticks": 0}, {"seed": -1}, {"symbols": 0}, {"late": 0.99},
     {"max_delay_ms": 2000}, {"duration_ms": 10**12}, {"activity": "noon"}],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(mistake))):
        Session(**mistake)
