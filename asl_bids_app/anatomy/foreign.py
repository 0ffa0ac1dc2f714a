"""Transforms of derivatives that are of another head or another space: found and left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.notices import Notice

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - the library's own short name

    from asl_bids_app.anatomy.head import Anatomy
    from asl_bids_app.anatomy.records import Head

LEAST_FIT: Final = 0.45
"""Overlap (Dice) of a head's grey and white matter with the packaged template's below which a
transform to an MNI152 space is of something else. Affine ones reach 0.6, of other heads 0.3."""
MOST_APART: Final = 3.0
"""Millimetres by which points of the brain may miss their place, in the mean, when a transform
and its inverse have moved them. Inverse fields of the field's programs stay below 1 mm."""
POINTS: Final = 400
"""Points of the brain by which an inverse is checked, about."""


def check_template(head: Head, name: str, transform: sitk.Transform) -> float:
    """Return how well a transform lays a head's tissues on the packaged template (Dice).

    MNI152 templates share their millimetres within a voxel or two, so that a transform to any
    of them can be checked with the packaged one: one of another head or another space lays
    tissues elsewhere.

    Parameters
    ----------
    head
    name
        The space. For a space other than MNI152 nothing can be checked, and the result is 1.
    transform
        ``from-T1w_to-<name>``.
    """
    if not name.startswith("MNI152"):
        return 1.0
    from asl_bids_app.atlas import load_atlas

    atlas = load_atlas()
    template, grid = _thin([atlas.gm, atlas.wm, atlas.csf], atlas.affine, 2)
    return _overlap(transform, template, grid, head.tissue(), head.affine)


def check_template_back(head: Head, name: str, transform: sitk.Transform) -> float:
    """Return the same of an inverse, ``from-<name>_to-T1w``: the template laid on the head."""
    if not name.startswith("MNI152"):
        return 1.0
    from asl_bids_app.atlas import load_atlas
    from asl_bids_app.preprocess.geometry import voxel_sizes

    atlas = load_atlas()
    step = max(1, round(3 / float(voxel_sizes(head.affine).max())))
    tissue, grid = _thin(head.tissue(), head.affine, step)
    return _overlap(transform, tissue, grid, [atlas.gm, atlas.wm, atlas.csf], atlas.affine)


def _thin(
    maps: Iterable[np.ndarray], affine: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return every `step`-th voxel of tissue maps, and their grid."""
    grid = np.array(affine, float)
    grid[:3, :3] *= step
    return np.stack([np.asarray(m)[::step, ::step, ::step] for m in maps]), grid


def _overlap(
    transform: sitk.Transform,
    fixed: np.ndarray,
    grid: np.ndarray,
    moving: Iterable[np.ndarray],
    affine: np.ndarray,
) -> float:
    """Return the lesser Dice of grey and white matter of `moving` laid on `fixed`."""
    from scipy import ndimage

    from asl_bids_app.anatomy.segment import tissue_dice
    from asl_bids_app.anatomy.transforms import move_points

    points = move_points(transform, fixed.shape[1:], grid)
    inverse = np.linalg.inv(affine)
    index = np.moveaxis(points @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    laid = np.stack([ndimage.map_coordinates(m, index, order=1, mode="constant") for m in moving])
    found = tissue_dice(laid, fixed)
    return min(found["gm"], found["wm"])


def distance_apart(head: Head, there: sitk.Transform, back: sitk.Transform) -> float:
    """Return how far from their place two transforms bring points of the brain (mm, mean).

    Parameters
    ----------
    head
    there, back
        ``from-T1w_to-<space>`` and its inverse.
    """
    index = np.argwhere(head.brain)
    index = index[:: max(1, len(index) // POINTS)]
    points = index @ head.affine[:3, :3].T + head.affine[:3, 3]
    lps = points * [-1.0, -1.0, 1.0]
    # The inverse takes points of the T1w to the space; the other one takes them home.
    again = [there.TransformPoint(back.TransformPoint(p.tolist())) for p in lps]
    return float(np.linalg.norm(np.array(again) - lps, axis=1).mean())


def without_foreign(given: Anatomy) -> tuple[Anatomy, dict[str, float]]:
    """Leave out the transforms of another head or another space, with a warning each.

    Parameters
    ----------
    given
        As derivatives have it.

    Returns
    -------
    Anatomy
        With the transforms that fit.
    dict of str to float
        `check_template` of each transform to a space.
    """
    head, to_space, from_space = given.head, dict(given.to_space), dict(given.from_space)
    fits: dict[str, float] = {}
    foreign: list[Notice] = []
    for space, transform in given.to_space.items():
        fit = check_template(head, space, transform)
        fits[space] = round(fit, 3)
        if fit < LEAST_FIT:
            foreign.append(_beside(given.files_to[space], fit))
            del to_space[space]
    for space, transform in given.from_space.items():
        if space in to_space:
            apart = distance_apart(head, to_space[space], transform)
            if apart <= MOST_APART:
                continue
            # Outside MNI152 nothing tells which of the two is wrong.
            both = not space.startswith("MNI152")
            foreign.append(
                Notice(
                    given.files_from[space].name,
                    "",
                    f"points of the brain {apart:.0f} mm from their place after it and "
                    f"{given.files_to[space].name}",
                    f"{MOST_APART:g} mm or less: not the inverse of it",
                    "neither is used" if both else "not used",
                )
            )
            if both:
                del to_space[space]
        elif (fit := check_template_back(head, space, transform)) < LEAST_FIT:
            foreign.append(_beside(given.files_from[space], fit))
        else:
            continue
        del from_space[space]
    head = replace(head, warnings=(*head.warnings, *foreign))
    return replace(given, head=head, to_space=to_space, from_space=from_space), fits


def _beside(path: Path, fit: float) -> Notice:
    return Notice(
        path.name,
        "",
        f"tissue laid beside that of MNI152 (Dice {fit:.2f})",
        f"{LEAST_FIT:g} or more: of another head or another space",
        "not used",
    )
