"""How numbers that mean something special are written for readers."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """Write a time; a bolus that nothing cuts has no duration.

    Examples
    --------
    >>> seconds(1.8), seconds(float("inf"))
    ('1.8 s', 'not cut')
    """
    return f"{value:g} s" if math.isfinite(value) else "not cut"
