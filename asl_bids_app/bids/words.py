"""What the names of sequences and series, and converters' own keys, say of the labelling.

Nothing here is ever used as a value by a run: it serves to go on looking for faults where
the type of labelling is missing, and to make proposals for review. Keys of dcm2niix:
https://github.com/rordenlab/dcm2niix/blob/master/BIDS/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from asl_bids_app.schemes import SCHEMES

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

_RANKED: Final = tuple(sorted(SCHEMES, key=lambda scheme: -SCHEMES[scheme].sidecar.priority))
WORDS: Final = tuple((s, re.compile(SCHEMES[s].sidecar.words)) for s in _RANKED)
"""Words of each scheme, the first that fits wins."""
OWN_KEYS: Final = (
    *((scheme, SCHEMES[scheme].sidecar.own_keys) for scheme in _RANKED),
    *((scheme, SCHEMES[scheme].sidecar.likely_keys) for scheme in _RANKED),
)
"""Keys that one scheme has only, then those that it has far more often; the first wins."""


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
