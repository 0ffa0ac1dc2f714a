"""The section of a report about the anatomy: registrations to look at, and regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.view_files import read_views, views_file
from asl_bids_app.anatomy.views import REGISTRATION, T1W, TEMPLATE, Views
from asl_bids_app.notices import Notice
from asl_bids_app.origins import AnatomyKind
from asl_bids_app.reports import scales, slices
from asl_bids_app.reports.methods_data import part_of
from asl_bids_app.reports.region_figure import draw_regions
from asl_bids_app.reports.region_tables import find_region_tables, read_region_table
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.series_data import SeriesData

TISSUES: Final = MappingProxyType({"gm": "grey matter", "wm": "white matter"})
"""Of flows that are corrected for partial volume."""
Attempt = Callable[[str, Callable[[], Any]], Any]
_LOW_IN_M0: Final = 0.98
"""Share of an M0's values below the brightest that is shown; fluid and fat are brighter."""


def anatomy_section(
    data: SeriesData,
    facts: Mapping[str, Any],
    by_quantity: Mapping[str, Scale],
    attempt: Attempt,
    problems: list[str],
) -> dict[str, Any] | None:
    """Make the content of the section about a series' anatomy.

    Parameters
    ----------
    data
        Its derivatives.
    facts
        What the record says of the anatomy; may be empty.
    by_quantity
        Colour scales of the maps.
    attempt
        Draws a figure, or says that it can't be drawn.
    problems
        Takes files that can't be used.

    Returns
    -------
    dict or None
        For the template ``anatomy.html``; None where the anatomy didn't run.
    """
    root = _root(data)
    path = views_file(root, data.entities)
    views: dict[str, Views] = {}
    if path.is_file():
        try:
            views, kept = read_views(path)
            facts = facts or kept
        except ValueError as error:
            problems.append(str(error))
    tables = []
    for atlas, place in find_region_tables(data.folder, data.title).items():
        found = read_region_table(place, atlas, root)
        if isinstance(found, Notice):
            problems.append(str(found))
        else:
            tables.append(found)
    if not facts and not views and not tables:
        return None
    pose = part_of(facts, "registration")
    with_t1w = facts.get("kind") != AnatomyKind.TEMPLATE
    content: dict[str, Any] = {
        "t1w": facts.get("t1w", ""),
        "given": facts.get("kind") == AnatomyKind.DERIVATIVES,
        "with_t1w": with_t1w,
        "registered": pose.get("registered", True),
        "reason": pose.get("reason", ""),
        "image": pose.get("image", ""),
        "views": [],
        "regions": [],
        "colours": dict(slices.LINES),
    }
    views = {name: view for name, view in views.items() if view.slices}
    if REGISTRATION in views:
        content["views"] += _pose_view(views[REGISTRATION], by_quantity, attempt)
    if TEMPLATE in views and content["registered"]:
        content["views"] += _template_view(views[TEMPLATE], by_quantity, attempt)
    for table in tuple(tables):
        alone = (table.of_tissue(key, name) for key, name in TISSUES.items())
        tables += [other for other in alone if other is not None]
    content["regions"] = [
        drawn
        for table in tables
        if (drawn := attempt(f"regions of {table.atlas}", partial(draw_regions, table)))
    ]
    return content


def _root(data: SeriesData) -> Path:
    """Return the root of the derivatives that a series lies in."""
    name = f"sub-{data.entities['sub']}"
    place = next((p for p in (data.folder, *data.folder.parents) if p.name == name), data.folder)
    return place.parent


def _pose_view(
    views: Views, by_quantity: Mapping[str, Scale], attempt: Attempt
) -> list[dict[str, Any]]:
    """Return the view of M0 (or ΔM) and CBF on the T1w."""
    base = str(views.about["base"])
    name = "T1w" if base == T1W else "template"
    there = [key for key in ("M0", "ΔM", "CBF") if key in views.slices[0].layers]
    first = there[:1] if there[:1] != ["CBF"] else []
    return _view(
        views,
        "pose",
        f"ASL on the {name}",
        name,
        [(key, key, _scale(views, key, by_quantity)) for key in dict.fromkeys([*first, "CBF"])],
        attempt,
    )


def _template_view(
    views: Views, by_quantity: Mapping[str, Scale], attempt: Attempt
) -> list[dict[str, Any]]:
    """Return the view of T1w and CBF on the template."""
    space = str(views.about.get("space", "MNI152"))
    over: list[tuple[str, str, Scale | None]] = [
        (T1W, f"T1w in {space}", None),
        ("CBF", f"CBF in {space}", _scale(views, "CBF", by_quantity)),
    ]
    return _view(views, "template", f"T1w and CBF in {space}", "template", over, attempt)


def _view(
    views: Views,
    key: str,
    title: str,
    base: str,
    over: list[tuple[str, str, Scale | None]],
    attempt: Attempt,
) -> list[dict[str, Any]]:
    def draw() -> dict[str, Any]:
        figures = []
        for layer, name, scale in over:
            if layer not in views.slices[0].layers:
                continue
            figures.append(
                {
                    "name": name,
                    "short": layer,
                    "over": slices.draw_over(views, layer, scale),
                    "dark": scale is None or scale.colours == "gray",
                    "bar": slices.draw_bar(views, layer, scale) if scale else "",
                }
            )
        return {
            "key": key,
            "title": title,
            "base": base,
            "slices": slices.draw_base(views),
            "figures": figures,
            **slices.row_of(views),
        }

    found = attempt(f"the view {title}", draw)
    return [found] if found else []


def _scale(views: Views, layer: str, by_quantity: Mapping[str, Scale]) -> Scale:
    """Return the colours of an ASL image: those of the maps for CBF, grey for the others."""
    values = np.concatenate([item.layers[layer].ravel() for item in views.slices])
    values = values[np.isfinite(values)]
    if layer == "CBF":
        return by_quantity.get("cbf") or scales.flow_scale(values)
    values = values[values > 0]
    high = scales.nice(float(np.percentile(values, 100 * _LOW_IN_M0))) if values.size else 1.0
    unit = "image units" if layer == "M0" else "fraction of M0"
    return Scale(0, high, "gray", f"{layer} ({unit})")
