"""Points in time as feeds write them, as milliseconds since 1970 UTC."""

import re
from datetime import datetime, timedelta, timezone

import pyarrow as pa

__all__ = ["LAST_MS", "iso_column", "iso_ms"]

LAST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z: the last millisecond that Python and ISO 8601 can write."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_HOUR, _SIXTY = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
# spelt out, because what datetime.fromisoformat takes differs between versions of Python
_ISO_8601 = re.compile(
    rf"\d{{4}}-\d\d-\d\d(?:[T ]{_HOUR}(?::{_SIXTY}(?::{_SIXTY}(?:[.,]\d+)?)?)?(?:Z|[+-]{_HOUR}(?::?{_SIXTY})?)?)?",
    re.ASCII,
)


def iso_ms(text: str) -> int | None:
    """Milliseconds since 1970 UTC of an ISO 8601 timestamp, rounded down; None: `text` is not one.

    Takes the extended format: `2025-01-31`, then `T` or a space and hours, minutes, seconds and their fraction, of
    which the latter may be left off, then `Z` or an offset; without an offset it is UTC.
    """
    if not _ISO_8601.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # 30 February
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // _MILLISECOND


def iso_column(texts: pa.Array) -> pa.Array | None:
    """`iso_ms` of all texts at once; None: Arrow's parser, which takes only part of the shapes, does not take them."""
    for kind in (pa.timestamp("us", "UTC"), pa.timestamp("us")):  # all with an offset, all without
        try:
            micros = texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        return pa.array(micros.cast(pa.int64()).to_numpy() // 1000)  # down, also before 1970
    return None
