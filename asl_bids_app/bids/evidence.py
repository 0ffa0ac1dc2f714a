"""What guesses rest on, and how times are read whatever their unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.spans import COUSINS
from asl_bids_app.bids.words import Guess
from asl_bids_app.errors import InputError
from asl_bids_app.schemes import Scheme

HUGE: Final = 1e12
"""No number of a sidecar is larger; NaN isn't smaller either."""


UNITS: Final = ((1.0, ""), (1e-3, "divided by 1000: "), (1e-6, "divided by a million: "))


@dataclass(frozen=True)
class Evidence:
    """What guesses rest on.

    Attributes
    ----------
    metadata : mapping
        The sidecar.
    scheme : Scheme or None
        As far as it is known.
    kinds : tuple of str
        Volume types, guessed ones included; empty if not known.
    m0_file : str
        Name of an M0 scan that can belong to the run; empty if there is none.
    brightness : float or None
        Signal of the controls as a fraction of the M0.
    """

    metadata: Mapping[str, Any]
    scheme: Scheme | None = None
    kinds: tuple[str, ...] = ()
    m0_file: str = ""
    brightness: float | None = None

    @property
    def labelled(self) -> int:
        """Number of volumes with a delay."""
        return sum(kind in {"control", "label", "deltam"} for kind in self.kinds)

    def text(self, *keys: str) -> str:
        """Return what some keys hold, in lower case."""
        return " ".join(str(self.metadata.get(key, "")) for key in keys).casefold()


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def to_numbers(value: Any) -> Any:
    """Return numbers that are written in quotes as numbers; None if there are none."""
    if isinstance(value, list):
        read = [None if isinstance(each, list) else to_numbers(each) for each in value]
        return read if read and None not in read else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_number(value) and abs(value) < HUGE else None


def guess_seconds(key: str, value: Any, said: str) -> Guess | None:
    """Guess a time from a value in seconds, milliseconds or microseconds."""
    value = to_numbers(value)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    for factor, how in UNITS:
        scaled = [round(each * factor, 9) for each in values]
        if _readable(key, scaled):
            return Guess(scaled if isinstance(value, list) else scaled[0], f"{how}{said}")
    return None


def _readable(key: str, values: list[float]) -> bool:
    """Tell whether a run would take numbers for the value of a key."""
    here = Path("sidecar.json")
    file = DataFile(
        root=Path(), path=here, entities={}, sidecars=(here,), metadata={key: values}, origin={}
    )
    try:
        Fields(file, Notes()).numbers(key, "")
    except InputError:
        return False
    return True


def spread_over_volumes(guess: Guess, evidence: Evidence) -> Guess:
    """Give each volume its value where a list has one for each pair, or none for the M0."""
    values, kinds = guess.value, evidence.kinds
    if not isinstance(values, list) or not kinds or len(values) == len(kinds):
        return guess
    if len(values) == 1:
        return guess._replace(value=values[0])
    n = evidence.labelled
    why = f"{guess.why}; 0 put in at m0scan"
    if len(values) * 2 == n and "label" in kinds:
        values, why = [v for v in values for _ in range(2)], f"{why}, each value for one pair"
    if len(values) != n:
        reported = f"not known: {guess.why}, {len(values)} values for {len(kinds)} volumes"
        return Guess(None, f"{reported}; give each volume its own", guess.key)
    rest = iter(values)
    spread = [
        next(rest) if kind in {"control", "label", "deltam"} else 0 for kind in evidence.kinds
    ]
    return Guess(spread, why, guess.key)


def guess_time(key: str, *others: str) -> Callable[[Evidence], Guess | None]:
    """Return a guesser of a time: the key's own value in another unit, or another key."""

    def guess(evidence: Evidence) -> Guess | None:
        for name in (key, *others, *(k for k in COUSINS.get(key, ()) if k not in others)):
            if name in evidence.metadata:
                value = evidence.metadata[name]
                found = guess_seconds(key, value, f"{name} = {shorten(value)}")
                if found:
                    return spread_over_volumes(found._replace(key=name), evidence)
        return None

    return guess


def shorten(value: Any) -> str:
    """Return a value as text, short enough for a remark."""
    text = str(value)
    return text if len(text) < 40 else f"{text[:37]}..."
