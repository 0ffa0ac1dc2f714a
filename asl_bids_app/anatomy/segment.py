"""Grey matter, white matter and fluid of a T1w, from its intensities and an atlas laid on it.

The same idea as `asl_bids_app.preprocess.fractions` has for an M0: a voxel is pure or a mixture of
two tissues that touch; expectation maximisation finds the intensities and what is left of the
bias field, and the atlas says what is likely where. A T1w has more contrast, more noise and
forty times the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import TISSUES, AnatomyError

FLOOR: Final = 0.04
"""Added to the atlas: a tissue may be where it has none."""
SAMPLES: Final = 60000
CHUNK: Final = 200000
STEPS: Final = 25
FIELD_ORDER: Final = 3
WIDTHS: Final = (0.03, 0.15)
"""Least and most of the standard deviation of a tissue's intensity; white matter has 1."""
MIXED: Final = 7
"""Mixed states between two tissues that touch."""
SHARES: Final = {
    "g": 0.28,
    "w": 0.33,
    "c": 0.11,
    "wg": 0.12,
    "gc": 0.13,
    "wc": 0.02,
    "nothing": 0.005,
    "cn": 0.005,
}
"""Of pure and mixed voxels at 1 mm. A mask of the brain may hold bone, which has no signal: as
fluid it would darken that, and true fluid would then be taken for partly grey matter."""
LEAST_CONTRAST: Final = 0.05
"""Difference between white and grey matter, as a part of the former, that tells them apart."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Fractions of tissue in each voxel, (X, Y, Z), zero outside the brain, and how they came.

    Attributes
    ----------
    gm, wm, csf : array of float32
    intensities : tuple of float
        Of the three tissues, that of white matter 1.
    width : float
        Standard deviation of a tissue, white matter 1.
    likeness : float
        Correlation of grey matter with that of the atlas.
    """

    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    intensities: tuple[float, float, float]
    width: float
    likeness: float


def segment(t1w: np.ndarray, brain: np.ndarray, prior: np.ndarray) -> Segmentation:
    """Find the tissue fractions of each voxel of a T1w.

    Parameters
    ----------
    t1w : array, shape (X, Y, Z)
        Any units; white matter is expected to be brightest.
    brain : array of bool, shape (X, Y, Z)
    prior : array, shape (3, X, Y, Z)
        Probabilities of grey matter, white matter and fluid by an atlas laid on the image.

    Returns
    -------
    Segmentation

    Raises
    ------
    AnatomyError
        If the brain is too small or grey and white matter look the same.
    """
    if brain.sum() < 2000:
        raise AnatomyError(f"a brain of {int(brain.sum())} voxels")
    place = np.argwhere(brain)
    value = np.asarray(t1w, np.float32)[brain]
    a = np.stack([p[brain] for p in prior], 1).astype(np.float32)
    a = np.clip(a, 0, 1) + np.float32(FLOOR)
    a /= a.sum(axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(value))[:SAMPLES]
    basis = _basis(place, brain.shape)
    mu, width, field = _learn(value[order], a[order], basis(order))
    if mu[1] - mu[0] < LEAST_CONTRAST * mu[1]:
        raise AnatomyError(
            f"no T1 contrast: grey matter at {mu[0] / mu[1]:.0%} of the intensity of white matter",
            f"{1 - LEAST_CONTRAST:.0%} or less",
        )
    found = np.zeros((3, len(value)), np.float32)
    for first in range(0, len(value), CHUNK):
        part = np.arange(first, min(first + CHUNK, len(value)))
        level = value[part] / np.exp(basis(part) @ field)
        found[:, part] = (_posterior(level, a[part], mu, width) @ FRACTIONS).T
    maps = np.zeros((3, *brain.shape), np.float32)
    maps[:, brain] = found
    likeness = float(np.corrcoef(found[0], a[:, 0])[0, 1])
    gm, wm, csf = maps
    scaled = (mu / mu[1]).tolist()
    intensities = (scaled[0], scaled[1], scaled[2])
    return Segmentation(gm, wm, csf, intensities, float(width / mu[1]), likeness)


