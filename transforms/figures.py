"""Two figures of a sentence compared: "EUR 5 mn, compared to EUR 4 mn", "from 4 to 5", "SEK 5 million (4)"."""

from typing import NamedTuple

from beam_pipelines.transforms.tokens import number_of

__all__ = ["comparison"]

_AFTER, _BEFORE, _IN_BRACKETS = 7, 9, 3  # tokens in which a figure is looked for
_SCALES = {
    "cent": 1e-2, "cents": 1e-2, "k": 1e3, "thousand": 1e3, "lakh": 1e5, "crore": 1e7,
    **dict.fromkeys(("m", "mn", "mln", "mio", "million"), 1e6),
    **dict.fromkeys(("b", "bn", "bln", "billion"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion"), 1e12),
}  # fmt: skip
_CURRENCIES = frozenset(("eur", "usd", "gbp", "sek", "nok", "dkk", "rs", "inr"))
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
_LOSS, _PROFIT = frozenset(("loss", "losses")), frozenset(("profit", "earnings", "income"))


class _Figure(NamedTuple):
    value: float
    scale: float  # 0: none is named
    at: int
    is_percentage: bool


def comparison(tokens: list[str], at: int, metric: int) -> tuple[str, int] | None:
    """The event, <more>, <less> or <same>, and where the earlier figure stands; None: no two figures are compared.

    <more> is good: more profit or less loss.

    Args:
      tokens: of the text.
      at: where "from", "compared", "versus", "than" or an opening bracket stands.
      metric: 1: the figure is good when it rises, -1: bad, 0: unknown.
    """
    in_brackets = tokens[at] == "("
    prior = _first_figure(tokens, range(at + 1, at + 1 + (_IN_BRACKETS if in_brackets else _AFTER)))
    if prior is None or (in_brackets and not (metric and tokens[at + 1][0].isdigit())):
        return None  # "EUR 5 mn (USD 7 mn)" is a conversion
    current = _current(tokens, at, prior)
    if current is None or current.is_percentage != prior.is_percentage:
        return None
    change = _change(current, prior) * (metric or 1)
    named = frozenset(tokens[at : prior.at])
    if metric < 0 and named & _PROFIT:
        change = -1.0
    elif metric > 0 and named & _LOSS:
        change = 1.0
    return "<more>" if change > 0 else "<less>" if change < 0 else "<same>", prior.at


def _change(current: _Figure, prior: _Figure) -> float:
    scales = [figure.scale or 1.0 for figure in (current, prior)]
    if not (current.scale and prior.scale) and max(scales) > 1:
        scales = [1.0, 1.0]  # "SEK 5 million (4)"
    return current.value * scales[0] - prior.value * scales[1]


def _current(tokens: list[str], at: int, prior: _Figure) -> _Figure | None:
    """The figure that `prior` is compared with: before `at`, or after "to" in "from 4 to 5"."""
    following = tokens[prior.at + 1 : prior.at + 4]
    if tokens[at] == "from" and "to" in following:
        to = prior.at + 1 + following.index("to")
        found = _first_figure(tokens, range(to + 1, to + 4))
        if found:
            return found
    return _first_figure(tokens, range(at - 1, max(at - 1 - _BEFORE, -1), -1))


def _first_figure(tokens: list[str], places: range) -> _Figure | None:
    """The first figure that stands at one of `places` and is not a year."""
    for at in places:
        value = number_of(tokens[at]) if at < len(tokens) else None
        if value is None:
            continue
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        is_money = after in _SCALES or (at > 0 and tokens[at - 1] in _CURRENCIES)
        if is_money or not _FIRST_YEAR <= value <= _LAST_YEAR:
            return _Figure(value, _SCALES.get(after, 0.0), at, after == "%")
    return None
