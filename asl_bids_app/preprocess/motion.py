"""Head motion: rigid, volume to reference, made for what ASL does to contrast.

Two things go wrong when ASL volumes are registered like those of fMRI, and both reach CBF:

- *Delays differ in contrast*, most of all with background suppression. So volumes are
  registered among volumes of their own delay, and only the clean averages of the delays are
  registered across delays, by local contrast. What remains of a contrast's own pull is taken
  out by continuity: from one volume to the next the head hardly moves.
- *Label and control differ by the signal that is measured.* A registration can trade a part
  of it for motion, the same at every label volume. That systematic part is taken out
  (Wang 2012, doi:10.1016/j.mri.2012.05.004).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.aligner import Aligner
from asl_bids_app.preprocess.continuity import remove_alternation, steady_offsets
from asl_bids_app.preprocess.contrasts import compared_voxels, contrast_groups, main_group
from asl_bids_app.preprocess.geometry import (
    in_field_of_view,
    resample_filled,
    to_matrix,
    to_parameters,
)
from asl_bids_app.progress_callback import OnProgress, no_progress

FD_RADIUS_MM: Final = 50.0
"""A rotation counts as the arc it makes on this sphere (Power 2012)."""
FEWEST: Final = 4
"""Least number of pairs by which label minus control can be distinguished from motion."""
CONFOUNDS: Final = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the head was in each volume.

    Attributes
    ----------
    matrices : array, shape (N, 4, 4)
        Take world points (mm, RAS) of the reference to those of the volume.
    parameters : array, shape (N, 6)
        Translation x, y, z in mm and rotation about x, y, z in radians, about `centre`; NaN
        for a volume that was not estimated.
    centre : array, shape (3,)
        Middle of the brain, mm.
    reference : str
        What the others were moved onto.
    method : str
        What was done, in a sentence.
    warnings : tuple of Notice
        A sentence for each volume that could not be registered and was left where it was.
    """

    matrices: np.ndarray
    parameters: np.ndarray
    centre: np.ndarray
    reference: str
    method: str
    warnings: tuple[Notice, ...] = ()


_THINNEST: Final = 4
"""Voxels along each axis that ITK's smoothing needs."""


def estimate_motion(
    data: np.ndarray,
    affine: np.ndarray,
    volume_types: Sequence[str],
    post_labeling_delay: np.ndarray | None = None,
    label_duration: np.ndarray | None = None,
    *,
    mask: np.ndarray | None = None,
    n_procs: int = 1,
    tell: OnProgress = no_progress,
) -> Motion:
    """Estimate the head's motion through a run.

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
    affine : array, shape (4, 4)
    volume_types
        As in `aslcontext.tsv`. `control`, `label` and `m0scan` volumes are estimated.
    post_labeling_delay, label_duration : array, shape (N,)
        Seconds; volumes of different delays differ in contrast. Without them all perfusion
        volumes are taken for one contrast.
    mask : array of bool, shape (X, Y, Z)
        The brain, roughly; by default found in the M0 or the controls.
    n_procs
        Threads. The result does not depend on it.
    tell
        Takes how many volumes are done.

    Returns
    -------
    Motion
    """
    kinds = list(volume_types)
    count = data.shape[3]
    groups = contrast_groups(kinds, post_labeling_delay, label_duration)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    if groups and min(data.shape[:3]) < _THINNEST:
        thin = f"the image is {min(data.shape[:3])} voxels thin, registration needs {_THINNEST}"
        nothing = np.full((count, 6), np.nan)
        warnings = (Notice((), "motion", f"head motion not corrected: {thin}"),)
        return Motion(matrices, nothing, np.zeros(3), "", f"none ({thin})", warnings)
    if sum(len(group.volumes) for group in groups) < 2:
        nothing = np.full((count, 6), np.nan)
        reported = "none (difference images show no anatomy to register)"
        if groups and "deltam" not in kinds:
            reported = "none (one volume has nothing to be registered to)"
        return Motion(matrices, nothing, np.zeros(3), "", reported)
    where = compared_voxels(data, affine, groups, kinds, mask)
    centre = (np.asarray(affine) @ [*np.argwhere(where).mean(axis=0), 1.0])[:3]

    with ThreadPoolExecutor(max_workers=max(1, n_procs)) as pool:
        inside = Aligner(data, affine, where, centre, pool.map, tell)
        found = inside.within(groups)
        path = np.array([to_parameters(m, centre) for m in found])
        path = remove_alternation(path, kinds, [g.volumes for g in groups], FEWEST)
        averages = inside.averages(groups, [to_matrix(p, centre) for p in path])
        main = main_group(groups, averages, where)
        between = inside.between(averages, main)

    offsets = np.array([to_parameters(m, centre) for m in between])
    offsets = steady_offsets(path, [g.volumes for g in groups], offsets, main)
    estimated = np.zeros(count, bool)
    for group, offset in zip(groups, offsets, strict=True):
        for index in group.volumes:
            matrices[index] = to_matrix(path[index], centre) @ to_matrix(offset, centre)
            estimated[index] = index not in inside.failed
    parameters = np.array([to_parameters(m, centre) for m in matrices])
    parameters[~estimated] = np.nan
    return Motion(
        matrices,
        parameters,
        centre,
        groups[main].name,
        f"rigid, Gauss-Newton, {len(groups)} contrast{'s' * (len(groups) != 1)}, "
        f"onto the average of {groups[main].name}",
        tuple(
            Notice(
                (),
                "motion",
                f"volume {index} (counted from 0): {why}",
                outcome="left where it was",
            )
            for index, why in sorted(inside.failed.items())
        ),
    )


