"""A full disk, reported as such, whichever program met it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from asl_bids_app.errors import disk_full

FULL: Final = (
    "the disk is full ({}). Cure: make room in the output and work folders, or give another "
    "--work-dir, and run the same command again; it goes on where it stopped."
)
SILENT: Final = "the step ended without a word (killed, or out of memory?)"
LITTLE: Final = 2_000_000
"""Bytes: with less room than this not even a crash file can be relied on."""


def why_silent(crash_file: str, *folders: Path) -> str:
    """Return why a step left no record.

    Parameters
    ----------
    crash_file
        Its path; empty if there is none.
    folders
        Where the run writes.
    """
    try:
        text = Path(crash_file).read_text(encoding="utf-8", errors="replace") if crash_file else ""
    except OSError:
        text = ""
    if words := disk_full(text):
        return FULL.format(words)
    for folder in folders:
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        if free < LITTLE:
            return FULL.format(f"{free / 1e6:.1f} MB left in {folder}")
    return SILENT
