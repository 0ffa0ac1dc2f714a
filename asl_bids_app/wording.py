"""How values that stand in many places are written for readers."""

from __future__ import annotations

import math
from collections.abc import Mapping


def seconds(value: float) -> str:
    """Write a time; a bolus that nothing cuts has no duration.

    Examples
    --------
    >>> seconds(1.8), seconds(float("inf"))
    ('1.8 s', 'not cut')
    """
    return f"{value:g} s" if math.isfinite(value) else "not cut"


def title_of(entities: Mapping[str, str]) -> str:
    """Write entities as a file name has them.

    Examples
    --------
    >>> title_of({"sub": "01", "acq": "pcasl"})
    'sub-01_acq-pcasl'
    """
    return "_".join(f"{key}-{value}" for key, value in entities.items())
