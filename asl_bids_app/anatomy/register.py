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
from dataclasses import replace
from typing import Final

import numpy as np

from asl_bids_app.anatomy.descent import descend, expected_error, explained_displaced
from asl_bids_app.anatomy.levels import blurred, even_out, sample
from asl_bids_app.anatomy.poses import TURNS_DEG, distance, distinct, middle, starts_of
from asl_bids_app.anatomy.records import Head, Registration
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.geometry import resample, voxel_sizes

COARSE_MM: Final = 6.0
MIDDLE_MM: Final = 3.0
"""Standard deviations of the blur of the first two levels."""
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
    centre = middle(mask, affine)
    blur = {"coarse": COARSE_MM, "middle": MIDDLE_MM, "fine": 0.4 * float(sizes.mean())}
    target = {name: blurred(head, sigma) for name, sigma in blur.items()}
    starts = starts_of(mask, affine, head)
    best: dict[str, tuple[np.ndarray, float, float, float]] = {}
    for name, image in usable.items():
        even = even_out(image, mask, sizes)
        levels = {
            "coarse": sample(even, mask, affine, target["coarse"], blur["coarse"], "coarse"),
            "middle": sample(even, mask, affine, target["middle"], blur["middle"], "middle"),
            "fine": sample(even, mask, affine, target["fine"], 0.0, "fine"),
        }
        # What the first contrast found, the others may start from; and from where it started.
        tried = [descend(levels["coarse"], start, centre, 5) for start in starts]
        tried.sort(key=lambda pair: -pair[1])
        kept = [descend(levels["coarse"], matrix, centre, 15) for matrix, _ in tried[:4]]
        kept = [descend(levels["middle"], m, centre, 15) for m, _ in distinct(kept, centre)]
        kept = [descend(levels["fine"], m, centre, 12) for m, _ in distinct(kept, centre)[:2]]
        matrix, explained = max(kept, key=lambda pair: pair[1])
        every = sample(even, mask, affine, target["fine"], 0.0, "all")
        displaced = explained_displaced(levels["fine"], matrix, centre)
        starts = [*(m for m, _ in distinct(kept, centre)), *starts[:: len(TURNS_DEG)]]
        best[name] = (
            matrix,
            explained,
            explained - displaced,
            expected_error(every, matrix, centre),
        )
    found = _judge(best, mask, affine, head, centre)
    warnings = (
        _warn_of_pose(found, usable[found.image], mask, affine, head) if found.registered else ()
    )
    return replace(found, warnings=warnings)


def _warn_of_pose(
    found: Registration, image: np.ndarray, mask: np.ndarray, affine: np.ndarray, head: Head
) -> tuple[Notice, ...]:
    """Say what is odd about a pose that is believed: sides swapped, or little that fits."""
    sizes, centre = voxel_sizes(affine), middle(mask, affine)
    mirror = np.eye(4)
    mirror[0, 0], mirror[0, 3] = -1, 2 * middle(head.brain, head.affine)[0]
    target = blurred(replace(head, affine=mirror @ head.affine), 0.4 * float(sizes.mean()))
    level = sample(even_out(image, mask, sizes), mask, affine, target, 0.0, "fine")
    _, mirrored = descend(level, found.matrix, centre, 12)
    if mirrored > found.facts["explained"] + MIRROR_GAIN:
        words = (
            f"{found.image} fits the mirrored T1w better (found {mirrored:.2f} of its contrast "
            f"explained, expected less than {found.facts['explained']:.2f}): left and right look "
            "swapped in one of the two"
        )
        return (Notice((), "registration", words),)
    if max(found.facts["scores"].values()) < DOUBTFUL_SCORE:
        words = (
            f"the T1w explains little of the contrast of the run: found a score of "
            f"{max(found.facts['scores'].values()):.2f}, expected {DOUBTFUL_SCORE:g} or more"
        )
        cause = "another person's T1w, or blurred images: look at the registration"
        return (Notice((), "registration", words, outcome=cause),)
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
