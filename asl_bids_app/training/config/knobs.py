"""Settings of the training as dataclass fields that know their unit, range and meaning.

A setting is a number, a switch, or a range (low, high) that is drawn from. The configuration
reader and the guide take everything they need from the fields' metadata.
"""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any


def knob(default: Any, unit: str, low: float, high: float, text: str) -> Any:
    """Declare a setting of a frozen dataclass.

    Parameters
    ----------
    default
        A number, a switch, or a tuple (low, high) for a range that values are drawn from.
    unit
        Unit, empty for fractions, counts and switches.
    low, high
        Allowed limits of the number, or of both ends of the range.
    text
        One line for the guide.
    """
    return field(default=default, metadata={"unit": unit, "low": low, "high": high, "text": text})


def choice(default: str, options: tuple[str, ...], text: str) -> Any:
    """Declare a setting that is one of a few words."""
    return field(default=default, metadata={"unit": "", "choices": options, "text": text})


def check_knobs(config: Any) -> None:
    """Check every setting of a dataclass against its metadata.

    Raises
    ------
    ValueError
        Names the field, what was found and what was expected.
    """
    for item in fields(config):
        options = item.metadata.get("choices", ())
        if options and getattr(config, item.name) not in options:
            found = repr(getattr(config, item.name))
            raise ValueError(f"{item.name}: found {found}, expected one of {', '.join(options)}")
        if "low" not in item.metadata:
            continue
        low, high = item.metadata["low"], item.metadata["high"]
        unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
        value = getattr(config, item.name)
        ends = value if isinstance(value, tuple | list) else (value,)
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in ends)
        inside = numbers and all(low <= v <= high for v in ends)
        ordered = len(ends) == 1 or (len(ends) == 2 and numbers and ends[0] <= ends[1])
        if not (inside and ordered):
            wanted = f"{low:g} to {high:g}{unit}"
            kind = "a range (low, high) within " if isinstance(item.default, tuple) else ""
            raise ValueError(f"{item.name}: found {value!r}, expected {kind}{wanted}")
        if isinstance(item.default, tuple) != (len(ends) == 2):
            raise ValueError(f"{item.name}: found {value!r}, expected the form {item.default!r}")
