"""From prepared runs to maps and derivatives of one series, alone or joint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asl_bids_app import __version__
from asl_bids_app.bids.derivatives import (
    perf_folder,
    sidecar_path,
    write_image,
    write_json,
    write_table,
)
from asl_bids_app.bids.outputs import OUTPUTS
from asl_bids_app.calibration import join as join_calibrations
from asl_bids_app.estimators.base import ParameterMaps
from asl_bids_app.estimators.consensus import Consensus, consensus
from asl_bids_app.estimators.noise import NoiseEstimate, estimate_noise
from asl_bids_app.preprocess.carpet import describe_carpet
from asl_bids_app.protocol import Protocol
from asl_bids_app.protocol import join as join_protocols
from asl_bids_app.series import Series, to_slices, to_volume
from asl_bids_app.workflows.plan import PlannedRun, PlannedUnit
from asl_bids_app.workflows.prepare import PreparedRun


@dataclass(frozen=True, eq=False)
class Assembled:
    """A series ready for an estimator, with the geometry to write its maps.

    Attributes
    ----------
    series : Series
    noise : NoiseEstimate
    affine : array, shape (4, 4)
    slice_axis : int
    prepared : PreparedRun
        The run whose space this is.
    facts : mapping
        What was done to each run, for records.
    warnings : tuple of str
    carpets : tuple of mapping
        Columns of the carpet table of each run.
    """

    series: Series
    noise: NoiseEstimate
    affine: np.ndarray
    slice_axis: int
    prepared: PreparedRun
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    carpets: tuple[Mapping[str, np.ndarray] | None, ...] = ()


def protocol_of(run: PlannedRun, prepared: PreparedRun, slice_time: np.ndarray) -> Protocol:
    """Return the protocol of the averaged measurements of a run."""
    n = len(prepared.post_labeling_delay)
    # A 3D readout has one row: it serves any number of slices.
    times = slice_time[:, None] if np.any(slice_time) else np.zeros((1, 1))
    return Protocol(
        (run.acquisition.scheme,) * n,
        torch.tensor(prepared.post_labeling_delay, dtype=torch.float32),
        torch.tensor(prepared.label_duration, dtype=torch.float32),
        torch.tensor(np.repeat(times, n, axis=1), dtype=torch.float32),
        (run.acquisition.metadata.get("VascularCrushing") is True,) * n,
    )


def series_of(run: PlannedRun, prepared: PreparedRun, slice_time: np.ndarray) -> Series:
    """Return the series of one prepared run."""
    axis = run.acquisition.slice_axis

    def tensor(volume: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(to_slices(volume, axis)))

    error = prepared.standard_error
    return Series(
        protocol_of(run, prepared, slice_time),
        run.calibration,
        tensor(np.where(prepared.mask[..., None], prepared.delta_m, 0).astype(np.float32)),
        tensor(prepared.mask),
        torch.tensor(prepared.repeats),
        tensor(error.astype(np.float32)) if np.isfinite(error).any() else None,
    )


def join_series(first: Series, second: Series) -> Series:
    """Put two series of one grid together; the mask is what both cover."""
    mask = first.mask & second.mask
    errors = [s.standard_error for s in (first, second)]
    error = None
    if any(e is not None for e in errors):
        filled = [
            torch.full_like(s.delta_m, float("nan")) if e is None else e
            for s, e in zip((first, second), errors, strict=True)
        ]
        error = torch.cat(filled, dim=1)
    return Series(
        join_protocols(first.protocol, second.protocol),
        join_calibrations(first.calibration, second.calibration),
        torch.cat([first.delta_m, second.delta_m], dim=1) * mask.unsqueeze(1),
        mask,
        torch.cat([first.repeats, second.repeats]),
        error,
    )


def assemble(unit: PlannedUnit, prepared: list[PreparedRun], *, move: bool) -> Assembled:
    """Make the series of a unit from its prepared runs.

    Parameters
    ----------
    unit
        What belongs together.
    prepared
        Its runs, in order; the first one's space is that of the result.
    move
        Look for head motion between the runs and undo it.
    """
    from asl_bids_app.workflows.space import into_space

    first_run, first = unit.runs[0], prepared[0]
    series = series_of(first_run, first, first_run.acquisition.slice_time)
    warnings = [*unit.warnings, *first_run.warnings, *first.warnings]
    facts = {first_run.acquisition.path.name: dict(first.facts)}
    for run, other in zip(unit.runs[1:], prepared[1:], strict=True):
        placed, slice_time, how = into_space(run, other, first_run, first, move=move)
        series = join_series(series, series_of(run, placed, slice_time))
        warnings += [*run.warnings, *placed.warnings]
        facts[run.acquisition.path.name] = {**placed.facts, "space": how}
    return Assembled(
        series,
        estimate_noise(series),
        first.affine,
        first_run.acquisition.slice_axis,
        first,
        facts,
        tuple(dict.fromkeys(warnings)),
        tuple(run.carpet for run in prepared),
    )


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


def sidecar_of(
    unit: PlannedUnit, assembled: Assembled, maps: ParameterMaps, model: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the sidecars of all images of a unit share."""
    sources = []
    for run in unit.runs:
        root = next(
            p for p in run.acquisition.path.parents if p.name == f"sub-{unit.entities['sub']}"
        ).parent
        paths = [
            run.acquisition.path,
            *([run.acquisition.m0.path] if run.acquisition.m0.path else []),
        ]
        sources += [f"bids:raw:{path.relative_to(root).as_posix()}" for path in paths]
    return {
        "Sources": sources,
        "SkullStripped": True,
        "EstimationMethod": maps.estimator,
        "Model": dict(model) if model else None,
        "ErrorBars": model["ErrorBars"] if model else "noise",
        "TransitTimePrior": _prior_json(maps),
        "Measurements": protocol_json(assembled.series),
        "SliceAxis": assembled.slice_axis,
        "Calibration": assembled.series.calibration.to_json(),
        "NoiseEstimation": assembled.noise.method,
        "Preprocessing": assembled.facts,
        "Warnings": list(assembled.warnings),
        "SoftwareVersion": f"asl-bids-app {__version__}",
    }


