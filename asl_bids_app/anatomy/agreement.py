"""How well a T1w fits an ASL image at a pose, in numbers that other programs give too.

They judge a registration after it was found; none of them drives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import Head
from asl_bids_app.preprocess.geometry import voxel_sizes

if TYPE_CHECKING:
    from asl_bids_app.anatomy.request import UnitMaps

SIDE_MM: Final = 2.0
"""From the boundary of grey and white matter to the points on both sides (Greve 2009,
doi:10.1016/j.neuroimage.2009.06.060, takes 2 mm into the white matter)."""
BINS: Final = 32
"""Of each axis of the joint histogram."""
FEWEST: Final = 200
"""Points or voxels below which nothing can be said."""
MOST_POINTS: Final = 40_000
RIM_MM: Final = 10.0
"""Around the mask, where the T1w's brain counts too."""


def agreement(unit: UnitMaps, head: Head, matrix: np.ndarray) -> dict[str, float]:
    """Return how well a series lies on a T1w, for its record and the metrics of quality.

    Parameters
    ----------
    unit
        With CBF, and M0 or mean ΔM, among its images.
    head
    matrix : array, shape (4, 4)
        Takes points of the series to those of the T1w.

    Returns
    -------
    dict of str to float
        ``boundary_contrast`` of CBF, and ``nmi`` of M0 or, without one, of mean ΔM.
    """
    images = unit.images
    found = {}
    if "CBF" in images:
        found["boundary_contrast"] = boundary_contrast(
            images["CBF"], unit.mask, unit.affine, head, matrix
        )
    if (first := images.get("M0", images.get("ΔM"))) is not None:
        found["nmi"] = normalised_mutual_information(first, unit.mask, unit.affine, head, matrix)
    return {key: round(value, 4) for key, value in found.items() if np.isfinite(value)}


def boundary_contrast(
    image: np.ndarray, mask: np.ndarray, affine: np.ndarray, head: Head, matrix: np.ndarray
) -> float:
    """Return how much an image changes across the T1w's boundary of grey and white matter.

    Parameters
    ----------
    image : array, shape (X, Y, Z)
        ASL image, such as CBF.
    mask : array of bool, shape (X, Y, Z)
        Brain in it.
    affine : array, shape (4, 4)
    head
        The T1w with its tissues.
    matrix : array, shape (4, 4)
        Takes world points (mm, RAS) of the ASL image to those of the T1w.

    Returns
    -------
    float
        Mean on the grey side minus mean on the white side, over the mean of both; NaN where
        fewer than `FEWEST` points lie in the mask, or their mean isn't positive.
    """
    wm = ndimage.gaussian_filter(np.asarray(head.wm, np.float32), 0.5)
    # Where white matter meets grey matter, not fluid: the ventricles' walls say nothing of flow.
    grey = ndimage.gaussian_filter(np.asarray(head.gm, np.float32), 1.0)
    at = np.argwhere((np.abs(wm - 0.5) < 0.15) & (grey > 0.3))
    at = at[:: max(1, len(at) // MOST_POINTS)]
    if len(at) < FEWEST:
        return np.nan
    inverse = np.linalg.inv(head.affine[:3, :3])
    inner = at[((at > 0) & (at < np.array(wm.shape) - 1)).all(axis=1)]
    slope = np.stack(
        [
            wm[tuple((inner + step).T)] - wm[tuple((inner - step).T)]
            for step in np.eye(3, dtype=int)
        ],
        axis=-1,
    )
    normal = slope @ inverse
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    inner, normal = inner[length[:, 0] > 0], (normal / np.where(length > 0, length, 1))
    normal = normal[length[:, 0] > 0]
    world = inner @ head.affine[:3, :3].T + head.affine[:3, 3]
    pull = np.linalg.inv(affine) @ np.linalg.inv(matrix)
    finite = np.nan_to_num(np.asarray(image, np.float32))
    inside = np.asarray(mask, np.float32)

    def read(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = (points @ pull[:3, :3].T + pull[:3, 3]).T
        values, share = (
            ndimage.map_coordinates(volume, place, order=1, mode="constant")
            for volume in (finite, inside)
        )
        return values, share > 0.99

    (white, white_in), (outer, outer_in) = (
        read(world + sign * SIDE_MM * normal) for sign in (1, -1)
    )
    both = white_in & outer_in
    if both.sum() < FEWEST:
        return np.nan
    high, low = float(outer[both].mean()), float(white[both].mean())
    return 2 * (high - low) / (high + low) if high + low > 0 else np.nan


def normalised_mutual_information(
    image: np.ndarray, mask: np.ndarray, affine: np.ndarray, head: Head, matrix: np.ndarray
) -> float:
    """Return the normalised mutual information of an ASL image and the T1w laid on it.

    (H(A) + H(B)) / H(A, B), 1 for images that say nothing of each other and 2 for equal ones
    (Studholme 1999, doi:10.1016/S0031-3203(98)00091-0), over the voxels in either brain.

    Parameters
    ----------
    image, mask, affine, head, matrix
        As in `boundary_contrast`.
    """
    box = np.argwhere(mask)
    if not len(box) or not head.brain.any():
        return np.nan
    # The voxels of the brain, and a rim in which the T1w's brain may lie.
    rim = np.ceil(RIM_MM / voxel_sizes(affine)).astype(int)
    low = np.maximum(box.min(axis=0) - rim, 0)
    high = np.minimum(box.max(axis=0) + rim + 1, mask.shape)
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    index = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij")
    )
    brain = np.where(head.brain, head.t1w, 0).astype(np.float32)
    pull = np.linalg.inv(head.affine) @ matrix @ affine
    laid = np.zeros(index.shape[1:])
    for corner in np.ndindex(2, 2, 2):
        place = index.reshape(3, -1) + (np.array(corner) / 2 - 0.25)[:, None]
        place = pull[:3, :3] @ place + pull[:3, 3:]
        laid += ndimage.map_coordinates(brain, place, order=1).reshape(laid.shape) / 8
    here, seen = np.asarray(image, float)[cut], mask[cut]
    over = np.isfinite(here) & (seen | (laid > 0))
    if over.sum() < FEWEST:
        return np.nan
    return mutual(laid[over], np.where(seen, here, 0)[over])


def mutual(first: np.ndarray, second: np.ndarray) -> float:
    """Return the normalised mutual information of two lists of values, by a joint histogram."""
    edges = []
    for values in (first, second):
        low, high = np.percentile(values, [1, 99])
        edges.append(np.linspace(low, high if high > low else low + 1, BINS + 1))
    x, y = (np.clip(v, e[0], e[-1]) for v, e in zip((first, second), edges, strict=True))
    counts, *_ = np.histogram2d(x, y, bins=edges)
    joint = counts / counts.sum()

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    together = entropy(joint)
    apart = entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))
    return apart / together if together > 0 else np.nan
