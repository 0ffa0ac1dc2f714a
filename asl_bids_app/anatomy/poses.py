"""Rigid poses of an ASL image on a T1w: starts of a search, small steps, distances."""

from __future__ import annotations

from typing import Final

import numpy as np

from asl_bids_app.anatomy.records import Head
from asl_bids_app.preprocess.geometry import to_matrix, voxel_sizes

RADIUS_MM: Final = 60.0
"""Where on the head a rotation is turned into millimetres."""
TURNS_DEG: Final = (
    (0, 0, 0),
    *(
        (s * 18 * (a == 0), s * 18 * (a == 1), s * 18 * (a == 2))
        for a in range(3)
        for s in (-1, 1)
    ),
)
"""Rotations about x, y and z from which the search starts."""
HEIGHTS_MM: Final = (-40.0, -20.0, 0.0, 20.0, 40.0)
"""Where a slab is tried, along its normal."""
SLAB_MM: Final = 90.0
"""A field of view thinner than this is a slab."""


def middle(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the middle of a mask, world mm (3,)."""
    return (np.asarray(affine) @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]


def distance(first: np.ndarray, second: np.ndarray, centre: np.ndarray) -> float:
    """Return how far apart two transforms lay the brain's surface, mm (root mean square).

    Parameters
    ----------
    first, second : array, shape (4, 4)
    centre : array, shape (3,)
        Middle of the brain in the space they come from.
    """
    steps = RADIUS_MM * np.array(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float
    )
    points = np.column_stack([centre + steps, np.ones(6)])
    gap = ((first - second) @ points.T)[:3]
    return float(np.sqrt((gap**2).sum(axis=0).mean()))


def starts_of(mask: np.ndarray, affine: np.ndarray, head: Head) -> list[np.ndarray]:
    """Return poses from which the search starts: the scanner's, and brain on brain, turned."""
    centre, goal = middle(mask, affine), middle(head.brain, head.affine)
    sizes = voxel_sizes(affine)
    thickness = np.array(mask.shape) * sizes
    axis = int(np.argmin(thickness))
    heights = [0.0]
    normal = np.asarray(affine)[:3, axis] / sizes[axis]
    if thickness[axis] < SLAB_MM:
        heights = list(HEIGHTS_MM)
    shifts = [np.zeros(3), *(goal - centre + height * normal for height in heights)]
    starts = []
    for shift in shifts:
        for turn in TURNS_DEG:
            starts.append(to_matrix(np.concatenate([shift, np.radians(turn)]), centre))
    return starts


def step_by(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return a small rigid motion; all six parameters are mm at the brain's surface."""
    return to_matrix(np.concatenate([parameters[:3], parameters[3:] / RADIUS_MM]), centre)


def distinct(
    found: list[tuple[np.ndarray, float]], centre: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Return poses, the best first, without those that are within a millimetre of a better one."""
    kept: list[tuple[np.ndarray, float]] = []
    for matrix, value in sorted(found, key=lambda pair: -pair[1]):
        if all(distance(matrix, other, centre) > 1.0 for other, _ in kept):
            kept.append((matrix, value))
    return kept
