"""Bringing the second run of a joint series into the space of the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.find_m0 import LEAST_COVERED, displacement
from asl_bids_app.preprocess.find_mask import place
from asl_bids_app.preprocess.prepare import PreparedRun

STILL_MM = 0.3
"""A movement between runs below this is not undone: resampling would cost more."""


def into_space(
    run: PlannedRun, other: PreparedRun, first_run: PlannedRun, first: PreparedRun, *, move: bool
) -> tuple[PreparedRun, np.ndarray, str]:
    """Put a prepared run onto the grid of another.

    Parameters
    ----------
    run, other
        What is moved.
    first_run, first
        Where to.
    move
        Look for head motion between the runs; else the scanner's coordinates count.

    Returns
    -------
    PreparedRun, array (n_slices,), str
        The run on the grid of the first, its slice times there, and what was done.

    Raises
    ------
    InputError
        If the runs have less than half of the smaller brain in common.
    """
    from asl_bids_app.preprocess.align import AlignmentError, align_to, resample

    shape, affine = first.mask.shape, first.affine
    name = run.acquisition.path.name
    own, notes = place(other.mask.shape, other.affine, other.oriented, name, shape, first)
    other = replace(other, affine=own, warnings=(*other.warnings, *notes))
    same = other.mask.shape == shape and np.allclose(other.affine, affine, atol=1e-3)
    same = same and run.acquisition.slice_axis == first_run.acquisition.slice_axis
    transform, size = np.eye(4), 0.0
    if move:
        try:
            transform = align_to(other.m0, other.affine, first.m0, affine)
        except AlignmentError as error:
            raise InputError(
                name,
                "alignment",
                str(error),
                f"the head of {first_run.acquisition.path.name}",
                "--joint off quantifies each alone",
            ) from error
        size = displacement(transform)
    still = same and size < STILL_MM

    def moved(data: np.ndarray) -> np.ndarray:
        return resample(data, other.affine, shape, affine, transform)

    mask = other.mask if still else moved(other.mask.astype(np.float32)) > 0.5
    _check_common(mask, other, first, name, first_run.acquisition.path.name)
    if still:
        return other, run.acquisition.slice_time, f"as scanned ({size:.2f} mm apart, not moved)"
    # Outside the brain the signal is zero; dividing by the moved mask keeps the edge up.
    share = np.maximum(moved(other.mask.astype(np.float32)), 0.25)[..., None]
    placed = replace(
        other,
        delta_m=moved(other.delta_m) / share * mask[..., None],
        standard_error=moved(other.standard_error) / share * mask[..., None],
        m0=moved(other.m0),
        mask=mask,
        affine=affine,
        tsnr=None if other.tsnr is None else moved(other.tsnr),
        brain=mask,
        oriented=first.oriented,
    )
    how = f"moved by up to {size:.2f} mm" if move else "resampled by the scanner's coordinates"
    if not same:
        how += " onto another grid"
    return placed, _slice_times(run, other, first_run, first, transform), how


def _check_common(
    mask: np.ndarray, other: PreparedRun, first: PreparedRun, name: str, first_name: str
) -> None:
    """Refuse runs whose brains lie in different places.

    A slab in a whole brain is welcome: the smaller of the two brains counts.
    """
    voxel, target = (abs(np.linalg.det(run.affine[:3, :3])) for run in (other, first))
    smaller = min(other.mask.sum() * voxel / target, first.mask.sum())
    common = int((mask & first.mask).sum())
    if common == 0 or common < LEAST_COVERED * smaller:
        share = common / max(smaller, 1)
        raise InputError(
            name,
            "field of view",
            f"{share:.0%} of the brain in common with {first_name}",
            f"runs of one place: {LEAST_COVERED:.0%} or more of the smaller brain",
            "--joint off quantifies each alone",
        )


def _slice_times(
    run: PlannedRun,
    other: PreparedRun,
    first_run: PlannedRun,
    first: PreparedRun,
    transform: np.ndarray,
) -> np.ndarray:
    """Return when the run excited what now lies in each slice of the other grid's middle."""
    times = run.acquisition.slice_time
    axis, own = first_run.acquisition.slice_axis, run.acquisition.slice_axis
    count = first.mask.shape[axis]
    if not np.any(times):
        return np.zeros(count)
    points = np.tile((np.array(first.mask.shape, float) - 1) / 2, (count, 1))
    points[:, axis] = np.arange(count)
    world = first.affine[:3, :3] @ points.T + first.affine[:3, 3:]
    there = transform[:3, :3] @ world + transform[:3, 3:]
    inverse = np.linalg.inv(other.affine)
    index = (inverse[:3, :3] @ there + inverse[:3, 3:])[own]
    return np.interp(index, np.arange(len(times)), times)
