"""The anatomy of a series, as the app calls it: the one seam between the two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app.anatomy.atlases import read_spec
from asl_bids_app.anatomy.find import find_anatomy
from asl_bids_app.anatomy.run import Outcome, Request, UnitMaps, run
from asl_bids_app.anatomy.spaces import read_space

if TYPE_CHECKING:
    from asl_bids_app.workflows.estimation import Estimated
    from asl_bids_app.workflows.options import AppOptions
    from asl_bids_app.workflows.plan import PlannedUnit
    from asl_bids_app.workflows.unit import Assembled


def request_of(options: AppOptions) -> Request | None:
    """Return what a run asks of the anatomy; None with ``--no-anatomy``."""
    if not options.anatomy:
        return None
    home = os.environ.get("TEMPLATEFLOW_HOME")
    folder = Path(home).expanduser() if home else None
    return Request(
        options.bids_dir,
        options.output_dir,
        dict(options.derivatives),
        tuple(read_space(text) for text in options.output_spaces),
        tuple(read_spec(text) for text in options.atlas),
        folder if folder and folder.is_dir() else None,
        min(options.omp_nthreads or options.nprocs, options.nprocs),
    )


def memory_of(request: Request | None, unit: PlannedUnit) -> float:
    """Return the memory that the anatomy of a series takes at most, GB."""
    if request is None:
        return 0.0
    asked = bool(request.spaces or request.atlases)
    found = find_anatomy(request.bids_dir, request.derivatives, unit.entities)
    return 2.0 if asked or found.t1w is not None else 0.0


def run_anatomy(
    request: Request,
    unit: PlannedUnit,
    assembled: Assembled,
    fit: Estimated,
    baseline: Estimated | None,
    sidecar: Mapping[str, Any],
) -> Outcome:
    """Run the anatomy of a series whose maps are written.

    Parameters
    ----------
    request
    unit, assembled, fit, baseline
        Of the series.
    sidecar
        What all its sidecars say.
    """
    import torch

    from asl_bids_app.anatomy.regions import CALIBRATION_SD, signals_of
    from asl_bids_app.estimators.base import Flag
    from asl_bids_app.observation import observe
    from asl_bids_app.series import to_volume

    def volume(slices: Any) -> np.ndarray:
        return to_volume(slices.numpy(), assembled.slice_axis)

    maps, series = fit.maps, assembled.series
    prior = maps.att_prior
    signals = None
    if prior is not None:
        # Least squares leans on no neighbours: its residuals and transit times show the noise.
        voxelwise = (baseline or fit).maps
        white = voxelwise.estimator == "least-squares"
        signals = signals_of(
            observe(series, assembled.noise.noise_sd),
            assembled.slice_axis,
            prior,
            volume(voxelwise.residual),
            None if maps.vessels is None else volume(maps.vessels),
            volume(voxelwise.att) if white else None,
            volume(voxelwise.att_sd) if white else None,
        )
    keys = [key for key in ("cbf", "att", "abv") if getattr(maps, key) is not None]
    total = bool(fit.model) and fit.model.get("ErrorBars") == "total"
    given = UnitMaps(
        unit.entities,
        {
            "M0": assembled.prepared.m0,
            "ΔM": volume(series.delta_m).mean(axis=-1),
            "CBF": volume(maps.cbf),
        },
        volume(series.mask),
        (volume(maps.flags) & int(Flag.FAILED)) > 0,
        assembled.affine,
        {key: volume(getattr(maps, key)) for key in keys},
        {
            f"{key}_sd": volume(getattr(maps, f"{key}_sd"))
            for key in keys
            if getattr(maps, f"{key}_sd") is not None
        },
        signals,
        maps.estimator,
        CALIBRATION_SD if total else 0.0,
        sidecar,
    )
    torch.set_num_threads(request.threads)
    return run(request, given)
