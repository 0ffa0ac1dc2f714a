"""The M0 of a run on its own grid, whichever of the four kinds it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.bids.acquisition import Acquisition, M0Kind
from asl_bids_app.bids.sessions import PlannedRun
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.preprocess.m0 import M0Error, average_m0, recovery, tissue_m0_of_blood
from asl_bids_app.preprocess.m0_volumes import choose_volumes

if TYPE_CHECKING:
    from asl_bids_app.preprocess.moved import MovedRun

LEAST_COVERED: Final = 0.5
"""An M0 that shows less of the brain than this is of another place."""
DARK: Final = 0.05
"""Share of the brightest signal of an M0 below which there is none: background, not tissue far
from the coils."""


def find_m0(
    run: PlannedRun, moved: MovedRun, static: np.ndarray, *, align: bool
) -> tuple[np.ndarray, dict[str, Any], list[Notice]]:
    """Return the M0 of tissue on the grid of the run, before filling and smoothing.

    Parameters
    ----------
    run
        The run with its constants.
    moved
        Its volumes.
    static : array, shape (X, Y, Z)
        Mean of the volumes that show the anatomy best.
    align
        Look for head motion between a separate M0 and the run.

    Returns
    -------
    array (X, Y, Z), dict, list of Notice
        M0 in the units of the image, what was done, and warnings.

    Raises
    ------
    InputError
        If the M0 can't be used.
    """
    acquisition, calibration = run.acquisition, run.calibration
    m0, kinds = acquisition.m0, np.array(acquisition.volume_types)
    t1 = calibration.t1_tissue_m0.value
    name = m0.path.name if m0.path else acquisition.path.name
    facts: dict[str, Any] = {}
    warnings: list[Notice] = []
    if m0.kind is M0Kind.ESTIMATE:
        value = tissue_m0_of_blood(
            float(m0.estimate or 0.0), calibration.partition_coefficient.value
        )
        return np.full(static.shape, value), {"value": value}, warnings
    if m0.kind is M0Kind.SEPARATE and m0.path:
        volumes, affine, reported = _load_separate(m0.path, acquisition)
        warnings += reported
        numbers = np.arange(volumes.shape[3])
    else:
        numbers = np.flatnonzero(kinds == ("m0scan" if m0.kind is M0Kind.INCLUDED else "control"))
        volumes, affine = moved.data[..., numbers], moved.affine
    try:
        times = list(m0.repetition_time)
        times *= volumes.shape[3] if len(times) == 1 else 1
        if m0.kind is not M0Kind.ABSENT and len(times) == volumes.shape[3]:
            factors = [1 / recovery(time, t1) for time in times]
            choice = choose_volumes(volumes, factors, numbers.tolist())
            warnings += [Notice(name, found=text) for text in choice.passed_over]
            volumes, times = volumes[..., choice.used], [times[i] for i in choice.used]
        average, correction, used = average_m0(volumes, times, t1)
    except M0Error as error:
        raise InputError(
            name, "M0", str(error), "M0 volumes with signal and a repetition time of each"
        ) from error
    facts |= {"volumes": used, "repetition_time_correction": round(correction, 5)}
    if len(set(times)) > 1 and len(times) == used:
        facts["repetition_times"] = [round(float(time), 6) for time in times]
    if m0.kind is M0Kind.SEPARATE:
        average, how, failed = _onto_run(average, affine, static, moved.affine, align=align)
        anatomy = bool(np.isin(kinds, ("control", "label")).any())
        covered = brain_covered(average, static, moved.affine) if anatomy else None
        if covered is not None and covered < LEAST_COVERED:
            raise InputError(
                name,
                "field of view",
                f"M0 signal in {covered:.0%} of the brain of {acquisition.path.name} ({how})",
                f"{LEAST_COVERED:.0%} or more",
                "look for a wrong or missing orientation, or the M0 of another session",
            )
        facts["alignment"] = how
        if failed:
            warnings.append(Notice(name, found=f"M0 not aligned with the run but taken {how}"))
    return average, facts, warnings


def _load_separate(
    path: Path, acquisition: Acquisition
) -> tuple[np.ndarray, np.ndarray, list[Notice]]:
    from asl_bids_app.bids.grids import check_grid
    from asl_bids_app.bids.images import load, read_header

    header = read_header(path, path.name)
    image = load(path, name=path.name, spare=range(header.n_volumes))
    asl = read_header(acquisition.path, acquisition.path.name)
    grid = check_grid(header, asl)
    reported = [] if grid.equal and not grid.guessed else [Notice(path.name, found=grid.statement)]
    volumes = image.data[..., None] if image.data.ndim == 3 else image.data
    data = np.where(image.finite[..., None], volumes, 0)
    return data, asl.affine if grid.guessed else image.affine, [*image.warnings, *reported]


def _onto_run(
    image: np.ndarray,
    affine: np.ndarray,
    static: np.ndarray,
    target_affine: np.ndarray,
    *,
    align: bool,
) -> tuple[np.ndarray, str, bool]:
    """Resample a separate M0 onto the run, moved if the head did.

    Returns
    -------
    array (X, Y, Z), str, bool
        The M0, how it was placed, and whether an alignment was tried and failed.
    """
    from asl_bids_app.preprocess.align import AlignmentError, align_to, resample

    same = image.shape == static.shape and np.allclose(affine, target_affine, atol=1e-3)
    transform, how, failed = np.eye(4), "as scanned", False
    if align:
        try:
            transform = align_to(image, affine, static, target_affine)
            how = f"moved rigidly by up to {displacement(transform):.2f} mm"
        except AlignmentError as error:
            how, failed = f"as scanned: {error}", True
    if same and np.allclose(transform, np.eye(4)):
        return image, how, failed
    return resample(image, affine, static.shape, target_affine, transform), how, failed


def brain_covered(m0: np.ndarray, static: np.ndarray, affine: np.ndarray) -> float | None:
    """Return the share of a run's brain in which an M0 on its grid has signal.

    Parameters
    ----------
    m0 : array, shape (X, Y, Z)
        Zero beyond its own field of view.
    static : array, shape (X, Y, Z)
        Mean of the volumes that show the run's anatomy.
    affine : array, shape (4, 4)
        Of the run.

    Returns
    -------
    float or None
        None if `static` shows no brain to judge by.
    """
    from asl_bids_app.preprocess.mask import MaskError, brain_mask

    try:
        brain = brain_mask(static, affine)
    except MaskError:
        return None
    signal = m0[m0 > 0]
    if not signal.size:
        return 0.0
    return float((m0[brain] > DARK * np.percentile(signal, 98)).mean())


def displacement(transform: np.ndarray, radius_mm: float = 50.0) -> float:
    """Return the largest movement (mm) of a point of a sphere of the head's size."""
    moved = transform[:3, :3] - np.eye(3)
    return float(np.linalg.norm(transform[:3, 3]) + radius_mm * np.linalg.norm(moved, 2))
