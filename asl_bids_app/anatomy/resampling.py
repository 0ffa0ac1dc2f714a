"""Maps, their standard deviations and labels read at the points of another grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

LEAST_WEIGHT: Final = 0.5
"""Share of the weights of an interpolation that must lie on brain."""


@dataclass(frozen=True, eq=False)
class ResampledMaps:
    """Maps on another grid.

    Attributes
    ----------
    maps : mapping of str to array of float32, shape (X, Y, Z)
        Zero where `inside` is False.
    inside : array of bool, shape (X, Y, Z)
        Where most of what a value is interpolated from is brain.
    """

    maps: Mapping[str, np.ndarray]
    inside: np.ndarray


def resample_maps(
    maps: Mapping[str, np.ndarray],
    sds: Mapping[str, np.ndarray],
    mask: np.ndarray,
    affine: np.ndarray,
    points: np.ndarray,
    shared: Mapping[str, float] = MappingProxyType({}),
) -> ResampledMaps:
    """Interpolate maps, and the standard deviations of maps, linearly at points.

    What lies outside the mask is no measurement and takes no part: weights are those of the
    voxels inside, scaled to add up to 1. The variance of a value so interpolated, with weights
    w and standard deviations s, is (1 - c) Σ w² s² + c (Σ w s)², where c is the share of the
    variance that neighbouring voxels have in common.

    Parameters
    ----------
    maps, sds : mapping of str to array, shape (X, Y, Z)
    mask : array of bool, shape (X, Y, Z)
    affine : array, shape (4, 4)
    points : array, shape (X', Y', Z', 3)
        World points (mm, RAS) of the maps' space.
    shared : mapping of str to float
        c of each standard deviation, 0 to 1; 0 for a map without one.

    Returns
    -------
    Laid
        Maps and standard deviations by their keys, on the grid of the points.
    """
    shape, target = np.array(mask.shape), points.shape[:3]
    inverse = np.linalg.inv(affine)
    place = points.reshape(-1, 3) @ inverse[:3, :3].T.astype(np.float32) + inverse[:3, 3].astype(
        np.float32
    )
    near = np.flatnonzero(((place > -1) & (place < shape)).all(axis=1))
    place = place[near]
    base = np.floor(place).astype(np.int64)
    part = place - base
    weight = np.zeros(len(near))
    sums = {key: np.zeros(len(near)) for key in maps}
    squares = {key: np.zeros(len(near)) for key in sds}
    linear = {key: np.zeros(len(near)) for key in sds}
    for corner in np.ndindex(2, 2, 2):
        index = base + corner
        w = np.prod(np.where(corner, part, 1 - part), axis=1)
        ok = ((index >= 0) & (index < shape)).all(axis=1)
        at = tuple(np.clip(index, 0, shape - 1).T)
        w = w * (ok & mask[at])
        weight += w
        for key in maps:
            sums[key] += w * maps[key][at]
        for key in sds:
            squares[key] += (w * sds[key][at]) ** 2
            linear[key] += w * sds[key][at]
    good = weight >= LEAST_WEIGHT
    norm = np.where(good, weight, 1)

    def fill_target(values: np.ndarray) -> np.ndarray:
        whole = np.zeros(int(np.prod(target)), np.float32)
        whole[near] = np.where(good, values, 0)
        return whole.reshape(target)

    found = {key: fill_target(value / norm) for key, value in sums.items()}
    for key in sds:
        c = shared.get(key, 0.0)
        variance = (1 - c) * squares[key] + c * linear[key] ** 2
        found[key] = fill_target(np.sqrt(variance) / norm)
    inside = np.zeros(int(np.prod(target)), bool)
    inside[near] = good
    return ResampledMaps(found, inside.reshape(target))


def resample_labels(
    labels: np.ndarray, affine: np.ndarray, points: Iterable[np.ndarray]
) -> np.ndarray:
    """Read labels at points, the commonest of several sets of points in each voxel.

    Parameters
    ----------
    labels : array of int, shape (X, Y, Z)
    affine : array, shape (4, 4)
    points : iterable of array, shape (X', Y', Z', 3)
        World points of the atlas's space, one set for each part of the voxels.

    Returns
    -------
    array of int32, shape (X', Y', Z')
        Zero outside the atlas.
    """
    inverse = np.linalg.inv(affine)
    read = []
    for part in points:
        index = np.rint(part @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        inside = ((index >= 0) & (index < labels.shape)).all(axis=-1)
        at = np.clip(index, 0, np.array(labels.shape) - 1)
        read.append(np.where(inside, labels[tuple(np.moveaxis(at, -1, 0))], 0))
    stack = np.stack(read).astype(np.int32)
    if len(stack) == 1:
        return stack[0]
    stack.sort(axis=0)
    # The length of the run that each value is in, at its end.
    count = np.ones_like(stack)
    for k in range(1, len(stack)):
        count[k] = np.where(stack[k] == stack[k - 1], count[k - 1] + 1, 1)
    best = count.argmax(axis=0)
    return np.take_along_axis(stack, best[None], 0)[0]
