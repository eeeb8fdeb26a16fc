"""The lake, an S3 bucket or a folder of parquet objects: what writes it and what reads it."""

from beam_pipelines.io.lake_compact import CompactLake
from beam_pipelines.io.lake_read import NO_END, LakeStretch, ListByPartition, ReadFromLake, check_day, has_day
from beam_pipelines.io.lake_write import WriteDeadLettersToLake, WriteRefusedToLake, WriteToLake, check_lake

__all__ = [
    "NO_END",
    "CompactLake",
    "LakeStretch",
    "ListByPartition",
    "ReadFromLake",
    "WriteDeadLettersToLake",
    "WriteRefusedToLake",
    "WriteToLake",
    "check_day",
    "check_lake",
    "has_day",
]
