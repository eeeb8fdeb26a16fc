"""What happens to which figure, by rules: "costs fell" is good news, "profit fell" is not.

The rules read a text once, left to right, and name what they see as events: a direction and the figure that it moves
make one good or bad event, and so do words of judgement, signed numbers and two figures compared.  A negation or a word
such as "avoids" turns an event round.  The events are features of the model in `sentiment_model`, which weighs them.
"""

from beam_pipelines.transforms.figures import comparison
from beam_pipelines.transforms.finance_lexicon import BITS, PHRASE, lexicon

__all__ = ["POLARITY", "events_of"]

POLARITY = {
    **dict.fromkeys(("<good>", "<good!>", "<up>", "<up!>", "<better>", "<better!>", "<better cost>", "<better cost!>",
                     "<+n>", "<more>", "<not bad>"), 1),
    **dict.fromkeys(("<bad>", "<bad!>", "<down>", "<down!>", "<worse>", "<worse!>", "<worse cost>", "<worse cost!>",
                     "<-n>", "<less>", "<not good>"), -1),
}  # fmt: skip
"""The sign of each event that has one; ! stands for a strong word, "cost" for a figure that is bad when it rises."""


def _bits(*names: str) -> int:
    return sum(BITS[name] for name in names)


_RISES, _STRONG_MOVES = _bits("up", "up2", "up if"), _bits("up2", "down2")
_MOVES, _ONLY_WITH_FIGURE = _RISES | _bits("down", "down2", "down if"), _bits("up if", "down if")
_GOOD_WHEN_UP, _METRICS = _bits("metric+"), _bits("metric+", "metric-")
_GOOD, _STRONG_JUDGES = _bits("pos", "pos2"), _bits("pos2", "neg2")
_JUDGES = _GOOD | _bits("neg", "neg2")
_RATINGS = _bits("upgrade", "downgrade")
_PLAIN_EVENTS = {BITS["upgrade"]: "<good!>", BITS["downgrade"]: "<bad!>", BITS["plus"]: "<+n>", BITS["minus"]: "<-n>",
                 BITS["neutral"]: "<neutral>", BITS["hedge"]: "<hedge>"}  # fmt: skip
_PLAIN = sum(_PLAIN_EVENTS)
_BREAKS = _bits("stop", "compare", "boundary")
_STOP, _COMPARE, _BOUNDARY = BITS["stop"], BITS["compare"], BITS["boundary"]
_INTRANSITIVE, _NEGATOR, _RELIEF = BITS["intransitive"], BITS["negator"], BITS["relief"]

_FORWARD, _BACKWARD = 5, 10  # tokens: "increase of 5 % in net sales"; "profit for the first quarter of 2019 rose"
_NEAR, _ADJACENT = 4, 2
_RATING_WORDS, _FROM_WORDS = 8, 4  # "downgraded to hold from buy" names no other news; nor does "off from record highs"
_MOST_COUNTED = 3
_COUNTS = [[f"<good {good} bad {bad}>" for bad in range(_MOST_COUNTED + 1)] for good in range(_MOST_COUNTED + 1)]
_LONG_AGO = -99


def events_of(tokens: list[str], classes: list[str]) -> list[str]:
    """The events of a text, in order, by the names under which the model has their weights.

    The last ones sum up: how many are good and bad, and which came first if there are both.

    Args:
      tokens: as `tokens.tokens_of` gives them.
      classes: the same tokens as `tokens.classes_of` names them.
    """
    words, phrases = lexicon()
    reader = _Reader(tokens)
    end = 0
    for at, bits in enumerate(map(words.get, classes)):
        if bits is None or at < end:
            continue
        end = at + 1
        if bits & PHRASE:
            bits &= ~PHRASE
            known = phrases.get((classes[at], classes[end])) if end < len(classes) else None
            if known is not None:
                end, bits = _phrase_at(classes, at, known, bits)
        if bits == _STOP:
            if reader.move:
                reader.settle_move()
        elif bits:
            reader.read(at, end, bits)
    return reader.finish()


def _phrase_at(classes: list[str], at: int, known: list[tuple[list[str], int]], bits: int) -> tuple[int, int]:
    """End and classes of the longest of the `known` phrases that begins `at`, or of the word there, given its bits."""
    for rest, phrase_bits in known:
        end = at + 2 + len(rest)
        if classes[at + 2 : end] == rest:
            return end, phrase_bits
    return at + 1, bits


