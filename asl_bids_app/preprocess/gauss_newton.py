"""Rigid registration of volumes of one contrast to their average, in hundredths of a second.

Inverse compositional Gauss-Newton (Baker and Matthews 2004,
doi:10.1023/B:VISI.0000011205.11775.fd): what is costly, the derivative of the image by the six
motions, is taken of the target, once for all volumes. At points x of the target, a volume ``I``
that lies at ``M`` is modelled as

    I(M x) = b + a T(x) + a J(x) d

with the target ``T``, its derivatives ``J`` and the motion ``d`` that is still missing. Offset
``b``, scale ``a`` and ``a d`` are one linear fit, so a volume may be brighter or darker than its
target. Dividing by ``a`` also makes steps long enough while the volumes lie apart: the
correlation of two images with each other, and with their derivatives, falls by the same factor
if their autocorrelation is a Gaussian.

Points lie off the grid, at random with a fixed seed: points on it favour shifts by whole voxels,
because interpolating smooths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.preprocess.continuity import ARC_MM
from asl_bids_app.preprocess.geometry import to_matrix
from asl_bids_app.preprocess.registration import normalise, smooth
from asl_bids_app.preprocess.robust import PER_MEDIAN
from asl_bids_app.preprocess.target import Target, compared_places

_STEPS: Final = 15
"""Most steps of a level. Three to five are usual."""
_TUKEY: Final = 3.0
"""Points off by this many standard deviations don't count."""
_LOSS: Final = 0.02
"""Correlation may fall by so much on the way, for it counts the points that the fit leaves out."""
_FEWEST: Final = 50
"""Points that a fit needs."""
_FITS: Final = 3
"""Of which each leaves out the points that were far off in the one before."""
_MM: Final = np.array([1.0] * 3 + [ARC_MM] * 3)


@dataclass(frozen=True, eq=False)
class Found:
    """Where a volume was found.

    Attributes
    ----------
    matrix : array, shape (4, 4)
        Takes world points (mm, RAS) of the target to those of the volume.
    likeness : float
        Correlation with the target at the points; -1 where too little is in common.
    common : float
        Points in the volume's field of view, as a share of the points in it at rest.
    settled : bool
        The last step was as small as the level asks.
    """

    matrix: np.ndarray
    likeness: float
    common: float
    settled: bool


def locate(volume: np.ndarray, targets: Sequence[Target], starts: Sequence[np.ndarray]) -> Found:
    """Register one volume, level by level.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
        On the targets' grid.
    targets
        From coarse to fine; the last compares local contrast.
    starts
        First guesses, (4, 4). The likeliest is taken at each level; what whole heads tell is
        one guess more for local contrast.

    Returns
    -------
    Found

    Raises
    ------
    RegistrationError
        If the volume has no contrast.
    """
    affine = targets[0].affine
    normal = normalise(volume, affine)
    plain = np.nan_to_num(np.asarray(volume, np.float32), posinf=0.0, neginf=0.0)
    for target in targets:
        image = normal if target.level.local else plain
        found = follow(smooth(image, affine, target.level.smooth_mm), target, starts)
        starts = [found.matrix] if target.level.local else [*starts, found.matrix]
    return found


class Reader:
    """Reads one volume, as a level compares it, at moved points of a target."""

    def __init__(self, shown: np.ndarray, target: Target) -> None:
        self.target, self.order = target, target.level.order
        self.shape = shown.shape
        self.pull = np.linalg.inv(target.affine)
        self.image = shown
        if self.order > 1:
            self.image = ndimage.spline_filter(shown, order=self.order, output=np.float32)

    def at(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values at the points moved by a matrix, and which are compared."""
        place = (self.pull @ matrix)[:3] @ self.target.points
        inside = compared_places(place, self.shape)
        values = ndimage.map_coordinates(
            self.image, place, order=self.order, prefilter=False, mode="nearest"
        )
        return values, inside


def follow(shown: np.ndarray, target: Target, starts: Sequence[np.ndarray]) -> Found:
    """Register one volume at one level.

    Parameters
    ----------
    shown : array, shape (X, Y, Z)
        As the target's level compares it, on the target's grid.
    target
    starts
        First guesses, (4, 4); the likeliest is taken.

    Returns
    -------
    Found
        Where the steps ended; if they did not, or where it is less like the target than at the
        start, the likeliest place on the way.
    """
    reader, level = Reader(shown, target), target.level
    seen = [(_likeness(reader.at(start), target), start) for start in starts]
    (first, _), matrix = max(seen, key=lambda pair: pair[0][0])
    best, found, settled = first, matrix, False
    read = reader.at(matrix)
    for _ in range(_STEPS):
        step = _step(*read, target)
        if step is None:
            break
        size = float(np.linalg.norm(step * _MM))
        step *= min(1.0, level.limit_mm / max(size, 1e-12))
        matrix = matrix @ np.linalg.inv(to_matrix(step, target.centre))
        read = reader.at(matrix)
        likeness, _ = _likeness(read, target)
        settled = size < level.stop_mm and likeness > first - _LOSS
        if likeness >= best or settled:
            best, found = likeness, matrix
        if size < level.stop_mm:
            break
    return Found(found, *_likeness(reader.at(found), target), settled)


def _likeness(read: tuple[np.ndarray, np.ndarray], target: Target) -> tuple[float, float]:
    """Correlation with the target, and the share of the points that has data."""
    values, inside = read
    common = float(inside.mean() / max(target.inside, 1e-12))
    if common < 0.5:
        return -1.0, common
    one, two = values[inside], target.design[inside, 1]
    one, two = one - one.mean(), two - two.mean()
    size = float(np.sqrt((one @ one) * (two @ two)))
    return (float(one @ two) / size if size > 0 else -1.0), common


def _step(values: np.ndarray, inside: np.ndarray, target: Target) -> np.ndarray | None:
    """Fit the model of the module's docstring; None where volume and target are not alike."""
    design = target.design
    if inside.sum() < _FEWEST:
        return None
    weight, answer = inside.astype(float), None
    for _ in range(_FITS):
        left = design.T * weight
        normal = left @ design
        normal[np.diag_indices(8)] *= 1 + 1e-6  # what no slope tells, as in a slab, stays put
        try:
            answer = np.linalg.solve(normal, left @ values)
        except np.linalg.LinAlgError:
            return None
        rest = np.abs(values - design @ answer)
        spread = PER_MEDIAN * float(np.median(rest[inside]))
        weight = inside * np.maximum(1 - (rest / max(_TUKEY * spread, 1e-12)) ** 2, 0.0) ** 2
    if answer is None or not np.isfinite(answer).all() or answer[1] <= 0:
        return None
    return answer[2:] / answer[1]
