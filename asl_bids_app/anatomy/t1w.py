"""From a raw T1w to its brain, tissues and place in MNI152: the app's own light path.

Affine to the packaged atlas, bias field, brain, tissues; then a diffeomorphic field on the tissue
maps, and tissues once more with the atlas where that field lays it. Each step's quality is
measured. What fails is said and fallen back from: an affine where no field can be had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy import ndimage

from asl_bids_app.anatomy.records import AnatomyError, Head, Normalisation
from asl_bids_app.anatomy.segment import segment, tissue_dice
from asl_bids_app.anatomy.skull import LEAST_LIKENESS, find_brain, register_atlas, thinned, unbias
from asl_bids_app.anatomy.tissue_laying import (
    blurred,
    prior_by_field,
    resample_atlas,
    to_template,
    warped,
)
from asl_bids_app.anatomy.warp import find_field, invert_field
from asl_bids_app.atlas import Atlas, load_atlas
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.registration import RegistrationError

COARSE_MM: Final = 3.0
"""Slices thicker than this bring a warning: tissues are then blurred."""
FOLDED: Final = 0.0
"""Least determinant of a field that doesn't fold."""
LEAST_DICE: Final = 0.55
"""Overlap of grey or white matter with the atlas's below which a field isn't believed."""
BRAIN_ML: Final = (500.0, 2400.0)


def understand(
    t1w: np.ndarray,
    affine: np.ndarray,
    atlas: Atlas | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Head, Normalisation]:
    """Find brain, tissues and place in MNI152 of a raw T1w of a head.

    Parameters
    ----------
    t1w : array, shape (X, Y, Z)
    affine : array, shape (4, 4)
    atlas
        By default the packaged one.
    tell
        Takes the name of each step as it begins.

    Returns
    -------
    Head, Normalisation

    Raises
    ------
    AnatomyError
        If the image is empty, no head, or shows no T1 contrast.
    """
    atlas = atlas or load_atlas()
    image = np.nan_to_num(np.array(t1w, np.float32), posinf=0, neginf=0)
    warnings = _check_image(image, affine)
    tell("T1w to MNI152, affine")
    try:
        matrix, likeness = register_atlas(image, affine, atlas)
    except RegistrationError as error:
        raise AnatomyError(str(error)) from error
    if likeness < LEAST_LIKENESS:
        raise AnatomyError(
            f"an image unlike a head's T1w (correlation {likeness:.2f} with the MNI152 template)",
            f"{LEAST_LIKENESS:g} or more",
        )
    tell("T1w: bias field, brain, tissues")
    box = _find_box(matrix, affine, image.shape, atlas)
    cut, grid = image[box], _cut_affine(affine, box)
    prior, guide = resample_atlas(atlas, matrix, cut.shape, grid)
    near = ndimage.binary_dilation(guide > 0.5, iterations=2)
    even = unbias(cut, grid, near & (cut > 0))
    brain = _brain(even, grid, prior, guide)
    volume = float(brain.sum() * abs(np.linalg.det(grid[:3, :3])) / 1000)
    first = segment(even, brain, blurred(prior, grid, 4.0))
    tell("T1w to MNI152, diffeomorphic")
    fixed = np.stack([atlas.gm, atlas.wm, atlas.csf]) * atlas.brain
    rough = find_field(
        fixed, to_template(first, grid, matrix, atlas), atlas.affine, rounds=((4, 60), (2, 30))
    )
    there = invert_field(rough.displacement, atlas.affine)
    closer = prior_by_field(atlas, there, matrix, cut.shape, grid)
    brain = _brain(even, grid, closer, closer.sum(axis=0))
    second = segment(even, brain, blurred(closer, grid, 2.0))
    moving = to_template(second, grid, matrix, atlas)
    found = find_field(fixed, moving, atlas.affine, rough.displacement, rounds=((2, 40), (1, 40)))
    by_affine = tissue_dice(moving, fixed)
    by_field = tissue_dice(warped(moving, found.displacement, atlas.affine), fixed)
    facts = {
        "affine_likeness": round(likeness, 3),
        "dice_affine": by_affine,
        "dice": by_field,
        "jacobian": [round(v, 3) for v in found.jacobian],
        "kind": "diffeomorphic",
    }
    displacement: np.ndarray | None = found.displacement
    back: np.ndarray | None = invert_field(found.displacement, atlas.affine)
    if doubts := _warn_of_field(facts):
        warnings += doubts
        displacement = back = None
        facts |= {"kind": "affine", "dice": by_affine}
    if not BRAIN_ML[0] <= volume <= BRAIN_ML[1]:
        low, high = BRAIN_ML
        found_ml = f"a brain of {volume:.0f} mL"
        warnings.append(Notice((), "brain", found_ml, f"{low:g} to {high:g} mL"))
    about = {
        "source": "raw T1w, own path",
        "brain_ml": round(volume, 1),
        "intensities": [round(v, 3) for v in second.intensities],
        "width": round(second.width, 4),
        "likeness": round(second.likeness, 3),
    }
    image[box] = even
    parts = (brain, second.gm, second.wm, second.csf)
    brain, gm, wm, csf = (_uncrop(part, box, image.shape) for part in parts)
    head = Head(image, affine, brain, gm, wm, csf, about, tuple(warnings))
    return head, Normalisation(matrix, displacement, back, facts)


