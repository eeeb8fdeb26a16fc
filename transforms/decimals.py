"""Prices as decimals: 8 places, rounded half to even, the same in every sink."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["rounded", "split"]

Floats = NDArray[np.float64]
_UNITS = 1e8  # in one
_EXACT = 2**53 / _UNITS  # from here on the floats are further apart than the units


def split(magnitude: Floats) -> tuple[Floats, Floats]:
    """The whole part of finite numbers from 0 to 1e12, and the rest in units of 1e-8, rounded half to even.

    It is the exact binary value that is rounded, as Python's `round` does: multiplying by 1e8 can make a tie of what is
    none (or hide one), so the few products that look like ties are decided one by one.
    """
    whole = np.floor(magnitude)
    rest = magnitude - whole  # exact
    product = rest * _UNITS  # below 1e8, so it is told from a tie to eight digits behind the point
    units = np.rint(product)
    for at in np.flatnonzero(np.abs(product - units) == 0.5):
        units[at] = int(f"{rest[at]:.8f}".replace(".", ""))
    carry = units == _UNITS
    return whole + carry, np.where(carry, 0, units)


def rounded(values: Floats) -> Floats:
    """The floats nearest to `values` with 8 decimals; NaN and infinity stay."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = values * _UNITS
        units = np.rint(product)
        from_tie = np.abs(np.abs(product - units) - 0.5)
    nearest = units / _UNITS
    # What is nearer to a tie than the product may be wrong (by half of its last bit), or too large to have decimals.
    doubtful = (from_tie <= np.abs(product) * 2.0**-52) | np.isinf(product)
    if doubtful.any():
        nearest[doubtful] = _rounded_in_parts(values[doubtful])
    return nearest


def _rounded_in_parts(values: Floats) -> Floats:
    """`rounded` of what is near a tie, or large."""
    magnitude = np.abs(values)
    fine = magnitude < _EXACT
    whole, units = split(np.where(fine, magnitude, 0.0))
    return np.where(fine, np.copysign((whole * _UNITS + units) / _UNITS, values), values)
