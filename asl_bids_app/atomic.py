"""The one way to write a file: complete and on the disk, or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PARTIAL: Final = ".part-"
"""How the names of unfinished files begin; BIDS tools skip hidden files."""


@contextmanager
def complete_file(path: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """Give a name to write to; rename it to `path` once it is complete and on the disk.

    A machine that stops in the midst leaves the old file or the new one, never half of one.

    Parameters
    ----------
    path
        The file. Its folder is made.
    unfinished
        Where it is written meanwhile, in the same folder; by default a name that no other
        process has.

    Yields
    ------
    Path
        A hidden file in the same folder with the same extension, which is there already.

    Raises
    ------
    OSError
        If the folder can't be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = unfinished or path.with_name(f"{PARTIAL}{uuid.uuid4().hex}-{path.name}")
    try:
        beside.touch()
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
