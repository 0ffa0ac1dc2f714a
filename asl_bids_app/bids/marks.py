"""Marks of values that were proposed and that nobody has reviewed yet: no run accepts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "ProposalToReview"
"""Key of a sidecar: an object with a note on each proposed key."""
HOW: Final = "HowTo"
"""Key of that object that says what to do; it marks nothing."""
COLUMN: Final = "proposal_to_review"
"""Column of an `aslcontext.tsv` with a note on each row."""

EXPECTED: Final = "values that somebody has checked"
INSTRUCTION: Final = (
    "Compare the value of every key that is listed here with the protocol and correct it; "
    f"give those that are null a value. Then remove {KEY}: no run uses a sidecar that has it."
)


def marked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes on proposed keys that are left in a sidecar."""
    notes = metadata.get(KEY)
    if notes is None or notes == {}:
        return {}
    if not isinstance(notes, dict):
        return {KEY: notes}
    return {key: note for key, note in notes.items() if key != HOW}


def found(names: list[str]) -> str:
    """Return what a message says it found."""
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"a proposal that nobody has reviewed ({listed})"
