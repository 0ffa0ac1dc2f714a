"""What the names of sequences and series, and converters' own keys, say of the labelling.

Nothing here is ever used as a value by a run: it serves to go on looking for faults where
the type of labelling is missing, and to make proposals for review. Keys of dcm2niix:
https://github.com/rordenlab/dcm2niix/blob/master/BIDS/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from asl_bids_app.protocol import Scheme

NAMED_IN: Final = (
    "ASLContrastTechnique",
    "ASLLabelingTechnique",
    "LabelingType",
    "ASLType",
    "PASLType",
    "PulseSequenceName",
    "PulseSequenceDetails",
    "SequenceName",
    "InternalPulseSequenceName",
    "ProtocolName",
    "SeriesDescription",
)
"""Keys whose text may name the labelling, the most trustworthy first."""

WORDS: Final = (
    (Scheme.VSASL, re.compile(r"vsasl|vs[-_ ]?asl|velocity.?selective|vsi\b|vss\b")),
    (Scheme.PCASL, re.compile(r"p-?casl|pseudo.?contin|pulsed.?contin|^asl$|3dasl|\bpc\b")),
    (Scheme.PASL, re.compile(r"pasl|pulsed|fair|picore|epistar|q2tips|quipss|star\b")),
    (Scheme.CASL, re.compile(r"casl|continuous")),
)
"""Words of each scheme, the first that fits wins: ``casl`` is a part of ``pcasl``."""

OWN_KEYS: Final = (
    (Scheme.PCASL, ("NumRFBlocks", "RFGap", "MeanGzx10", "TagRFFlipAngle", "MeanTagGradient")),
    (Scheme.PASL, ("SaturationStopTime", "PostInversionDelay")),
    (Scheme.PASL, ("PASLType", "BolusCutOffFlag", "BolusCutOffTechnique")),
    (Scheme.CASL, ("CASLType",)),
    (Scheme.PCASL, ("PCASLType", "LabelingDuration")),
)
"""Keys that one scheme has only, or far more often than others; the first wins."""


class Guess(NamedTuple):
    """A value that nobody gave, and what it rests on.

    Attributes
    ----------
    value
        None if it can't be guessed.
    why : str
    key : str
        The sidecar's key that it was read from; empty if it rests on something else.
    """

    value: Any
    why: str
    key: str = ""


def guess_scheme(metadata: Mapping[str, Any]) -> Guess | None:
    """Guess the labelling scheme of a run from names and converters' keys.

    Parameters
    ----------
    metadata
        The sidecar.

    Returns
    -------
    Guess or None
        Its value is a `Scheme`.

    Examples
    --------
    >>> guess_scheme({"PulseSequenceName": "tgse_pcasl"}).value
    <Scheme.PCASL: 'PCASL'>
    """
    for key in NAMED_IN:
        text = metadata.get(key)
        if not isinstance(text, str):
            continue
        for scheme, words in WORDS:
            if words.search(text.casefold()):
                return Guess(scheme, f"{key} is {text!r}")
    for scheme, keys in OWN_KEYS:
        for key in keys:
            if key in metadata:
                return Guess(scheme, f"the sidecar has {key}, a key of {scheme.value}")
    return None
