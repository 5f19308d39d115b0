"""Percentiles of what was observed."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T", int, float)


def nearest_rank(ordered: Sequence[T], percent: str | int) -> T:
    """The smallest of these ascending values that so many percent do not exceed; exact, ``percent`` as it is written
    (``99.9``)."""
    return ordered[max(math.ceil(Fraction(percent) * len(ordered) / 100), 1) - 1]
