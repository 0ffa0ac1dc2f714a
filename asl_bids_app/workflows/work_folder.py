"""How much a run leaves in the work folder, and what of it stays there."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asl_bids_app.workflows.plan import ParticipantPlan

LOG = logging.getLogger("asl-app")

SERIES_BYTES: Final = 2_000_000
"""What a series leaves however small it is."""
TIMES_GZIP: Final = 6
TIMES_PLAIN: Final = 4
"""And how many times the size of its images, compressed or not: measured, rounded up."""
SERIES_FILES: Final = 100
"""Files and folders of a series: measured, rounded up."""
SHARE: Final = 0.5
"""Of the room on the disk, what intermediate results may take before they are removed: others
write there too, the output folder among them."""
BLOCK: Final = 40
BLOCK_PER_PROCESSOR: Final = 10
"""Participants of one nipype workflow. It takes longer to look for its next step the larger it
is; with few of them processors would wait for the last participant too often."""


@dataclass(frozen=True)
class Room:
    """Bytes and files, needed or free; None for a file system that doesn't count files."""

    size: int
    files: int | None

    def __str__(self) -> str:
        files = "" if self.files is None else f" in {self.files:,} files"
        return f"{size_in_words(self.size)}{files}"


def size_in_words(size: float) -> str:
    """Return bytes as people write them.

    Examples
    --------
    >>> size_in_words(31_400_000_000)
    '31 GB'
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return (
                f"{size / factor:.2g} {unit}"
                if size < 10 * factor
                else f"{size / factor:.0f} {unit}"
            )
    return f"{size / 1e3:.0f} kB"


def needed(participants: Iterable[ParticipantPlan]) -> Room:
    """Estimate what participants leave in the work folder if nothing is removed."""
    size = files = 0
    for participant in participants:
        for unit in participant.units:
            size, files = size + SERIES_BYTES, files + SERIES_FILES
            for run in unit.runs:
                path = run.acquisition.path
                times = TIMES_GZIP if path.suffix == ".gz" else TIMES_PLAIN
                try:
                    size += times * path.stat().st_size
                except OSError:
                    continue
    return Room(size, files)


def free(folder: Path) -> Room:
    """Return what is left on the disk of a folder. Quotas are not seen."""
    while not folder.exists():
        folder = folder.parent
    state = os.statvfs(folder)
    files = state.f_favail if state.f_files else None
    return Room(state.f_frsize * state.f_bavail, files)


def decide(work_dir: Path, participants: Sequence[ParticipantPlan], keep_work: str) -> bool:
    """Decide whether intermediate results of complete participants stay, and log it.

    Parameters
    ----------
    work_dir
        Work folder.
    participants
        All of the run.
    keep_work
        ``all``, ``failed`` or ``auto``, which keeps them as long as there is room for all.

    Returns
    -------
    bool
    """
    need, left = needed(participants), free(work_dir)
    fits = need.size <= SHARE * left.size
    if need.files is not None and left.files is not None:
        fits = fits and need.files <= SHARE * left.files
    keep = {"all": True, "failed": False}.get(keep_work, fits)
    stays = (
        "kept, so that a second run goes on from them"
        if keep
        else "removed of each participant who is complete, kept of the others"
    )
    LOG.log(
        logging.INFO if len(participants) > 1 else logging.DEBUG,
        "work folder %s: about %s for %d participants; free: %s; %s (--keep-work %s)",
        work_dir,
        need,
        len(participants),
        left,
        stays,
        keep_work,
    )
    return keep


def tidy(work_dir: Path, labels: Iterable[str]) -> None:
    """Remove the intermediate results of participants who are complete."""
    from asl_bids_app.workflows.graph import participant_folders

    for label in labels:
        for folder in participant_folders(work_dir, label):
            shutil.rmtree(folder, ignore_errors=True)


def blocks(
    participants: Sequence[ParticipantPlan], nprocs: int, *, together: bool
) -> list[Sequence[ParticipantPlan]]:
    """Divide participants into those that one workflow takes at a time.

    Records and reports of a block are written, and its part of the work folder removed, before
    the next one begins; a run that is killed loses those of one block only.

    Parameters
    ----------
    participants
        All of the run.
    nprocs
        Its processors.
    together
        All participants in one workflow.
    """
    size = len(participants) if together else max(BLOCK, BLOCK_PER_PROCESSOR * nprocs)
    starts = range(0, len(participants), max(size, 1))
    return [participants[start : start + size] for start in starts] or [()]
