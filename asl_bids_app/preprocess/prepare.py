"""From the files of one run to averaged, calibrated ΔM/M0 in its own space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition
from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.options import defaults
from asl_bids_app.preprocess.decode import decode_run
from asl_bids_app.preprocess.find_m0 import find_m0
from asl_bids_app.preprocess.find_mask import OfferedMask, find_mask, with_data
from asl_bids_app.preprocess.m0 import calibrate, finish_m0
from asl_bids_app.preprocess.moved import MovedRun


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
    warnings : tuple of Notice
    head : array, shape (X, Y, Z) or None
        The M0 with what lies around the brain as it was measured, to judge the mask by.
    carpet : mapping of str to array, or None
        Columns of the carpet table.
    oriented : bool
        Whether the file tells `affine`; else it is a guess.
    brain : array of bool, shape (X, Y, Z), or None
        The mask before voxels without data were left out.
    own_mask : array of bool, shape (X, Y, Z), or None
        The brain as the image shows it, where `mask` is of derivatives.
    sources : tuple of Path
        Files that were used beside the run and its M0.
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
    warnings: tuple[Notice, ...] = ()
    head: np.ndarray | None = None
    oriented: bool = True
    brain: np.ndarray | None = None
    carpet: Mapping[str, np.ndarray] | None = None
    own_mask: np.ndarray | None = None
    sources: tuple[Path, ...] = ()

    @property
    def shown_brain(self) -> np.ndarray:
        """The brain as the image shows it, whatever `mask` is of; bool, (X, Y, Z)."""
        return self.mask if self.own_mask is None else self.own_mask


def prepare_run(
    run: PlannedRun,
    moved: MovedRun,
    *,
    align_m0: bool,
    m0_smooth_fwhm: float = defaults.M0_SMOOTH_FWHM,
    brain_mask: Path | None = None,
    offered: OfferedMask | None = None,
) -> PreparedRun:
    """Average and calibrate a run.

    Parameters
    ----------
    run
        The run with its constants.
    moved
        Its volumes.
    align_m0
        Look for head motion between a separate M0 and the run.
    m0_smooth_fwhm
        mm.
    brain_mask
        Mask to use instead of one made from the M0.
    offered
        One of derivatives, which is used if it fits.

    Raises
    ------
    InputError
        If M0 or volumes can't be used.
    """
    from asl_bids_app.preprocess.carpet_table import carpet_table
    from asl_bids_app.preprocess.measurements import find_measurements
    from asl_bids_app.preprocess.volumes import average_measurements

    acquisition, calibration = run.acquisition, run.calibration
    kinds = np.array(acquisition.volume_types)
    static = moved.data[..., _static(kinds)].mean(axis=3)
    raw, facts, warnings = find_m0(run, moved, static, align=align_m0)
    usable = moved.finite & np.isfinite(raw)
    brain = find_mask(raw, static, moved, acquisition, brain_mask, offered)
    mask, more = with_data(brain.where, moved, acquisition.path.name)
    warnings += [*brain.notices, *more]
    lost = int((mask & ~usable).sum())
    if lost:
        raise InputError(
            acquisition.path.name,
            "voxels",
            f"{lost} voxels in the brain that are NaN or infinite in some volume",
            "numbers in the whole brain",
            "mark the volume n/a in aslcontext.tsv, or leave them out with --brain-mask",
        )
    zooms = np.sqrt((moved.affine[:3, :3] ** 2).sum(axis=0))
    try:
        scaled = raw * calibration.m0_scale.value
        m0, filled = finish_m0(scaled, mask, zooms, m0_smooth_fwhm)
        decoded = decode_run(run, moved.data, mask) if acquisition.encoding else None
        source = decoded or acquisition
        averaged = average_measurements(
            decoded.data if decoded else moved.data,
            source.volume_types,
            source.post_labeling_delay,
            source.label_duration,
            mask,
            decoded.names if decoded else None,
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(acquisition.path.name, "", str(error), "usable volumes") from error
    warnings += [Notice(acquisition.path.name, found=text) for text in averaged.rejected]
    decoding = {}
    if decoded:
        warnings += decoded.warnings
        decoding = {"decoding": dict(decoded.facts)}
    facts |= {"filled_voxels": filled, "smoothing_fwhm_mm": m0_smooth_fwhm}
    carpet = None
    if not decoded:  # volumes that are to be decoded have no pairs to show
        carpet = carpet_table(
            moved.data,
            mask,
            m0,
            acquisition.slice_axis,
            acquisition.volume_types,
            find_measurements(
                acquisition.volume_types,
                acquisition.post_labeling_delay,
                acquisition.label_duration,
            ),
            averaged.left_out,
        )
    return PreparedRun(
        calibrate(averaged.delta_m, m0, mask),
        calibrate(averaged.standard_error, m0, mask),
        averaged.post_labeling_delay,
        averaged.label_duration,
        averaged.repeats,
        m0,
        mask,
        moved.affine,
        _temporal_snr(moved.data, kinds, acquisition, mask),
        {
            "motion": moved.motion,
            "m0": facts,
            "mask": brain.facts,
            "voxel_size_mm": [round(float(zoom), 3) for zoom in zooms],
            "repeats": averaged.repeats.tolist(),
            "rejected": list(averaged.rejected),
            **decoding,
        },
        (*moved.warnings, *warnings),
        np.where(mask, m0, np.nan_to_num(scaled, posinf=0, neginf=0)).astype(np.float32),
        moved.oriented,
        brain.where,
        carpet,
        brain.own,
        () if brain.file is None else (brain.file,),
    )


def _static(kinds: np.ndarray) -> np.ndarray:
    """Volumes that show the anatomy best: controls, else whatever perfusion there is."""
    for kind in ("control", "label", "deltam"):
        if np.any(kinds == kind):
            return kinds == kind
    return np.ones(len(kinds), bool)


def _temporal_snr(
    data: np.ndarray, kinds: np.ndarray, acquisition: Acquisition, mask: np.ndarray
) -> np.ndarray | None:
    """Mean over standard deviation in time of controls (or ΔM), pooled over measurements."""
    chosen = _static(kinds)
    values = data[mask][:, chosen].astype(np.float32)
    kinds_of = np.round([acquisition.post_labeling_delay, acquisition.label_duration], 6)
    _, measurement = np.unique(kinds_of[:, chosen], axis=1, return_inverse=True)
    squares, freedom = np.zeros(len(values)), 0
    for one in np.unique(measurement):
        part = values[:, measurement.ravel() == one]
        if part.shape[1] > 1:
            squares += part.var(axis=1, dtype=np.float64) * part.shape[1]
            freedom += part.shape[1] - 1
    if freedom < 2:
        return None
    deviation = np.sqrt(squares / freedom)
    ratio = np.zeros(mask.shape, np.float32)
    # Without any spread there is no ratio.
    ratio[mask] = values.mean(axis=1) / np.where(deviation > 0, deviation, np.nan)
    return ratio
