"""Which labelling scheme a run has, by its metadata and never by its file name.

Velocity-selective labelling is in no version of BIDS. Two forms are understood: the one that
the official validator accepts (a pulsed label whose free-text `PASLType` says that it is
velocity-selective) and the plain one (`ArterialSpinLabelingType` VSASL, VSI or VSS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from asl_bids_app.bids.fields import Fields, Notes
from asl_bids_app.bids.files import DataFile
from asl_bids_app.bids.spans import did_you_mean, show
from asl_bids_app.bids.words import guess_scheme
from asl_bids_app.errors import InputError
from asl_bids_app.scheme_fields import Module
from asl_bids_app.schemes import SCHEMES, Scheme

KEY: Final = "ArterialSpinLabelingType"
BIDS_TYPES: Final = tuple(s.value for s, info in SCHEMES.items() if info.sidecar.in_bids)
"""Values of `KEY` that BIDS has."""
ALIASES: Final = MappingProxyType(
    {
        name: scheme
        for scheme, info in SCHEMES.items()
        if not info.sidecar.in_bids
        for name in (scheme.value, *info.sidecar.aliases)
    }
)
"""Other values of `KEY` that are understood."""
SLAB_TYPES: Final = frozenset({"FAIR", "EPISTAR", "PICORE", "PULSAR", "STAR", "TILT", "UNFAIR"})
MODULES: Final = frozenset({"DRHS", "DRHT", "BIR8", "SBIR8", "FTVSI", "FTVSS"})
"""Names of velocity-selective pulse trains that don't contain the token VS."""
SATURATING: Final = MODULES - {"FTVSI"}
"""Those of them that saturate (Qin 2022, doi:10.1002/mrm.29371)."""
_NAMING: Final = ("VelocitySelectiveType", "PASLType", "ArterialSpinLabelingType", "PCASLType")
"""Keys that may name the label module, the most specific one first."""

EVIDENCE: Final = (
    "VelocitySelectiveLabeling",
    "VelocitySelectiveType",
    "LabelingCutoffVelocity",
    "LabelingCutOffVelocity",
)
"""Custom keys, tolerated by the validator, that only velocity-selective labelling has."""


def is_velocity_selective(name: object) -> bool:
    """Tell whether the name of a pulse is that of velocity-selective labelling.

    Examples
    --------
    >>> [is_velocity_selective(n) for n in ("VSI", "FT-VSI", "BIR8-VSS", "DRHS", "FAIR")]
    [True, True, True, True, False]
    """
    if not isinstance(name, str):
        return False
    tokens = [token for token in re.split(r"[^A-Z0-9]+", name.upper()) if token]
    by_name = any(token.startswith("VS") or token in MODULES for token in tokens)
    return by_name or "VELOCITYSELECTIVE" in "".join(tokens)


def label_module(metadata: Mapping[str, Any]) -> tuple[Module, str, bool] | None:
    """Tell whether a velocity-selective label inverts or saturates flowing blood.

    Parameters
    ----------
    metadata
        Sidecar of a velocity-selective run. The second module, which cuts the bolus, is named
        elsewhere and isn't looked at.

    Returns
    -------
    module : Module
    found : str
        Key and value that tell it.
    stated : bool
        Whether the value says so itself; else it is concluded from the name of a pulse train.

        None if nothing tells.

    Examples
    --------
    >>> label_module({"PASLType": "BIR8-VSS"})
    (<Module.SATURATION: 'saturation'>, 'PASLType BIR8-VSS', True)
    >>> label_module({"PASLType": "DRHS"})[2]
    False
    """
    for key in _NAMING:
        name = metadata.get(key)
        if not isinstance(name, str):
            continue
        tokens = [token for token in re.split(r"[^A-Z0-9]+", name.upper()) if token]
        joined, found = "".join(tokens), f"{key} {name}"
        if any(token.startswith(("VSS", "FTVSS")) for token in tokens) or "SATUR" in joined:
            return Module.SATURATION, found, True
        if any(token.startswith(("VSI", "FTVSI")) for token in tokens) or "INVERSION" in joined:
            return Module.INVERSION, found, True
        if any(token in SATURATING for token in tokens):
            return Module.SATURATION, found, False
    return None


