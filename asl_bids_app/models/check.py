"""What a model folder may say, entry by entry: types and ranges, before anything is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.schemes import Scheme

if TYPE_CHECKING:
    from asl_bids_app.models.spec import ModelSpec

KINDS: Final = MappingProxyType(
    {
        **dict.fromkeys(("name", "version", "network", "licence", "intended_use"), (str, "text")),
        **dict.fromkeys(
            (
                "arguments",
                "standardisation",
                "calibration",
                "coherence",
                "metrics",
                "training",
                "files",
            ),
            (Mapping, "an object {...}"),
        ),
        "channels": (list, "a list"),
        "domain": ((Mapping, type(None)), "an object {...} or null"),
    }
)
"""The type of each entry of ``model.json``."""


def check_types(content: Mapping[str, Any], file: Path) -> None:
    """Check the type of every entry that is there.

    Raises
    ------
    InputError
        Names the first one that is of another type.
    """
    for key, (kind, words) in KINDS.items():
        if key in content and not isinstance(content[key], kind):  # type: ignore[arg-type]
            raise InputError(file, key, _shown(content[key]), words)
    for name, digest in content.get("files", {}).items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise InputError(file, "files", _shown(name), "files inside the model's folder")
        if not isinstance(digest, str):
            raise InputError(file, f"files: {name}", _shown(digest), "a SHA-256 as text")


def check_values(spec: ModelSpec, file: Path) -> None:
    """Check the ranges of the domain, the schemes, and that the calibration can be computed.

    Raises
    ------
    InputError
    """
    known = [scheme.value for scheme in Scheme]
    domain = spec.domain
    names: list[tuple[str, Any]] = [("channels", channel.scheme) for channel in spec.channels]
    if domain is not None:
        names += [("domain: schemes", name) for name in domain.schemes]
        names += [("domain: combinations", name) for each in domain.combinations for name in each]
        for name, scheme in domain.schemes.items():
            for key, ends in vars(scheme).items():
                _check_range(ends, f"domain: schemes: {name}: {key}", file)
        for key in ("t1_blood", "t1_tissue", "partition_coefficient", "snr"):
            _check_range(getattr(domain, key), f"domain: {key}", file)
        if not 0 < domain.reference_signal < math.inf:
            found = _shown(domain.reference_signal)
            raise InputError(file, "domain: reference_signal", found, "a number above 0")
    for place, name in names:
        if name not in known:
            raise InputError(file, place, _shown(name), f"one of {', '.join(known)}")
    for channel in spec.channels:
        times = (channel.post_labeling_delay, channel.label_duration)
        _check_range(times, "", file, ordered=False)
    _check_calibration(spec.calibration, file)


def _check_range(ends: Sequence[float], place: str, file: Path, *, ordered: bool = True) -> None:
    low, high = ends
    if not (low >= 0 and high >= 0) or (ordered and low > high):
        raise InputError(
            file, place or "channels", f"{low:g} and {high:g}", "two numbers >= 0 in order"
        )


def _check_calibration(calibration: Mapping[str, Any], file: Path) -> None:
    """Evaluate the functions once, where all features are 1 and for each kind of data."""
    import torch

    from asl_bids_app.models.uncertainty import COUNTS, FEATURES, calibration_factors

    features = {name: torch.ones(len(COUNTS) + 1) for name in FEATURES}
    for number, name in enumerate(COUNTS.values()):
        features[name] = torch.zeros(len(COUNTS) + 1)
        features[name][[number, -1]] = 1.0
    for bars, table in calibration.items():
        place = f"calibration: {bars}"
        try:
            factors = torch.stack(calibration_factors(table, features))
        except Exception as error:  # of a table of wrong types whatever it meets
            found = f"a table that can't be computed with ({type(error).__name__}: {error})"
            raise InputError(file, place, found, "functions as asl-train writes them") from error
        if not bool(torch.isfinite(factors).all() and (factors > 0).all()):
            raise InputError(file, place, "factors that are no numbers above 0", "such numbers")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
