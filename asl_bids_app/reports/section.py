"""The section of a report about one series, as plain content for the template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from asl_bids_app.quality.definitions import (
    BASELINE_PREFIX,
    GROUPS,
    METRICS,
    TISSUE_THRESHOLD,
)
from asl_bids_app.quality.plausibility import plausibility
from asl_bids_app.reports import charts, mosaics
from asl_bids_app.reports.load import SeriesData
from asl_bids_app.reports.mosaics import Scale
from asl_bids_app.reports.understood import constant_rows, estimator_name, run_facts
from asl_bids_app.reports.viewer import pack

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

    scales = attempt("the colour scales", lambda: _scales(data, mask)) or {}
    content: dict[str, Any] = {
        "id": data.title,
        "title": data.title,
        "estimator": estimator_name(data.sidecar.get("EstimationMethod") or unit.get("estimator")),
        "baseline": data.baseline,
        "unit": dict(unit),
        "joint": bool(unit.get("joint")),
        "seconds": dict(unit.get("timing") or {}),
        "outputs": list(unit.get("outputs") or []),
        "runs": [run_facts(run) for run in unit.get("runs") or [] if isinstance(run, Mapping)],
        "measurements": data.measurements,
        "calibration": constant_rows(
            data.sidecar.get("Calibration") or unit.get("calibration") or {}
        ),
        "noise": dict(data.sidecar.get("NoiseEstimation") or unit.get("noise_method") or {}),
        "model": data.sidecar.get("Model") or unit.get("model") or {},
        "warnings": list(data.sidecar.get("Warnings") or unit.get("warnings") or []),
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
        ("timing", "motion", "m0", "delta_m", "maps", "distributions", "viewer")
    )
    if data.measurements:
        content["timing"] = attempt("the timing diagram", lambda: charts.timing(data.measurements))
    if data.confounds:
        content["motion"] = attempt("head motion", lambda: charts.motion(data.confounds))
    if mask is not None and mask.any():
        content["m0"] = attempt("M0", lambda: _m0(data, mask))
        content["delta_m"] = attempt("ΔM", lambda: _delta_m(data, mask))
        content["maps"] = attempt("the maps", lambda: _maps(data, mask, scales)) or []
        content["distributions"] = (
            attempt("the distributions", lambda: _distributions(data, mask, scales)) or []
        )
        content["viewer"] = attempt("the viewer", lambda: pack(data, scales, budget))
    content["problems"] = problems
    return content


def _scales(data: SeriesData, mask: np.ndarray | None) -> dict[str, Scale]:
    """Colour scales by quantity, each shared by the estimators."""
    if mask is None or not mask.any():
        return {}

    def inside(*keys: str) -> list[np.ndarray]:
        return [data.images[key][mask] for key in keys if key in data.images]

    found = {
        "cbf": mosaics.flow_scale(*inside("cbf", "lsq_cbf")[:1]),
        "att": mosaics.time_scale(*inside("att")),
        "cbf_sd": mosaics.spread_scale("mL/100 g/min", *inside("cbf_sd", "lsq_cbf_sd")),
        "att_sd": mosaics.spread_scale("s", *inside("att_sd", "lsq_att_sd")),
    }
    for key, unit, least in (("cbf", "mL/100 g/min", 5.0), ("att", "s", 0.1)):
        both = inside(key, f"lsq_{key}")
        if len(both) == 2:
            found[f"{key}_difference"] = mosaics.difference_scale(unit, both[0] - both[1], least)
    return found


def _m0(data: SeriesData, mask: np.ndarray) -> list[dict[str, str]]:
    """Draw the M0 with the outlines of the mask and of grey matter."""
    if "m0" not in data.images:
        return []
    m0 = np.asarray(data.images["m0"], dtype=float)
    high = mosaics.nice(np.percentile(m0[mask & np.isfinite(m0)], 99))
    scale = Scale(0, high, "gray", "M0 (image units)")
    # The whole head: what the mask lost is to be seen.
    head = mask | (np.nan_to_num(m0) > 0.2 * high)
    outlines = [("the brain mask", mask.astype(float), "#ffb000")]
    if "gm" in data.images:
        outlines.append(("grey matter, as the atlas has it", data.images["gm"], "#56b4e9"))
    return [
        {
            "title": f"M0 with the outline of {name}",
            "src": mosaics.mosaic(m0, head, data.affine, scale, contour=line, colour=colour),
        }
        for name, line, colour in outlines
    ]


def _delta_m(data: SeriesData, mask: np.ndarray) -> list[dict[str, str]]:
    """Draw the measurements, one picture a scheme, all on one scale."""
    if "delta_m" not in data.images or not data.measurements:
        return []
    percent = 100 * np.asarray(data.images["delta_m"], dtype=float)
    values = percent[mask]
    high = mosaics.nice(np.nanpercentile(values, 99))
    low = -mosaics.nice(max(-np.nanpercentile(values, 2), 0.02 * high))
    scale = Scale(low, high, "inferno", "% of M0")
    drawn = []
    for scheme in dict.fromkeys(item.scheme for item in data.measurements):
        chosen = [i for i, item in enumerate(data.measurements) if item.scheme == scheme]
        titles = [f"{i + 1}:  {data.measurements[i].post_labeling_delay:g} s" for i in chosen]
        picture = mosaics.measurement_rows(percent[..., chosen], mask, data.affine, scale, titles)
        drawn.append({"title": scheme, "src": picture})
    return drawn


_ROWS: Final = (
    ("cbf", "CBF"),
    ("cbf_sd", "CBF, one standard deviation"),
    ("att", "ATT"),
    ("att_sd", "ATT, one standard deviation"),
)


def _maps(data: SeriesData, mask: np.ndarray, scales: Mapping[str, Scale]) -> list[dict[str, Any]]:
    """Rows of pictures: main beside least squares, on one scale."""
    rows = []
    main = estimator_name(data.sidecar.get("EstimationMethod"))
    for key, title in _ROWS:
        pictures = []
        for name, estimator in ((key, main), (f"lsq_{key}", "least squares")):
            if name not in data.images:
                continue
            picture = mosaics.mosaic(data.images[name], mask, data.affine, scales[key])
            pictures.append({"title": f"{title} – {estimator}", "src": picture})
        if pictures:
            rows.append({"title": title, "pictures": pictures})
    if not data.baseline:  # without a second column, maps stand beside their own error
        joined = [picture for row in rows for picture in row["pictures"]]
        rows = [{"title": "", "pictures": joined[i : i + 2]} for i in range(0, len(joined), 2)]
    pictures = []
    for key in ("cbf", "att"):
        if f"{key}_difference" in scales:
            difference = data.images[key].astype(float) - data.images[f"lsq_{key}"]
            picture = mosaics.mosaic(difference, mask, data.affine, scales[f"{key}_difference"])
            pictures.append(
                {"title": f"{key.upper()} – {main} minus least squares", "src": picture}
            )
    if pictures:
        rows.append({"title": "Difference", "pictures": pictures})
    return rows


def _distributions(
    data: SeriesData, mask: np.ndarray, scales: Mapping[str, Scale]
) -> list[dict[str, str]]:
    tissues = [
        (name, colour, mask & (data.images[key] > TISSUE_THRESHOLD))
        for key, name, colour in (
            ("gm", "grey matter", charts.BLUE),
            ("wm", "white matter", charts.ORANGE),
        )
        if key in data.images
    ] or [("brain", charts.BLUE, mask)]
    drawn = []
    for key, limits in (
        ("cbf", (0.0, 1.5 * scales["cbf"].high)),
        ("att", (0.0, max(1.2 * scales["att"].high, 2.0))),
    ):
        label = f"{key.upper()} ({scales[key].label})"
        other = data.images.get(f"lsq_{key}")
        groups = [
            (name, colour, data.images[key][where], None if other is None else other[where])
            for name, colour, where in tissues
            if where.any()
        ]
        drawn.append({"title": label, "src": charts.distributions(groups, limits, label)})
    return drawn


def _glance(data: SeriesData) -> list[dict[str, Any]]:
    return [
        {"metric": METRICS[key], "value": data.metrics[key]}
        for key in GLANCE
        if key in data.metrics and np.isfinite(data.metrics[key])
    ]


def _quality(data: SeriesData) -> list[dict[str, Any]]:
    """Group the rows of the quality table."""
    groups = []
    for name in GROUPS:
        rows = [
            {
                "metric": metric,
                "value": data.metrics[key],
                "lsq": data.metrics.get(BASELINE_PREFIX + key),
            }
            for key, metric in METRICS.items()
            if metric.group == name and np.isfinite(data.metrics.get(key, np.nan))
        ]
        if rows:
            groups.append({"name": name, "rows": rows})
    return groups
