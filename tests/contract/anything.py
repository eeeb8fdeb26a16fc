"""Bytes that nobody expects in a topic of ticks."""

import json
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MB = 1_000_000
_TICK = {"symbol": "ODD", "timestamp": 1_736_173_800_000, "price": 10.5, "volume": 100}

ZOO: list[bytes | None] = [
    None,
    b"",
    b"\0",
    b"\xef\xbb\xbf{}",
    bytes(range(256)),
    b"\xff" * MB,
    b"x" * MB,
    b'"' + b"a" * MB + b'"',
    b"[" * MB,
    b"[" * 500_000 + b"]" * 500_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"9" * MB,
    b"-1e" + b"9" * 5_000,
    b'{"symbol":"' + b"A" * MB + b'","timestamp":1,"price":1,"volume":1}',
    b'{"symbol":"A","timestamp":1,"price":' + b"9" * 400 + b',"volume":1}',
    b'{"symbol":"A","timestamp":1,"price":1,"volume":' + b"9" * 5_000 + b"}",
    b'{"symbol":"A","timestamp":' + b"9" * 100_000 + b',"price":1,"volume":1}',
    b'{"symbol":"\\ud800","timestamp":1,"price":1,"volume":1}',
    b'{"symbol":"A\\u0000B","timestamp":1,"price":1,"volume":1}',
    b'{"symbol":"A","timestamp":1,"price":1,"volume":1}\n{"symbol":"A","timestamp":1,"price":1,"volume":1}',
]
"""Bad records that have broken such systems."""


def tick(**fields: Any) -> bytes:
    return json.dumps({**_TICK, **fields}).encode()


EXTREMES = [
    tick(price=1.7e308, symbol="HUGE"),
    tick(price=1.7e308, symbol="HUGE", volume=2**63 - 1, seq=1),
    tick(price=10.0, symbol="HUGE", volume=2**63 - 1, seq=2),
    tick(price=5e-324, symbol="TINY"),
    tick(price=1e-9, symbol="TINY", seq=1),
    tick(bid=1e300, ask=0, bid_size=2**63 - 1, ask_size=0, seq=-(2**63)),
    tick(seq=2**63 - 1, source="s" * 100),
    tick(symbol="\N{GRINNING FACE}" * 20),
    tick(symbol="ß" * 10),
    tick(symbol="'; DROP TABLE market_data_ts; --"[:20]),
    tick(symbol="A/../../B"),
    tick(symbol="\\N"),
    tick(source="\t\\.\N{SNOWMAN}".strip()),
    tick(timestamp=0, symbol="OLD"),
    tick(timestamp="1970-01-01T00:00:00+00:00", symbol="OLD"),
    tick(timestamp=str(_TICK["timestamp"]), price=" 10.5 ", volume="1e2", symbol=" odd "),
    tick(ballast="b" * MB, symbol="LONG"),
    tick(updates=0, symbol="NONE"),
]
"""Records that may be ticks, at the ends of what they may be."""

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = ["symbol", "timestamp", "price", "volume", "bid", "ask", "bid_size", "ask_size", "seq", "source", "updates"]
_ODD_TICKS = st.dictionaries(st.sampled_from(_FIELDS), _JSON, min_size=1, max_size=3).map(lambda odd: tick(**odd))


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    good = tick()
    at = draw(st.integers(0, len(good) - 1))
    return good[:at] + draw(st.binary(max_size=4)) + good[at + draw(st.integers(0, 4)) :]


def drawn(count: int) -> list[bytes]:
    """Different byte strings, JSON values, odd and damaged ticks: the same ones each time."""
    found: dict[bytes, None] = {}

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()) | _ODD_TICKS | _damaged())
    def keep(value: bytes) -> None:
        found[value] = None

    keep()
    return list(found)
