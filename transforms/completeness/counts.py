"""Shares of a minute's records that are repeated, late or dead."""

from dataclasses import dataclass, field

from beam_pipelines.transforms.completeness.checks import MINUTE_MS, Check
from beam_pipelines.transforms.completeness.pieces import Piece
from beam_pipelines.transforms.dead_letters import by_reason

FEW = 5
"""Records of a kind that prove nothing, whatever their share of a quiet minute."""
DUPLICATE_SHARE = 0.01
"""A producer that sends again after a lost answer repeats a batch now and then; more is a feed that is read twice."""
LATE_SHARE = 0.05
"""Network disorder stays within the bound on it but for a few; more is a source that is behind the others."""
DEAD_SHARE = 0.01
"""One record in a hundred that cannot be used is more than odd prints: a format has changed."""


@dataclass
class Counts:
    """Records of the open minute."""

    records: int = 0
    valid: int = 0
    duplicates: int = 0
    late: int = 0
    dead: dict[str, int] = field(default_factory=dict)  # by reason

    def add(self, piece: Piece) -> None:
        """Takes in more records of the minute."""
        self.records += piece.records
        self.valid += len(piece.ticks)
        self.duplicates += len(piece.duplicates)
        self.late += len(piece.late)
        for reason, count in by_reason(piece.dead).items():
            self.dead[reason] = self.dead.get(reason, 0) + count

    def checks(self, minute: int) -> list[Check]:
        """Judges the minute."""
        too_late, dead = self.dead.get("too_late", 0), sum(self.dead.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dead.items()))
        return [
            _share(minute, "duplicates", self.duplicates, self.valid, DUPLICATE_SHARE, "ticks repeat an earlier one"),
            _share(
                minute,
                "late",
                self.late + too_late,
                self.valid,
                LATE_SHARE,
                f"ticks came after their bar had closed, {too_late} of them too late to correct it",
            ),
            _share(
                minute,
                "dead_letters",
                dead,
                self.records,
                DEAD_SHARE,
                "records are dead letters" + (f": {reasons}" if reasons else ""),
            ),
        ]


def _share(minute: int, name: str, count: int, total: int, threshold: float, what: str) -> Check:
    share = count / total if total else 0.0
    passed = share <= threshold or count < FEW
    return Check(minute * MINUTE_MS, name, passed, share, threshold, f"{count} of {total} {what}")
