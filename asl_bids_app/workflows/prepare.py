"""From the files of one run to averaged, calibrated ΔM/M0 in its own space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition

PERFUSION = ("control", "label", "deltam")


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the preparation of one run.

    Attributes
    ----------
    hmc : bool
        Correct head motion.
    m0_smooth_fwhm : float
        mm.
    brain_mask : Path or None
        Mask to use instead of one made from the M0.
    threads : int
    """

    hmc: bool = True
    m0_smooth_fwhm: float = 0.0
    brain_mask: Path | None = None
    threads: int = 1


@dataclass(frozen=True, eq=False)
class MovedRun:
    """The volumes of a run after head-motion correction.

    Attributes
    ----------
    data : array, shape (X, Y, Z, N)
    finite : array of bool, shape (X, Y, Z)
        False where a volume holds no number.
    affine : array, shape (4, 4)
    confounds : mapping of str to array, or None
        Columns of the confounds table.
    motion : str
        How motion was corrected.
    warnings : tuple of str
    """

    data: np.ndarray
    finite: np.ndarray
    affine: np.ndarray
    confounds: Mapping[str, np.ndarray] | None
    motion: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """Averaged ΔM/M0 of one run with what quantification and report need.

    Attributes
    ----------
    delta_m, standard_error : array, shape (X, Y, Z, n)
        ΔM/M0, a fraction; the standard error is NaN for measurements without repeats.
    post_labeling_delay, label_duration, repeats : array, shape (n,)
        Seconds, seconds, number of pairs.
    m0 : array, shape (X, Y, Z)
        In the units of the image, corrected and positive inside the mask.
    mask : array of bool, shape (X, Y, Z)
    affine : array, shape (4, 4)
    tsnr : array, shape (X, Y, Z) or None
        Temporal signal-to-noise ratio of the control (or ΔM) volumes.
    facts : mapping
        What was done, for records and sidecars.
    warnings : tuple of str
    """

    delta_m: np.ndarray
    standard_error: np.ndarray
    post_labeling_delay: np.ndarray
    label_duration: np.ndarray
    repeats: np.ndarray
    m0: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    tsnr: np.ndarray | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def correct_motion(acquisition: Acquisition, options: PrepareOptions) -> MovedRun:
    """Load a run and correct its head motion.

    Raises
    ------
    InputError
        If the image can't be used.
    """
    from asl_bids_app.bids.images import load
    from asl_bids_app.preprocess.motion import apply_motion, confounds_table, estimate_motion

    image = load(acquisition.path, ndim=4)
    data, finite, warnings = image.data, image.finite, image.warnings
    if not options.hmc:
        return MovedRun(data, finite, image.affine, None, "none (--no-hmc)", warnings)
    kinds = np.array(acquisition.volume_types)
    motion = estimate_motion(data, image.affine, kinds, n_procs=options.threads)
    moved = apply_motion(data, image.affine, motion, n_procs=options.threads)
    return MovedRun(moved, finite, image.affine, confounds_table(motion), motion.method, warnings)
