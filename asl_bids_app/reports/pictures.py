"""The pictures of a series: which maps stand side by side, and on which scales."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app.quality.definitions import TISSUE_THRESHOLD
from asl_bids_app.reports import charts, mosaics, page, scales
from asl_bids_app.reports.estimates import PLAIN, Estimate, flag_legend
from asl_bids_app.reports.load import preprocessing_of
from asl_bids_app.reports.mosaics import Frame
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.series_data import SeriesData


def find_scales(data: SeriesData, mask: np.ndarray | None) -> dict[str, Scale]:
    """Colour scales by quantity, each shared by the estimates."""
    if mask is None or not mask.any():
        return {}

    def inside(quantity: str) -> list[np.ndarray]:
        keys = [e.keys[quantity] for e in data.estimates if quantity in e.keys]
        return [data.images[key][mask] for key in keys]

    found = {
        "cbf": scales.flow_scale(*inside("cbf")[:1]),
        "att": scales.time_scale(*inside("att")[:1]),
        "cbf_sd": scales.spread_scale("mL/100 g/min", *inside("cbf_sd")),
        "att_sd": scales.spread_scale("s", *inside("att_sd")),
    }
    if "abv" in data.images:
        found |= {
            "abv": scales.volume_scale(data.images["abv"][mask]),
            "abv_sd": scales.spread_scale("mL/100 mL", data.images["abv_sd"][mask]),
        }
    for key, unit, least in (("cbf", "mL/100 g/min", 5.0), ("att", "s", 0.1)):
        both = [data.images[name][mask] for name in (key, f"lsq_{key}") if name in data.images]
        if len(both) == 2:
            found[f"{key}_difference"] = scales.difference_scale(unit, both[0] - both[1], least)
    return found


_FRACTIONS: Final = MappingProxyType(
    {
        "M0": ", from M0 and atlas",
        "atlas": ", as the atlas has it",
        "derivatives": ", from derivatives",
        "T1w": ", from the T1w, registered",
    }
)
"""By the sidecars' word for where the fractions of tissue come from."""


def draw_m0(data: SeriesData, mask: np.ndarray) -> list[dict[str, str]]:
    """Draw the M0 with the outlines of the mask and of grey matter."""
    if "m0" not in data.images:
        return []
    m0 = np.asarray(data.images["m0"], dtype=float)
    high = scales.nice(np.percentile(m0[mask & np.isfinite(m0)], 99))
    scale = Scale(0, high, "gray", "M0 (image units)")
    # The whole head: what the mask lost is to be seen.
    head = Frame(mask | (np.nan_to_num(m0) > 0.2 * high), data.affine, data.stored)
    outlines = [("the brain mask", mask.astype(float), "#ffb000")]
    if "gm" in data.images:
        how = _FRACTIONS.get(str(preprocessing_of(data, "tissue").get("fractions")), "")
        outlines.append((f"grey matter{how}", data.images["gm"], "#56b4e9"))
    return [
        {
            "title": f"M0 with the outline of {what}",
            "src": mosaics.mosaic(m0, head, scale, contour=line, colour=colour),
        }
        for what, line, colour in outlines
    ]


def draw_delta_m(data: SeriesData, frame: Frame) -> list[dict[str, str]]:
    """Draw the measurements, one picture a scheme, all on one scale."""
    if "delta_m" not in data.images or not data.measurements:
        return []
    percent = 100 * np.asarray(data.images["delta_m"], dtype=float)
    scale = scales.signal_scale("% of M0", percent[frame.mask])
    drawn = []
    for scheme in dict.fromkeys(item.scheme for item in data.measurements):
        chosen = [i for i, item in enumerate(data.measurements) if item.scheme == scheme]
        titles = [f"{i + 1}:  {data.measurements[i].post_labeling_delay:g} s" for i in chosen]
        picture = mosaics.measurement_rows(percent[..., chosen], frame, scale, titles)
        drawn.append({"title": scheme, "src": picture})
    return drawn


