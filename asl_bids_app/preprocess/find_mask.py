"""The brain of a run: found, or given; and which of its voxels have data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition, M0Kind
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.origins import MaskKind
from asl_bids_app.preprocess.find_m0 import DARK, LEAST_COVERED

if TYPE_CHECKING:
    from asl_bids_app.preprocess.moved import MovedRun
    from asl_bids_app.preprocess.prepare import PreparedRun

LEAST_ALIKE: Final = 0.88
"""Overlap (Dice) with the mask of the image below which one of derivatives is of another place.
On a simulated head 10 mm off have 0.89, 15 mm 0.84 to 0.86."""


def find_mask(
    m0: np.ndarray,
    static: np.ndarray,
    moved: MovedRun,
    acquisition: Acquisition,
    given: Path | None,
    of_derivatives: Path | None = None,
) -> tuple[np.ndarray, dict[str, Any], list[Notice]]:
    """Find the brain of a run, or bring a given mask onto its grid.

    Parameters
    ----------
    m0, static : array, shape (X, Y, Z)
        M0, and the mean of the volumes that show the anatomy best.
    moved
        The run.
    acquisition
        What is known of it.
    given
        Mask to use.
    of_derivatives
        Mask to use if it fits: nobody named it, so one that doesn't is a warning.

    Returns
    -------
    array of bool (X, Y, Z), dict, list of Notice
        The brain, where it comes from, and warnings.

    Raises
    ------
    InputError
        If there is no brain to be found, or the mask is of another place.
    """
    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    source = static if acquisition.m0.kind is M0Kind.ESTIMATE else m0
    if given is not None:
        return _given_mask(given, source, moved)
    try:
        mask = brain_mask(source, moved.affine)
    except MaskError as error:
        if of_derivatives is not None:
            return _given_mask(of_derivatives, source, moved)
        raise InputError(
            acquisition.path.name, "brain mask", str(error), "a brain", "give --brain-mask"
        ) from error
    notices = []
    if of_derivatives is not None:
        try:
            return _like_own(of_derivatives, mask, source, moved)
        except InputError as error:
            outcome = "a mask made from the image is used"
            notices.append(
                Notice(of_derivatives.name, error.field, error.found, error.expected, outcome)
            )
    if source is m0:
        return mask, {"kind": MaskKind.M0.value, "source": "made from the M0"}, notices
    return mask, {"kind": MaskKind.ASL.value, "source": "made from the ASL volumes"}, notices


def _like_own(
    path: Path, own: np.ndarray, source: np.ndarray, moved: MovedRun
) -> tuple[np.ndarray, dict[str, Any], list[Notice]]:
    """Bring a mask of derivatives onto the grid of a run, and compare it with the run's own.

    It is placed by the scanner's coordinates, and the head may have moved since.

    Raises
    ------
    InputError
        If it can't be read, or is of another place.
    """
    found = _given_mask(path, source, moved)
    dice = 2 * float((found[0] & own).sum()) / float(found[0].sum() + own.sum())
    if dice < LEAST_ALIKE:
        raise InputError(
            path,
            "",
            f"an overlap of {dice:.2f} (Dice) with the brain of the ASL image",
            f"{LEAST_ALIKE:g} or more",
        )
    return found


def _given_mask(
    path: Path, source: np.ndarray, moved: MovedRun
) -> tuple[np.ndarray, dict[str, Any], list[Notice]]:
    """Bring a given mask onto the grid of a run."""
    from asl_bids_app.bids.images import load
    from asl_bids_app.preprocess.align import resample

    image = load(path, ndim=3, name=path.name)
    affine, reported = place(
        image.data.shape, image.affine, image.oriented, path.name, source.shape, moved
    )
    mask = resample(image.data > 0, affine, source.shape, moved.affine, np.eye(4)) > 0.5
    if not mask.any():
        raise InputError(path, "", "no voxel inside the ASL image", "a mask of its brain")
    bright = np.abs(source) > DARK * np.percentile(np.abs(source[source != 0]), 98)
    if not bright[mask].mean() >= LEAST_COVERED:
        raise InputError(
            path,
            "",
            f"signal of the head in {bright[mask].mean():.0%} of its voxels",
            f"a mask of the brain: {LEAST_COVERED:.0%} or more",
            "look for a wrong or missing orientation, or the mask of another session",
        )
    return mask, {"kind": MaskKind.GIVEN.value, "source": path.name}, [*image.warnings, *reported]


def place(
    shape: tuple[int, ...],
    affine: np.ndarray,
    oriented: bool,
    name: str,
    run_shape: tuple[int, ...],
    run: MovedRun | PreparedRun,
) -> tuple[np.ndarray, list[Notice]]:
    """Return by which affine an image lies on the grid of a run, and a warning if it is a guess.

    Parameters
    ----------
    shape, affine, oriented
        Of the image.
    name
        What the warning calls it.
    run_shape, run
        Whose grid counts.
    """
    from asl_bids_app.bids.grids import voxel_by_voxel

    if not voxel_by_voxel(shape, affine, oriented, run_shape, run.affine, run.oriented):
        return affine, []
    which = "the ASL image" if oriented else "it"
    found = f"{which} has no orientation, and the matrices are equal"
    return run.affine, [Notice(name, "taken voxel by voxel", found)]


def with_data(brain: np.ndarray, moved: MovedRun, name: str) -> tuple[np.ndarray, list[Notice]]:
    """Leave voxels without data out of a brain mask, and tell how many.

    Raises
    ------
    InputError
        If none is left.
    """
    measured = np.ones_like(brain) if moved.measured is None else moved.measured
    blank = int((brain & ~measured).sum())
    reported = []
    if blank:
        reported.append(
            Notice(
                name,
                found=f"{blank} of the brain's {int(brain.sum())} voxels are 0 in every volume, "
                "or hold a value that can't be",
                outcome="they are left out of the mask",
            )
        )
    mask = brain & measured & moved.covered
    if not mask.any():
        raise InputError(name, "voxels", "no voxel of the brain with data", "data in the brain")
    return mask, reported