def _check_image(image: np.ndarray, affine: np.ndarray) -> list[Notice]:
    """Refuse what can't be a T1w, and return what is odd about one."""
    if min(image.shape) < 8:
        raise AnatomyError(f"{'x'.join(map(str, image.shape))} voxels", "a volume")
    if image.max() <= 0 or float(np.percentile(image, 99.5)) <= max(float(image.min()), 0):
        raise AnatomyError("an image without signal")
    sizes = voxel_sizes(affine)
    if sizes.max() <= COARSE_MM:
        return []
    return [
        Notice(
            (),
            "voxel size",
            f"voxels of {' x '.join(f'{s:.2g}' for s in sizes)} mm",
            f"{COARSE_MM:g} mm or less",
            "tissues are blurred, and what rests on them is less certain",
        )
    ]


def _warn_of_field(facts: dict[str, Any]) -> list[Notice]:
    """Say why a field to the template isn't believed; empty if it is."""
    overlap, least = facts["dice"], facts["jacobian"][0]
    worst = min(overlap["gm"], overlap["wm"])
    by_affine = min(facts["dice_affine"]["gm"], facts["dice_affine"]["wm"])
    if least > FOLDED and worst >= max(LEAST_DICE, by_affine):
        return []
    return [
        Notice(
            (),
            "normalisation",
            f"a field to MNI152 with a Dice of grey and white matter of {overlap['gm']:.2f} "
            f"and {overlap['wm']:.2f} and a least determinant of {least:.2f}",
            f"{LEAST_DICE:g} and {FOLDED:g} or more",
            "affine only",
        )
    ]


def _brain(even: np.ndarray, grid: np.ndarray, prior: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Find the brain on blocks of about 2 mm, and say it on the fine grid."""
    thin, coarse = thinned(even, grid, 2.0)
    maps = np.stack([thinned(p, grid, 2.0)[0] for p in prior])
    found = find_brain(thin, coarse, maps, thinned(guide, grid, 2.0)[0])
    pull = np.linalg.inv(coarse) @ grid
    fine = ndimage.affine_transform(
        found.astype(np.float32), pull[:3, :3], pull[:3, 3], even.shape, order=1, mode="nearest"
    )
    return (fine > 0.5) & (even > 0)


def _find_box(
    matrix: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], atlas: Atlas
) -> tuple[slice, ...]:
    """Return the part of the image that holds the brain and a centimetre around it."""
    points = np.argwhere(atlas.brain)[::11]
    world = matrix @ atlas.affine @ np.column_stack([points, np.ones(len(points))]).T
    index = (np.linalg.inv(affine) @ world)[:3]
    margin = 12.0 / voxel_sizes(affine)
    low = np.clip(np.floor(index.min(axis=1) - margin), 0, np.array(shape) - 8).astype(int)
    high = np.clip(np.ceil(index.max(axis=1) + margin), low + 8, shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _cut_affine(affine: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    cut = np.array(affine, float)
    cut[:3, 3] += cut[:3, :3] @ [part.start for part in box]
    return cut


def _uncrop(values: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape, values.dtype)
    whole[box] = values
    return whole
