"""Grey matter, white matter and CSF in the space of a run, from the packaged atlas.

An M0 image looks like this: CSF bright, grey matter less, white matter least. From the atlas's
tissue maps such an image is mixed, and registered affinely to the M0: first the outline of
the brain, then local contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.atlas import Atlas, load_atlas
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.align import resample
from asl_bids_app.preprocess.geometry import resample as pull
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.registration import (
    normalise,
)
from asl_bids_app.preprocess.tissue_fit import fit_outline, likeness_of, refine_fit

BRIGHTNESS: Final = {"gm": 0.85, "wm": 0.70, "csf": 1.0}
"""Relative M0 of the tissues: water content, and little T1 or T2* weighting."""
SUBVOXELS: Final = 2
"""Points along each axis of a voxel at which the atlas is read, for partial volume."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """Tissue probabilities on the grid of a run; zero outside its mask.

    Attributes
    ----------
    gm, wm, csf : array of float32, shape (X, Y, Z)
    matrix : array, shape (4, 4)
        Takes world points (mm, RAS) of the run to MNI152 millimetres.
    likeness : float
        Correlation of the M0 with the atlas laid on it, both normalised locally, away from
        the brain's rim; of the outlines where the M0 has no contrast.
    warnings : tuple of Notice
        What makes the priors doubtful.
    """

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    matrix: np.ndarray
    likeness: float
    warnings: tuple[Notice, ...] = ()


LEAST_LIKENESS: Final = 0.4
"""Below this the priors are announced as doubtful: random texture reaches 0.2 in a brain's
outline, a real head 0.5."""


def tissue_priors(
    m0: np.ndarray, affine: np.ndarray, mask: np.ndarray, atlas: Atlas | None = None
) -> Tissue:
    """Register the packaged tissue atlas to an M0 image.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        M0 or mean control; where it has no contrast (a constant) outlines must do.
    affine : array, shape (4, 4)
    mask : array of bool, shape (X, Y, Z)
        Brain.
    atlas
        By default the packaged one.

    Returns
    -------
    Tissue

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty brain mask")
    atlas = atlas or load_atlas()
    picture = sum(share * getattr(atlas, key) for key, share in BRIGHTNESS.items())
    warnings: tuple[Notice, ...] = ()
    matrix = fit_outline(mask, affine, atlas)
    fixed = _picture(m0, affine, mask)
    if fixed is not None:
        moving = normalise(picture, atlas.affine)
        matrix = refine_fit(fixed, affine, mask, moving, atlas, matrix)
        likeness = likeness_of(fixed, affine, mask, moving, atlas.affine, matrix)
    else:
        laid = pull(
            atlas.brain.astype(np.float32), atlas.affine, matrix, mask.shape, affine, order=1
        )
        likeness = float(np.corrcoef(np.nan_to_num(laid).ravel(), mask.ravel())[0, 1])
        found = "tissue priors rest on the outline of the brain only: M0 has no contrast"
        warnings = (Notice((), "tissue", found),)
    if likeness < LEAST_LIKENESS:
        found = f"tissue priors are doubtful: the atlas fits badly (correlation {likeness:.2f})"
        warnings = (*warnings, Notice((), "tissue", found))
    maps = {
        key: _partial_volume(getattr(atlas, key), atlas.affine, matrix, mask.shape, affine) * mask
        for key in BRIGHTNESS
    }
    return Tissue(**maps, matrix=matrix, likeness=likeness, warnings=warnings)


def resample_to(
    image: np.ndarray,
    affine: np.ndarray,
    target_shape: tuple[int, ...],
    target_affine: np.ndarray,
) -> np.ndarray:
    """Bring a tissue map in scanner space onto another grid, averaged over its voxels.

    Parameters
    ----------
    image : array, shape (X', Y', Z')
    affine : array, shape (4, 4)
    target_shape, target_affine
        The grid of the result.

    Returns
    -------
    array of float32, shape `target_shape`
        Within the range of `image`; zero outside its field of view.
    """
    return _partial_volume(image, affine, np.eye(4), target_shape, target_affine)


def _partial_volume(
    image: np.ndarray,
    affine: np.ndarray,
    matrix: np.ndarray,
    shape: tuple[int, ...],
    target_affine: np.ndarray,
) -> np.ndarray:
    """Average an image over each voxel of a coarser grid."""
    ratio = voxel_sizes(target_affine) / voxel_sizes(affine)
    counts = np.clip(np.ceil(ratio), SUBVOXELS, 6).astype(int)
    total = np.zeros(shape, np.float32)
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    for offset in np.stack(np.meshgrid(*offsets, indexing="ij"), -1).reshape(-1, 3):
        shifted = np.array(target_affine, float)
        shifted[:3, 3] += shifted[:3, :3] @ offset
        total += resample(image, affine, shape, shifted, matrix, order=1)
    return total / np.float32(np.prod(counts))


def _picture(m0: np.ndarray, affine: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Return local contrast inside the brain, or None where there is none."""
    inside = np.nan_to_num(m0)[mask]
    if inside.std() < 1e-3 * abs(inside.mean()) or inside.mean() <= 0:
        return None
    # Outside it is dark, as outside the atlas's brain.
    return normalise(np.where(mask, np.nan_to_num(m0), 0) / np.median(inside), affine)
