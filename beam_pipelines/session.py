"""What a simulated trading session is made of."""

import dataclasses

__all__ = ["Session"]

_LONGEST_MS = 31 * 86_400_000
_TICKERS = [
    "AAPL",
    "MSFT",
    "NVDA",
    "AMZN",
    "GOOGL",
    "META",
    "TSLA",
    "AVGO",
    "JPM",
    "LLY",
    "V",
    "UNH",
    "XOM",
    "MA",
    "COST",
    "HD",
    "PG",
    "JNJ",
    "WMT",
    "NFLX",
    "ABBV",
    "BAC",
    "CRM",
    "ORCL",
    "CVX",
    "KO",
    "AMD",
    "PEP",
    "TMO",
    "ADBE",
]


@dataclasses.dataclass(frozen=True)
class Session:
    """What to simulate.  Shares are of `ticks`; duplicates and bad records come on top of them.

    Attributes:
      seed: same seed and settings, same bytes.
      symbols: names, or how many.
      start_ms: event time of the opening, ms UTC; by default 9:30 in New York on 6 January 2025.
      duration_ms: length of the session, ms.
      ticks: number of distinct valid ticks.
      activity: "day", U-shaped with bursts many times as high, or "steady", as many ticks in each second.
      disorder: share that arrives up to `max_delay_ms` after later ones, within `out_of_orderness_ms`.
      max_delay_ms: most delay of those, ms.
      late: share delayed by up to `allowed_lateness_ms` more than `out_of_orderness_ms`: late if its bar has closed.
      too_late: share delayed by more than both and a minute.
      out_of_orderness_ms: the pipeline's setting, ms.
      allowed_lateness_ms: the pipeline's setting, ms.
      bad: share of bad records, of every sort in `BAD_RECORDS`.
      duplicate: share sent again, identical, within five seconds.
      tie: share that has the symbol and millisecond of the tick before.
      odd_lots: share below a round lot: volume only (`updates` 4).
    """

    seed: int = 1
    symbols: int | tuple[str, ...] = 20
    start_ms: int = 1_736_173_800_000
    duration_ms: int = 23_400_000
    ticks: int = 200_000
    activity: str = "day"
    disorder: float = 0.05
    max_delay_ms: int = 900
    late: float = 0.0
    too_late: float = 0.0
    out_of_orderness_ms: int = 1000
    allowed_lateness_ms: int = 60_000
    bad: float = 0.0
    duplicate: float = 0.0
    tie: float = 0.02
    odd_lots: float = 0.02

    def __post_init__(self) -> None:
        """Refuses what cannot be simulated.

        Raises:
          ValueError: names the field and the value.
        """
        for field in ("disorder", "late", "too_late", "bad", "duplicate", "tie", "odd_lots"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} must be a share between 0 and 1, was {getattr(self, field)}")
        if self.disorder + self.late + self.too_late > 1:
            raise ValueError("disorder, late and too_late together must be at most 1")
        for field in ("duration_ms", "ticks", "max_delay_ms"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, was {getattr(self, field)}")
        if self.activity not in ("day", "steady"):
            raise ValueError(f"activity must be day or steady, was {self.activity!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, was {self.seed}")
        if self.duration_ms > _LONGEST_MS:
            raise ValueError(f"duration_ms must be at most {_LONGEST_MS} (31 days), was {self.duration_ms}")
        if self.max_delay_ms > self.out_of_orderness_ms:
            raise ValueError(f"max_delay_ms must be at most out_of_orderness_ms, was {self.max_delay_ms}")
        if not self.names:
            raise ValueError("symbols must name or number at least one")

    @property
    def names(self) -> tuple[str, ...]:
        """The symbols, the most traded first."""
        if isinstance(self.symbols, int):
            made = (f"SIM{k}" for k in range(len(_TICKERS), self.symbols))
            return (*_TICKERS[: max(0, self.symbols)], *made)
        return self.symbols
