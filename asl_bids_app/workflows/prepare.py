"""From the files of one run to averaged, calibrated ΔM/M0 in its own space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition, M0Kind
from asl_bids_app.errors import InputError
from asl_bids_app.preprocess.m0 import (
    M0Error,
    average_m0,
    calibrate,
    finish_m0,
    tissue_m0_of_blood,
)
from asl_bids_app.workflows.plan import PlannedRun


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
    warnings : tuple of str
    """

    data: np.ndarray
    finite: np.ndarray
    covered: np.ndarray
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


def correct_motion(acquisition: Acquisition, *, hmc: bool, threads: int) -> MovedRun:
    """Load a run and correct its head motion.

    Raises
    ------
    InputError
        If the image can't be used.
    """
    from asl_bids_app.bids.images import load

    kinds = np.array(acquisition.volume_types)
    unused = np.flatnonzero(~np.isin(kinds, ("control", "label", "deltam", "m0scan")))
    image = load(
        acquisition.path,
        ndim=4 if len(kinds) > 1 else None,
        name=acquisition.path.name,
        may_be_empty=unused.tolist(),
    )
    if image.data.ndim == 3:
        image = replace(image, data=image.data[..., None])
    if not hmc:
        told = "none (--no-hmc)"
        everywhere = np.ones(image.data.shape[:3], bool)
        return MovedRun(
            image.data, image.finite, everywhere, image.affine, None, told, image.warnings
        )
    from asl_bids_app.preprocess.motion import (
        apply_motion,
        confounds_table,
        covered,
        estimate_motion,
    )

    motion = estimate_motion(
        image.data,
        image.affine,
        acquisition.volume_types,
        acquisition.post_labeling_delay,
        acquisition.label_duration,
        n_procs=threads,
    )
    moved = apply_motion(image.data, image.affine, motion, n_procs=threads)
    name = acquisition.path.name
    return MovedRun(
        moved,
        image.finite,
        covered(moved.shape[:3], image.affine, motion),
        image.affine,
        confounds_table(motion),
        motion.method,
        (*image.warnings, *(f"{name}: {text}" for text in motion.warnings)),
    )


