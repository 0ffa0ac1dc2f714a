"""What could not be done, as data: where, why, and what would cure it.

A failure keeps the fields of the error that it came from. A report words them
(`asl_bids_app.reports.explain`); nothing reads its line.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from asl_bids_app.errors import Cause, InputError, disk_full

_GRAPHICS: Final = re.compile(r"CUDA|cuDNN|no kernel image|HIP error")
"""PyTorch raises a plain RuntimeError for most faults of a graphics card: its text is all there
is."""


@dataclass(frozen=True)
class Failure:
    """Something that could not be done.

    Attributes
    ----------
    unit : str
        Series or run it concerns, as in file names.
    step : str
    message : str
        One line.
    crash_file : str
        Where the traceback is; empty if the fault is the data's.
    cause : Cause or ""
        What kind of failure it is; empty in records of version 0.1.0.
    file, field, found, expected, cure : str
        As of an `InputError`; empty where the error was another one.
    traceback : str
        The traceback itself, until it has been written to the crash file.
    """

    unit: str
    step: str
    message: str
    crash_file: str = ""
    cause: Cause | str = ""
    file: str = ""
    field: str = ""
    found: str = ""
    expected: str = ""
    cure: str = ""
    traceback: str = ""

    @classmethod
    def from_error(
        cls, unit: str, step: str, error: BaseException, message: str = "", traceback: str = ""
    ) -> Failure:
        """Return the failure that an error made.

        Parameters
        ----------
        unit, step
            What it concerns.
        error
            Its fields are kept.
        message
            The line for users; that of the error by default.
        traceback
            Of an unforeseen error.
        """
        return cls(unit, step, message or str(error), **facts_of(error), traceback=traceback)

    def to_json(self) -> dict[str, str]:
        """Return the failure for a record."""
        return {
            item.name: str(value)
            for item in fields(self)
            if item.name != "traceback"
            and ((value := getattr(self, item.name)) or item.name in _ALWAYS)
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Failure:
        """Read a failure from a record, of which any key may be missing."""
        known = {item.name for item in fields(cls)} - {"traceback"}
        texts = {k: str(v) for k, v in content.items() if k in known and v is not None}
        return cls(**{"unit": "", "step": "", "message": "", **texts})


_ALWAYS: Final = frozenset({"unit", "step", "message", "crash_file"})
"""Keys that a record has even where they are empty."""


def facts_of(error: BaseException) -> dict[str, str]:
    """Return cause and fields of an error, as a `Failure` has them."""
    facts = {"cause": str(cause_of(error))}
    if isinstance(error, InputError):
        names = ("file", "field", "found", "expected", "cure")
        facts |= {name: getattr(error, name) for name in names}
    return facts


def cause_of(error: BaseException) -> Cause:
    """Return what kind of failure an error is.

    Parameters
    ----------
    error
        With what caused it (``__cause__``, ``__context__``).
    """
    if isinstance(error, InputError):
        return error.cause
    if disk_full(error):
        return Cause.DISK_FULL
    found = (cause for each in _chain(error) for cause in _causes_of(each))
    return next(found, Cause.UNFORESEEN)


def _causes_of(error: BaseException) -> Iterator[Cause]:
    # By name: the libraries themselves are imported only where they are used.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        yield Cause.MEMORY
    if names & {"ImageFileError", "HeaderDataError", "BadGzipFile", "EOFError"}:
        yield Cause.IMAGE
    if isinstance(error, PermissionError):
        yield Cause.NOT_WRITABLE
    if isinstance(error, zlib.error):
        yield Cause.IMAGE
    if isinstance(error, RuntimeError) and _GRAPHICS.search(str(error)):
        yield Cause.GRAPHICS


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


class Status(StrEnum):
    """What became of a participant; the last two are of derivatives, not of a run."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"
    NO_ASL = "no ASL"
    MISSING = "missing"
    DAMAGED = "damaged"
