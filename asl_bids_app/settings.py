"""How one unit is processed: the options that its steps look at. No heavy import stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asl_bids_app.options import defaults

if TYPE_CHECKING:
    from asl_bids_app.bids.sessions import Unit
    from asl_bids_app.options.table import AppOptions


def runs_baseline(wanted: bool, estimator: str) -> bool:
    """Tell whether least squares runs beside an estimator, which must be another."""
    return wanted and estimator != "least-squares"


@dataclass(frozen=True)
class Settings:
    """How one unit is processed; for the meaning of each see the command line's help.

    Attributes
    ----------
    hmc : bool
        Correct head motion.
    m0_smooth_fwhm : float
        mm.
    calibration : str
        One of `asl_bids_app.options.constant_options.CALIBRATIONS`.
    brain_mask : Path or None
        Mask to use instead of one made from the M0.
    found_mask : Path or None
        The same of derivatives, which is used if it fits.
    mask_of_t1w : bool
        `found_mask` is the brain of a T1w: it is laid by the registration to that.
    tissue : bool
        Look for grey and white matter.
    tissue_maps : mapping of str to str
        Paths of tissue maps of derivatives by key (gm, wm, csf); without them the bundled atlas.
    estimator, model, model_hash : str
        Of the main maps; the hash makes another model another result.
    tta, error_bars, tissue_consistency, arterial
        Of the ensemble.
    baseline : bool
        Least squares beside another estimator.
    seed : int
    anatomy : bool
        Lay the series on a T1w, if there is one.
    bids_dir : str
        Dataset in which it is looked for; empty for none.
    derivatives : mapping of str to str
        Folders of derivatives by name.
    output_spaces, atlas : tuple of str
        As on the command line.
    pvc : str
        Method of the partial volume correction; empty for none.
    device, batch_size, threads
        Of the machine. They don't change results.
    """

    hmc: bool = defaults.HMC
    m0_smooth_fwhm: float = defaults.M0_SMOOTH_FWHM
    calibration: str = defaults.CALIBRATION
    brain_mask: Path | None = None
    found_mask: Path | None = None
    mask_of_t1w: bool = False
    tissue: bool = defaults.TISSUE
    tissue_maps: Mapping[str, str] = field(default_factory=dict)
    estimator: str = defaults.ESTIMATOR
    model: str = ""
    model_hash: str = ""
    tta: bool = defaults.TTA
    error_bars: str = defaults.ERROR_BARS
    tissue_consistency: bool = defaults.TISSUE_CONSISTENCY
    arterial: bool = defaults.ARTERIAL
    baseline: bool = defaults.BASELINE
    seed: int = defaults.SEED
    anatomy: bool = defaults.ANATOMY
    bids_dir: str = ""
    derivatives: Mapping[str, str] = field(default_factory=dict)
    output_spaces: tuple[str, ...] = ()
    atlas: tuple[str, ...] = ()
    pvc: str = ""
    device: str = defaults.DEVICE
    batch_size: int = defaults.BATCH_SIZE
    threads: int = defaults.THREADS

    @property
    def wants_baseline(self) -> bool:
        """Whether least squares runs beside the main estimator."""
        return runs_baseline(self.baseline, self.estimator)

    @property
    def calibrates_by_fluid(self) -> bool:
        """Whether ΔM is divided by an M0 of blood from fluid, for which tissue must be known."""
        return self.calibration != "voxelwise"

    @property
    def corrects_by_tissue(self) -> bool:
        """Whether the fit looks at tissue; only the ensemble leans on neighbours."""
        return self.tissue and self.tissue_consistency and self.estimator == "ensemble"


def unit_settings(
    options: AppOptions, unit: Unit, estimator: str, model: tuple[str, str] = ("", "")
) -> Settings:
    """Return how a unit is processed.

    Parameters
    ----------
    options
        Of the run.
    unit
        The unit; masks and tissue maps of derivatives are found by its entities.
    estimator, model
        Of `asl_bids_app.workflows.checks.choose_estimator`.
    """
    from asl_bids_app.preprocess.tissue_maps import given_tissue

    found_mask, mask_of_t1w = offered_mask(options, unit)
    return Settings(
        hmc=options.hmc,
        m0_smooth_fwhm=options.m0_smooth_fwhm,
        calibration=options.calibration,
        brain_mask=options.brain_mask,
        found_mask=found_mask,
        mask_of_t1w=mask_of_t1w,
        tissue=options.tissue,
        tissue_maps=given_tissue(options.derivatives, unit.entities) if options.tissue else {},
        estimator=estimator,
        model=model[0],
        model_hash=model[1],
        tta=options.tta,
        error_bars=options.error_bars,
        tissue_consistency=options.tissue_consistency,
        arterial=options.arterial,
        baseline=options.baseline,
        seed=options.random_seed,
        anatomy=options.anatomy,
        bids_dir=str(options.bids_dir),
        derivatives={name: str(path) for name, path in options.derivatives.items()},
        output_spaces=options.output_spaces,
        atlas=options.atlas,
        pvc=options.pvc or "",
        device=options.device,
        batch_size=options.batch_size,
        threads=min(options.omp_nthreads or options.nprocs, options.nprocs),
    )


def offered_mask(options: AppOptions, unit: Unit) -> tuple[Path | None, bool]:
    """Return the brain mask that derivatives offer for a unit, and whether it is a T1w's.

    That of a T1w to which the unit can be registered is laid by the registration. Any other lies
    where the scanner's coordinates have it.
    """
    from asl_bids_app.anatomy.find import find_anatomy
    from asl_bids_app.preprocess.tissue_maps import given_mask

    if options.brain_mask is not None:
        return None, False
    if options.anatomy:
        found = find_anatomy(options.bids_dir, options.derivatives, unit.entities)
        if found.mask is not None and found.has_tissue:
            return found.mask, True
    return given_mask(options.derivatives, unit.entities), False
