"""Warnings as records: what was found where, what was expected, and what was done about it.

A notice stays data until a log, a sidecar or a page shows it. It is text wherever text is
expected: its one line is made here and nowhere else, and no code reads that line back.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asl_bids_app.errors import one_line


class Notice(str):
    """A warning.

    Notices are immutable, hashable and sorted as their lines are. As text, and in JSON, a notice
    is its line.

    Parameters
    ----------
    files
        The file, or the files, that it is about, as a user knows them.
    field
        The metadata key, column or property; empty if the file as a whole is meant.
    found
        What was found, in words with units. Without `expected` a whole sentence.
    expected
        What was expected; empty where nothing else could be.
    outcome
        What the program does about it, and how the user can change that; may be empty.

    Examples
    --------
    >>> notice = Notice("sub-01_asl.json", "M0Type", "nothing", "a type", "Separate is taken")
    >>> print(notice)
    sub-01_asl.json: M0Type: found nothing, expected a type; Separate is taken
    >>> notice.files, notice.outcome
    (('sub-01_asl.json',), 'Separate is taken')
    """

    __slots__ = ("expected", "field", "files", "found", "outcome")

    files: tuple[str, ...]
    field: str
    found: str
    expected: str
    outcome: str

    def __new__(
        cls,
        files: str | Path | Iterable[str],
        field: str = "",
        found: str = "",
        expected: str = "",
        outcome: str = "",
    ) -> Notice:
        """Make a notice; see the class."""
        names = (str(files),) if isinstance(files, str | Path) else tuple(files)
        notice = super().__new__(cls, words(names, field, found, expected, outcome))
        for key, value in zip(
            ("files", "field", "found", "expected", "outcome"),
            (names, field, found, expected, outcome),
            strict=True,
        ):
            object.__setattr__(notice, key, value)
        return notice

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: a notice can't be changed")

    def __reduce__(self) -> tuple[type[Notice], tuple[Any, ...]]:
        # Pickled by its fields: steps of a run hand notices on between processes.
        return Notice, (self.files, self.field, self.found, self.expected, self.outcome)

    def concerns(self, file: str) -> bool:
        """Tell whether a file is one of those that the notice is about."""
        return file in self.files


def words(files: Iterable[str], field: str, found: str, expected: str, outcome: str) -> str:
    """Return the line of a notice."""
    place = ", ".join(files)
    place = f"{place}: {field}" if field else place
    what = f"found {found}, expected {expected}" if expected else found
    return one_line(f"{place}: {what}" + (f"; {outcome}" if outcome else ""))
