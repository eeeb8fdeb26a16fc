"""What a finished job has done, by its counters, as a table."""

import datetime
from collections import Counter

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from rich.table import Table

__all__ = ["counters_of", "daily_summary", "summary"]

_STREAMS = {
    "market": {
        "records": "records read",
        "ticks": "enriched ticks",
        "late": "  of them late",
        "duplicates": "duplicates, dropped",
        "repeated_copies": "copies written again, dropped",
        "before_begin": "ticks of days closed before, dropped",
        "bars": "bars, revisions included",
        "anomalies": "anomalies told",
    },
    "news": {
        "records": "records read",
        "articles": "articles",
        "unread": "  of them in languages that the model does not read",
        "too_old_for_windows": "  too old for windows, by symbol",
    },
}
_DEAD_LETTERS = {"dead_letter_objects": "lake files of dead letters"}
_LAKE = {
    "market": {"market_data_objects": "lake files of ticks", **_DEAD_LETTERS},
    "news": {"news_objects": "lake files of articles", **_DEAD_LETTERS},
}


def counters_of(result: beam.runners.runner.PipelineResult) -> Counter[tuple[str, str]]:
    """The job's counters by namespace and name; those of several steps are added up."""
    counters: Counter[tuple[str, str]] = Counter()
    for one in result.metrics().query(MetricsFilter())["counters"]:
        counters[one.key.metric.namespace, one.key.metric.name] += one.result
    return counters


def summary(stream: str, counters: Counter[tuple[str, str]], lake: str | None, seconds: float) -> Table:
    """A table for people: what came in, what came out, and where it is.

    Args:
      stream: market or news.
      counters: as `counters_of` gives them.
      lake: where the lake is, if there is one.
      seconds: how long the job took, s.
    """
    table = Table(title=f"{stream} stream, {seconds:.1f} s", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, label in _STREAMS[stream].items():
        table.add_row(label, f"{counters[stream, name]:,}")
    reasons = {name: count for (namespace, name), count in counters.items() if namespace == "dead_letters"}
    table.add_row("dead letters", f"{sum(reasons.values()):,}")
    for reason, count in sorted(reasons.items()):
        table.add_row(f"  {reason}", f"{count:,}")
    for label, count in _written(stream, counters, lake).items():
        table.add_row(label, f"{count:,}")
    if lake:
        table.add_row("lake", lake)
    return table


def _written(stream: str, counters: Counter[tuple[str, str]], lake: str | None) -> dict[str, int]:
    """What each sink took."""
    sent = "records_written_"
    written = {}
    for (where, name), count in sorted(counters.items()):
        if where == "kafka" and name.startswith(sent):
            written[f"messages into {name.removeprefix(sent)}"] = count
        elif where == "timescale" and name.endswith("_rows"):
            written[f"rows into {name.removesuffix('_rows')}"] = count
    files = {label: counters["lake", name] for name, label in _LAKE[stream].items()} if lake else {}
    return written | files


_DAILY = {
    "market-data": {"ticks": "ticks", "bars": "bars"},
    "news": {"articles": "articles, all versions"},
}
_REPLACED = {
    "rows_removed": "rows removed from tables",
    "rows_changed": "rows changed in tables, new ones included",
}


def daily_summary(dataset: str, counters: Counter[tuple[str, str]], day: datetime.date, seconds: float) -> Table:
    """A table for people: what a day's batch has done of a dataset, in so many seconds."""
    table = Table(title=f"daily batch of {dataset} of {day}, {seconds:.1f} s", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, label in (_DAILY[dataset] | _REPLACED).items():
        table.add_row(label, f"{counters['daily', name]:,}")
    if counters["lake", "bad_files"]:
        table.add_row("files in the lake passed over", f"{counters['lake', 'bad_files']:,}")
    return table
