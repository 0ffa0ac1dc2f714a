"""The errors that users meet: one line that says where, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path


class AslAppError(Exception):
    """Any error of this package that is the data's or the command's, not a bug."""


class InputError(AslAppError, ValueError):
    """Bad input, told in one line.

    Parameters
    ----------
    file
        The file at fault (or "command line").
    field
        The metadata key, column, axis or option at fault; empty if the file as a whole is.
    found, expected
        In words, with units.
    cure
        What would most likely put it right; empty if unknown.

    Examples
    --------
    >>> print(InputError("sub-01_asl.json", "PostLabelingDelay", "1800", "seconds",
    ...                  "divide by 1000"))
    sub-01_asl.json: PostLabelingDelay: found 1800, expected seconds. Cure: divide by 1000.
    """

    def __init__(
        self, file: str | Path, field: str, found: str, expected: str, cure: str = ""
    ) -> None:
        self.file = str(file)
        self.field = field
        self.found = found
        self.expected = expected
        self.cure = cure
        super().__init__(self.file, field, found, expected, cure)

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else self.file
        cure = f" Cure: {self.cure}." if self.cure else ""
        return f"{place}: found {self.found}, expected {self.expected}.{cure}"
