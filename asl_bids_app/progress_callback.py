"""How far a step has come: the step reports it by a callback, and a line on the screen shows it.

The two may be in different processes, so reports go through a small file. Only the standard
library is imported here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

OnProgress = Callable[[str, int, int], None]
"""Takes what is counted (``volume``), how many are done, and how many there are."""

EVERY_S: Final = 0.2
"""Least seconds between two reports."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report to nobody."""


class ProgressFile:
    """Writes how far a step has come into a file, and removes it at the end.

    Progress is a courtesy: a file that can't be written is no failure.

    Parameters
    ----------
    path
        Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + "~")
        self._last = float("-inf")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Write a report, unless the last one is young."""
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._last = now
            # Whole or not at all: a reader would find an empty file meanwhile.
            with suppress(OSError):
                self._new.write_text(f"{what} {done} of {total}", encoding="utf-8")
                self._new.replace(self.path)

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(self, *_: object) -> None:
        for path in (self._new, self.path):
            with suppress(OSError):
                path.unlink()


def read(path: Path) -> str:
    """Return the last word of a step; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