class _Reader:
    """What the rules remember while they read a text."""

    move, _move_at = 0, _LONG_AGO  # the direction that still looks for its figure; 2 or -2: a strong one
    _only_with_figure = False  # this direction
    _metric, _metric_at = 0, _LONG_AGO  # 1: the last figure is good when it rises, -1: bad, 0: none
    _judgement = ""  # of that figure until a direction takes it, as "loss" is bad by itself
    _bad_at = _negated = _relieved = _LONG_AGO
    _skip_to = 0  # what is said before is no news: "from a loss of 3"

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.events: list[str] = []

    def read(self, at: int, end: int, bits: int) -> None:
        """Takes in the word or phrase from `at` to `end`, given its classes."""
        if bits & _BREAKS:
            self._read_break(at, bits)
        elif at < self._skip_to and not bits & _RATINGS:
            return
        elif bits & _METRICS:
            self._read_metric(at, bits)
        elif bits & _MOVES:
            self._read_move(at, end, bits)
        elif bits & _JUDGES:
            self.events.append(self._judged(at, bits))
        elif bits & _PLAIN:
            self.events.append(_PLAIN_EVENTS[bits & _PLAIN])
        if bits & _RATINGS:
            self._skip_to = at + _RATING_WORDS
        if bits & _NEGATOR:
            self._negated = end
        if bits & _RELIEF:
            self._relieved = end

    def _read_metric(self, at: int, bits: int) -> None:
        sign = 1 if bits & _GOOD_WHEN_UP else -1
        if self.move and at - self._move_at <= _FORWARD:
            self._bind(sign)
        elif self._metric < 0 and self._metric_at == at - 1:
            sign = -1  # "loss ratio", "debt level"
        else:
            self._drop_judgement()
            if bits & _JUDGES and not (bits & _GOOD and at - self._bad_at < _NEAR):
                self._judgement = self._judged(at, bits)
        self._metric, self._metric_at = sign, at

    def _read_move(self, at: int, end: int, bits: int) -> None:
        if self.move:
            self.settle_move()
        sign = 1 if bits & _RISES else -1
        if at - self._negated < _NEAR or at - self._relieved < _ADJACENT:
            self.events.append("<negated>")
            sign = -sign
        self.move, self._move_at = (2 * sign if bits & _STRONG_MOVES else sign), end - 1
        self._only_with_figure = bool(bits & _ONLY_WITH_FIGURE)
        if end < len(self.tokens) and self.tokens[end][0].isdigit():
            self.events.append("<up n>" if sign > 0 else "<down n>")
        if bits & _INTRANSITIVE and self._metric:
            self.settle_move()

    def _read_break(self, at: int, bits: int) -> None:
        if self.move:
            self.settle_move()
        if bits & _COMPARE:
            self._read_comparison(at)
        elif bits & _BOUNDARY:
            self._drop_judgement()
            self._metric = self._skip_to = 0
            self._negated = self._relieved = _LONG_AGO

    def _read_comparison(self, at: int) -> None:
        found = comparison(self.tokens, at, self._metric)
        if found:
            event, self._skip_to = found
            self.events.append(event)
        elif self.tokens[at] == "from":
            self._skip_to = at + _FROM_WORDS

    def _judged(self, at: int, bits: int) -> str:
        good = bool(bits & _GOOD)
        if not good:
            self._bad_at = at
            if self._judgement.startswith("<good"):
                self._judgement = ""  # "growth misses forecasts"
        if at - self._negated < _NEAR or at - self._relieved < _NEAR:
            return "<not good>" if good else "<not bad>"
        return ("<good" if good else "<bad") + ("!>" if bits & _STRONG_JUDGES else ">")

    def settle_move(self) -> None:
        """Gives a direction that found no figure after it the one before it, if that is near."""
        if self._only_with_figure:
            self.move = 0
        elif self._metric and self._move_at - self._metric_at <= _BACKWARD:
            self._bind(self._metric)
        else:
            self.events.append(("<up" if self.move > 0 else "<down") + ("!>" if abs(self.move) > 1 else ">"))
            self.move = 0

    def _bind(self, sign: int) -> None:
        change = "<better" if self.move * sign > 0 else "<worse"
        self.events.append(change + ("" if sign > 0 else " cost") + ("!>" if abs(self.move) > 1 else ">"))
        self.move, self._judgement = 0, ""

    def _drop_judgement(self) -> None:
        if self._judgement:
            self.events.append(self._judgement)
            self._judgement = ""

    def finish(self) -> list[str]:
        """All events, once the text has been read."""
        if self.move:
            self.settle_move()
        self._drop_judgement()
        signs = list(map(POLARITY.get, self.events))
        good, bad = signs.count(1), signs.count(-1)
        self.events.append(_COUNTS[min(good, _MOST_COUNTED)][min(bad, _MOST_COUNTED)])
        if good and bad:
            self.events.append("<good first>" if signs.index(1) < signs.index(-1) else "<bad first>")
        return self.events
