"""An ASL image sampled at one blur, and the T1w's tissues that are to explain it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.skull import thinned
from asl_bids_app.preprocess.geometry import voxel_sizes

SAMPLES: Final = {"coarse": 2000, "middle": 5000, "fine": 20000, "all": 10**9}
FIELD_ORDER: Final = 3


@dataclass(frozen=True, eq=False)
class Target:
    """Tissue maps of the T1w, blurred, on a grid of about 2 mm."""

    maps: np.ndarray
    inverse: np.ndarray

    def at(self, world: np.ndarray) -> np.ndarray:
        """Return the maps at world points (3, N), (N, 3)."""
        points = self.inverse[:3, :3] @ world + self.inverse[:3, 3:]
        return np.stack(
            [ndimage.map_coordinates(m, points, order=1, mode="constant") for m in self.maps], 1
        )


@dataclass(frozen=True, eq=False)
class Level:
    """Samples of one image at one blur, freed of a smooth field.

    Attributes
    ----------
    value : array, shape (N,)
    basis : array, shape (N, K)
        Orthonormal columns of the smooth field, the constant among them.
    world : array, shape (3, N)
    points : array of int, shape (N, 3)
        The voxels.
    target : Target
    """

    value: np.ndarray
    basis: np.ndarray
    world: np.ndarray
    points: np.ndarray
    target: Target

    def mixed(self, weights: np.ndarray) -> Level:
        """Return the level with one map, the tissues by their weights."""
        one = np.tensordot(weights, self.target.maps, 1)[None]
        return replace(self, target=Target(one, self.target.inverse))

    def left(self, columns: np.ndarray) -> np.ndarray:
        """Return what the smooth field leaves of columns (N, K)."""
        return columns - self.basis @ (self.basis.T @ columns)

    def design(self, matrix: np.ndarray) -> np.ndarray:
        """Return the maps at a pose, freed of the smooth field, (N, K)."""
        return self.left(self.target.at(matrix[:3, :3] @ self.world + matrix[:3, 3:]))

    def fit(self, matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the share of the variance explained, weights (3,) and residuals (N,)."""
        design = self.design(matrix)
        weights = _solve(design, self.value)
        residual = self.value - design @ weights
        power = float(self.value @ self.value)
        return 1 - float(residual @ residual) / max(power, 1e-30), weights, residual


def _solve(design: np.ndarray, value: np.ndarray) -> np.ndarray:
    normal = design.T @ design
    normal += 1e-6 * max(float(np.trace(normal)), 1e-12) * np.eye(len(normal))
    return np.linalg.solve(normal, design.T @ value)


def even_out(image: np.ndarray, mask: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Divide by a smooth field, cut what is out of proportion, and zero what is not brain."""
    top = float(np.percentile(np.abs(image[mask]), 99))
    image = np.clip(image, -top, 1.5 * top) * mask
    sigma = 25.0 / sizes
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=3.0)
    field = ndimage.gaussian_filter(image, sigma, truncate=3.0) / np.maximum(weight, 1e-3)
    least = 0.3 * float(np.median(field[mask]))
    if least <= 0:
        return image / max(top, 1e-12)
    return (image / np.maximum(field, least)) * mask


def blurred(head: Head, sigma_mm: float) -> Target:
    """Blur the tissue maps around the brain, on a grid that is no finer than the blur asks for."""
    sizes = voxel_sizes(head.affine)
    margin = np.ceil(3 * sigma_mm / sizes).astype(int) + 2
    points = np.argwhere(head.brain)
    low = np.maximum(points.min(axis=0) - margin, 0)
    high = np.minimum(points.max(axis=0) + margin + 1, head.brain.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.array(head.affine, float)
    grid[:3, 3] += grid[:3, :3] @ low
    maps = []
    for tissue in head.tissue():
        thin, coarse = thinned(tissue[box], grid, max(0.6 * sigma_mm, float(sizes.min())))
        sigma = sigma_mm / voxel_sizes(coarse)
        maps.append(ndimage.gaussian_filter(thin, sigma, truncate=3.0, mode="constant"))
    return Target(np.stack(maps), np.linalg.inv(coarse))


def sample(
    even: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    target: Target,
    sigma_mm: float,
    name: str,
) -> Level:
    """Sample an image: with the surroundings of the brain while it is coarse, then inside only."""
    sizes = voxel_sizes(affine)
    where = mask
    if sigma_mm:
        even = ndimage.gaussian_filter(even, sigma_mm / sizes, truncate=3.0, mode="nearest")
        away = ndimage.distance_transform_edt(~mask, sampling=sizes)
        where = away <= 2.0 * sigma_mm + 3.0
    points = np.argwhere(where)
    step = max(1, len(points) // SAMPLES[name])
    points = np.random.default_rng(1).permutation(points)[: len(points) // step]
    world = (np.asarray(affine)[:3, :3] @ points.T) + np.asarray(affine)[:3, 3:]
    value = even[tuple(points.T)].astype(float)
    basis = _basis(points * sizes, FIELD_ORDER if not sigma_mm else 0)
    value = value - basis @ (basis.T @ value)
    return Level(value, basis, world, points, target)


def _basis(place: np.ndarray, order: int) -> np.ndarray:
    """Return orthonormal polynomials of place."""
    place = place - (place.max(axis=0) + place.min(axis=0)) / 2
    place = place / max(float(np.abs(place).max()), 1e-6)
    columns = [
        place[:, 0] ** a * place[:, 1] ** b * place[:, 2] ** c
        for a in range(order + 1)
        for b in range(order + 1 - a)
        for c in range(order + 1 - a - b)
    ]
    left, values, _ = np.linalg.svd(np.stack(columns, 1), full_matrices=False)
    return left[:, values > 1e-8 * values[0]]
