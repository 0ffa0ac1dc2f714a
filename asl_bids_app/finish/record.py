"""The last step of a series: metrics, plausibility, derivatives, and what the record says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from asl_bids_app.anatomy.place import Placed
from asl_bids_app.anatomy.records import TISSUES
from asl_bids_app.anatomy.request import Outcome, Request
from asl_bids_app.anatomy.series_files import remove_stale
from asl_bids_app.bids.acquisition import distinct_measurements
from asl_bids_app.bids.derivatives import perf_folder
from asl_bids_app.bids.sessions import PlannedRun, Unit
from asl_bids_app.bids.uris import add_sources
from asl_bids_app.estimators.base import ParameterMaps
from asl_bids_app.estimators.consensus import consensus
from asl_bids_app.finish.make_images import unit_images
from asl_bids_app.finish.sidecars import differences, noise_method, shared_sidecar
from asl_bids_app.finish.unit_anatomy import run_anatomy
from asl_bids_app.finish.write import write_tables, write_unit
from asl_bids_app.preprocess.tissue_maps import TissueMaps
from asl_bids_app.quality.definitions import dictionary
from asl_bids_app.quality.metrics import compute, plausibility
from asl_bids_app.quality.registration_metrics import partial_volume_metrics, registration_metrics
from asl_bids_app.run_records import RunFacts, UnitRecord
from asl_bids_app.series import Series
from asl_bids_app.settings import runs_baseline

VOXELWISE: Final = ("lsq_", "consensus_", "m0", "mask", "tsnr")
"""What begins the keys of images that know nothing of tissue."""


def finish_unit(
    output_dir: Path,
    unit: Unit,
    series: Series,
    maps: ParameterMaps[Tensor],
    *,
    baseline: ParameterMaps[Tensor] | None,
    tissue: TissueMaps | None,
    confounds: Mapping[str, np.ndarray] | None,
    anatomy: Request | None = None,
    placed: Placed | None = None,
    others: Mapping[str, Path] | None = None,
) -> UnitRecord:
    """Compute the metrics of a series, write its derivatives, and see to its anatomy.

    Parameters
    ----------
    output_dir
        Folder of the derivatives.
    unit, series, maps
        What was processed, and the main maps.
    baseline
        Least squares beside them.
    tissue
        Tissue maps; None where none were wanted.
    confounds
        Columns of the confounds table.
    anatomy
        What is asked of it; None for nothing.
    placed
        The series on its T1w; None if there is none, or to register it now.
    others
        Datasets beside the raw one that files come from, by name.

    Returns
    -------
    UnitRecord
        What the participant's record says of the series.
    """
    by_formula = consensus(series)
    images = unit_images(
        series,
        maps,
        baseline=baseline,
        by_formula=by_formula,
        tissue=tissue.maps if tissue else None,
        framewise_displacement=confounds["framewise_displacement"] if confounds else None,
    )
    metrics = compute(images)
    implausible = plausibility(metrics)
    warnings = (*maps.warnings, *(tissue.warnings if tissue else ()))
    facts = (
        dict(tissue.facts) if tissue else {"source": "none (--no-tissue)", "reason": "--no-tissue"}
    )
    consistency = dict(maps.consistency or {}) or None
    datasets = {**(others or {}), "": output_dir}
    from_tissue = tissue.sources if tissue and tissue.maps else ()
    by_fluid = any("reference" in run.get("m0", {}) for run in series.facts.values())
    shared = shared_sidecar(
        unit,
        series,
        maps,
        facts={"tissue": facts, "tissue_consistency": consistency},
        warnings=(*warnings, *implausible),
        datasets=datasets,
        sources=from_tissue if by_fluid else (),
    )
    differing = differences(baseline, by_formula)
    with_tissue = {"Sources": add_sources(shared["Sources"], from_tissue, datasets)}
    keys = [*TISSUES]
    if maps.consistency is not None:
        # Only the main maps were corrected by tissue: those beside them rest on voxels alone.
        keys += [key for key in images.written() if not key.startswith(VOXELWISE)]
    for key in keys:
        differing[key] = {**differing.get(key, {}), **with_tissue}
    paths = write_unit(
        output_dir,
        unit,
        images,
        shared,
        differing,
        confounds=confounds,
        carpet=series.carpet,
        quality=(metrics, dictionary(metrics, facts.get("reason", ""))),
    )
    laid = Outcome()
    if anatomy is None:
        remove_stale(output_dir, unit.entities)
    else:
        main = {**shared, **differing.get("cbf", {})}
        laid = run_anatomy(anatomy, unit, series, maps, baseline, main, placed)
    of_anatomy = {**registration_metrics(laid.facts), **partial_volume_metrics(laid.facts)}
    if of_anatomy:
        metrics |= of_anatomy
        content = (metrics, dictionary(metrics, facts.get("reason", "")))
        write_tables(output_dir, unit, {"quality": content})
    return UnitRecord(
        entities=dict(unit.entities),
        joint=unit.joint,
        folder=perf_folder(Path(), unit.entities).as_posix(),
        estimator=maps.estimator,
        baseline=baseline is not None,
        model=maps.model,
        runs=tuple(
            _run_facts(run, series.facts.get(run.acquisition.path.name, {})) for run in unit.runs
        ),
        calibration=series.calibration.to_json(),
        noise_method=noise_method(series),
        metrics=metrics,
        tissue=facts,
        tissue_consistency=consistency,
        warnings=(*series.warnings, *warnings, *laid.warnings),
        anatomy=dict(laid.facts),
        plausibility=tuple(implausible),
        outputs=tuple(
            path.relative_to(output_dir).as_posix() for path in (*paths.values(), *laid.outputs)
        ),
        output_keys=tuple(paths),
        fit_seconds=round(maps.seconds, 3),
        baseline_seconds=round(baseline.seconds, 3) if baseline else None,
    )


def planned_record(unit: Unit, estimator: str, baseline: bool) -> UnitRecord:
    """Return what a record would say of a unit before it is run, for the methods text."""
    calibration: dict[str, object] = {}
    for run in unit.runs:
        calibration |= run.calibration.to_json()
    return UnitRecord(
        entities=dict(unit.entities),
        joint=unit.joint,
        estimator=estimator,
        baseline=runs_baseline(baseline, estimator),
        runs=tuple(_run_facts(run, {}) for run in unit.runs),
        calibration=calibration,
    )


def _run_facts(run: PlannedRun, facts: Mapping[str, Any]) -> RunFacts:
    """Return what is known of a run; `facts` are what its steps did to it."""
    acquisition = run.acquisition
    measurements = distinct_measurements(acquisition)
    m0 = acquisition.m0
    return RunFacts.from_json(
        {
            "path": acquisition.path.name,
            "scheme": acquisition.scheme.value,
            "volumes": dict(Counter(acquisition.volume_types)),
            "post_labeling_delay": [delay for delay, _, _ in measurements],
            "label_duration": [duration for _, duration, _ in measurements],
            "volumes_per_measurement": [number for *_, number in measurements],
            "slice_time": [
                float(np.min(acquisition.slice_time)),
                float(np.max(acquisition.slice_time)),
            ],
            "inferred": dict(acquisition.inferred),
            "warnings": list(run.warnings),
            **facts,
            "m0": {
                "kind": m0.kind.value,
                "path": m0.path.name if m0.path else None,
                "repetition_time": list(m0.repetition_time),
                "estimate": m0.estimate,
                **facts.get("m0", {}),
            },
            "field_strength": acquisition.metadata.get("MagneticFieldStrength"),
        }
    )
