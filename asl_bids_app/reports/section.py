"""The section of a report about one series, as plain content for the template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from asl_bids_app.origins import FractionKind
from asl_bids_app.quality.definitions import (
    BASELINE_PREFIX,
    GROUPS,
    METRICS,
)
from asl_bids_app.quality.plausibility import plausibility
from asl_bids_app.reports import charts, pictures
from asl_bids_app.reports.anatomy import anatomy_section
from asl_bids_app.reports.carpet import draw_time_course
from asl_bids_app.reports.load import preprocessing_of
from asl_bids_app.reports.mosaics import Frame
from asl_bids_app.reports.series_data import SeriesData
from asl_bids_app.reports.understood import constant_rows, estimator_name, run_facts
from asl_bids_app.reports.viewer import pack
from asl_bids_app.run_records import UnitRecord

LOG = logging.getLogger("asl-app")

GLANCE: Final = (
    "cbf_mean_gm",
    "cbf_mean_wm",
    "att_mean_gm",
    "qei",
    "cbf_scov_gm",
    "snr_delta_m_gm",
    "residual_to_noise_gm",
    "fd_mean",
)
"""The metrics that stand at the top."""
_OF_BARS: Final = frozenset({"cbf_sd_gm", "att_sd_gm"})
"""The metrics of error bars; what those hold is written beside them."""
_OF_BOTH_BARS: Final = "disagreement_beyond_sd"
"""The metric that compares with the error bars of both estimates."""


def section(data: SeriesData, unit: Mapping[str, Any], budget: int) -> dict[str, Any]:
    """Make the content of a series' section.

    Parameters
    ----------
    data
        Its derivatives.
    unit
        What the run's record says of it; may be empty.
    budget
        Bytes of the page that its viewer may take.

    Returns
    -------
    dict
        For the template ``series.html``. A figure that can't be drawn is left out and named
        among the problems.
    """
    unit = UnitRecord.from_json(unit)
    problems = list(data.problems)
    images = data.images
    mask = images["mask"] > 0 if "mask" in images else None

    def attempt(what: str, draw: Callable[[], Any]) -> Any:
        try:
            return draw()
        except Exception as error:  # a report with a gap is better than none
            LOG.warning("%s: %s can't be drawn: %s", data.title, what, error)
            LOG.debug("figure", exc_info=True)
            problems.append(f"{what} can't be drawn ({error})")
            return None

    by_quantity = attempt("the colour scales", lambda: pictures.find_scales(data, mask)) or {}
    content: dict[str, Any] = {
        "id": data.title,
        "title": data.title,
        "estimator": estimator_name(data.sidecar.get("EstimationMethod") or unit.estimator),
        "baseline": data.baseline,
        "estimates": data.estimates,
        "corrected": dict(preprocessing_of(data, "tissue_consistency")),
        "by_contrast": preprocessing_of(data, "tissue").get("fractions") == FractionKind.CONTRAST,
        "unit": unit,
        "joint": unit.joint,
        "seconds": dict(unit.timing),
        "outputs": list(unit.outputs),
        "runs": [run_facts(run) for run in unit.runs],
        "measurements": data.measurements,
        "calibration": constant_rows(data.sidecar.get("Calibration") or unit.calibration),
        "noise": dict(data.sidecar.get("NoiseEstimation") or unit.noise_method),
        "model": data.sidecar.get("Model") or unit.model or {},
        "warnings": list(data.sidecar.get("Warnings") or unit.warnings),
        "plausibility": plausibility(data.metrics) if data.metrics else [],
        "sources": list(data.sidecar.get("Sources") or []),
        "glance": _glance(data),
        "quality": _quality(data),
        "absent": [
            metric.name
            for key, metric in METRICS.items()
            if key in data.metrics and not np.isfinite(data.metrics[key])
        ],
    }
    content |= dict.fromkeys(
        (
            "timing",
            "motion",
            "m0",
            "delta_m",
            "maps",
            "flags",
            "distributions",
            "anatomy",
            "viewer",
        )
    )
    if data.measurements:
        content["timing"] = attempt("the timing diagram", lambda: charts.timing(data.measurements))
    if data.confounds or data.carpet:
        content["motion"] = attempt(
            "the time course", lambda: draw_time_course(data.confounds, data.carpet)
        )
    if mask is not None and mask.any():
        frame = Frame(mask, data.affine, data.stored)
        content["m0"] = attempt("M0", lambda: pictures.draw_m0(data, mask))
        content["delta_m"] = attempt("ΔM", lambda: pictures.draw_delta_m(data, frame))
        content["maps"] = (
            attempt("the maps", lambda: pictures.draw_maps(data, frame, by_quantity)) or []
        )
        content["flags"] = attempt("the flags", lambda: pictures.draw_flags(data, frame))
        content["distributions"] = (
            attempt(
                "the distributions", lambda: pictures.draw_distributions(data, mask, by_quantity)
            )
            or []
        )
        content["anatomy"] = attempt(
            "the anatomy",
            lambda: anatomy_section(data, unit.anatomy, by_quantity, attempt, problems),
        )
        content["viewer"] = attempt("the viewer", lambda: pack(data, by_quantity, budget))
    content["problems"] = problems
    return content


def _glance(data: SeriesData) -> list[dict[str, Any]]:
    return [
        {"metric": METRICS[key], "value": data.metrics[key]}
        for key in GLANCE
        if key in data.metrics and np.isfinite(data.metrics[key])
    ]


def _quality(data: SeriesData) -> list[dict[str, Any]]:
    """Group the rows of the quality table."""
    groups = []
    bars = tuple(one.bars for one in data.estimates if one.word in {"", "lsq"})
    bars = bars if len(bars) == 2 and all(bars) else ()
    against = (" against ".join(bars),) if bars else ()
    for name in GROUPS:
        rows = [
            {
                "metric": metric,
                "value": data.metrics[key],
                "lsq": data.metrics.get(BASELINE_PREFIX + key),
                "bars": bars if key in _OF_BARS else against if key == _OF_BOTH_BARS else (),
            }
            for key, metric in METRICS.items()
            if metric.group == name and np.isfinite(data.metrics.get(key, np.nan))
        ]
        if rows:
            groups.append({"name": name, "rows": rows})
    return groups
