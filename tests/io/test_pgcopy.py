"""Binary COPY: numbers on the wire."""

import decimal
import struct

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_pipelines.io import pgcopy
from beam_pipelines.io.pgcopy import binary_copy, numeric

EIGHT = decimal.Decimal("1e-8")
EXACT = decimal.Context(prec=1000)


def decoded(wire: np.ndarray) -> decimal.Decimal:
    """What numeric_recv makes of one value."""
    assert wire["ndigits"] == len(wire["digits"])
    digits = [decimal.Decimal(int(digit)) for digit in wire["digits"]]
    assert all(0 <= digit < 10_000 for digit in digits)
    weight = int(wire["weight"])
    value = sum(digit * decimal.Decimal(10_000) ** (weight - at) for at, digit in enumerate(digits))
    return -value if wire["sign"] == 0x4000 else value


@given(st.floats(-999_999_999_999, 999_999_999_999, allow_nan=False))
@example(2.0**-9)  # 0.001953125: a tie, to even
@example(3 * 2.0**-9)  # 0.005859375: a tie, to even
@example(0.123456785)  # no tie in binary, though its product with 1e8 is one
@example(0.99999999999)
@example(123456789.123456789)
@example(-0.0)
def test_rounds_the_exact_value_half_to_even(value: float) -> None:
    expected = decimal.Decimal(value).quantize(EIGHT, decimal.ROUND_HALF_EVEN, EXACT)
    assert decoded(numeric(np.array([value]))[0]) == expected


@given(st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 0.5, 20_000.0, 1e-8, 1e13]), max_size=5))
def test_values_beside_each_other_are_what_they_are_alone(values: list[float]) -> None:
    together = [decoded(it) for it in numeric(np.array(values, np.float64))]
    assert together == [decoded(numeric(np.array([value]))[0]) for value in values]


def test_prices_take_no_more_digits_than_they_have() -> None:
    assert numeric(np.array([9_999.25, 0.5])).dtype["digits"].shape == (2,)


@pytest.mark.parametrize("value", [1e12, -1e12, 1e300])
def test_what_numeric_cannot_hold_is_sent_as_what_the_server_refuses(value: float) -> None:
    assert abs(decoded(numeric(np.array([value]))[0])) == 10**12


def test_nulls_take_no_place() -> None:
    columns = [
        ("bigint", pa.array([1, None])),
        ("text", pa.array([None, "é"])),
        ("double precision", pa.array([None, float("nan")])),
        ("boolean", pa.array([None, True])),
    ]
    order, pieces = binary_copy(columns)
    first = struct.pack(">hiqiii", 4, 8, 1, -1, -1, -1)
    second = struct.pack(">hiiibi", 4, -1, -1, 1, 1, 2) + "é".encode()
    assert order == [0, 2, 3, 1]
    assert b"".join(pieces)[19:] == first + second + b"\xff\xff"


def test_rows_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [
        ("text", pa.array(["a", None, "bc", "", "d"])),
        ("bigint", pa.array([1, 2, None, None, 5])),  # null in all rows of a part, in none and in some
        ("double precision", pa.array([0.5, float("inf"), 1.5, 2.5, None])),
    ]
    order, pieces = binary_copy(columns)
    at_once = b"".join(pieces)
    monkeypatch.setattr(pgcopy, "_ROWS", 2)
    assert binary_copy(columns)[0] == order
    assert b"".join(binary_copy(columns)[1]) == at_once


def test_no_rows_are_a_header_and_a_trailer() -> None:
    _, pieces = binary_copy([("bigint", pa.array([], pa.int64())), ("text", pa.array([], pa.string()))])
    assert len(b"".join(pieces)) == 21


LISTS = [["AAPL", "BRK.B"], [], None, ['"é",{}', ""]]
DOUBLES = [[0.1, None, -2.5], [], None, [1e300]]
IDS = ["123e4567-e89b-12d3-a456-426614174000", None, "00000000-0000-0000-0000-000000000001", None]


@pytest.mark.servers
def test_arrays_and_uuids_arrive_as_they_were(postgres_dsn: str) -> None:
    columns = [
        ("text[]", pa.array(LISTS, pa.list_(pa.string()))),
        ("double precision[]", pa.array(DOUBLES, pa.list_(pa.float64()))),
        ("numeric(5,4)", pa.array([0.12344999, -1.0, None, 0.5])),
        ("uuid", pa.array(IDS, pa.string())),
    ]
    order, pieces = binary_copy(columns)
    names = ", ".join(f"c{at}" for at in order)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE TABLE t (c0 text[], c1 double precision[], c2 numeric(5,4), c3 uuid)")
        with connection.cursor().copy(f"COPY t ({names}) FROM STDIN (FORMAT binary)") as copy:
            for piece in pieces:
                copy.write(piece)
        rows = connection.execute("SELECT c0, c1, c2::text, c3::text FROM t").fetchall()
    assert rows == list(zip(LISTS, DOUBLES, ["0.1234", "-1.0000", None, "0.5000"], IDS, strict=True))
