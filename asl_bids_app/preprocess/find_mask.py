"""The brain of a run: found, or given; and which of its voxels have data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition, M0Kind
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.origins import MaskKind
from asl_bids_app.preprocess.find_m0 import DARK, LEAST_COVERED

if TYPE_CHECKING:
    from asl_bids_app.preprocess.moved import MovedRun
    from asl_bids_app.preprocess.prepare import PreparedRun

LEAST_ALIKE: Final = 0.88
"""Overlap (Dice) with the mask of the image below which one of derivatives is of another place.
On a simulated head 10 mm off have 0.89, 15 mm 0.84 to 0.86."""


@dataclass(frozen=True, eq=False)
class BrainMask:
    """The brain of a run.

    Attributes
    ----------
    where : array of bool, shape (X, Y, Z)
    facts : mapping
        Where it comes from, for sidecars and records.
    notices : tuple of Notice
    file : Path or None
        That it was read from.
    own : array of bool, shape (X, Y, Z), or None
        What the image itself shows, where `where` is of derivatives.
    """

    where: np.ndarray
    facts: Mapping[str, Any]
    notices: tuple[Notice, ...] = ()
    file: Path | None = None
    own: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class OfferedMask:
    """A mask of derivatives: nobody named it, so one that doesn't fit is a warning.

    Attributes
    ----------
    path : Path
    of_t1w : bool
        It is the brain of a T1w to which the run will be registered. Until it is, the image's
        own mask serves, for the scanner's coordinates may be wrong.
    pose : array, shape (4, 4), or None
        Takes world points (mm, RAS) of the run to those of the T1w, once that is known.
    """

    path: Path
    of_t1w: bool = False
    pose: np.ndarray | None = None


def find_mask(
    m0: np.ndarray,
    static: np.ndarray,
    moved: MovedRun,
    acquisition: Acquisition,
    given: Path | None,
    offered: OfferedMask | None = None,
) -> BrainMask:
    """Find the brain of a run, or bring a given mask onto its grid.

    Parameters
    ----------
    m0, static : array, shape (X, Y, Z)
        M0, and the mean of the volumes that show the anatomy best.
    moved
        The run.
    acquisition
        What is known of it.
    given
        Mask to use.
    offered
        Mask of derivatives, to be used if it fits.

    Returns
    -------
    BrainMask

    Raises
    ------
    InputError
        If there is no brain to be found, or the mask is of another place.
    """
    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    source = static if acquisition.m0.kind is M0Kind.ESTIMATE else m0
    if given is not None:
        return _given_mask(given, source, moved)
    try:
        mask = brain_mask(source, moved.affine)
    except MaskError as error:
        if offered is not None:
            return _given_mask(offered.path, source, moved, offered.pose)
        raise InputError(
            acquisition.path.name, "brain mask", str(error), "a brain", "give --brain-mask"
        ) from error
    notices: list[Notice] = []
    if offered is not None and (offered.pose is not None or not offered.of_t1w):
        try:
            return _like_own(offered, mask, source, moved)
        except InputError as error:
            outcome = "a mask made from the image is used"
            name = offered.path.name
            notices.append(Notice(name, error.field, error.found, error.expected, outcome))
    kind, made = (MaskKind.M0, "M0") if source is m0 else (MaskKind.ASL, "ASL volumes")
    facts = {"kind": kind.value, "source": f"made from the {made}"}
    return BrainMask(mask, facts, tuple(notices))


def _like_own(
    offered: OfferedMask, own: np.ndarray, source: np.ndarray, moved: MovedRun
) -> BrainMask:
    """Bring a mask of derivatives onto the grid of a run, and compare it with the run's own.

    By the scanner's coordinates it may lie elsewhere, for the head may have moved since.

    Raises
    ------
    InputError
        If it can't be read, or is of another place.
    """
    found = _given_mask(offered.path, source, moved, offered.pose)
    dice = 2 * float((found.where & own).sum()) / float(found.where.sum() + own.sum())
    if dice < LEAST_ALIKE:
        raise InputError(
            offered.path,
            "",
            f"an overlap of {dice:.2f} (Dice) with the brain of the ASL image",
            f"{LEAST_ALIKE:g} or more",
        )
    return replace(found, own=own)


def _given_mask(
    path: Path, source: np.ndarray, moved: MovedRun, pose: np.ndarray | None = None
) -> BrainMask:
    """Bring a given mask onto the grid of a run: by a pose, else by the scanner's coordinates."""
    from asl_bids_app.bids.images import load
    from asl_bids_app.preprocess.align import resample

    image = load(path, ndim=3, name=path.name)
    affine, reported = image.affine, list[Notice]()
    if pose is None:
        affine, reported = place(
            image.data.shape, image.affine, image.oriented, path.name, source.shape, moved
        )
    to_image = np.eye(4) if pose is None else pose
    mask = resample(image.data > 0, affine, source.shape, moved.affine, to_image) > 0.5
    if not mask.any():
        raise InputError(path, "", "no voxel inside the ASL image", "a mask of its brain")
    bright = np.abs(source) > DARK * np.percentile(np.abs(source[source != 0]), 98)
    if not bright[mask].mean() >= LEAST_COVERED:
        raise InputError(
            path,
            "",
            f"signal of the head in {bright[mask].mean():.0%} of its voxels",
            f"a mask of the brain: {LEAST_COVERED:.0%} or more",
            "look for a wrong or missing orientation, or the mask of another session",
        )
    facts = {"kind": MaskKind.GIVEN.value, "source": path.name}
    if pose is not None:
        source_words = f"{path.name}, laid by the registration to the T1w"
        facts = {"kind": MaskKind.T1W.value, "source": source_words}
    return BrainMask(mask, facts, (*image.warnings, *reported), path)


def place(
    shape: tuple[int, ...],
    affine: np.ndarray,
    oriented: bool,
    name: str,
    run_shape: tuple[int, ...],
    run: MovedRun | PreparedRun,
) -> tuple[np.ndarray, list[Notice]]:
    """Return by which affine an image lies on the grid of a run, and a warning if it is a guess.

    Parameters
    ----------
    shape, affine, oriented
        Of the image.
    name
        What the warning calls it.
    run_shape, run
        Whose grid counts.
    """
    from asl_bids_app.bids.grids import voxel_by_voxel

    if not voxel_by_voxel(shape, affine, oriented, run_shape, run.affine, run.oriented):
        return affine, []
    which = "the ASL image" if oriented else "it"
    found = f"{which} has no orientation, and the matrices are equal"
    return run.affine, [Notice(name, "taken voxel by voxel", found)]


def with_data(brain: np.ndarray, moved: MovedRun, name: str) -> tuple[np.ndarray, list[Notice]]:
    """Leave voxels without data out of a brain mask, and tell how many.

    Raises
    ------
    InputError
        If none is left.
    """
    measured = np.ones_like(brain) if moved.measured is None else moved.measured
    blank = int((brain & ~measured).sum())
    reported = []
    if blank:
        reported.append(
            Notice(
                name,
                found=f"{blank} of the brain's {int(brain.sum())} voxels are 0 in every volume, "
                "or hold a value that can't be",
                outcome="they are left out of the mask",
            )
        )
    mask = brain & measured & moved.covered
    if not mask.any():
        raise InputError(name, "voxels", "no voxel of the brain with data", "data in the brain")
    return mask, reported
