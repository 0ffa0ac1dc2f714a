"""What volumes are registered to: one image at the points of one level, with its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.interpolation import Spline
from asl_bids_app.preprocess.registration import RegistrationError, normalise, smooth


@dataclass(frozen=True)
class Level:
    """One pass of a registration, from coarse to fine.

    Attributes
    ----------
    smooth_mm : float
        Standard deviation of the Gaussian smoothing of both volumes.
    points : int
        Points at which they are compared, at most.
    order : int
        Of the spline that the volume is interpolated by: 1 linear, 3 cubic.
    limit_mm, stop_mm : float
        Longest step, and the step at which it ends.
    local : bool
        Compare local contrast, not the images as they are.
    """

    smooth_mm: float
    points: int
    order: int
    limit_mm: float
    stop_mm: float
    local: bool = True


FAR: Final = Level(8.0, points=2000, order=1, limit_mm=12.0, stop_mm=0.3, local=False)
"""The head as a whole: finds it after a jump of centimetres."""
COARSE: Final = Level(6.0, points=2000, order=1, limit_mm=6.0, stop_mm=0.1)
MIDDLE: Final = Level(4.0, points=4000, order=1, limit_mm=3.0, stop_mm=0.02)
FINE: Final = Level(4.0, points=6000, order=3, limit_mm=2.0, stop_mm=0.002)
_EDGE: Final = 1.0
"""Voxels from the centre of the outermost ones inwards that are not compared: their surroundings
end there, and where a scanner's readout ends the signal is another."""
_RIM: Final = 3
"""Voxels around the mask at which whole heads are compared."""


@dataclass(frozen=True, eq=False)
class Target:
    """What volumes are registered to, at the points of one level.

    Attributes
    ----------
    level : Level
    affine : array, shape (4, 4)
    centre : array, shape (3,)
        What rotations are about, mm.
    points : array, shape (4, P)
        mm, with a row of ones.
    design : array, shape (8, P)
        One, the target, and its derivatives by translation (mm) and rotation (radians).
    inside : float
        Share of the points that are compared where the volume lies at rest.
    """

    level: Level
    affine: np.ndarray
    centre: np.ndarray
    points: np.ndarray
    design: np.ndarray
    inside: float


def make_target(
    volume: np.ndarray, affine: np.ndarray, mask: np.ndarray, centre: np.ndarray, level: Level
) -> Target:
    """Prepare a target for all volumes that are registered to it.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
    affine : array, shape (4, 4)
    mask : array of bool, shape (X, Y, Z)
        The voxels that are compared.
    centre : array, shape (3,)
        What rotations are about, mm.
    level

    Raises
    ------
    RegistrationError
        If it has no contrast, or the mask is empty.
    """
    if not level.local:
        mask = ndimage.binary_dilation(mask, iterations=_RIM)
    voxels = np.argwhere(mask)
    if not len(voxels):
        raise RegistrationError("an empty mask")
    shown = normalise(volume, affine) if level.local else np.asarray(volume, np.float32)
    shown = smooth(shown, affine, level.smooth_mm)
    random = np.random.default_rng(1)
    if len(voxels) > level.points:
        voxels = voxels[random.choice(len(voxels), level.points, replace=False)]
    top = np.array(mask.shape)[:, None] - 1.0
    place = np.clip(voxels.T + random.uniform(-0.5, 0.5, (3, len(voxels))), 0.0, top)
    read = Spline.through(shown, order=3).at
    slopes = []
    for axis in range(3):
        step = np.zeros((3, 1))
        step[axis] = 0.25
        slopes.append((read(place + step) - read(place - step)) / 0.5)
    linear, offset = np.asarray(affine)[:3, :3], np.asarray(affine)[:3, 3:]
    slope = np.linalg.solve(linear.T, np.array(slopes))  # by mm of the world, (3, P)
    points = np.vstack([linear @ place + offset, np.ones(place.shape[1])])
    arm = points[:3] - np.asarray(centre)[:, None]
    turning = np.cross(arm, slope, axis=0)
    design = np.vstack([np.ones(len(voxels)), read(place), slope, turning])
    inside = float(compared_places(place, mask.shape).mean())
    return Target(level, np.asarray(affine), np.asarray(centre), points, design, inside)


def compared_places(place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Say which places (voxels) lie far enough within a grid."""
    last = np.array(shape)[:, None] - 1.0
    edge = np.clip((last - 3) / 8, 0.0, _EDGE)  # a thin slab can't spare it
    within: np.ndarray = (place >= edge) & (place <= last - edge)
    return np.all(within, axis=0)
