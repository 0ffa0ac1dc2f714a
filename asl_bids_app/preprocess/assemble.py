"""From prepared runs to the series of one unit, alone or joint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from asl_bids_app.bids.sessions import PlannedRun, Unit
from asl_bids_app.calibration import join as join_calibrations
from asl_bids_app.estimators.noise import with_noise
from asl_bids_app.preprocess.carpet_table import join_tables
from asl_bids_app.preprocess.fluid_m0 import calibrate_by_fluid
from asl_bids_app.preprocess.joint_space import into_space
from asl_bids_app.preprocess.prepare import PreparedRun
from asl_bids_app.preprocess.reference import Reference
from asl_bids_app.protocol import Protocol
from asl_bids_app.series import Series, to_slices


def protocol_of_run(run: PlannedRun, prepared: PreparedRun, slice_time: np.ndarray) -> Protocol:
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


def series_of_run(run: PlannedRun, prepared: PreparedRun, slice_time: np.ndarray) -> Series:
    """Return the series of one prepared run."""
    axis = run.acquisition.slice_axis

    def tensor(volume: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(to_slices(volume, axis)))

    error = prepared.standard_error
    return Series(
        protocol_of_run(run, prepared, slice_time),
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
        first.protocol + second.protocol,
        join_calibrations(first.calibration, second.calibration),
        torch.cat([first.delta_m, second.delta_m], dim=1) * mask.unsqueeze(1),
        mask,
        torch.cat([first.repeats, second.repeats]),
        error,
    )


def assemble(
    unit: Unit,
    prepared: Sequence[PreparedRun],
    *,
    move: bool,
    reference: Reference | None = None,
) -> Series:
    """Make the series of a unit from its prepared runs, and estimate its noise.

    Parameters
    ----------
    unit
        What belongs together.
    prepared
        Its runs, in order; the first one's space is that of the result.
    move
        Look for head motion between the runs and undo it.
    reference
        A region of fluid in the first run's space, by which all runs are calibrated; None for
        the M0 of each voxel.

    Returns
    -------
    Series
        With noise, geometry, the images beside it, what was done and warnings.
    """
    first_run, first = unit.runs[0], prepared[0]
    if reference is not None:
        first = calibrate_by_fluid(first_run, first, reference)
    series = series_of_run(first_run, first, first_run.acquisition.slice_time)
    warnings = [*unit.warnings, *first_run.warnings, *first.warnings]
    facts = {first_run.acquisition.path.name: dict(first.facts)}
    for run, other in zip(unit.runs[1:], prepared[1:], strict=True):
        placed, slice_time, how = into_space(run, other, first_run, prepared[0], move=move)
        if reference is not None:
            placed = calibrate_by_fluid(run, placed, reference)
        series = join_series(series, series_of_run(run, placed, slice_time))
        warnings += [*run.warnings, *placed.warnings]
        facts[run.acquisition.path.name] = {**placed.facts, "space": how}
    volumes = {
        "m0": first.m0 if first.head is None else first.head,
        "tsnr": first.tsnr,
        "whole_brain": first.brain,
    }
    return replace(
        with_noise(series),
        slice_axis=first_run.acquisition.slice_axis,
        affine=first.affine,
        volumes={key: image for key, image in volumes.items() if image is not None},
        carpet=join_tables([run.carpet for run in prepared]),
        facts=facts,
        warnings=tuple(dict.fromkeys(warnings)),
        sources=tuple(dict.fromkeys(path for run in prepared for path in run.sources)),
    )