def _states() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fractions (K, 3), where they can be (K, 3), and log shares (K,) of all states."""
    g, w, c = np.eye(3)
    groups = {
        "g": [g],
        "w": [w],
        "c": [c],
        "nothing": [0 * c],
        "cn": [0.75 * c, 0.5 * c, 0.25 * c],
    }
    for key, (one, other) in {"wg": (w, g), "gc": (g, c), "wc": (w, c)}.items():
        groups[key] = [one + (other - one) * k / (MIXED + 1) for k in range(1, MIXED + 1)]
    rows = [row for group in groups.values() for row in group]
    weights = [np.log(SHARES[key] / len(group)) for key, group in groups.items() for _ in group]
    # What isn't there has no place of its own: it lies where the atlas has fluid.
    places = [row + (1 - row.sum()) * c for row in rows]
    return (
        np.array(rows, np.float32),
        np.array(places, np.float32),
        np.array(weights, np.float32),
    )


FRACTIONS, PLACES, LOG_SHARES = _states()


def _posterior(level: np.ndarray, prior: np.ndarray, mu: np.ndarray, width: float) -> np.ndarray:
    """Return the probability of each state in each voxel, (V, K)."""
    off = (level[:, None] - FRACTIONS @ mu) / width
    log = np.log(prior) @ PLACES.T + LOG_SHARES - 0.5 * off**2
    log -= log.max(axis=1, keepdims=True)
    share = np.exp(log, dtype=np.float32)
    return share / share.sum(axis=1, keepdims=True)


def _learn(
    value: np.ndarray, prior: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Find intensities (3,), width and coefficients of the logarithm of the field."""
    scale = float(np.median(value[prior[:, 1] > 0.6])) if (prior[:, 1] > 0.6).any() else 0.0
    if not scale > 0:
        raise AnatomyError("no signal where the atlas has white matter")
    mu = np.array([_typical(value, prior[:, k]) for k in range(3)], np.float32)
    if not mu[0] < mu[1]:
        mu = scale * np.array([0.75, 1.0, 0.35], np.float32)
    mu[2] = min(mu[2], 0.8 * mu[0])
    width, field = 0.12 * mu[1], np.zeros(basis.shape[1], np.float32)
    for _ in range(STEPS):
        level = value / np.exp(basis @ field)
        share = _posterior(level, prior, mu, width)
        mean = share @ FRACTIONS
        off = (share * (level[:, None] - FRACTIONS @ mu) ** 2).sum(axis=1)
        # Skull and air inside the mask are darker than fluid, and would be taken for it.
        trust = 1 / (1 + off / (3 * width) ** 2)
        second = np.einsum("k,ki,kj->ij", trust @ share, FRACTIONS, FRACTIONS)
        second += 1e-4 * np.trace(second) * np.eye(3)
        mu = np.linalg.solve(second, mean.T @ (trust * level)).astype(np.float32)
        width = float(
            np.clip(np.sqrt(np.average(off, weights=trust)), *(w * mu[1] for w in WIDTHS))
        )
        # Fluid has no signal that could show a field.
        weight = trust * (mean[:, 0] + mean[:, 1])
        target = np.log(np.maximum(value, 1e-3 * scale)) - np.log(
            np.maximum(mean @ mu, 0.05 * scale)
        )
        weighted = basis.T * weight
        normal = weighted @ basis
        normal += 1e-4 * np.trace(normal) / len(normal) * np.eye(len(normal))
        field = np.linalg.solve(normal, weighted @ target).astype(np.float32)
    return mu, width, field


def _typical(value: np.ndarray, prior: np.ndarray) -> float:
    count = max(len(value) // 20, 50)
    return float(np.median(value[np.argsort(prior)[-count:]]))


def _basis(place: np.ndarray, shape: tuple[int, ...]):  # noqa: ANN202 - a function of indices
    """Return a function that gives the polynomials of place of some voxels, without constant."""
    middle = (np.array(shape) - 1) / 2
    powers = [
        (i, j, k)
        for i in range(FIELD_ORDER + 1)
        for j in range(FIELD_ORDER + 1 - i)
        for k in range(FIELD_ORDER + 1 - i - j)
    ][1:]

    def columns(chosen: np.ndarray) -> np.ndarray:
        x = ((place[chosen] - middle) / np.maximum(middle, 1)).astype(np.float32)
        return np.stack([x[:, 0] ** i * x[:, 1] ** j * x[:, 2] ** k for i, j, k in powers], 1)

    return columns


def hard(maps: np.ndarray) -> np.ndarray:
    """Return labels of the likeliest tissue: 1 grey, 2 white, 3 fluid, 0 nothing.

    Parameters
    ----------
    maps : array, shape (3, X, Y, Z)
    """
    nothing = 1 - maps.sum(axis=0, keepdims=True)
    return np.concatenate([nothing, maps]).argmax(axis=0).astype(np.uint8)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice overlap of two masks."""
    both = int(first.sum()) + int(second.sum())
    return float(2 * (first & second).sum() / both) if both else 0.0


def tissue_dice(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the Dice overlap of two sets of tissue maps, (3, X, Y, Z), by tissue."""
    a, b = hard(first), hard(second)
    return {key: round(dice(a == k, b == k), 3) for k, key in enumerate(TISSUES, 1)}


def clean(mask: np.ndarray) -> np.ndarray:
    """Return the largest body of a mask, without holes."""
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = labels == sizes.argmax()
    return ndimage.binary_fill_holes(mask)
