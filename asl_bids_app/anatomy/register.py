"""Laying an ASL image on the T1w of the same head by a rigid transform.

An ASL image has a contrast of its own: in an M0 fluid is bright, in a CBF map grey matter. No
order is assumed. The tissues of the T1w, blurred to the ASL's voxels and laid at a candidate
pose, are regressed on the image together with a smooth field; the pose is right where they
explain most of it. This is what a boundary-based cost asks (Greve 2009,
doi:10.1016/j.neuroimage.2009.06.060): that intensity changes where tissue does, at every
boundary, and without a sign. A search from many starts on blurred images comes first, so that
a header that is wrong by 30 mm and 20 degrees does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import Head, Registration
from asl_bids_app.anatomy.regions import shared_noise
from asl_bids_app.anatomy.skull import thinned
from asl_bids_app.preprocess.geometry import resample, to_matrix, voxel_sizes

RADIUS_MM: Final = 60.0
"""Where on the head a rotation is turned into millimetres."""
SAMPLES: Final = {"coarse": 2000, "middle": 5000, "fine": 20000, "all": 10**9}
COARSE_MM: Final = 6.0
MIDDLE_MM: Final = 3.0
"""Standard deviations of the blur of the first two levels."""
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
FIELD_ORDER: Final = 3
FREEDOM: Final = 30
"""Degrees of freedom that field, tissues and pose take."""
DISPLACED_MM: Final = 10.0
LEAST_SCORE: Final = 0.05
"""Score below which a pose is not believed; measured in `benchmarks/anatomy.py`."""
DOUBTFUL_SCORE: Final = 0.22
"""Score that the best contrast reaches on the same head, and another person's head or a mirrored
one doesn't (0.20, 0.21 against 0.38 and more on a simulated head); below, a warning is due."""
MIRROR_GAIN: Final = 0.05
"""By how much more a mirrored T1w must explain for left and right to look swapped."""
LEAST_DICE: Final = 0.80
"""Overlap of the two brains inside the field of view below which a pose is not believed."""
AGREE_MM: Final = 3.0
"""Two contrasts that lie further apart than this contradict each other."""
MOST_ERROR_MM: Final = 1.5
"""Expected error by noise above which a pose is not believed."""


@dataclass(frozen=True, eq=False)
class _Target:
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
class _Level:
    """Samples of one image at one blur, freed of a smooth field.

    Attributes
    ----------
    value : array, shape (N,)
    basis : array, shape (N, K)
        Orthonormal columns of the smooth field, the constant among them.
    world : array, shape (3, N)
    points : array of int, shape (N, 3)
        The voxels.
    target : _Target
    """

    value: np.ndarray
    basis: np.ndarray
    world: np.ndarray
    points: np.ndarray
    target: _Target

    def mixed(self, weights: np.ndarray) -> _Level:
        """Return the level with one map, the tissues by their weights."""
        one = np.tensordot(weights, self.target.maps, 1)[None]
        return replace(self, target=_Target(one, self.target.inverse))

    def left(self, columns: np.ndarray) -> np.ndarray:
        return columns - self.basis @ (self.basis.T @ columns)

    def design(self, matrix: np.ndarray) -> np.ndarray:
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


