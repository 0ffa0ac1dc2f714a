"""Warnings as records: what was found where, what was expected, and what was done about it.

A notice stays data until a log, a sidecar or a page shows it. It is text wherever text is
expected: its one line is made here and nowhere else, and no code reads that line back.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from asl_bids_app.errors import InputError, one_line


class Notice(str):
    """A warning.

    Notices are immutable, hashable and sorted as their lines are. As text, and in JSON, a notice
    is its line.

    Parameters
    ----------
    files
        The file, or the files, that it is about, as a user knows them; none where it is about
        maps, which have no name yet.
    field
        The metadata key, column or property; empty if the file as a whole is meant. Without a
        file it is not written: what was found names it.
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
    >>> print(Notice((), "ATT", "ATT comes from a prior", outcome="CBF depends on it"))
    ATT comes from a prior; CBF depends on it
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
        *,
        line: str = "",
    ) -> Notice:
        """Make a notice; see the class. `line` is its text where another page has worded it."""
        names = (str(files),) if isinstance(files, str | Path) else tuple(files)
        line = line or words(names, field, found, expected, outcome)
        notice = super().__new__(cls, line)
        for key, value in zip(
            ("files", "field", "found", "expected", "outcome"),
            (names, field, found, expected, outcome),
            strict=True,
        ):
            object.__setattr__(notice, key, value)
        return notice

    @classmethod
    def from_error(cls, error: Exception, result: str = "") -> Notice:
        """Return the warning that an error becomes where the rest goes on without it.

        Parameters
        ----------
        error
            Its line stays as it is, and so do the fields of an `InputError`.
        result
            What is missing for that reason; it is put in front.
        """
        line = f"{result}: {error}" if result else str(error)
        if isinstance(error, InputError):
            fields = (error.file, error.field, error.found, error.expected, error.cure)
            return cls(*fields, line=line)
        return cls((), "", line)

    def about(self, name: str) -> Notice:
        """Return the notice with the name of a file or series, unless it names a file already."""
        if self.files or not name:
            return self
        return Notice(name, "", self.found, self.expected, self.outcome)

    def with_outcome(self, outcome: str) -> Notice:
        """Return the notice with a further outcome; as it is if that is empty."""
        if not outcome:
            return self
        outcome = "; ".join(filter(None, (self.outcome, outcome)))
        return Notice(self.files, self.field, self.found, self.expected, outcome)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: a notice can't be changed")

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # Pickled by its fields: steps of a run hand notices on between processes.
        fields = (self.files, self.field, self.found, self.expected, self.outcome)
        return partial(Notice, line=str(self)), fields

    def concerns(self, file: str) -> bool:
        """Tell whether the notice is about a file."""
        return file in self.files


def words(files: Iterable[str], field: str, found: str, expected: str, outcome: str) -> str:
    """Return the line of a notice."""
    place = ", ".join(files)
    place = f"{place}: {field}" if place and field else place
    what = f"found {found}, expected {expected}" if expected else found
    text = f"{place}: {what}" if place else what
    return one_line(text + (f"; {outcome}" if outcome else ""))