def _differs(
    key: str, baseline: ParameterMaps | None, by_formula: Consensus | None, stripped: bool
) -> dict[str, Any]:
    """Return in what the sidecar of an image differs from that of the main maps."""
    other: dict[str, Any] = {"Model": None, "ErrorBars": "noise"}
    if key.startswith("lsq_") and baseline is not None:
        prior = _prior_json(baseline)
        return {"EstimationMethod": baseline.estimator, **other, "TransitTimePrior": prior}
    if key.startswith("consensus_") and by_formula is not None:
        method = f"consensus formula: {by_formula.formula}"
        return {"EstimationMethod": method, **other, "TransitTimePrior": None}
    return {"m0": {"SkullStripped": stripped}, "mask": {"Type": "Brain"}}.get(key, {})


def _prior_json(maps: ParameterMaps) -> dict[str, Any] | None:
    return maps.att_prior.to_json() if maps.att_prior else None


def write_unit(
    output_dir: Path,
    unit: PlannedUnit,
    assembled: Assembled,
    maps: ParameterMaps,
    baseline: ParameterMaps | None,
    tissue: Mapping[str, np.ndarray] | None,
    confounds: Mapping[str, np.ndarray] | None,
    carpet: Mapping[str, np.ndarray] | None,
    quality: tuple[Mapping[str, float], Mapping[str, Any]] | None,
    model: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    warnings: tuple[str, ...] = (),
) -> list[Path]:
    """Write all derivatives of a unit.

    Parameters
    ----------
    tissue
        Probabilities by output key (``gm``, ``wm``, ``csf``), (X, Y, Z).
    confounds, carpet
        Columns of the tables.
    quality
        Metrics, and their dictionary.
    model
        Name, version and hash of the ensemble's model.
    facts
        What was done beyond the runs' own preprocessing, for the sidecars.
    warnings
        Beyond those of the runs.

    Returns
    -------
    list of Path
        The files written, sidecars left out.
    """
    folder = perf_folder(output_dir, unit.entities)
    shared = sidecar_of(unit, assembled, maps, model)
    shared["Warnings"] = [*shared["Warnings"], *warnings]
    shared["Preprocessing"] = {**shared["Preprocessing"], **facts}

    def volume(slices: torch.Tensor) -> np.ndarray:
        return to_volume(slices.numpy(), assembled.slice_axis)

    mask, head = assembled.series.mask, assembled.prepared.head
    images: dict[str, np.ndarray] = {
        "delta_m": volume(assembled.series.delta_m),
        "noise": volume(assembled.noise.noise_sd * mask.unsqueeze(1)),
        "m0": assembled.prepared.m0 if head is None else head,
        "mask": volume(mask),
        "residual": volume(maps.residual),
        "flags": volume(maps.flags),
        **{key: volume(getattr(maps, key)) for key in ("att_sd", "cbf_sd", "att", "cbf")},
        **{
            key: volume(values)
            for key in ("abv", "abv_sd")
            if (values := getattr(maps, key)) is not None
        },
        **(tissue or {}),
    }
    by_formula = consensus(assembled.series, assembled.noise.noise_sd)
    if by_formula is not None:
        images["consensus_cbf"] = volume(by_formula.cbf)
        images["consensus_cbf_sd"] = volume(by_formula.cbf_sd)
    if baseline is not None:
        for key in ("flags", "att_sd", "cbf_sd", "att", "cbf"):
            images[f"lsq_{key}"] = volume(getattr(baseline, key))
    tables = {"confounds": confounds, "carpet": carpet, "quality": quality}
    kept = {*images, *(key for key, table in tables.items() if table is not None)}
    for key, output in OUTPUTS.items():
        if key not in kept or key in {"cbf", "att"}:
            # Of an earlier run, perhaps with other options: the report would compare it with
            # this one, or the main maps would stand beside those of a run that broke off.
            stale = folder / output.name(unit.entities)
            stale.unlink(missing_ok=True)
            sidecar_path(stale).unlink(missing_ok=True)
    written = []
    # The main maps come last: where they stand, everything stands.
    for key in [*(k for k in images if k not in {"cbf", "att"}), "att", "cbf"]:
        extra = _differs(key, baseline, by_formula, head is None)
        output = OUTPUTS[key]
        written.append(
            write_image(
                folder, unit.entities, output, images[key], assembled.affine, shared | extra
            )
        )
    for key, table in tables.items():
        if table is None:
            continue
        path = folder / OUTPUTS[key].name(unit.entities)
        if key == "quality":
            values, dictionary = table
            write_json(path.with_suffix(".json"), dictionary)
            write_table(path, {name: [value] for name, value in values.items()})
        else:
            known = CONFOUNDS | describe_carpet()
            write_json(path.with_suffix(".json"), {k: known[k] for k in table})
            write_table(path, table)
        written.append(path)
    return written[::-1]


CONFOUNDS = {
    **{
        f"trans_{axis}": {"Description": f"Translation along {axis}", "Units": "mm"}
        for axis in "xyz"
    },
    **{f"rot_{axis}": {"Description": f"Rotation about {axis}", "Units": "rad"} for axis in "xyz"},
    "framewise_displacement": {
        "Description": "Sum of the absolute changes of the six parameters from the volume before, "
        "rotations as arcs of 50 mm (Power 2012, doi:10.1016/j.neuroimage.2011.10.018)",
        "Units": "mm",
    },
    "run": {
        "Description": "Run of a joint series that the volume is of, counted from 1 as they "
        "stand in Sources; each is placed by its own reference"
    },
}
