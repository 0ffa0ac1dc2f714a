"""A mixture of tissues, each of one intensity under a smooth field, fitted to an M0."""

from __future__ import annotations

from typing import Final

import numpy as np

from asl_bids_app.preprocess.robust import residual_sd

WIDTHS: Final = (0.06, 0.015)
"""Standard deviation of the intensity of a tissue, as a fraction of grey matter's, at the
first and at the last step; the image's noise comes on top of the last."""
STEPS: Final = 10
SAMPLES: Final = 40000
"""Voxels that intensities and field are found from."""
GROUPS: Final = {"w": 0.2, "wg": 0.25, "g": 0.1, "gc": 0.25, "c": 0.05, "wc": 0.02, "rim": 0.13}
"""Shares of pure and mixed voxels, at 3 to 4 mm."""


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


def fit_mixtures(
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
