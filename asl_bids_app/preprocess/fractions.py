r"""How much grey matter, white matter and fluid each voxel holds, from the M0 itself.

An atlas laid on a brain knows where tissues are within a centimetre; the M0, at a
signal-to-noise ratio of hundreds, knows it to the voxel. Its intensity, freed of the coil's
smooth sensitivity, is the mean over the tissues in a voxel. A voxel is pure, or a mixture
of two that touch (white and grey, grey and fluid; white and fluid seldom), or, at the rim of
the mask, tissue and nothing. Expectation maximisation finds the intensities and the field; the
atlas says what is likely where. No order of the intensities is assumed.

Mixtures: Santago 1995, doi:10.1109/83.469934. Field within the model: Van Leemput 1999,
doi:10.1109/42.811268.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.mixture import fit_mixtures
from asl_bids_app.preprocess.robust import residual_sd

TISSUES: Final = ("gm", "wm", "csf")
BLUR_MM: Final = 8.0
"""Full width at half maximum: as well as the atlas fits a person."""
FLOOR: Final = 0.1
"""Added to the atlas: a tissue may be where it has none."""
ORDER: Final = 3
"""Of the polynomials of the logarithm of the field."""
RIM_MM: Final = 4.0
"""A voxel this near to the mask's edge, or next to it, may be partly empty."""
LEAST_CONTRAST: Final = 0.04
"""Difference of the intensities of grey and white matter, as a fraction of the former, below which
the atlas is all there is."""
MOST_CONTRAST: Final = 0.28
"""The same at most: water content and T1 differ by less. Above, fluid is taken for grey matter."""
USUAL: Final = (1.0, 0.87, 1.25)
"""Intensities of grey and white matter and fluid by water content, where the first try fails."""
LEAST_LIKENESS: Final = 0.3
"""Correlation of the grey matter found with the atlas's: below, it is another thing."""


@dataclass(frozen=True, eq=False)
class Fractions:
    """Tissue in each voxel, zero outside the mask; the sum is below 1 where it is partly empty.

    Attributes
    ----------
    gm, wm, csf : array of float32, shape (X, Y, Z)
    contrast : float
        Intensity of grey less that of white matter over the former; 0 if the M0 has none.
    likeness : float
        Correlation of grey matter with the atlas's.
    from_m0 : bool
        False where the M0 doesn't tell tissues apart: then these are the atlas's.
    """

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    contrast: float
    likeness: float
    from_m0: bool


def tissue_fractions(
    m0: np.ndarray,
    mask: np.ndarray,
    atlas: Mapping[str, np.ndarray],
    voxel_mm: np.ndarray,
) -> Fractions:
    """Find the tissue fractions of each voxel from an M0 image and an atlas laid on it.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        Finite and positive inside the mask; any units.
    mask : array of bool, shape (X, Y, Z)
        Brain.
    atlas : mapping of str to array, shape (X, Y, Z)
        Probabilities of ``gm``, ``wm`` and ``csf`` in the same space.
    voxel_mm : array, shape (3,)

    Returns
    -------
    Fractions

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("an empty brain mask")
    laid = [np.nan_to_num(np.asarray(atlas[key], np.float32)) * mask for key in TISSUES]
    prior = _prior(laid, mask, voxel_mm)
    inside = np.nan_to_num(np.asarray(m0, np.float32)[mask])
    middle = float(np.median(inside))
    found, contrast = None, 0.0
    if middle > 0 and inside.std() > 1e-3 * middle and len(inside) >= 500:
        rim = _rim(mask, voxel_mm)
        value = np.maximum(inside / middle, 1e-2)
        noise = _noise(m0, mask, prior[:, 1]) / middle
        basis = field_basis(mask, voxel_mm)
        for start in (None, np.array(USUAL, np.float32)):
            found, contrast = fit_mixtures(value, prior, rim, basis, noise, start)
            if found is not None and abs(contrast) <= MOST_CONTRAST:
                break
    likeness = 0.0 if found is None else _correlation(found[:, 0], prior[:, 0])
    usable = LEAST_CONTRAST <= abs(contrast) <= MOST_CONTRAST and likeness >= LEAST_LIKENESS
    if found is None or not usable:
        gm, wm, csf = laid
        return Fractions(gm, wm, csf, round(contrast, 3), round(likeness, 3), False)
    maps = np.zeros((3, *mask.shape), np.float32)
    maps[:, mask] = found.T
    gm, wm, csf = maps
    return Fractions(gm, wm, csf, round(contrast, 3), round(likeness, 3), True)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _prior(laid: list[np.ndarray], mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return the blurred atlas inside the mask, (voxels, 3); its rows add up to 1."""

    def blur(image: np.ndarray) -> np.ndarray:
        sigma = BLUR_MM / 2.3548 / np.asarray(voxel_mm, float)
        return ndimage.gaussian_filter(
            image.astype(np.float32), sigma, mode="constant", truncate=3.0
        )[mask]

    norm = np.maximum(blur(mask), 1e-3)
    gm, wm = (blur(image) / norm for image in laid[:2])
    prior = np.stack([gm, wm, np.clip(1 - gm - wm, 0, 1)], 1) + np.float32(FLOOR)
    return prior / prior.sum(axis=1, keepdims=True)


def _noise(m0: np.ndarray, mask: np.ndarray, white: np.ndarray) -> float:
    """Return the noise of an image, from neighbours where white matter is likeliest."""
    cross = ndimage.generate_binary_structure(3, 1).astype(np.float32)
    cross[1, 1, 1] = 0
    image = np.where(mask, np.nan_to_num(m0), 0).astype(np.float32)
    count = ndimage.convolve(mask.astype(np.float32), cross, mode="constant")[mask]
    around = ndimage.convolve(image, cross, mode="constant")[mask] / np.maximum(count, 1)
    chosen = (count > 1) & (white >= np.quantile(white, 0.85))
    if not chosen.any():
        return 0.0
    off = (image[mask] - around)[chosen] / np.sqrt(1 + 1 / count[chosen])
    return float(residual_sd(off))


def _rim(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    # The ends of the field of view are no edge of the brain.
    padded = np.pad(mask, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=voxel_mm)[1:-1, 1:-1, 1:-1]
    return depth[mask] <= max(RIM_MM, 1.01 * float(np.sort(voxel_mm)[1]))


def field_basis(mask: np.ndarray, voxel_mm: np.ndarray, order: int = ORDER) -> np.ndarray:
    """Return polynomials of place, (voxels, terms), the first one constant."""
    place = np.argwhere(mask) * np.asarray(voxel_mm, float)
    place -= (place.max(axis=0) + place.min(axis=0)) / 2
    place /= max(float(np.abs(place).max()), 1e-6)
    along = [np.polynomial.legendre.legvander(place[:, axis], order) for axis in range(3)]
    powers = [
        (a, b, c)
        for a in range(order + 1)
        for b in range(order + 1 - a)
        for c in range(order + 1 - a - b)
    ]
    terms = [along[0][:, a] * along[1][:, b] * along[2][:, c] for a, b, c in powers]
    return np.stack(terms, 1).astype(np.float32)
