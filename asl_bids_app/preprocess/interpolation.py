"""Linear and cubic B-spline interpolation at any points, in single precision.

As `scipy.ndimage.map_coordinates` with ``mode="nearest"``, to rounding, in about a third of its
time: a tap of the kernel is one pass over all points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

_MARGIN: Final = {1: 1, 3: 6}
"""Voxels by which the border is continued, by the order of the spline."""
_ROOM: Final = {1: 1, 3: 4}
"""Of these, how far out a point is read; a cubic spline's border has faded to 0.268^4 there."""
_CHUNK: Final = 12288
"""Points at a time: what is held for them stays in the processor's cache."""
_POLE: Final = np.float32(np.sqrt(3) - 2)
"""Of the recursive filter that gives the coefficients of a cubic B-spline (Unser 1999,
doi:10.1109/79.799930)."""


@dataclass(frozen=True, eq=False)
class Spline:
    """A volume that can be read at any point.

    Attributes
    ----------
    coefficients : array of float32, shape (X + 2 m, Y + 2 m, Z + 2 m)
        Of the B-spline, with a margin m in which the border's values go on.
    order : int
        1 linear, 3 cubic.
    """

    coefficients: np.ndarray
    order: int

    @classmethod
    def through(cls, volume: np.ndarray, order: int) -> Spline:
        """Return the spline that goes through the voxels of a volume, all of them finite."""
        padded = np.pad(np.ascontiguousarray(volume, np.float32), _MARGIN[order], mode="edge")
        if order > 1:
            for axis in range(3):
                _filter(np.moveaxis(padded, axis, 0))
        return cls(padded, order)

    def at(self, place: np.ndarray) -> np.ndarray:
        """Interpolate.

        Parameters
        ----------
        place : array, shape (3, P)
            In voxels of the volume; the centre of the first one is at zero. Outside the volume
            the value at the border goes on.

        Returns
        -------
        array of float32, shape (P,)
        """
        margin, room, shape = _MARGIN[self.order], _ROOM[self.order], self.coefficients.shape
        values = np.empty(place.shape[1], np.float32)
        for start in range(0, len(values), _CHUNK):
            part = slice(start, start + _CHUNK)
            weights: list[list[np.ndarray]] = []
            first = np.zeros(len(values[part]), np.intp)
            for axis in range(3):
                last = shape[axis] - 1 - 2 * margin
                x = np.clip(place[axis, part], -room, last + room - 1e-4) + margin
                whole = x.astype(np.intp)  # positive, so this is the floor
                first = first * shape[axis] + whole - (self.order > 1)
                weights.append(_weights((x - whole).astype(np.float32), self.order))
            self._sum(first, weights, values[part])
        return values

    def _sum(self, first: np.ndarray, weights: list[list[np.ndarray]], out: np.ndarray) -> None:
        """Add up the taps of the kernel; `first` are the places of their first corners."""
        flat, (_, ny, nz) = self.coefficients.ravel(), self.coefficients.shape
        plane, row, tap = (np.empty_like(out) for _ in range(3))
        out[:] = 0
        for i, across in enumerate(weights[0]):
            plane[:] = 0
            for j, along in enumerate(weights[1]):
                row[:] = 0
                for k, up in enumerate(weights[2]):
                    # Of `take`'s modes this one needs no copy; nothing lies outside.
                    flat[(i * ny + j) * nz + k :].take(first, out=tap, mode="clip")
                    tap *= up
                    row += tap
                row *= along
                plane += row
            plane *= across
            out += plane


def _filter(lines: np.ndarray) -> None:
    """Turn values into coefficients along the first axis, in place; the ends go on for ever."""
    lines *= 6
    last = lines[-1] / (1 - _POLE)
    lines[0] /= 1 - _POLE
    for i in range(1, len(lines)):
        lines[i] += _POLE * lines[i - 1]
    lines[-1] = -_POLE * (last / (1 - _POLE) + (lines[-1] - last) / (1 - _POLE * _POLE))
    for i in reversed(range(len(lines) - 1)):
        lines[i] = _POLE * (lines[i + 1] - lines[i])


def _weights(t: np.ndarray, order: int) -> list[np.ndarray]:
    """Return the weights of the taps, for points a share `t` beyond a voxel."""
    if order == 1:
        return [1 - t, t]
    rest, square = 1 - t, t * t
    outer, inner = rest * rest * rest / 6, square * t / 6
    before = 2 / np.float32(3) - square + 3 * inner
    return [outer, before, 1 - outer - before - inner, inner]
