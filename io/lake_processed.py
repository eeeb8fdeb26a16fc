"""The processed lake: a day's bars, summaries and windows of news, sorted by symbol and time, in files of a size that
engines like.

    processed/market-data/date=2024-01-02/bars-60s-00000-of-00003.parquet
    processed/market-data/date=2024-01-02/summaries-00000-of-00001.parquet
    processed/news/date=2024-01-02/windows-00000-of-00001.parquet

The files of a kind hold symbols one after the other, so that a symbol is in one file; each is put whole.
"""

import bisect
import dataclasses
import datetime
from collections.abc import Iterable, Iterator

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from beam_pipelines.io.lake_objects import Written, as_parquet
from beam_pipelines.io.objects import Objects
from beam_pipelines.transforms.batches import joined
from beam_pipelines.transforms.gather import Gather

__all__ = ["ProcessedFiles", "WriteProcessed", "first_symbols"]

_MOST_ROWS = 1_000_000  # of a file: about 100 MB of bars, and 300 in the worker that sorts them


_Number = tuple[int, int]  # of a file, of how many


@dataclasses.dataclass(frozen=True)
class ProcessedFiles:
    """The files of one kind of rows of a day.

    Attributes:
      objects: the lake.
      dataset: that they are made of.
      day: of the rows.
      name: of the kind.
      time: column of event time, ms; the rows are sorted by symbol and it.
    """

    objects: Objects
    dataset: str
    day: datetime.date
    name: str
    time: str

    def folder(self) -> str:
        """Of the day, under the root."""
        return f"processed/{self.dataset}/date={self.day}"

    def write(self, number: int, files: int, batches: list[pa.RecordBatch]) -> Written:
        """Puts one file in the place of an earlier one."""
        table = pa.Table.from_batches([joined(batches)])
        symbol = table.schema.names.index("symbol")
        table = table.set_column(symbol, "symbol", table["symbol"].cast(pa.string()))
        table = table.sort_by([("symbol", "ascending"), (self.time, "ascending")])
        at = table.schema.names.index(self.time)
        table = table.set_column(at, self.time, table[self.time].cast(pa.timestamp("ms", "UTC")))
        content = as_parquet([table.combine_chunks()], "zstd", ("symbol", self.time))
        path = f"{self.folder()}/{self.name}-{number:05d}-of-{files:05d}.parquet"
        self.objects.write(path, content)
        return Written(path, len(table), content.size, final=True)

    def remove_others(self, written: Iterable[str]) -> None:
        """Removes the files of an earlier run that had more or fewer."""
        files, root = self.objects.tree()
        found = files.get_file_info(fs.FileSelector(f"{root}/{self.folder()}", allow_not_found=True))
        mine = [it.path.removeprefix(f"{root}/") for it in found if it.base_name.startswith(f"{self.name}-")]
        for path in set(mine) - set(written):
            self.objects.delete(path)


def first_symbols(counts: dict[str, int], most: int = _MOST_ROWS) -> list[str]:
    """The first symbol of each file but the first, for files of about `most` rows.

    Args:
      counts: rows of each symbol.
      most: rows after which the next symbol begins a file.
    """
    firsts, rows = [], 0
    for symbol in sorted(counts):
        if rows + counts[symbol] > most and rows:
            firsts.append(symbol)
            rows = 0
        rows += counts[symbol]
    return firsts


class WriteProcessed(beam.PTransform):
    """Record batches with a column `symbol` to `Written`: all files of one kind of a day.

    Args:
      files: what they are.
      most: rows of a file, more or less.
    """

    def __init__(self, files: ProcessedFiles, most: int = _MOST_ROWS) -> None:
        super().__init__()
        self._files, self._most = files, most

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Counts, cuts the symbols into files, writes these, and removes what an earlier run has left."""
        counts = (
            batches
            | "Symbols" >> beam.FlatMap(_counts).with_output_types(tuple[str, int])
            | "Count" >> beam.CombinePerKey(sum)
        )
        firsts = (
            batches.pipeline
            | beam.Impulse()
            | "Cut" >> beam.Map(_firsts, self._most, beam.pvalue.AsDict(counts)).with_output_types(list[str])
        )
        cut = beam.pvalue.AsSingleton(firsts)
        written = (
            batches
            | "Split" >> beam.FlatMap(_split, cut).with_output_types(tuple[_Number, pa.RecordBatch])
            | "OfFile" >> Gather(_Number)
            # No side input here: the runner would write the rows down once more before it.
            | "Write" >> beam.Map(_write, self._files).with_output_types(Written)
        )
        once = batches.pipeline | "Once" >> beam.Impulse()
        once | "RemoveOthers" >> beam.Map(_remove_others, self._files, beam.pvalue.AsIter(written))
        return written


def _counts(batch: pa.RecordBatch) -> Iterator[tuple[str, int]]:
    for it in pc.value_counts(batch["symbol"].cast(pa.string())).to_pylist():
        yield it["values"], it["counts"]


def _firsts(_: bytes, most: int, counts: dict[str, int]) -> list[str]:
    return first_symbols(counts, most)


def _split(batch: pa.RecordBatch, firsts: list[str]) -> Iterator[tuple[_Number, pa.RecordBatch]]:
    names = batch["symbol"]
    home = pa.array([bisect.bisect_right(firsts, name) for name in names.dictionary.to_pylist()], pa.int64())
    files = home.take(names.indices)
    for number in pc.unique(files).to_pylist():
        yield (number, len(firsts) + 1), batch.filter(pc.equal(files, number))


def _write(element: tuple[_Number, Iterable[pa.RecordBatch]], files: ProcessedFiles) -> Written:
    return files.write(*element[0], list(element[1]))


def _remove_others(_: bytes, files: ProcessedFiles, written: Iterable[Written]) -> None:
    files.remove_others(it.path for it in written)
