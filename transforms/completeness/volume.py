"""How many records a minute has, against what is usual at its time."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_pipelines.transforms.completeness.checks import MINUTE_MS, Check

Floats = NDArray[np.float64]

_SLOT_MINUTES = 15  # exchanges open and close at quarters of an hour, in every time zone
_DAY_SLOTS = 24 * 60 // _SLOT_MINUTES
_WEEK_SLOTS = 7 * _DAY_SLOTS
_RUNNING = _WEEK_SLOTS + _DAY_SLOTS
LEVELS = _RUNNING + 1
"""Rows of `Volume.levels`."""
_MONDAY = 4 * 1440  # the first Monday of Unix time, minutes
_WARM_MINUTES = 30
_LONGEST_GAP = 1440  # minutes without records that are told one by one
FACTOR = 3.0
"""Minutes differ from their neighbours by less in every market but at the open, which is known by the time of week."""
DEVIATIONS = 6.0
"""Mean absolute deviations that are far, of logarithms: about 5 standard deviations."""
QUIET_RECORDS = 20.0
"""Records a minute that are not many, even where none are usual."""


class Level(NamedTuple):
    """A running mean and mean absolute deviation of log(1 + records a minute)."""

    minutes: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def bounds(self) -> tuple[float, float]:
        """What is usual, from and to, records."""
        width = max(math.log(FACTOR), DEVIATIONS * self.deviation)
        return math.expm1(max(self.mean - width, 0.0)), max(math.expm1(self.mean + width), QUIET_RECORDS)

    def moved(self, records: int, memory: int) -> "Level":
        """After one more minute, with a memory of so many."""
        value = math.log1p(records)
        if not self.minutes:
            return Level(1, value, 0.0)
        off, weight = value - self.mean, 1.0 / min(self.minutes + 1, memory)
        return Level(self.minutes + 1, self.mean + weight * off, self.deviation + weight * (abs(off) - self.deviation))


class Volume:
    """Records a minute, against the same quarter of an hour of earlier weeks.

    In the first week, against that of earlier days and against the last half hour: what is usual by either is so.
    A level learns what is usual by it.  Unusual minutes in a row make a second level, which is usual beside the first
    when they are a quarter of an hour, and in its place when they are as many as it remembers: so a change that stays
    is told for a quarter of an hour, once in every slot that is known, and the week after a holiday is as usual.

    Args:
      levels: of each quarter of an hour of the week, of those of any day, and of the last minutes: a `Level`, and one
        of the unusual minutes in a row, [769, 6].
    """

    def __init__(self, levels: Floats | None = None) -> None:
        self.levels: Floats = np.zeros((LEVELS, 6)) if levels is None else levels

    def copy(self) -> "Volume":
        """One that learns apart from this."""
        return Volume(self.levels.copy())

    def close(self, minute: int, records: int) -> Check:
        """Judges a minute and learns it."""
        slot = (minute - _MONDAY) // _SLOT_MINUTES % _WEEK_SLOTS
        check = self._judged(minute, records, slot)
        self._learn(slot, records, 4 * _SLOT_MINUTES)  # the last four weeks
        self._learn(_day_slot(slot), records, 4 * _SLOT_MINUTES)
        self._learn(_RUNNING, records, _WARM_MINUTES)
        return check

    def pass_over(self, first: int, following: int) -> list[Check]:
        """The minutes from `first` before `following`, which have no records: those that fail.

        Of a gap the first day is told, and the first week learnt.
        """
        minutes = range(first, min(following, first + 7 * 1440))
        checks = [self.close(minute, 0) for minute in minutes]
        return [check for check in checks[:_LONGEST_GAP] if not check.passed]

    def _both(self, at: int) -> tuple[Level, Level]:
        minutes, mean, deviation, unusual_minutes, unusual_mean, unusual_deviation = self.levels[at].tolist()
        return Level(int(minutes), mean, deviation), Level(int(unusual_minutes), unusual_mean, unusual_deviation)

    def _learn(self, at: int, records: int, memory: int) -> None:
        level, unusual = self._both(at)
        low, high = level.bounds()
        if low <= records <= high or level.minutes < _SLOT_MINUTES:
            level, unusual = level.moved(records, memory), Level()
        else:
            unusual = unusual.moved(records, memory)
            if unusual.minutes == memory:
                level, unusual = unusual, Level()
        self.levels[at] = *level, *unusual

    def _levels(self, slot: int) -> list[Level]:
        """What may be usual in a slot of the week.

        Also what is so an hour earlier or later, because the clocks of exchanges change and those of logs do not.
        """
        hour = 60 // _SLOT_MINUTES
        own = self._both(slot)
        if _is_known(own[0]):
            near = [self._both(at % _WEEK_SLOTS)[0] for at in (slot - hour, slot + hour)]
            return list(filter(_is_known, [*own, *near]))
        running = self._both(_RUNNING) if self.levels[_RUNNING, 0] >= _WARM_MINUTES else ()
        return list(filter(_is_known, [*running, *self._both(_day_slot(slot))]))

    def _judged(self, minute: int, records: int, slot: int) -> Check:
        levels = self._levels(slot)
        start, name = minute * MINUTE_MS, "volume"
        if not levels:
            return Check(start, name, True, records, 0.0, f"{records} records, it is not known yet how many are usual")
        fitting = [level for level in levels if level.bounds()[0] <= records <= level.bounds()[1]]
        level = [*fitting, *levels][0]
        low, high = level.bounds()
        usual = f"{math.expm1(level.mean):.0f} are usual ({low:.0f} to {high:.0f})"
        return Check(
            start, name, bool(fitting), records, high if records > high else low, f"{records} records, {usual}"
        )


def _day_slot(slot: int) -> int:
    """The slot of any day, of one of the week."""
    return _WEEK_SLOTS + slot % _DAY_SLOTS


def _is_known(level: Level) -> bool:
    """Whether a level is of a whole slot, so of an earlier week or day."""
    return level.minutes >= _SLOT_MINUTES
