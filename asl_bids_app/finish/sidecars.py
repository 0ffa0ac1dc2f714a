"""What the sidecars of a series say: sources, methods, constants, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from asl_bids_app import __version__
from asl_bids_app.bids.sessions import Unit
from asl_bids_app.bids.uris import RAW, add_sources
from asl_bids_app.estimators.base import ParameterMaps
from asl_bids_app.estimators.consensus import Consensus
from asl_bids_app.series import Series


def protocol_json(series: Series) -> list[dict[str, Any]]:
    """Return the measurements for a sidecar."""
    protocol = series.protocol
    times = protocol.slice_time.tolist()
    return [
        {
            "Scheme": scheme.value,
            "PostLabelingDelay": round(float(protocol.post_labeling_delay[i]), 6),
            "LabelingDuration": round(float(protocol.label_duration[i]), 6),
            "Repeats": int(series.repeats[i]),
            "SliceTiming": [round(row[i], 6) for row in times] if len(times) > 1 else None,
        }
        for i, scheme in enumerate(protocol.schemes)
    ]


def noise_method(series: Series) -> dict[str, str]:
    """Return how the noise that was used was found, by scheme."""
    return dict(series.noise.method) if series.noise else {}


def shared_sidecar(
    unit: Unit,
    series: Series,
    maps: ParameterMaps[Tensor],
    *,
    facts: Mapping[str, Any],
    warnings: tuple[str, ...] = (),
    datasets: Mapping[str, Path] | None = None,
    sources: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Return what the sidecars of all images of a unit share.

    Parameters
    ----------
    unit, series, maps
        What was processed, and the main maps.
    facts
        What was done beyond the runs' own preprocessing.
    warnings
        Beyond those of the series.
    datasets
        Roots of the datasets that files come from, by name, the raw one left out.
    sources
        Files beyond the runs, their M0 and what the series rests on.
    """
    files: list[Path] = []
    for run in unit.runs:
        root = next(
            p for p in run.acquisition.path.parents if p.name == f"sub-{unit.entities['sub']}"
        ).parent
        m0 = run.acquisition.m0.path
        files += [run.acquisition.path, *([m0] if m0 else [])]
    files += [*series.sources, *sources]
    return {
        "Sources": add_sources([], files, {**(datasets or {}), RAW: root}),
        "SkullStripped": True,
        "EstimationMethod": maps.estimator,
        "Model": dict(maps.model) if maps.model else None,
        "ErrorBars": maps.model["ErrorBars"] if maps.model else "noise",
        "TransitTimePrior": _prior_json(maps),
        "Measurements": protocol_json(series),
        "SliceAxis": series.slice_axis,
        "Calibration": series.calibration.to_json(),
        "NoiseEstimation": noise_method(series),
        "Preprocessing": {**series.facts, **facts},
        "Warnings": [*series.warnings, *warnings],
        "SoftwareVersion": f"asl-bids-app {__version__}",
    }


def differences(
    baseline: ParameterMaps[Tensor] | None, by_formula: Consensus | None
) -> dict[str, dict[str, Any]]:
    """Return by key in what the sidecars of some images differ from the shared one.

    A key that ends with an underscore stands for all that begin so.
    """
    other: dict[str, Any] = {"Model": None, "ErrorBars": "noise"}
    found: dict[str, dict[str, Any]] = {"m0": {"SkullStripped": False}, "mask": {"Type": "Brain"}}
    if baseline is not None:
        found["lsq_"] = {
            "EstimationMethod": baseline.estimator,
            **other,
            "TransitTimePrior": _prior_json(baseline),
        }
    if by_formula is not None:
        method = f"consensus formula: {by_formula.formula}"
        found["consensus_"] = {"EstimationMethod": method, **other, "TransitTimePrior": None}
    return found


def _prior_json(maps: ParameterMaps[Tensor]) -> dict[str, Any] | None:
    return maps.att_prior.to_json() if maps.att_prior else None