def decide(fields: Fields) -> Scheme:
    """Settle the labelling scheme of a run.

    Raises
    ------
    InputError
        If the type is missing or unknown, or the keys contradict each other.
    """
    key = "ArterialSpinLabelingType"
    if key not in fields:
        guess = guess_scheme(fields.file.metadata)
        cure = f"{guess.why}: see whether the labelling is {guess.value.value}" if guess else ""
        raise fields.missing(key, "one of " + ", ".join(BIDS_TYPES), cure)
    value = fields[key]
    kind = fields.get("PASLType")
    if kind is not None and not isinstance(kind, str):
        raise fields.fault("PASLType", show(kind), "a name in quotes")
    claimed = fields.flag(EVIDENCE[0]) if EVIDENCE[0] in fields else None
    if isinstance(value, str) and (scheme := ALIASES.get(value)):
        if scheme is Scheme.VSASL:
            _alias(fields, value, kind, claimed)
        return scheme
    if value not in BIDS_TYPES:
        cure = did_you_mean(value, (*BIDS_TYPES, *ALIASES))
        if is_velocity_selective(value):
            cure = 'write "PASL" and name the pulse in PASLType'
        raise fields.fault(key, show(value), "one of " + ", ".join(BIDS_TYPES), cure)
    hints = _hints(fields, claimed)
    if value == Scheme.PASL:
        return _pulsed(fields, kind, claimed, hints)
    if is_velocity_selective(kind):
        hints.insert(0, f"PASLType {kind}")
    if hints:
        cure = f'"PASL" is for velocity-selective labelling; if it is {value}, remove the key'
        raise fields.fault(key, f"{value} with {hints[0]}", "keys of one scheme", cure)
    return Scheme(value)


def _pulsed(fields: Fields, kind: str | None, claimed: bool | None, hints: list[str]) -> Scheme:
    """Tell velocity-selective labelling in the form of PASL from that of a slab."""
    key = "PASLType"
    if is_velocity_selective(kind):
        if claimed is False:
            found = f"{kind} with {EVIDENCE[0]} false"
            raise fields.fault(key, found, "keys of one scheme")
        fields.notes.inferred["scheme"] = f"velocity-selective, by {key} {kind}"
        return Scheme.VSASL
    if hints:
        found = f"{show(kind) if kind else 'nothing'} with {hints[0]}"
        expected = "VSI, VSS or another velocity-selective type"
        raise fields.fault(key, found, expected, f"set {key}, or remove what contradicts it")
    if kind and not _is_slab(kind):
        expected = "FAIR, EPISTAR, PICORE, or VSI, VSS for velocity-selective labelling"
        fields.warn(key, show(kind), expected, "taken for pulsed labelling of a slab")
    return Scheme.PASL


def _is_slab(kind: str) -> bool:
    return bool(SLAB_TYPES & set(re.split(r"[^A-Z0-9]+", kind.upper())))


def _hints(fields: Fields, claimed: bool | None) -> list[str]:
    """List the keys that only velocity-selective labelling has."""
    hints = [f"{EVIDENCE[0]} true"] if claimed else []
    hints += [k for k in EVIDENCE[1:] if k in fields]
    technique = fields.get("BolusCutOffTechnique")
    if is_velocity_selective(technique):
        hints.append(f"BolusCutOffTechnique {technique}")
    if "PCASLType" in fields and is_velocity_selective(fields["PCASLType"]):
        hints.append(f"PCASLType {fields['PCASLType']}")
    return hints


def _alias(fields: Fields, value: str, kind: str | None, claimed: bool | None) -> None:
    key = "ArterialSpinLabelingType"
    if claimed is False or (kind and _is_slab(kind)):
        other = "VelocitySelectiveLabeling false" if claimed is False else f"PASLType {kind}"
        raise fields.fault(key, f"{value} with {other}", "keys of one scheme")
    entities = fields.file.entities
    pattern = (
        f"*acq-{entities['acq']}*"
        if "acq" in entities
        else f"{fields.file.path.name.partition('.')[0]}*"
    )
    fields.notes.inferred["scheme"] = f"velocity-selective, by ArterialSpinLabelingType {value}"
    fields.warn(
        key,
        f'"{value}"',
        f'"PASL" with "PASLType": "{value}"',
        "read as velocity-selective; the BIDS validator reports JSON_SCHEMA_VALIDATION_ERROR "
        f"(ArterialSpinLabelingType) for it, which the line {pattern} in .bidsignore silences",
    )


def demand_duration(fields: Fields) -> None:
    """Require what tells the duration of the label where the scheme is not known.

    Raises
    ------
    InputError
    """
    if "LabelingDuration" not in fields and "BolusCutOffFlag" not in fields:
        expected = "the label duration in seconds (PCASL, CASL), or BolusCutOffFlag (PASL)"
        raise fields.missing("LabelingDuration", expected)


def scheme_of(run: DataFile) -> Scheme | None:
    """Return the scheme of a run, guessed from names where its keys don't tell; None if unclear.

    For going on with a run that has faults; `decide` is for one that is used.
    """
    try:
        return decide(Fields(run, Notes()))
    except InputError:
        if run.metadata.get(KEY) in (*BIDS_TYPES, *ALIASES):
            # Keys that contradict each other: whichever is right, the other's faults are none.
            return None
        guess = guess_scheme(run.metadata)
        return guess.value if guess else None
