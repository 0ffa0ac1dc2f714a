"""What a model folder says of itself: ``model.json`` as a frozen value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from asl_bids_app.errors import InputError
from asl_bids_app.models.check import check_types, check_values

SCHEMA_VERSION: Final = 2
"""Of ``model.json``; a folder of a later one is refused."""

Range = tuple[float, float]

SPEC_FILE: Final = "model.json"
"""What a model is, in its folder."""


@dataclass(frozen=True)
class SchemeDomain:
    """With which acquisitions of one labelling scheme a model was trained; (low, high) each.

    Attributes
    ----------
    measurements : tuple of float
        Number of measurements in a series.
    delay : tuple of float
        Post-labelling delay with slice time, s.
    label_duration : tuple of float
        Seconds; ``inf`` where a bolus that nothing cuts was among them.
    efficiency : tuple of float
        Effective labelling efficiency, background suppression included.
    """

    measurements: Range
    delay: Range
    label_duration: Range
    efficiency: Range


@dataclass(frozen=True)
class TrainingDomain:
    """With which data a model was trained; (low, high) each.

    Attributes
    ----------
    schemes : mapping of str to SchemeDomain
        By the value of `asl_bids_app.schemes.Scheme`.
    combinations : tuple of tuple of str
        Schemes that occurred in one series, each sorted; empty for any.
    t1_blood, t1_tissue : tuple of float
        Seconds.
    partition_coefficient : tuple of float
        mL/g.
    snr : tuple of float
        `reference_signal` divided by the noise of an averaged measurement.
    reference_signal : float
        ΔM/M0, a fraction.
    """

    schemes: Mapping[str, SchemeDomain]
    combinations: tuple[tuple[str, ...], ...]
    t1_blood: Range
    t1_tissue: Range
    partition_coefficient: Range
    snr: Range
    reference_signal: float = 0.007


@dataclass(frozen=True)
class Channel:
    """The measurement that an input channel of a network of a fixed protocol stands for.

    Attributes
    ----------
    scheme : str
        Value of `asl_bids_app.schemes.Scheme`.
    post_labeling_delay, label_duration : float
        Seconds; the latter ``inf`` for VSASL whose bolus nothing cuts.
    """

    scheme: str
    post_labeling_delay: float
    label_duration: float


@dataclass(frozen=True)
class ModelSpec:
    """Everything of a model but its weights.

    Attributes
    ----------
    name, version : str
    network : str
        Name of the class, a key of `asl_bids_app.networks.NETWORKS`.
    arguments : mapping
        Its keyword arguments.
    domain : TrainingDomain or None
        None if the training left no record of it.
    channels : tuple of Channel
        Of a network of a fixed protocol; empty for one that takes any.
    standardisation : mapping
        Arguments of `asl_bids_app.networks.spatial.Standardisation`; empty where inputs and
        outputs have their own units.
    calibration : mapping
        Functions that give factors for the standard deviations, as
        `asl_bids_app.models.uncertainty.calibration_factors` reads them, by the words of
        `asl_bids_app.models.uncertainty.ERROR_BARS`; empty for none.
    coherence : mapping
        How errors of voxels hang together, by the words of
        `asl_bids_app.models.uncertainty.ERROR_BARS` and by ``cbf`` and ``att``:
        `asl_bids_app.estimators.coherence.Coherence`; empty if it was not measured.
    metrics : mapping
        Of the validation, for the model card.
    training : mapping
        Preset, hash of the configuration, git revision, versions, seeds.
    licence, intended_use : str
    files : mapping of str to str
        SHA-256 of every other file of the folder, by its relative path.
    schema_version : int
    """

    name: str
    version: str
    network: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    domain: TrainingDomain | None = None
    channels: tuple[Channel, ...] = ()
    standardisation: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    coherence: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    intended_use: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the text of ``model.json``; endless durations are null in it."""
        return json.dumps(_finite(asdict(self)), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, float) and math.isinf(value):
        return None
    return value


def _endless(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError(f"{value!r} is no number")
    return math.inf if value is None else float(value)


def _range(value: Sequence[Any]) -> Range:
    low, high = value
    return (_endless(low), _endless(high))


def read_spec(text: str | bytes, file: Path) -> ModelSpec:
    """Read ``model.json``.

    Parameters
    ----------
    text
        Its content.
    file
        For error messages.

    Raises
    ------
    InputError
        If it isn't JSON, is of a later schema, or an entry is missing, unknown or wrong.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(file, "", f"no JSON ({error})", "the description of a model") from error
    if not isinstance(content, dict):
        raise InputError(file, "", type(content).__name__, "a JSON object")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        later = isinstance(version, int) and version > SCHEMA_VERSION
        raise InputError(
            file,
            "schema_version",
            repr(version),
            str(SCHEMA_VERSION),
            "update asl-bids-app" if later else "export the run again with asl-train export",
        )
    known = [each.name for each in fields(ModelSpec)]
    for key in content:
        if key not in known:
            raise InputError(file, key, "an unknown entry", f"one of {', '.join(known)}")
    for key in ("name", "version", "network"):
        if not isinstance(content.get(key), str):
            raise InputError(file, key, repr(content.get(key)), "text")
    check_types(content, file)
    try:
        spec = ModelSpec(
            **{
                **content,
                "domain": _read_domain(content.get("domain")),
                "channels": tuple(
                    Channel(
                        c["scheme"], float(c["post_labeling_delay"]), _endless(c["label_duration"])
                    )
                    for c in content.get("channels", ())
                ),
            }
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            file, "domain, channels", f"{type(error).__name__}: {error}", "entries as written"
        ) from error
    check_values(spec, file)
    return spec


def _read_domain(content: Mapping[str, Any] | None) -> TrainingDomain | None:
    if content is None:
        return None
    schemes = {
        name: SchemeDomain(**{key: _range(value) for key, value in entries.items()})
        for name, entries in content["schemes"].items()
    }
    ranges = ("t1_blood", "t1_tissue", "partition_coefficient", "snr")
    return TrainingDomain(
        schemes=schemes,
        combinations=tuple(tuple(each) for each in content["combinations"]),
        reference_signal=float(content["reference_signal"]),
        **{key: _range(content[key]) for key in ranges},
    )