def register_asl(
    images: Mapping[str, np.ndarray], mask: np.ndarray, affine: np.ndarray, head: Head
) -> Registration:
    """Lay an ASL series on a T1w of the same head.

    Parameters
    ----------
    images : mapping of str to array, shape (X, Y, Z)
        Contrasts by name, on one grid, such as ``M0`` and ``CBF``; not finite counts as zero.
    mask : array of bool, shape (X, Y, Z)
        Brain in them.
    affine : array, shape (4, 4)
    head
        The T1w with its tissues.

    Returns
    -------
    Registration
        With `Registration.registered` False, and the reason, where no pose can be believed.
    """
    usable = {k: np.nan_to_num(np.asarray(v, np.float32)) for k, v in images.items()}
    usable = {k: v for k, v in usable.items() if mask.any() and _has_contrast(v[mask])}
    if not usable or not head.brain.any():
        what = "an empty brain mask" if not mask.any() else "images without contrast"
        what = "a T1w without a brain" if not head.brain.any() else what
        return Registration(np.eye(4), "none", 0.0, np.inf, False, f"found {what}")
    sizes = voxel_sizes(affine)
    centre = _middle(mask, affine)
    blur = {"coarse": COARSE_MM, "middle": MIDDLE_MM, "fine": 0.4 * float(sizes.mean())}
    target = {name: _target(head, sigma) for name, sigma in blur.items()}
    starts = _starts(mask, affine, head)
    best: dict[str, tuple[np.ndarray, float, float, float]] = {}
    for name, image in usable.items():
        even = _even(image, mask, sizes)
        levels = {
            "coarse": _level(even, mask, affine, target["coarse"], blur["coarse"], "coarse"),
            "middle": _level(even, mask, affine, target["middle"], blur["middle"], "middle"),
            "fine": _level(even, mask, affine, target["fine"], 0.0, "fine"),
        }
        # What the first contrast found, the others may start from; and from where it started.
        tried = [_descend(levels["coarse"], start, centre, 5) for start in starts]
        tried.sort(key=lambda pair: -pair[1])
        kept = [_descend(levels["coarse"], matrix, centre, 15) for matrix, _ in tried[:4]]
        kept = [_descend(levels["middle"], m, centre, 15) for m, _ in _distinct(kept, centre)]
        kept = [_descend(levels["fine"], m, centre, 12) for m, _ in _distinct(kept, centre)[:2]]
        matrix, explained = max(kept, key=lambda pair: pair[1])
        every = _level(even, mask, affine, target["fine"], 0.0, "all")
        displaced = _displaced(levels["fine"], matrix, centre)
        starts = [*(m for m, _ in _distinct(kept, centre)), *starts[:: len(TURNS_DEG)]]
        best[name] = (
            matrix,
            explained,
            explained - displaced,
            _expected_error(every, matrix, centre),
        )
    found = _judge(best, mask, affine, head, centre)
    told = _doubts(found, usable[found.image], mask, affine, head) if found.registered else ()
    return replace(found, warnings=told)


def _doubts(
    found: Registration, image: np.ndarray, mask: np.ndarray, affine: np.ndarray, head: Head
) -> tuple[str, ...]:
    """Say what is odd about a pose that is believed: sides swapped, or little that fits."""
    sizes, centre = voxel_sizes(affine), _middle(mask, affine)
    mirror = np.eye(4)
    mirror[0, 0], mirror[0, 3] = -1, 2 * _middle(head.brain, head.affine)[0]
    target = _target(replace(head, affine=mirror @ head.affine), 0.4 * float(sizes.mean()))
    level = _level(_even(image, mask, sizes), mask, affine, target, 0.0, "fine")
    _, mirrored = _descend(level, found.matrix, centre, 12)
    if mirrored > found.facts["explained"] + MIRROR_GAIN:
        return (
            f"{found.image} fits the mirrored T1w better (found {mirrored:.2f} of its contrast "
            f"explained, expected less than {found.facts['explained']:.2f}): left and right look "
            "swapped in one of the two",
        )
    if max(found.facts["scores"].values()) < DOUBTFUL_SCORE:
        return (
            f"the T1w explains little of the contrast of the run: found a score of "
            f"{max(found.facts['scores'].values()):.2f}, expected {DOUBTFUL_SCORE:g} or more; "
            "another person's T1w, or blurred images: look at the registration",
        )
    return ()


def _judge(
    best: Mapping[str, tuple[np.ndarray, float, float, float]],
    mask: np.ndarray,
    affine: np.ndarray,
    head: Head,
    centre: np.ndarray,
) -> Registration:
    """Choose a contrast, and say whether its pose can be believed."""
    dice = {name: overlap(mask, affine, head, found[0]) for name, found in best.items()}
    # The pose that noise leaves least open, among those whose brains overlap and contrast fits.
    order = sorted(
        best,
        key=lambda n: (best[n][2] < LEAST_SCORE or dice[n] < LEAST_DICE, best[n][3]),
    )
    name = order[0]
    matrix, explained, score, error = best[name]
    others = [n for n in order[1:] if best[n][2] >= LEAST_SCORE and best[n][3] <= MOST_ERROR_MM]
    apart = {n: distance(matrix, best[n][0], centre) for n in others}
    facts = {
        "image": name,
        "score": round(score, 3),
        "explained": round(explained, 3),
        "dice": round(dice[name], 3),
        "expected_error_mm": round(error, 3),
        "moved_mm": round(distance(matrix, np.eye(4), centre), 2),
        "scores": {n: round(found[2], 3) for n, found in best.items()},
        "errors_mm": {n: round(found[3], 3) for n, found in best.items()},
        "apart_mm": {n: round(value, 2) for n, value in apart.items()},
    }
    reason = ""
    if score < LEAST_SCORE:
        reason = (
            f"the tissues of the T1w explain too little of {name}: score {score:.3f}, "
            f"expected {LEAST_SCORE:g} or more"
        )
    elif dice[name] < LEAST_DICE:
        reason = (
            f"the brains of {name} and of the T1w overlap by {dice[name]:.2f} (Dice), "
            f"expected {LEAST_DICE:g} or more"
        )
    elif error > MOST_ERROR_MM:
        reason = (
            f"{name} leaves the pose open by {error:.1f} mm, expected {MOST_ERROR_MM:g} mm or less"
        )
    elif apart and min(apart.values()) > AGREE_MM:
        other = min(apart, key=lambda n: apart[n])
        reason = (
            f"{name} and {other} lie {apart[other]:.1f} mm apart on the T1w, expected "
            f"{AGREE_MM:g} mm or less"
        )
    return Registration(matrix, name, score, error, not reason, reason, facts)


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