_QUANTITIES: Final = MappingProxyType(
    {
        "cbf": "CBF",
        "cbf_sd": "CBF, one standard deviation",
        "att": "ATT",
        "att_sd": "ATT, one standard deviation",
    }
)


_ARTERIES: Final = MappingProxyType(
    {"abv": "Arterial blood volume", "abv_sd": "Arterial blood volume, one standard deviation"}
)


def picture_title(quantity: str, estimate: Estimate) -> str:
    """Name a map by quantity and estimate; of standard deviations also what they hold."""
    held = f" ({estimate.bars})" if quantity.endswith("_sd") and estimate.bars else ""
    return f"{_QUANTITIES[quantity]}{held} – {estimate.name}"


def draw_maps(
    data: SeriesData, frame: Frame, by_quantity: Mapping[str, Scale]
) -> list[list[dict[str, Any]]]:
    """Rows of pictures: the estimates beside each other, each quantity on one scale."""
    rows = []
    for quantity in _QUANTITIES:
        rows.append(
            [
                {
                    "title": picture_title(quantity, estimate),
                    "src": mosaics.mosaic(
                        data.images[estimate.keys[quantity]], frame, by_quantity[quantity]
                    ),
                }
                for estimate in data.estimates
                if quantity in estimate.keys
            ]
        )
    if len(data.estimates) == 1:  # without a second column, maps stand beside their own error
        joined = [picture for row in rows for picture in row]
        rows = [joined[i : i + 2] for i in range(0, len(joined), 2)]
    arteries = [
        {"title": title, "src": mosaics.mosaic(data.images[key], frame, by_quantity[key])}
        for key, title in _ARTERIES.items()
        if key in by_quantity and key in data.images
    ]
    differences = []
    for key in ("cbf", "att"):
        if f"{key}_difference" in by_quantity:
            values = data.images[key].astype(float) - data.images[f"lsq_{key}"]
            picture = mosaics.mosaic(values, frame, by_quantity[f"{key}_difference"])
            title = f"{key.upper()} – {data.estimates[0].name} minus least squares"
            differences.append({"title": title, "src": picture})
    return [row for row in [*rows, arteries, differences] if row]


def draw_flags(data: SeriesData, frame: Frame) -> list[dict[str, Any]] | None:
    """Draw the flags of each estimate that has any; None if there are no maps of flags."""
    flagged = [estimate for estimate in data.estimates if "flags" in estimate.keys]
    if not flagged:
        return None
    drawn = []
    for estimate in flagged:
        flags = np.nan_to_num(data.images[estimate.keys["flags"]]).astype(int)
        inside = flags[frame.mask]
        shares = {value: float(((inside & value) > 0).mean()) for value, *_ in flag_legend()}
        legend = [(PLAIN, f"no flag: {page.share_text(float((inside == 0).mean()))}")]
        places = np.zeros(flags.shape, dtype=np.uint8)
        # Where a voxel has several, the rarest is on top.
        for value, name, colour in sorted(flag_legend(), key=lambda row: -shares[row[0]]):
            if shares[value] > 0:
                places[(flags & value) > 0] = len(legend)
                legend.append((colour, f"{name}: {page.share_text(shares[value])}"))
        if len(legend) > 1:
            picture = mosaics.categories(places, frame, legend)
            drawn.append({"title": f"Flags – {estimate.name}", "src": picture})
    return drawn


def draw_distributions(
    data: SeriesData, mask: np.ndarray, by_quantity: Mapping[str, Scale]
) -> list[dict[str, str]]:
    """Draw how CBF and ATT are distributed in the tissues."""
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
        ("cbf", (0.0, 1.5 * by_quantity["cbf"].high)),
        ("att", (0.0, max(1.2 * by_quantity["att"].high, 2.0))),
    ):
        label = f"{key.upper()} ({by_quantity[key].label})"
        other = data.images.get(f"lsq_{key}")
        groups = [
            (name, colour, data.images[key][where], None if other is None else other[where])
            for name, colour, where in tissues
            if where.any()
        ]
        drawn.append({"title": label, "src": charts.distributions(groups, limits, label)})
    return drawn
