"""Reading typed values from a sidecar, with the usual faults of converters named."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asl_bids_app.bids import marks
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.spans import ANY, COUSINS, SPANS, did_you_mean, show, to_number
from asl_bids_app.errors import Cause, Faults, InputError
from asl_bids_app.notices import Notice


@dataclass(frozen=True)
class Notes:
    """Conclusions, warnings and faults, collected while a run is understood."""

    warnings: list[Notice] = field(default_factory=list)
    inferred: dict[str, str] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True)
class Fields:
    """The sidecar of an image, read key by key.

    Attributes
    ----------
    file : DataFile
    notes : Notes
        Collects warnings and conclusions.
    lenient : bool
        Whether keys that BIDS requires but nothing here needs may be missing.
    """

    file: DataFile
    notes: Notes
    lenient: bool = False

    def collect(self) -> AbstractContextManager[None]:
        """Go on after a fault, which is reported with the others of the run."""
        return self.notes.faults.collect()

    def __contains__(self, key: str) -> bool:
        return key in self.file.metadata

    def __getitem__(self, key: str) -> Any:
        return self.file.metadata[key]

    def get(self, key: str) -> Any:
        """Return the raw value of a key; None if it is missing."""
        return self.file.metadata.get(key)

    def fault(self, key: str, found: str, expected: str, cure: str = "") -> InputError:
        """Return an error about a key, citing the file that holds it."""
        return InputError(self.file.cite(key), key, found, expected, cure)

    def not_modelled(self, key: str, found: str, expected: str) -> InputError:
        """Return the error that the data, as a key describes them, can't be quantified."""
        place = self.file.cite(key)
        return InputError(place, key, found, expected, cause=Cause.NOT_MODELLED)

    def warn(self, key: str, found: str, expected: str, outcome: str) -> None:
        """Note a warning about a key."""
        self.notes.warnings.append(Notice(self.file.cite(key), key, found, expected, outcome))

    def check_reviewed(self) -> None:
        """Refuse proposed values that nobody has reviewed.

        Raises
        ------
        InputError
        """
        left = marks.marked(self.file.metadata)
        if left:
            cure = f"check each against the protocol, then remove {marks.KEY}"
            raise self.fault(marks.KEY, marks.found(list(left)), marks.EXPECTED, cure)

    def missing(self, key: str, expected: str, cure: str = "") -> InputError:
        """Return the error that a key is missing, with a likely cause."""
        metadata = self.file.metadata
        cousins = [k for k in COUSINS.get(key, ()) if k in metadata]
        cousins += difflib.get_close_matches(key, metadata.keys(), n=1, cutoff=0.85)
        if not self.file.sidecars:
            return InputError(self.file.sidecar, key, "no sidecar at all", expected, cure)
        if cousins:
            value = show(metadata[cousins[0]])
            cure = f"the sidecar has {cousins[0]} = {value}: rename it to {key} if that is meant"
        return self.fault(key, "nothing", expected, cure)

    def demand(self, key: str, expected: str) -> None:
        """Require a key that BIDS requires and nothing here needs.

        Raises
        ------
        InputError
            If it is missing; a warning instead where reading is lenient.
        """
        if key in self:
            return
        if not self.lenient:
            cure = "complete the sidecar, or go on without it by --skip-bids-validation"
            raise self.missing(key, expected, cure)
        self.warn(key, "nothing", expected, "not needed here")

    def flag(self, key: str) -> bool:
        """Return a key that is true or false; it must be there."""
        expected = "true or false"
        if key not in self:
            raise self.missing(key, expected)
        return self.flag_or(key, default=False)

    def flag_or(self, key: str, *, default: bool) -> bool:
        """Return a key that is true or false, or the default if it is missing."""
        value = self.file.metadata.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, show(value), "true or false", "write it without quotes")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Return a key that is one of some words; it must be there."""
        expected = "one of " + ", ".join(choices)
        if key not in self:
            raise self.missing(key, expected)
        value = self[key]
        if value not in choices:
            raise self.fault(key, show(value), expected, did_you_mean(value, choices))
        return value

    def number(self, key: str, expected: str) -> float:
        """Return a key that is one positive number; it must be there."""
        if key not in self:
            raise self.missing(key, expected)
        values = self.numbers(key, expected)
        if len(values) != 1 or values[0] <= 0:
            raise self.fault(key, show(self[key]), expected)
        return values[0]

    def numbers(self, key: str, expected: str) -> list[float]:
        """Return a scalar or a list as a list of finite numbers, none negative.

        Raises
        ------
        InputError
            Also if a time is so long that it must be milliseconds.
        """
        value = self[key]
        values = value if isinstance(value, list) else [value]
        if not values:
            raise self.fault(key, "an empty list", expected)
        for i, each in enumerate(values):
            place = f" at position {i} (counted from 0)" if len(values) > 1 else ""
            number = to_number(each)
            if number is None:
                cure = "write numbers without quotes" if isinstance(each, str) else ""
                raise self.fault(key, f"{show(each)}{place}", expected, cure)
            if not 0 <= number < math.inf:
                raise self.fault(key, f"{number:g}{place}", f"{expected}, finite and not negative")
        read = [float(each) for each in values]
        span = SPANS.get(key, ANY)
        longest = max(read)
        if longest > span.high and span.unit == "s":
            shrunk = longest / 1000 in span
            cure = "divide by 1000: the values look like milliseconds" if shrunk else ""
            raise self.fault(key, f"{longest:g}", f"seconds, at most {span.high:g}", cure)
        for i, number in enumerate(read):
            if number not in span:
                place = f" at position {i} (counted from 0)" if len(values) > 1 else ""
                raise self.fault(key, f"{number:g}{place}", f"{expected}, {span}")
        return read

    def per_volume(self, key: str, kinds: Sequence[str], expected: str) -> np.ndarray:
        """Return one value for each volume from a scalar or a list; the key must be there.

        Parameters
        ----------
        key
            A time.
        kinds
            The volume types.
        expected
            What it is, for messages.

        Returns
        -------
        array, shape (n_volumes,)
        """
        n = len(kinds)
        if key not in self:
            raise self.missing(key, expected)
        values = self.numbers(key, expected)
        if len(values) == n:
            return np.array(values)
        if len(values) == 1:
            if isinstance(self[key], list):
                self.warn(key, "a list of one", f"a number or {n} values", "taken for all volumes")
            return np.full(n, values[0])
        raise self.fault(
            key,
            f"{len(values)} values",
            f"1 or {n}, one for each volume of the image",
            _length_cure(len(values), kinds),
        )


def _length_cure(found: int, kinds: Sequence[str]) -> str:
    calibration = sum(kind not in {"control", "label", "deltam"} for kind in kinds)
    labelled = len(kinds) - calibration
    pairs = labelled // 2 if "label" in kinds else labelled
    if calibration and found == labelled:
        return "give the m0scan volumes a value too (0 for delays and durations)"
    if found == pairs and "label" in kinds:
        return "give the value of a pair to its control and to its label"
    if found < pairs and pairs % found == 0:
        return (
            "the values look like one for each distinct delay: repeat each for every volume "
            "that it belongs to, in the order of the volumes, with 0 at m0scan"
        )
    return "give one value for each volume of the image, m0scan included"
