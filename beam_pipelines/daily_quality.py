"""A day's quality in the daily batch: a row of data_quality_ts, and data docs in the lake.

data-quality/year=2026/month=11/day=20/market.html
"""

import datetime

import apache_beam as beam
import pyarrow as pa

from beam_pipelines.io.lake import WriteRefusedToLake
from beam_pipelines.io.objects import Objects
from beam_pipelines.io.postgres import Dsn
from beam_pipelines.io.tables import DATA_QUALITY
from beam_pipelines.io.timescale import WriteToTimescale
from beam_pipelines.transforms.closing_state import DAY_MS, midnight_of
from beam_pipelines.transforms.quality_day import DayQuality, JudgeDay
from beam_pipelines.transforms.quality_result import Window
from beam_pipelines.transforms.quality_suites import Suite

__all__ = ["ReportQuality"]


class ReportQuality(beam.PTransform):
    """Batches of a day's records to their quality's row and docs; gives the row.

    Args:
      suite: by what they are judged.
      day: of the records.
      lake: where the docs go.
      dsn: where the row goes; None: nowhere.
    """

    def __init__(self, suite: Suite, day: datetime.date, lake: Objects, dsn: Dsn | None) -> None:
        super().__init__()
        self._suite, self._day, self._lake, self._dsn = suite, day, lake, dsn

    def expand(self, batches: beam.PCollection) -> beam.PCollection:  # noqa: D102
        begin = midnight_of(self._day)
        judged = batches | JudgeDay(self._suite, Window(begin, begin + DAY_MS))
        rows = judged | "Docs" >> beam.Map(_documented, self._lake, self._day).with_output_types(pa.RecordBatch)
        if self._dsn:
            refused = rows | "Row" >> WriteToTimescale(DATA_QUALITY, self._dsn)
            refused | "KeepRefused" >> WriteRefusedToLake(self._lake.url)
        return rows


def _documented(found: DayQuality, lake: Objects, day: datetime.date) -> pa.RecordBatch:
    """Writes the docs, under names by which a repeat overwrites them; gives the row."""
    for name, page in found.docs.items():
        lake.write(f"data-quality/year={day:%Y}/month={day:%m}/day={day:%d}/{name}", pa.py_buffer(page))
    return found.quality
