"""Optional keys of a sidecar under a name that is almost theirs, which would be passed over."""

from __future__ import annotations

import difflib
from typing import Final

from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.spans import show

OPTIONAL: Final = (
    "BackgroundSuppressionNumberPulses",
    "BackgroundSuppressionPulseTime",
    "BolusCutOffTechnique",
    "LabelingEfficiency",
    "LookLocker",
    "PASLType",
    "SliceEncodingDirection",
)
"""Keys that change the quantification and may be missing; the absence of others is reported."""
OTHERS: Final = frozenset({"CASLType", "PCASLType"})
"""Keys of BIDS that look like an optional one."""
ALIKE: Final = 0.88
"""Share of letters from which a name counts as misspelt, as `difflib` counts it."""


def check_names(fields: Fields) -> None:
    """Warn of keys that are most likely meant for an optional one that is missing."""
    names = {key.casefold(): key for key in fields.file.metadata if key not in OTHERS}
    for key in OPTIONAL:
        if key in fields:
            continue
        for near in difflib.get_close_matches(key.casefold(), names, n=1, cutoff=ALIKE):
            other = names[near]
            fields.warn(other, f"{other} = {show(fields[other])}", key, "not read; rename it")
