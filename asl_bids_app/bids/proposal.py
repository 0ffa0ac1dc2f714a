"""What a proposal is: completed sidecars and tables, with a note for each change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from asl_bids_app.bids.evidence import Evidence
from asl_bids_app.bids.guessers import GUESSERS
from asl_bids_app.bids.words import Guess
from asl_bids_app.errors import InputError

WITH: Final = MappingProxyType(
    {"BolusCutOffFlag": ("BolusCutOffTechnique", "BolusCutOffDelayTime")}
)
"""Keys that a missing one brings with it."""


@dataclass(frozen=True)
class Proposal:
    """A file to be reviewed.

    Attributes
    ----------
    path : Path
        Relative to the dataset.
    content : mapping or tuple of Guess
        Of a sidecar, or the type of each volume.
    guessed, open : tuple of str
        Keys (or rows) that were guessed, and those that nobody could guess.
    """

    path: Path
    content: Mapping[str, Any] | tuple[Guess, ...]
    guessed: tuple[str, ...]
    open: tuple[str, ...]


class Note(NamedTuple):
    """What a proposal says of a key: its value, why, and whether the key is to be filled in."""

    value: Any
    why: str
    blank: bool = False


def complete(
    evidence: Evidence, faults: Sequence[InputError]
) -> tuple[dict[str, Any], dict[str, Note]]:
    """Complete a sidecar.

    Parameters
    ----------
    evidence
        Of the run.
    faults
        Those of this sidecar.

    Returns
    -------
    dict, dict of str to Note
        The sidecar, and each key that was guessed, or (value None) couldn't be.
    """
    reported = {fault.field: fault for fault in faults}
    for key, others in WITH.items():
        if key in reported:
            reported |= {
                other: reported[key] for other in others if other not in evidence.metadata
            }
    content, notes = dict(evidence.metadata), {}
    for key in sorted(reported, key=lambda name: [*GUESSERS, name].index(name)):
        fault, given = reported[key], key in evidence.metadata
        guess = GUESSERS[key](evidence) if key in GUESSERS else None
        if guess and guess.value is not None and guess.value != content.get(key):
            notes[key] = Note(guess.value, f"guessed: {guess.why}")
        elif given:
            notes[key] = Note(None, f"to correct: found {fault.found}, expected {fault.expected}")
        else:
            why = guess.why if guess else f"not known: {fault.expected}"
            notes[key] = Note(None, why, blank=True)
        if notes[key].value is not None or not given:
            content[key] = notes[key].value
    return content, notes
