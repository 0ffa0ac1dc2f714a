r"""How much grey matter, white matter and fluid each voxel holds, from the M0 itself.

An atlas laid on a brain knows where tissues are within a centimetre; the M0, at a
signal-to-noise ratio of hundreds, knows it to the voxel. Its intensity, freed of the coil's
smooth sensitivity, is the mean of those of the tissues in a voxel. A voxel is pure, or a mixture
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
WIDTHS: Final = (0.06, 0.015)
"""Standard deviation of the intensity of a tissue, as a fraction of grey matter's, at the
first and at the last step; the image's noise comes on top of the last."""
STEPS: Final = 10
SAMPLES: Final = 40000
"""Voxels that intensities and field are found from."""
GROUPS: Final = {"w": 0.2, "wg": 0.25, "g": 0.1, "gc": 0.25, "c": 0.05, "wc": 0.02, "rim": 0.13}
"""Shares of pure and mixed voxels, at 3 to 4 mm."""
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
        basis = _field_basis(mask, voxel_mm)
        for start in (None, np.array(USUAL, np.float32)):
            found, contrast = _mixtures(value, prior, rim, basis, noise, start)
            if found is not None and abs(contrast) <= MOST_CONTRAST:
                break
    likeness = 0.0 if found is None else _correlation(found[:, 0], prior[:, 0])
    usable = LEAST_CONTRAST <= abs(contrast) <= MOST_CONTRAST and likeness >= LEAST_LIKENESS
    if found is None or not usable:
        gm, wm, csf = laid
        return Fractions(gm, wm, csf, round(contrast, 3), round(likeness, 3), False)
    maps = np.zeros((3, *mask.shape), np.float32)
    maps[:, mask] = found.T
    return Fractions(*maps, round(contrast, 3), round(likeness, 3), True)


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