def prepare_run(
    run: PlannedRun,
    moved: MovedRun,
    *,
    align_m0: bool,
    m0_smooth_fwhm: float = 0.0,
    brain_mask: Path | None = None,
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

    Raises
    ------
    InputError
        If M0 or volumes can't be used.
    """
    from asl_bids_app.preprocess.volumes import average_measurements

    acquisition, calibration = run.acquisition, run.calibration
    kinds = np.array(acquisition.volume_types)
    static = moved.data[..., _static(kinds)].mean(axis=3)
    raw, facts, warnings = _find_m0(run, moved, static, align=align_m0)
    usable = moved.finite & np.isfinite(raw)
    mask, mask_facts = _find_mask(raw, static, moved.affine, acquisition, brain_mask)
    mask &= moved.covered
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
        m0, filled = finish_m0(raw * calibration.m0_scale.value, mask, zooms, m0_smooth_fwhm)
        averaged = average_measurements(
            moved.data,
            acquisition.volume_types,
            acquisition.post_labeling_delay,
            acquisition.label_duration,
            mask,
        )
    except ValueError as error:
        raise InputError(acquisition.path.name, "", str(error), "usable volumes") from error
    warnings += [f"{acquisition.path.name}: {text}" for text in averaged.rejected]
    facts |= {"filled_voxels": filled, "smoothing_fwhm_mm": m0_smooth_fwhm}
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
            "mask": mask_facts,
            "repeats": averaged.repeats.tolist(),
            "rejected": list(averaged.rejected),
        },
        (*moved.warnings, *warnings),
    )


def _static(kinds: np.ndarray) -> np.ndarray:
    """Volumes that show the anatomy best: controls, else whatever perfusion there is."""
    for kind in ("control", "label", "deltam"):
        if np.any(kinds == kind):
            return kinds == kind
    return np.ones(len(kinds), bool)


def _find_m0(
    run: PlannedRun, moved: MovedRun, static: np.ndarray, *, align: bool
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Return the M0 of tissue on the grid of the run, before filling and smoothing."""
    acquisition, calibration = run.acquisition, run.calibration
    m0, kinds = acquisition.m0, np.array(acquisition.volume_types)
    t1 = calibration.t1_tissue_m0.value
    name = m0.path.name if m0.path else acquisition.path.name
    facts: dict[str, Any] = {}
    warnings: list[str] = []
    if m0.kind is M0Kind.ESTIMATE:
        value = tissue_m0_of_blood(m0.estimate, calibration.partition_coefficient.value)
        return np.full(static.shape, value), {"value": value}, warnings
    if m0.kind is M0Kind.SEPARATE:
        volumes, affine, told = _load_separate(m0.path, acquisition)
        warnings += told
    else:
        wanted = "m0scan" if m0.kind is M0Kind.INCLUDED else "control"
        volumes, affine = moved.data[..., kinds == wanted], moved.affine
    try:
        average, correction, used = average_m0(volumes, m0.repetition_time, t1)
    except M0Error as error:
        raise InputError(
            name, "M0", str(error), "M0 volumes with signal and a repetition time of each"
        ) from error
    facts |= {"volumes": used, "repetition_time_correction": round(correction, 5)}
    if m0.kind is M0Kind.SEPARATE:
        average, how = _onto_run(average, affine, static, moved.affine, align=align)
        facts["alignment"] = how
        if ":" in how:
            warnings.append(f"{name}: M0 not aligned with the run but taken {how}")
    return average, facts, warnings


def _load_separate(
    path: Path, acquisition: Acquisition
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from asl_bids_app.bids.images import check_grid, load, read_header

    image = load(path, name=path.name)
    grid = check_grid(
        read_header(path, path.name), read_header(acquisition.path, acquisition.path.name)
    )
    told = [] if grid.equal else [f"{path.name}: {grid.statement}"]
    data = np.where(
        image.finite if image.data.ndim == 3 else image.finite[..., None], image.data, 0
    )
    return data, image.affine, [*image.warnings, *told]


def _onto_run(
    image: np.ndarray,
    affine: np.ndarray,
    static: np.ndarray,
    target_affine: np.ndarray,
    *,
    align: bool,
) -> tuple[np.ndarray, str]:
    """Resample a separate M0 onto the run, moved if the head did."""
    from asl_bids_app.preprocess.align import AlignmentError, align_to, resample

    same = image.shape == static.shape and np.allclose(affine, target_affine, atol=1e-3)
    transform, how = np.eye(4), "as scanned"
    if align:
        try:
            transform = align_to(image, affine, static, target_affine)
            how = f"moved rigidly by up to {displacement(transform):.2f} mm"
        except AlignmentError as error:
            how = f"as scanned: {error}"
    if same and np.allclose(transform, np.eye(4)):
        return image, how
    return resample(image, affine, static.shape, target_affine, transform), how


def displacement(transform: np.ndarray, radius_mm: float = 50.0) -> float:
    """Return the largest movement (mm) of a point of a sphere of the head's size."""
    moved = transform[:3, :3] - np.eye(3)
    return float(np.linalg.norm(transform[:3, 3]) + radius_mm * np.linalg.norm(moved, 2))


def _find_mask(
    m0: np.ndarray,
    static: np.ndarray,
    affine: np.ndarray,
    acquisition: Acquisition,
    given: Path | None,
) -> tuple[np.ndarray, dict[str, Any]]:
    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    if given is not None:
        from asl_bids_app.bids.images import load
        from asl_bids_app.preprocess.align import resample

        image = load(given, ndim=3, name=given.name)
        mask = resample(image.data > 0, image.affine, m0.shape, affine, np.eye(4)) > 0.5
        if not mask.any():
            raise InputError(given, "", "no voxel inside the ASL image", "a mask of its brain")
        return mask, {"source": given.name}
    source = static if acquisition.m0.kind is M0Kind.ESTIMATE else m0
    try:
        mask = brain_mask(source, affine)
    except MaskError as error:
        raise InputError(
            acquisition.path.name, "brain mask", str(error), "a brain", "give --brain-mask"
        ) from error
    return mask, {"source": "made from the M0" if source is m0 else "made from the ASL volumes"}


def _temporal_snr(
    data: np.ndarray, kinds: np.ndarray, acquisition: Acquisition, mask: np.ndarray
) -> np.ndarray | None:
    """Mean over standard deviation in time of controls (or ΔM), pooled over the delays."""
    chosen = _static(kinds)
    values = data[mask][:, chosen].astype(np.float32)
    delays = np.round(acquisition.post_labeling_delay[chosen], 6)
    squares, freedom = np.zeros(len(values), np.float32), 0
    for delay in np.unique(delays):
        part = values[:, delays == delay]
        if part.shape[1] > 1:
            squares += part.var(axis=1) * part.shape[1]
            freedom += part.shape[1] - 1
    if freedom < 2:
        return None
    deviation = np.sqrt(squares / freedom)
    ratio = np.zeros(mask.shape, np.float32)
    ratio[mask] = values.mean(axis=1) / np.maximum(deviation, np.finfo(np.float32).tiny)
    return ratio
