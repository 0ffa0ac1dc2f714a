"""Slices of a registration as drawings in layers, of which the page blends one into another."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from asl_bids_app.anatomy.views import TISSUE, WHITE, Slice, Views
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.sheet import BACKGROUND, bar_of, outline_of, painted, png_of, svg_of

LINES: Final = MappingProxyType({WHITE: "#ffb000", TISSUE: "#56d0ff"})
"""Colours of the outlines of white matter, and of grey and white together."""
_QUALITY: Final = 82
"""Of the pictures without a colour scale (JPEG)."""
_PLANES: Final = ("sagittal", "coronal", "axial")


def draw_base(views: Views) -> list[dict[str, Any]]:
    """Draw what lies beneath, and the outlines on top, once for all figures of a view.

    Returns
    -------
    list of dict
        For each slice: plane, number, width and height in mm, the picture beneath, and the
        outlines as paths with their colours and scales.
    """
    return [
        {
            "plane": _PLANES[item.axis],
            "number": item.number,
            "width": round(item.size_mm[0], 1),
            "height": round(item.size_mm[1], 1),
            "sides": item.axis != 0,
            "base": _grey(item.layers[str(views.about["base"])]),
            "lines": [_line(item, layer, colour) for layer, colour in LINES.items()],
        }
        for item in views.slices
    ]


def draw_over(views: Views, layer: str, scale: Scale | None) -> list[str]:
    """Draw a layer that lies over the base: in the colours of a scale, or in grey without."""
    drawn = []
    for item in views.slices:
        image = item.layers[layer]
        if scale is None:
            drawn.append(_grey(image))
        else:
            background = "#000000" if scale.colours == "gray" else BACKGROUND
            drawn.append(png_of(*painted(_upright(image), scale, background)))
    return drawn


def draw_bar(views: Views, layer: str, scale: Scale) -> str:
    """Return the colour bar of a layer as an address."""
    values = np.concatenate([item.layers[layer].ravel() for item in views.slices])
    return svg_of(40, bar_of(scale, values, 0))


def row_of(views: Views) -> dict[str, float]:
    """Return the widths by which slices are laid out: of a row of a wide page, and of a phone.

    A wide page has two rows, the axial slices and the others, on one scale.
    """
    widths = {axis: [s.size_mm[0] for s in views.slices if s.axis == axis] for axis in range(3)}
    rows = [sum(widths[2]), sum(widths[0]) + sum(widths[1])]
    widest = max(item.size_mm[0] for item in views.slices)
    return {"row": round(max(rows), 1), "half": round(2 * widest, 1)}


def _upright(image: np.ndarray) -> np.ndarray:
    """Turn columns and rows of a slice into the rows of a picture, the first on top."""
    return image[:, ::-1].T


def _grey(image: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(_upright(image)), mode="L")
    picture.save(stream, format="jpeg", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _line(item: Slice, layer: str, colour: str) -> Mapping[str, Any]:
    image = item.layers[layer]
    across, down = (
        size / (10 * count) for size, count in zip(item.size_mm, image.shape, strict=True)
    )
    # Fine pixels have more points than an eye can see.
    every = 2 if item.size_mm[0] / image.shape[0] < 1.5 else 1
    path = outline_of(_upright(image).astype(np.float32), 127.5, every)
    return {"path": path, "colour": colour, "across": f"{across:.5g}", "down": f"{down:.5g}"}