def overlap(mask: np.ndarray, affine: np.ndarray, head: Head, matrix: np.ndarray) -> float:
    """Return the Dice overlap of an ASL brain and the T1w's, inside the ASL's field of view."""
    laid = (
        np.nan_to_num(
            resample(
                head.brain.astype(np.float32), head.affine, matrix, mask.shape, affine, order=1
            )
        )
        > 0.5
    )
    both = mask.sum() + laid.sum()
    return float(2 * (mask & laid).sum() / both) if both else 0.0


def _has_contrast(inside: np.ndarray) -> bool:
    return inside.size > 100 and float(inside.std()) > 1e-3 * abs(float(inside.mean()))


def _middle(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return (np.asarray(affine) @ [*np.argwhere(mask).mean(axis=0), 1.0])[:3]


def _even(image: np.ndarray, mask: np.ndarray, sizes: np.ndarray) -> np.ndarray:
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


def _target(head: Head, sigma_mm: float) -> _Target:
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
    return _Target(np.stack(maps), np.linalg.inv(coarse))


def _level(
    even: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    target: _Target,
    sigma_mm: float,
    name: str,
) -> _Level:
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
    return _Level(value, basis, world, points, target)


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


def _starts(mask: np.ndarray, affine: np.ndarray, head: Head) -> list[np.ndarray]:
    """Return poses from which the search starts: the scanner's, and brain on brain, turned."""
    centre, goal = _middle(mask, affine), _middle(head.brain, head.affine)
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


def _step(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return a small rigid motion; all six parameters are mm at the brain's surface."""
    return to_matrix(np.concatenate([parameters[:3], parameters[3:] / RADIUS_MM]), centre)


def _jacobian(
    level: _Level, matrix: np.ndarray, centre: np.ndarray, weights: np.ndarray, h: float = 0.3
) -> np.ndarray:
    """Return the change of the fitted image with the six parameters, (N, 6)."""
    columns = []
    one = level.mixed(weights)
    for k in range(6):
        unit = np.eye(6)[k] * h
        ahead = one.design(matrix @ _step(unit, centre))[:, 0]
        behind = one.design(matrix @ _step(-unit, centre))[:, 0]
        columns.append((ahead - behind) / (2 * h))
    return np.stack(columns, 1)


def _descend(
    level: _Level, matrix: np.ndarray, centre: np.ndarray, rounds: int
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
            candidate = matrix @ _step(step, centre)
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


def _distinct(
    found: list[tuple[np.ndarray, float]], centre: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Return poses, the best first, without those that are within a millimetre of a better one."""
    kept: list[tuple[np.ndarray, float]] = []
    for matrix, value in sorted(found, key=lambda pair: -pair[1]):
        if all(distance(matrix, other, centre) > 1.0 for other, _ in kept):
            kept.append((matrix, value))
    return kept


def _displaced(level: _Level, matrix: np.ndarray, centre: np.ndarray) -> float:
    """Return how much the tissues explain, on average, where they lie a centimetre off."""
    steps = [sign * DISPLACED_MM * np.eye(6)[k] for k in range(6) for sign in (-1, 1)]
    return float(np.mean([level.fit(matrix @ _step(step, centre))[0] for step in steps]))


def _expected_error(level: _Level, matrix: np.ndarray, centre: np.ndarray) -> float:
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
