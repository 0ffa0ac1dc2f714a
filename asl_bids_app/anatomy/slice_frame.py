"""Where slices are cut: a grid turned to the right, to the front and up, around a brain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.preprocess.geometry import voxel_sizes

CHOSEN: Final = {2: (0.3, 0.47, 0.62, 0.77), 1: (0.36, 0.62), 0: (0.29, 0.53)}
"""By axis (to the right, to the front, up): where slices are, in parts of the brain's extent.
Four axial, two coronal, two sagittal ones, one of these near the middle."""
MARGIN_MM: Final = 10.0
BEYOND_MM: Final = 40.0
"""So far around the mask at most a head is shown that lies elsewhere."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Where slices are cut: a grid whose axes run to the right, to the front and up.

    Attributes
    ----------
    affine : array, shape (4, 4)
        Voxel to world.
    low, high : array of int, shape (3,)
        Voxels that are shown, the last one not; may lie outside the image.
    brain : array of int, shape (2, 3)
        First and last voxel of the brain.
    """

    affine: np.ndarray
    low: np.ndarray
    high: np.ndarray
    brain: np.ndarray

    def numbers(self) -> list[tuple[int, int]]:
        """Return axis and number of each slice."""
        first, last = self.brain
        return [
            (axis, int(np.rint(first[axis] + part * (last[axis] - first[axis]))))
            for axis, parts in CHOSEN.items()
            for part in parts
        ]

    def grid(self, axis: int, number: int, step: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
        """Return a grid of pixels, one voxel thick: shape and affine.

        Parameters
        ----------
        axis, number
            Of the slice.
        step : array, shape (3,)
            Of the pixels, in voxels.
        """
        count = np.maximum(np.rint((self.high - self.low) / step), 1).astype(int)
        step = (self.high - self.low) / count
        first = self.low - 0.5 + step / 2
        count[axis], step[axis], first[axis] = 1, 1.0, number
        local = np.diag([*step, 1.0])
        local[:3, 3] = first
        return tuple(int(n) for n in count), self.affine @ local

    def cut(self, volume: np.ndarray, axis: int, number: int) -> np.ndarray:
        """Return a slice of a volume of the grid; NaN where it has no voxels."""
        size = self.high - self.low
        whole = np.full([int(n) for n in size], np.nan, np.float32)
        low, high = self.low.copy(), self.high.copy()
        low[axis], high[axis] = number, number + 1
        start, stop = np.maximum(low, 0), np.minimum(high, volume.shape)
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        offset = [int(n) for n in self.low]
        offset[axis] = number
        target = tuple(
            slice(int(a - o), int(b - o)) for a, b, o in zip(start, stop, offset, strict=True)
        )
        whole = np.take(whole, [0], axis=axis)
        if (stop > start).all():
            whole[target] = volume[inside]
        return np.take(whole, 0, axis=axis)

    def size_mm(self, axis: int) -> tuple[float, float]:
        """Return width and height of a slice."""
        sizes = (self.high - self.low) * voxel_sizes(self.affine)
        width, height = np.delete(sizes, axis)
        return float(width), float(height)


def canonical(
    affine: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the affine of a grid turned so that its axes run right, front, up, and what turns."""
    import nibabel as nib

    turn = nib.io_orientation(affine)
    turned = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    return turned, lambda volume: nib.apply_orientation(volume, turn)


def frame_of(affine: np.ndarray, where: np.ndarray, also: np.ndarray | None = None) -> Frame:
    """Return the frame around a brain.

    Parameters
    ----------
    affine : array, shape (4, 4)
        Of a grid turned as `canonical` does.
    where : array of int, shape (n, 3)
        Voxels of the brain.
    also : array, shape (m, 3)
        Points in voxels that are to be shown too, unless they lie far away.
    """
    sizes = voxel_sizes(affine)
    first, last = where.min(axis=0), where.max(axis=0)
    low, high = first.astype(float), last.astype(float)
    if also is not None and len(also):
        low = np.minimum(low, np.maximum(also.min(axis=0), first - BEYOND_MM / sizes))
        high = np.maximum(high, np.minimum(also.max(axis=0), last + BEYOND_MM / sizes))
    margin = MARGIN_MM / sizes
    low, high = np.floor(low - margin).astype(int), np.ceil(high + margin).astype(int) + 1
    return Frame(affine, low, high, np.array([first, last]))
