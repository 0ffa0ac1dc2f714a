"""Where the lateral ventricles of a head are, by the packaged template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.atlas import load_atlas
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    from asl_bids_app.preprocess.prepare import PreparedRun

OPTION: Final = "--calibration csf"
CURE: Final = "give --calibration voxelwise"
BOX: Final = ((-34.0, 34.0), (-52.0, 40.0), (-4.0, 32.0))
"""MNI152 mm: the largest body of fluid inside are the lateral ventricles, with the third."""
REACH_MM: Final = 8.0
"""How far the ventricles may lie from where the affinely registered template has them."""


def lay_template(prepared: PreparedRun, name: str) -> np.ndarray:
    """Return what takes points of a run to MNI152, by an affine of the template to its M0.

    Raises
    ------
    InputError
        If the template doesn't fit.
    """
    from asl_bids_app.preprocess.registration import RegistrationError
    from asl_bids_app.preprocess.tissue import LEAST_LIKENESS, tissue_priors

    try:
        laid = tissue_priors(prepared.m0, prepared.affine, prepared.mask)
    except (RegistrationError, ValueError) as error:
        raise InputError(name, OPTION, f"no ventricles ({error})", "a whole head", CURE) from error
    if laid.likeness < LEAST_LIKENESS:
        raise InputError(
            name,
            OPTION,
            f"a correlation of {laid.likeness:.2f} of the M0 with the MNI152 template",
            f"{LEAST_LIKENESS:g} or more to know where the ventricles are",
            CURE,
        )
    return laid.matrix


def ventricles(matrix: np.ndarray, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return where the lateral ventricles can be on a grid, (X, Y, Z).

    Parameters
    ----------
    matrix : array, shape (4, 4)
        Takes world points of the grid to MNI152 mm.
    shape, affine
        The grid.
    """
    from asl_bids_app.preprocess.geometry import resample, voxel_sizes

    atlas = load_atlas()
    index = np.stack(np.meshgrid(*map(np.arange, atlas.csf.shape), indexing="ij"), -1)
    world = index @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    inside = np.all([(world[..., k] > a) & (world[..., k] < b) for k, (a, b) in enumerate(BOX)], 0)
    label, _ = ndimage.label((atlas.csf > 0.5) & inside)
    largest = label == 1 + int(np.argmax(np.bincount(label.ravel())[1:]))
    sizes = voxel_sizes(atlas.affine)
    near = ndimage.distance_transform_edt(~largest, sampling=sizes) <= REACH_MM
    laid = resample(near.astype(np.float32), atlas.affine, matrix, shape, affine, order=1)
    return np.nan_to_num(laid) > 0.5
