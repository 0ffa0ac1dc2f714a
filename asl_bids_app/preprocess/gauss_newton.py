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

from asl_bids_app.preprocess.continuity import ARC_MM
from asl_bids_app.preprocess.geometry import to_matrix
from asl_bids_app.preprocess.interpolation import Spline
from asl_bids_app.preprocess.registration import normalise, smooth
from asl_bids_app.preprocess.robust import PER_MEDIAN
from asl_bids_app.preprocess.target import Level, Target, compared_places

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


class Views:
    """A volume as levels compare it, each view made when it is first asked for.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
        Not finite counts as zero.
    affine : array, shape (4, 4)
    """

    def __init__(self, volume: np.ndarray, affine: np.ndarray) -> None:
        self.volume, self.affine = volume, affine
        self._made: dict[tuple[bool, float], np.ndarray] = {}

    def normal(self) -> np.ndarray:
        """Return the volume's local contrast.

        Raises
        ------
        RegistrationError
            If it has none.
        """
        if (True, 0.0) not in self._made:
            self._made[True, 0.0] = normalise(self.volume, self.affine)
        return self._made[True, 0.0]

    def of(self, level: Level) -> np.ndarray:
        """Return the view of a level."""
        key = level.local, level.smooth_mm
        if key not in self._made:
            image = self.normal() if level.local else np.asarray(self.volume, np.float32)
            image = np.nan_to_num(image, posinf=0.0, neginf=0.0)
            self._made[key] = smooth(image, self.affine, level.smooth_mm)
        return self._made[key]

    def keep_only(self, level: Level) -> None:
        """Forget all views but that of a level, for memory."""
        key = level.local, level.smooth_mm
        self._made = {key: self._made[key]} if key in self._made else {}


def locate(views: Views, targets: Sequence[Target], starts: Sequence[np.ndarray]) -> Found:
    """Register one volume, level by level.

    Parameters
    ----------
    views
        Of the volume, on the targets' grid.
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
    for target in targets:
        found = follow(views.of(target.level), target, starts)
        starts = [found.matrix] if target.level.local else [*starts, found.matrix]
    return found


@dataclass(frozen=True, eq=False)
class _Read:
    """What a volume holds at the points of a target, moved by a matrix."""

    matrix: np.ndarray
    values: np.ndarray
    inside: np.ndarray
    likeness: float
    common: float


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
    level = target.level
    spline, pull = Spline.through(shown, level.order), np.linalg.inv(target.affine)

    def read(matrix: np.ndarray) -> _Read:
        place = (pull @ matrix)[:3] @ target.points
        values, inside = spline.at(place), compared_places(place, shown.shape)
        return _Read(matrix, values, inside, *_likeness(values, inside, target))

    first = max(map(read, starts), key=lambda one: one.likeness)
    best, last, settled = first, first, False
    for _ in range(_STEPS):
        step = _step(last.values, last.inside, target)
        if step is None:
            break
        size = float(np.linalg.norm(step * _MM))
        step *= min(1.0, level.limit_mm / max(size, 1e-12))
        last = read(last.matrix @ np.linalg.inv(to_matrix(step, target.centre)))
        settled = size < level.stop_mm and last.likeness > first.likeness - _LOSS
        if last.likeness >= best.likeness or settled:
            best = last
        if size < level.stop_mm:
            break
    return Found(best.matrix, best.likeness, best.common, settled)


def _likeness(values: np.ndarray, inside: np.ndarray, target: Target) -> tuple[float, float]:
    """Correlation with the target, and the share of the points that has data."""
    common = float(inside.mean() / max(target.inside, 1e-12))
    if common < 0.5:
        return -1.0, common
    one, two = values[inside], target.design[1, inside]
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
        left = design * weight
        normal = left @ design.T
        normal[np.diag_indices(8)] *= 1 + 1e-6  # what no slope tells, as in a slab, stays put
        try:
            answer = np.linalg.solve(normal, left @ values)
        except np.linalg.LinAlgError:
            return None
        rest = np.abs(values - answer @ design)
        spread = PER_MEDIAN * float(np.median(rest[inside]))
        weight = inside * np.maximum(1 - (rest / max(_TUKEY * spread, 1e-12)) ** 2, 0.0) ** 2
    if answer is None or not np.isfinite(answer).all() or answer[1] <= 0:
        return None
    return answer[2:] / answer[1]
