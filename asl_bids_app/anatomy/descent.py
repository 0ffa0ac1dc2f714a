"""Improving a pose step by step, and how far noise leaves it open."""

from __future__ import annotations

from typing import Final

import numpy as np

from asl_bids_app.anatomy.levels import Level
from asl_bids_app.anatomy.poses import step_by
from asl_bids_app.anatomy.signals import shared_noise

FREEDOM: Final = 30
"""Degrees of freedom that field, tissues and pose take."""
DISPLACED_MM: Final = 10.0


def _jacobian(
    level: Level, matrix: np.ndarray, centre: np.ndarray, weights: np.ndarray, h: float = 0.3
) -> np.ndarray:
    """Return the change of the fitted image with the six parameters, (N, 6)."""
    columns = []
    one = level.mixed(weights)
    for k in range(6):
        unit = np.eye(6)[k] * h
        ahead = one.design(matrix @ step_by(unit, centre))[:, 0]
        behind = one.design(matrix @ step_by(-unit, centre))[:, 0]
        columns.append((ahead - behind) / (2 * h))
    return np.stack(columns, 1)


def descend(
    level: Level, matrix: np.ndarray, centre: np.ndarray, rounds: int
) -> tuple[np.ndarray, float]:
    """Improve a pose by damped Gauss-Newton steps (Levenberg-Marquardt)."""
    explained, weights, residual = level.fit(matrix)
    damping = 1e-2
    for _ in range(rounds):
        slope = _jacobian(level, matrix, centre, weights)
        normal, right = slope.T @ slope, slope.T @ residual
        if not np.trace(normal) > 0:
            break
        moved = False
        for _ in range(4):
            lifted = normal + damping * np.diag(np.diag(normal) + 1e-9 * np.trace(normal))
            step = np.linalg.solve(lifted, right)
            size = float(np.linalg.norm(step))
            step *= min(1.0, 8.0 / max(size, 1e-12))
            candidate = matrix @ step_by(step, centre)
            found, new_weights, left = level.fit(candidate)
            if found > explained:
                matrix, weights, residual, moved = candidate, new_weights, left, True
                gain, explained = found - explained, found
                damping = max(damping / 5, 1e-6)
                break
            damping *= 8
        if not moved or (size < 0.005 and gain < 1e-6):
            break
    return matrix, explained


def explained_displaced(level: Level, matrix: np.ndarray, centre: np.ndarray) -> float:
    """Return how much the tissues explain, on average, where they lie a centimetre off."""
    steps = [sign * DISPLACED_MM * np.eye(6)[k] for k in range(6) for sign in (-1, 1)]
    return float(np.mean([level.fit(matrix @ step_by(step, centre))[0] for step in steps]))


def expected_error(level: Level, matrix: np.ndarray, centre: np.ndarray) -> float:
    """Return the error at the brain's surface that the residuals would make, mm.

    Neighbours share residuals, by which fewer of them count.

    Parameters
    ----------
    level
        Of all voxels of the mask.
    matrix, centre
    """
    _, weights, residual = level.fit(matrix)
    slope = _jacobian(level, matrix, centre, weights)
    whole = np.zeros(level.points.max(axis=0) + 1)
    there = whole.astype(bool)
    whole[tuple(level.points.T)], there[tuple(level.points.T)] = residual, True
    shared = shared_noise(whole[..., None], there)
    free = max(len(residual) / shared - FREEDOM, 10.0)
    covariance = np.linalg.pinv(slope.T @ slope) * float(residual @ residual) / free
    # A translation moves all points by itself, a rotation only those off its axis.
    weight = np.array([1, 1, 1, 2 / 3, 2 / 3, 2 / 3])
    return float(np.sqrt((np.diag(covariance) * weight).sum()))
