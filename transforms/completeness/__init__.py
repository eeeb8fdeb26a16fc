"""Whether the records of a partition are complete and what they used to be, judged a minute of the log at a time.

A minute is one of the partition's Kafka time, the highest timestamp of a record so far.  When the first record of a
later minute comes, the minute is over and gives its `Check`s.  Everything counted is an integer, and every running
estimate moves only when a minute ends, so checks are a function of the log: equal for every split into batches.

Most of the work a batch is one numbering of its symbols; the rest are sums by number.  What is remembered is bounded
whatever the records say: numbers of symbols, sources and fields have limits, and what is known longest stays.
"""

from beam_pipelines.transforms.completeness.checks import CHECKS, MINUTE_MS, Check
from beam_pipelines.transforms.completeness.state import Completeness

__all__ = ["CHECKS", "MINUTE_MS", "Check", "Completeness"]