def apply_motion(
    data: np.ndarray,
    affine: np.ndarray,
    motion: Motion,
    *,
    n_procs: int = 1,
    tell: OnProgress = no_progress,
) -> np.ndarray:
    """Move every volume to the reference, interpolating once (cubic B-spline).

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
    affine : array, shape (4, 4)
    motion
        Of the N volumes.
    n_procs
        Threads.
    tell
        Takes how many volumes are done.

    Returns
    -------
    array of float32, shape (X, Y, Z, N)
        Where a volume has no data because its field of view ended there, it holds the value
        at the border; `covered` tells where that matters.
    """
    moved = np.empty(data.shape, np.float32)

    def move_volume(index: int) -> None:
        moved[..., index] = resample_filled(data[..., index], affine, motion.matrices[index])

    with ThreadPoolExecutor(max_workers=max(1, n_procs)) as pool:
        for done, _ in enumerate(pool.map(move_volume, range(data.shape[3])), 1):
            tell("moving volume", done, data.shape[3])
    return moved


def covered(
    shape: tuple[int, int, int], affine: np.ndarray, motion: Motion, share: float = 0.75
) -> np.ndarray:
    """Say which voxels lay inside the field of view in enough of the volumes.

    Parameters
    ----------
    shape, affine
        The grid.
    motion
    share
        Of the volumes.

    Returns
    -------
    array of bool, shape `shape`
    """
    total = np.zeros(shape, np.int32)
    for matrix in motion.matrices:
        total += in_field_of_view(shape, affine, matrix)
    return total >= share * len(motion.matrices)


def framewise_displacement(motion: Motion) -> np.ndarray:
    """Compute how far the head moved since the volume before.

    The sum of the absolute changes of the six parameters, rotations as arcs on a sphere of
    50 mm (Power 2012, doi:10.1016/j.neuroimage.2011.10.018).

    Returns
    -------
    array, shape (N,)
        mm; NaN for the first volume and where motion was not estimated.
    """
    millimetres = motion.parameters * np.array([1.0] * 3 + [FD_RADIUS_MM] * 3)
    steps = np.abs(np.diff(millimetres, axis=0)).sum(axis=1)
    return np.concatenate([[np.nan], steps])


def confounds_table(motion: Motion) -> dict[str, np.ndarray]:
    """Return the columns of the confounds table: mm, radians, mm.

    NaN stands for n/a.
    """
    columns = dict(zip(CONFOUNDS, motion.parameters.T, strict=True))
    return {**columns, "framewise_displacement": framewise_displacement(motion)}
