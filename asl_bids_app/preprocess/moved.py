"""Loading a run, and undoing the head's motion in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.notices import Notice
from asl_bids_app.progress_callback import OnProgress, no_progress


@dataclass(frozen=True, eq=False)
class MovedRun:
    """The volumes of a run after head-motion correction.

    Attributes
    ----------
    data : array, shape (X, Y, Z, N)
    finite : array of bool, shape (X, Y, Z)
        False where a volume holds no number.
    covered : array of bool, shape (X, Y, Z)
        False where the head's movement took most volumes out of the field of view.
    affine : array, shape (4, 4)
    confounds : mapping of str to array, or None
        Columns of the confounds table.
    motion : str
        How motion was corrected.
    warnings : tuple of Notice
    oriented : bool
        Whether the file tells `affine`; else it is a guess.
    measured : array of bool, shape (X, Y, Z), or None
        False where the scanner blanked a voxel or wrote what can't be; None: everywhere.
    """

    data: np.ndarray
    finite: np.ndarray
    covered: np.ndarray
    affine: np.ndarray
    confounds: Mapping[str, np.ndarray] | None
    motion: str
    warnings: tuple[Notice, ...] = ()
    oriented: bool = True
    measured: np.ndarray | None = None


def correct_motion(
    acquisition: Acquisition, *, hmc: bool, threads: int, tell: OnProgress = no_progress
) -> MovedRun:
    """Load a run and correct its head motion.

    Raises
    ------
    InputError
        If the image can't be used.
    """
    from asl_bids_app.bids.images import load
    from asl_bids_app.preprocess.signal import has_signal

    kinds = np.array(acquisition.volume_types)
    unused = np.flatnonzero(~np.isin(kinds, ("control", "label", "deltam", "m0scan")))
    calibration = np.flatnonzero(kinds == "m0scan")
    image = load(
        acquisition.path,
        ndim=4 if len(kinds) > 1 else None,
        name=acquisition.path.name,
        may_be_empty=unused.tolist(),
        spare=calibration.tolist(),
    )
    if image.data.ndim == 3:
        image = replace(image, data=image.data[..., None])
    measured = has_signal(image.data, acquisition.volume_types)
    if image.spikes is not None:
        measured &= ~image.spikes
    about: dict[str, Any] = {"oriented": image.oriented, "measured": measured}
    if not hmc:
        method = "none (--no-hmc)"
        everywhere = np.ones(image.data.shape[:3], bool)
        return MovedRun(
            image.data,
            image.finite,
            everywhere,
            image.affine,
            None,
            method,
            image.warnings,
            **about,
        )
    from asl_bids_app.preprocess.motion import (
        apply_motion,
        confounds_table,
        covered,
        estimate_motion,
    )

    shown = list(acquisition.volume_types)
    if acquisition.encoding:
        # They come in cycles: a steady difference of pairs would not show motion.
        shown = ["control" if kind == "label" else kind for kind in shown]
    motion = estimate_motion(
        image.data,
        image.affine,
        shown,
        acquisition.post_labeling_delay,
        acquisition.label_duration,
        n_procs=threads,
        tell=tell,
    )
    moved = apply_motion(image.data, image.affine, motion, n_procs=threads, tell=tell)
    name = acquisition.path.name
    return MovedRun(
        moved,
        image.finite,
        covered(moved.shape[:3], image.affine, motion),
        image.affine,
        confounds_table(motion),
        motion.method,
        (*image.warnings, *(warning.about(name) for warning in motion.warnings)),
        **about,
    )
