"""The way of a run on one page: plan, moved, prepared, series, maps, metrics, files.

Each step is a plain function of a unit, the settings, and what earlier steps gave. Here they are
called one after the other; `asl_bids_app.workflows` calls the same functions from nipype, side by
side and with results kept. The module can be called: ``asl_bids_app.quantify(delta_m, m0,
protocol)`` quantifies arrays, see `asl_bids_app.arrays`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from asl_bids_app.arrays import quantify
from asl_bids_app.callable_module import CallableModule
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from asl_bids_app.anatomy.place import Placed
    from asl_bids_app.bids.sessions import Unit
    from asl_bids_app.estimators.base import ParameterMaps
    from asl_bids_app.preprocess.moved import MovedRun
    from asl_bids_app.preprocess.prepare import PreparedRun
    from asl_bids_app.preprocess.tissue_maps import TissueMaps
    from asl_bids_app.run_records import UnitRecord
    from asl_bids_app.series import Series

__all__ = ["quantify", "quantify_unit"]
__doc__ = f"{quantify.__doc__}\n\n{__doc__}"  # of what is called by the module's name


def quantify_unit(unit: Unit, output_dir: Path, settings: Settings) -> UnitRecord:
    """Quantify one planned unit and write its derivatives.

    Parameters
    ----------
    unit
        Of `asl_bids_app.workflows.plan.make_plan`: the runs that give one set of maps.
    output_dir
        Folder of the derivatives.
    settings
        How it is processed.

    Returns
    -------
    UnitRecord
        What the participant's record says of the unit: metrics, warnings, files.

    Raises
    ------
    AslAppError
        If the data can't be used.
    """
    indices = range(len(unit.runs))
    moved = [move(unit, settings, index=i) for i in indices]
    prepared = [prepare(unit, settings, index=i, moved=moved[i]) for i in indices]
    placed = register(unit, settings, output_dir=output_dir, prepared=prepared[0])
    if settings.mask_of_t1w:
        # Again, in the brain of the T1w where that lies by the registration.
        prepared = [
            prepare(unit, settings, index=i, moved=moved[i], placed=placed) for i in indices
        ]
    tissue = None
    if settings.tissue:
        tissue = find_tissue(unit, settings, prepared=prepared[0], placed=placed)
    reference = tissue if settings.calibrates_by_fluid else None
    series = assemble(unit, settings, prepared=prepared, tissue=reference)
    seen = tissue if settings.corrects_by_tissue else None
    maps = fit(unit, settings, series=series, tissue=seen)
    baseline = fit_baseline(unit, settings, series=series) if settings.wants_baseline else None
    return finish(
        unit,
        settings,
        output_dir=output_dir,
        series=series,
        moved=moved,
        maps=maps,
        baseline=baseline,
        tissue=tissue,
        placed=placed,
    )


def move(
    unit: Unit, settings: Settings, *, index: int, tell: OnProgress = no_progress
) -> MovedRun:
    """Load a run and correct its head motion."""
    from asl_bids_app.preprocess.moved import correct_motion

    run = unit.runs[index].acquisition
    return correct_motion(run, hmc=settings.hmc, threads=settings.threads, tell=tell)


def prepare(
    unit: Unit, settings: Settings, *, index: int, moved: MovedRun, placed: Placed | None = None
) -> PreparedRun:
    """Find M0 and brain of a run, average its pairs, and divide by M0.

    Once the unit is registered to its T1w for sure, the brain may be that of the T1w.
    """
    from asl_bids_app.preprocess.find_mask import OfferedMask
    from asl_bids_app.preprocess.prepare import prepare_run

    path, pose = settings.found_mask, placed.sure_pose if placed is not None else None
    prepared = prepare_run(
        unit.runs[index],
        moved,
        align_m0=settings.hmc,
        m0_smooth_fwhm=settings.m0_smooth_fwhm,
        brain_mask=settings.brain_mask,
        offered=OfferedMask(path, settings.mask_of_t1w, pose) if path is not None else None,
    )
    if placed is not None and pose is not None and prepared.sources:
        return replace(prepared, sources=placed.sources)
    return prepared


def register(
    unit: Unit, settings: Settings, *, output_dir: Path, prepared: PreparedRun
) -> Placed | None:
    """Lay the unit on the T1w of its participant; None if there is none."""
    from asl_bids_app.finish.unit_anatomy import make_request, place_run

    request = make_request(settings, output_dir)
    return place_run(request, unit, prepared) if request is not None else None


def find_tissue(
    unit: Unit,  # noqa: ARG001 - every step takes it
    settings: Settings,
    *,
    prepared: PreparedRun,
    placed: Placed | None = None,
) -> TissueMaps:
    """Find how much grey and white matter each voxel holds: by the T1w, else without it."""
    from asl_bids_app.anatomy.tissue_source import choose_tissue

    given = {key: Path(path) for key, path in settings.tissue_maps.items()}
    return choose_tissue(prepared, given, placed)


def assemble(
    unit: Unit,
    settings: Settings,
    *,
    prepared: Sequence[PreparedRun],
    tissue: TissueMaps | None = None,
) -> Series:
    """Put the runs of a unit into one space, calibrated, and estimate the noise of the series."""
    from asl_bids_app.preprocess.assemble import assemble as join_runs
    from asl_bids_app.preprocess.reference import choose_reference

    reference, warnings = choose_reference(unit, settings.calibration, prepared[0], tissue)
    series = join_runs(unit, prepared, move=settings.hmc, reference=reference)
    return replace(series, warnings=(*series.warnings, *warnings)) if warnings else series


def fit(
    unit: Unit,  # noqa: ARG001 - every step takes it
    settings: Settings,
    *,
    series: Series,
    tissue: TissueMaps | None = None,
    tell: OnProgress = no_progress,
) -> ParameterMaps[Tensor]:
    """Estimate CBF and ATT."""
    from asl_bids_app.estimators.estimate import estimate

    return estimate(
        series,
        settings.estimator,
        model=settings.model or None,
        tta=settings.tta,
        error_bars=settings.error_bars,
        device=settings.device,
        batch_size=settings.batch_size,
        threads=settings.threads,
        seed=settings.seed,
        tissue=tissue.alike if tissue else None,
        consistent=settings.tissue_consistency,
        arterial=settings.arterial,
        tell=tell,
    )


def fit_baseline(
    unit: Unit, settings: Settings, *, series: Series, tell: OnProgress = no_progress
) -> ParameterMaps[Tensor]:
    """Estimate by least squares, beside the main maps."""
    plain = replace(settings, estimator="least-squares", model="")
    return fit(unit, plain, series=series, tell=tell)


def finish(
    unit: Unit,
    settings: Settings,
    *,
    output_dir: Path,
    series: Series,
    moved: Sequence[MovedRun],
    maps: ParameterMaps[Tensor],
    baseline: ParameterMaps[Tensor] | None = None,
    tissue: TissueMaps | None = None,
    placed: Placed | None = None,
) -> UnitRecord:
    """Compute metrics, write images, tables and sidecars, and return the unit's record.

    Where there is a T1w, the maps are laid on it too, and regions get their tables.
    """
    from asl_bids_app.finish.record import finish_unit
    from asl_bids_app.finish.unit_anatomy import make_request, other_datasets
    from asl_bids_app.preprocess.carpet_table import join_tables

    return finish_unit(
        output_dir,
        unit,
        series,
        maps,
        baseline=baseline,
        tissue=tissue,
        confounds=join_tables([run.confounds for run in moved]),
        anatomy=make_request(settings, output_dir),
        placed=placed,
        others=other_datasets(settings),
    )


__signature__ = signature(quantify)
"""What `inspect` and editors show of the module when it is called."""

sys.modules[__name__].__class__ = CallableModule
