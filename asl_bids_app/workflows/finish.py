"""The last step of a series: metrics, plausibility, derivatives, and facts for the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asl_bids_app.anatomy.run import Outcome, Request
from asl_bids_app.bids.derivatives import perf_folder
from asl_bids_app.series import to_volume
from asl_bids_app.workflows.anatomy import run_anatomy
from asl_bids_app.workflows.estimation import Estimated
from asl_bids_app.workflows.options import AppOptions
from asl_bids_app.workflows.plan import PlannedRun, PlannedUnit, distinct_measurements
from asl_bids_app.workflows.tissue import TissueMaps
from asl_bids_app.workflows.unit import Assembled, sidecar_of, write_unit


def finish_unit(
    output_dir: Path,
    unit: PlannedUnit,
    assembled: Assembled,
    fit: Estimated,
    *,
    baseline: Estimated | None,
    tissue: TissueMaps | None,
    confounds: Mapping[str, np.ndarray] | None,
    anatomy: Request | None = None,
) -> dict[str, Any]:
    """Compute the metrics of a series, write its derivatives, and see to its anatomy.

    Returns
    -------
    dict
        What the participant's record says of the series.
    """
    from asl_bids_app.quality.definitions import dictionary
    from asl_bids_app.quality.metrics import compute, plausibility

    maps = tissue.maps if tissue else None
    metrics = compute(_quality_input(assembled, fit, baseline, maps, confounds))
    loud = tuple(plausibility(metrics))
    told = (*fit.warnings, *(tissue.warnings if tissue else ()))
    facts = (
        dict(tissue.facts) if tissue else {"source": "none (--no-tissue)", "reason": "--no-tissue"}
    )
    paths = write_unit(
        output_dir,
        unit,
        assembled,
        fit.maps,
        baseline.maps if baseline else None,
        maps,
        confounds,
        joined_tables(assembled.carpets),
        (metrics, dictionary(metrics, facts.get("reason", ""))),
        fit.model,
        {"tissue": facts, "tissue_consistency": dict(fit.consistency or {}) or None},
        (*told, *loud),
    )
    series = assembled.series
    placed = Outcome()
    if anatomy is not None:
        sidecar = sidecar_of(unit, assembled, fit.maps, fit.model)
        placed = run_anatomy(anatomy, unit, assembled, fit, baseline, sidecar)
    about = {"anatomy": dict(placed.facts)} if placed.facts else {}
    return {
        "entities": dict(unit.entities),
        "joint": unit.joint,
        "folder": perf_folder(Path(), unit.entities).as_posix(),
        "estimator": fit.maps.estimator,
        "baseline": baseline is not None,
        "model": fit.model,
        "runs": [
            _run_facts(run, assembled.facts.get(run.acquisition.path.name, {}))
            for run in unit.runs
        ],
        "calibration": series.calibration.to_json(),
        "noise_method": assembled.noise.method,
        "metrics": metrics,
        "tissue": facts,
        "tissue_consistency": dict(fit.consistency or {}) or None,
        "warnings": [*assembled.warnings, *told, *placed.warnings],
        **about,
        "plausibility": list(loud),
        "outputs": [path.relative_to(output_dir).as_posix() for path in [*paths, *placed.outputs]],
        "fit_seconds": round(fit.seconds, 3),
        "baseline_seconds": round(baseline.seconds, 3) if baseline else None,
    }


def joined_tables(
    tables: Sequence[Mapping[str, np.ndarray] | None],
) -> dict[str, np.ndarray] | None:
    """Put tables of the runs of a unit one below the other; None if one is missing.

    Of several runs a column says to which each volume belongs.
    """
    if not tables or any(table is None for table in tables):
        return None
    if len(tables) == 1:
        return dict(tables[0])
    lengths = [len(next(iter(table.values()))) for table in tables]
    joined = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    return {**joined, "run": np.repeat(np.arange(1, len(tables) + 1), lengths)}


def planned_facts(unit: PlannedUnit, estimator: str, options: AppOptions) -> dict[str, Any]:
    """Return what a record would say of a unit before it is run, for the methods text."""
    calibration: dict[str, Any] = {}
    for run in unit.runs:
        calibration |= run.calibration.to_json()
    return {
        "entities": dict(unit.entities),
        "joint": unit.joint,
        "estimator": estimator,
        "baseline": options.baseline and estimator != "least-squares",
        "model": None,
        "runs": [_run_facts(run, {}) for run in unit.runs],
        "calibration": calibration,
    }


def _run_facts(run: PlannedRun, facts: Mapping[str, Any]) -> dict[str, Any]:
    acquisition = run.acquisition
    measurements = distinct_measurements(acquisition)
    m0 = acquisition.m0
    return {
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


def _quality_input(
    assembled: Assembled,
    fit: Estimated,
    baseline: Estimated | None,
    tissue: Mapping[str, np.ndarray] | None,
    confounds: Mapping[str, np.ndarray] | None,
) -> Any:
    from asl_bids_app.quality.metrics import QualityInput

    def volume(slices: Any) -> np.ndarray:
        return to_volume(slices.numpy(), assembled.slice_axis)

    maps, tissue = fit.maps, tissue or {}
    lsq = {
        f"lsq_{key}": volume(getattr(baseline.maps, key)) if baseline else None
        for key in ("cbf", "att", "cbf_sd", "att_sd", "flags")
    }
    return QualityInput(
        cbf=volume(maps.cbf),
        att=volume(maps.att),
        cbf_sd=volume(maps.cbf_sd),
        att_sd=volume(maps.att_sd),
        flags=volume(maps.flags),
        residual=volume(maps.residual),
        noise=volume(assembled.noise.noise_sd),
        delta_m=volume(assembled.series.delta_m),
        mask=volume(assembled.series.mask),
        gm=tissue.get("gm"),
        wm=tissue.get("wm"),
        csf=tissue.get("csf"),
        m0=assembled.prepared.m0,
        affine=assembled.affine,
        framewise_displacement=confounds["framewise_displacement"] if confounds else None,
        tsnr=assembled.prepared.tsnr,
        cbf_spread=None if maps.cbf_spread is None else volume(maps.cbf_spread),
        att_spread=None if maps.att_spread is None else volume(maps.att_spread),
        outside_domain=fit.outside_domain,
        whole_brain=assembled.prepared.brain,
        **lsq,
    )
