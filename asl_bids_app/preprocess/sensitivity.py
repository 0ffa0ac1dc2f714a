"""The smooth sensitivity of the coils, from an M0 image whose tissue fractions are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from asl_bids_app.preprocess.fractions import TISSUES, field_basis
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.robust import residual_sd

ORDER: Final = 4
"""Of the polynomials: an array of coils is weak in the middle of the head."""
STEPS: Final = 8
FULL: Final = 0.8
"""Sum of the fractions from which a voxel is full, and says something of the coils."""
MOST: Final = 1.5
"""Of the logarithm: no coil is told by more than this from the mean."""


def find_sensitivity(
    m0: np.ndarray, mask: np.ndarray, tissue: Mapping[str, np.ndarray], affine: np.ndarray
) -> np.ndarray:
    """Find the coils' sensitivity: polynomials of fourth order in its logarithm.

    Intensities of the tissues and the field are found in turn by least squares; outliers count
    little.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        Positive inside the mask.
    mask : array of bool, shape (X, Y, Z)
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of ``gm``, ``wm`` and ``csf``.
    affine : array, shape (4, 4)

    Returns
    -------
    array of float32, shape (X, Y, Z)
        About 1; 1 outside the mask, and everywhere if nothing can be said.
    """
    found = np.ones(mask.shape, np.float32)
    shares = np.stack([np.clip(tissue[key], 0, 1)[mask] for key in TISSUES], 1).astype(float)
    value = m0[mask].astype(float)
    full = (shares.sum(axis=1) >= FULL) & (value > 0)
    basis = field_basis(mask, np.asarray(voxel_sizes(affine)), ORDER).astype(float)
    # The first is constant: the tissues' intensities hold it.
    basis = basis[:, 1:]
    if full.sum() < 20 * basis.shape[1]:
        return found
    x, y, b = shares[full], value[full], basis[full]
    field, weight = np.zeros(len(y)), np.ones(len(y))
    coefficients = np.zeros(b.shape[1])
    for _ in range(STEPS):
        level = y / np.exp(field)
        normal = (x.T * weight) @ x + 1e-6 * len(y) * np.eye(x.shape[1])
        expected = np.maximum(
            x @ np.linalg.solve(normal, (x.T * weight) @ level), 0.05 * np.median(level)
        )
        target = np.log(y / expected)
        off = target - field
        spread = max(float(residual_sd(off)), 1e-6)
        weight = 1 / (1 + (off / (2 * spread)) ** 2)
        square = (b.T * weight) @ b
        square += 1e-6 * np.trace(square) / len(square) * np.eye(len(square))
        coefficients = np.linalg.solve(square, (b.T * weight) @ target)
        field = b @ coefficients
    found[mask] = np.exp(np.clip(basis @ coefficients, -MOST, MOST)).astype(np.float32)
    return found
