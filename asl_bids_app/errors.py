"""The errors that users meet: one line that says where, what was found and what was expected."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final


class Cause(StrEnum):
    """What kind of failure an error is, by which reports explain it."""

    INPUT = "input"
    """The data, a sidecar or an option."""
    NOT_MODELLED = "not modelled"
    """Data as they were acquired: no sidecar puts that right."""
    NO_ASL = "no ASL"
    MEMORY = "memory"
    DISK_FULL = "disk full"
    NOT_WRITABLE = "not writable"
    GRAPHICS = "graphics card"
    IMAGE = "damaged image"
    UNFORESEEN = "unforeseen"


COMMAND_LINE: Final = "command line"
"""What an `InputError` calls the command line, which has no file."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_WORDS: Final = ("No space left on device", "Disk quota exceeded")


def one_line(text: str) -> str:
    r"""Return a text as one line that every terminal and file takes.

    Line ends and tabs become blanks; other control characters and bytes of a file name that are
    no text are written out.

    Examples
    --------
    >>> print(one_line("sub-\udcff_asl.nii\nis odd"))
    sub-\udcff_asl.nii is odd
    """

    def write_out(found: re.Match[str]) -> str:
        blank = found[0].isspace()
        return " " if blank else found[0].encode("unicode_escape").decode("ascii")

    return _CONTROL.sub(write_out, text)


def disk_full(error: BaseException | str | None) -> str:
    """Return in words that a disk is full, if that is behind an error; else an empty text.

    Parameters
    ----------
    error
        An exception, with what caused it, or a text such as a crash file.
    """
    if isinstance(error, str):
        return next((word for word in _FULL_WORDS if word in error), "")
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.strerror or _FULL_WORDS[0]
        error = error.__cause__ or error.__context__
    return ""


class AslAppError(Exception):
    """Any error of this package that is the data's or the command's, not a bug."""


class InputError(AslAppError, ValueError):
    """Bad input, reported in one line.

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
    cause
        For reports: what kind of failure it is.

    Examples
    --------
    >>> print(InputError("sub-01_asl.json", "PostLabelingDelay", "1800", "seconds",
    ...                  "divide by 1000"))
    sub-01_asl.json: PostLabelingDelay: found 1800, expected seconds. Cure: divide by 1000.
    """

    def __init__(
        self,
        file: str | Path,
        field: str,
        found: str,
        expected: str,
        cure: str = "",
        cause: Cause = Cause.INPUT,
    ) -> None:
        self.file = str(file)
        self.field = field
        self.found = found
        self.expected = expected
        self.cure = cure
        self.cause = cause
        super().__init__(self.file, field, found, expected, cure, cause)

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else self.file
        cure = f" Cure: {self.cure}." if self.cure else ""
        return one_line(f"{place}: found {self.found}, expected {self.expected}.{cure}")

    @property
    def is_usage(self) -> bool:
        """Whether the command was wrong, not the data."""
        return self.file == COMMAND_LINE


def code_of(error: AslAppError) -> int:
    """Return the exit code of a command that an error ends: 2 if it was wrong itself, else 1."""
    return 2 if isinstance(error, InputError) and error.is_usage else 1


class SeveralInputsError(InputError):
    """Several faults of one run. Its fields are those of the first.

    Parameters
    ----------
    faults
        Two or more, none of them of this class.
    """

    def __init__(self, faults: Sequence[InputError]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        super().__init__(
            first.file, first.field, first.found, first.expected, first.cure, first.cause
        )

    def __reduce__(self) -> tuple[type, tuple[tuple[InputError, ...]]]:
        return SeveralInputsError, (self.faults,)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def faults_of(error: AslAppError) -> tuple[AslAppError, ...]:
    """Return the faults that an error holds, each of one line."""
    return error.faults if isinstance(error, SeveralInputsError) else (error,)


class Faults:
    """Collects faults, so that one run reports them all.

    Examples
    --------
    >>> faults = Faults()
    >>> with faults.collect():
    ...     raise InputError("sub-01_asl.json", "M0Type", "nothing", "a type")
    >>> [fault.field for fault in faults]
    ['M0Type']
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], InputError] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[InputError]:
        return iter(self._found.values())

    def add(self, error: InputError) -> None:
        """Take a fault; what is found at one place a second time is kept once."""
        for fault in error.faults if isinstance(error, SeveralInputsError) else (error,):
            self._found.setdefault((fault.file, fault.field, fault.found), fault)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Go on after the block if a fault ends it."""
        try:
            yield
        except InputError as error:
            self.add(error)

    def check(self) -> None:
        """Raise what was collected.

        Raises
        ------
        InputError
            The one fault, or `SeveralInputsError`.
        """
        found = tuple(self)
        if len(found) == 1:
            raise found[0]
        if found:
            raise SeveralInputsError(found)