def _field_basis(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return polynomials of place, (voxels, terms), the first one constant."""
    place = np.argwhere(mask) * np.asarray(voxel_mm, float)
    place -= (place.max(axis=0) + place.min(axis=0)) / 2
    place /= max(float(np.abs(place).max()), 1e-6)
    along = [np.polynomial.legendre.legvander(place[:, axis], ORDER) for axis in range(3)]
    powers = [
        (a, b, c)
        for a in range(ORDER + 1)
        for b in range(ORDER + 1 - a)
        for c in range(ORDER + 1 - a - b)
    ]
    terms = [along[0][:, a] * along[1][:, b] * along[2][:, c] for a, b, c in powers]
    return np.stack(terms, 1).astype(np.float32)


def _states(parts: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pure and mixed voxels: fractions (K, 3), log weights (K,), which are of the rim."""
    grey, white, fluid = np.eye(3)
    edges = {"wg": (white, grey, parts), "gc": (grey, fluid, parts), "wc": (white, fluid, 4)}
    groups = {"w": [white], "g": [grey], "c": [fluid]}
    groups |= {
        key: [a + (b - a) * step / n for step in range(1, n)] for key, (a, b, n) in edges.items()
    }
    full = (0.8, 0.6, 0.4, 0.25)
    groups["rim"] = [pure * part for pure in (grey, (grey + fluid) / 2) for part in full]
    rows = [row for group in groups.values() for row in group]
    weights = [np.log(GROUPS[key] / len(group)) for key, group in groups.items() for _ in group]
    rim = [key == "rim" for key, group in groups.items() for _ in group]
    return np.array(rows, np.float32), np.array(weights, np.float32), np.array(rim)


def _weighted(design: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    scaled = design.T * weight
    normal = scaled.astype(float) @ design
    # Terms that the voxels don't determine (a single slice has no height) stay 0.
    normal += 1e-5 * np.trace(normal) / len(normal) * np.eye(len(normal))
    return np.linalg.solve(normal, scaled.astype(float) @ target).astype(np.float32)


def _mixtures(
    value: np.ndarray,
    prior: np.ndarray,
    rim: np.ndarray,
    field_basis: np.ndarray,
    noise: float,
    start: np.ndarray | None,
) -> tuple[np.ndarray | None, float]:
    """Return the fractions (voxels, 3) and the contrast of grey and white matter.

    None where intensities can't be had.
    """
    step = max(1, len(value) // SAMPLES)
    chosen = slice(None, None, step)
    states = _states()
    fractions = states[0]
    x, a, edge, basis = value[chosen], prior[chosen], rim[chosen], field_basis[chosen]
    logarithm = np.log(x)
    trust = np.where(edge, 0.02, 1.0).astype(np.float32)
    field = basis @ _first_field(logarithm, a, basis, trust)
    intensity = _first_intensities(x / np.exp(field), a, edge)
    if start is not None:
        intensity = start * float(np.median(x / np.exp(field)))
    coefficients = np.zeros(basis.shape[1], np.float32)
    last = float(np.hypot(WIDTHS[1], noise))
    for index in range(STEPS):
        width = max(WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** (index / (0.6 * STEPS)), last)
        if not np.isfinite(intensity).all() or intensity[0] <= 0:
            return None, 0.0
        level = x / np.exp(field)
        share = _posterior(level, a, edge, states, intensity, width)
        mean = share @ fractions
        count = (share * trust[:, None]).sum(axis=0)
        second = np.einsum("k,ki,kj->ij", count, fractions, fractions)
        second += 1e-4 * max(float(np.trace(second)), 1e-6) * np.eye(3)
        intensity = np.linalg.solve(second, mean.T @ (level * trust)).astype(np.float32)
        off = (share * (level[:, None] - fractions @ intensity) ** 2).sum(axis=1)
        believed = trust / (1 + off / (2 * width * intensity[0]) ** 2)
        target = logarithm - np.log(np.maximum(mean @ intensity, 0.05))
        coefficients = _weighted(basis, target, believed)
        field = basis @ coefficients
    if not np.isfinite(intensity).all() or intensity[0] <= 0:
        return None, 0.0
    found = np.empty((len(value), 3), np.float32)
    for first in range(0, len(value), SAMPLES):
        part = slice(first, first + SAMPLES)
        level = value[part] / np.exp(field_basis[part] @ coefficients)
        share = _posterior(level, prior[part], rim[part], states, intensity, last)
        found[part] = share @ fractions
    return found, float((intensity[0] - intensity[1]) / intensity[0])


def _first_field(
    logarithm: np.ndarray, prior: np.ndarray, basis: np.ndarray, trust: np.ndarray
) -> np.ndarray:
    """Fit atlas and field together by robust linear regression; the field's coefficients."""
    design = np.concatenate([prior[:, :2] - prior[:, :2].mean(axis=0), basis], 1)
    weight = trust
    for _ in range(6):
        found = _weighted(design, logarithm, weight)
        off = logarithm - design @ found
        spread = max(float(residual_sd(off)), 1e-6)
        weight = trust / (1 + (off / (2 * spread)) ** 2) ** 2
    return found[2:]


def _first_intensities(level: np.ndarray, prior: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Return the median intensity where each tissue is likeliest, away from the rim."""
    inner = ~rim if (~rim).sum() >= len(level) // 20 else np.ones(len(level), bool)
    level, prior = level[inner], prior[inner]
    count = max(len(level) // 33, 10)
    likeliest = np.argsort(prior, axis=0)[-count:]
    return np.median(level[likeliest], axis=0).astype(np.float32)


def _posterior(
    level: np.ndarray,
    prior: np.ndarray,
    rim: np.ndarray,
    states: tuple[np.ndarray, np.ndarray, np.ndarray],
    intensity: np.ndarray,
    width: float,
) -> np.ndarray:
    """Return the probability of each state in each voxel, (voxels, K)."""
    fractions, weights, of_rim = states
    off = (level[:, None] - fractions @ intensity) / (width * intensity[0])
    log = np.log(prior) @ fractions.T + weights - 0.5 * off**2
    log[np.ix_(~rim, of_rim)] = -np.inf
    log -= log.max(axis=1, keepdims=True)
    share = np.exp(log)
    return share / share.sum(axis=1, keepdims=True)
