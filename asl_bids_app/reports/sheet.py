"""Tiled slices as a drawing: picture, outlines, slice numbers and colour bar."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Final

import numpy as np

from asl_bids_app.reports.scales import Scale

WIDTH: Final = 540
"""Units of a drawing's width; that of half a wide page in CSS pixels."""
INK: Final = "#1d2733"
BACKGROUND: Final = "#22272d"
"""Around the brain: not the colour of any value."""
_LEVELS: Final = 255
"""Colours of a picture; one more is that of the background."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Tiled slices and where they lie in a drawing.

    Attributes
    ----------
    values : array, shape (rows, columns)
        NaN outside.
    aspect : float
        Height over width of a pixel.
    rows, columns : int
        Tiles below and beside each other.
    numbers : list of int
        Of the slices, in order of the tiles.
    left : int
        Units that are kept free at the left.
    """

    values: np.ndarray
    aspect: float
    rows: int
    columns: int
    numbers: list[int]
    left: int = 0

    @property
    def width(self) -> int:
        """Units."""
        return WIDTH - self.left

    @property
    def height(self) -> float:
        """Units."""
        rows, columns = self.values.shape
        return round(self.width * rows / columns * self.aspect, 1)

    def image(self, places: np.ndarray, palette: np.ndarray) -> str:
        """Return a picture of palette places, one for each voxel."""
        return (
            f'<image x="{self.left}" y="0" width="{self.width}" height="{self.height}" '
            'preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="{png_of(places, palette)}"/>'
        )

    def picture(self, scale: Scale, background: str) -> str:
        """Return the values in the colours of a scale."""
        return self.image(*painted(self.values, scale, background))

    def outline(self, values: np.ndarray, colour: str) -> str:
        """Return the lines at which an image of the same tiles is one half."""
        across = self.width / (10 * values.shape[1])
        down = self.height / (10 * values.shape[0])
        return (
            f'<path transform="translate({self.left} 0) scale({across:.6g} {down:.6g})" '
            f'fill="none" stroke="{colour}" stroke-width="1.3" vector-effect="non-scaling-stroke" '
            f'd="{outline_of(values)}"/>'
        )

    def marks(self) -> str:
        """Return the sides and the numbers of the slices; of equal rows the first has them."""
        across, down = self.width / self.columns, self.height / self.rows
        found = [
            text_of(
                self.left + (i % self.columns) * across + 3,
                (i // self.columns + 1) * down - 4,
                str(number),
                11,
                on_picture=True,
            )
            for i, number in enumerate(self.numbers)
        ]
        found.append(text_of(self.left + 5, 16, "L", 14, on_picture=True))
        found.append(text_of(WIDTH - 5, 16, "R", 14, anchor="end", on_picture=True))
        return "".join(found)


def painted(values: np.ndarray, scale: Scale, background: str) -> tuple[np.ndarray, np.ndarray]:
    """Return values in the colours of a scale: places in a palette, and the palette."""
    share = scale.share(values)
    known = np.isfinite(share)
    places = np.full(share.shape, _LEVELS, np.uint8)
    places[known] = np.rint(share[known] * (_LEVELS - 1))
    return places, np.vstack([_colours(scale.colours), [rgb(background)]])


def outline_of(values: np.ndarray, level: float = 0.5, every: int = 1) -> str:
    """Return the lines at which an image has a level, as the path of a drawing.

    Parameters
    ----------
    values : array, shape (rows, columns)
    level
    every
        Of the lines' points this many are replaced by one.

    Returns
    -------
    str
        In tenths of a pixel, each point relative to the one before: short texts.
    """
    from contourpy import contour_generator

    paths = []
    for line in contour_generator(z=np.nan_to_num(values)).lines(level):
        kept = np.asarray(line)
        if every > 1:
            kept = np.vstack([kept[:-1:every], kept[-1:]])
        points = np.rint(10 * (kept + 0.5)).astype(int)
        steps = np.diff(points, axis=0)
        steps = steps[np.any(steps != 0, axis=1)]
        if len(steps):
            paths.append(
                f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps)
            )
    return "".join(paths)


def bar_of(scale: Scale, values: np.ndarray, top: float) -> str:
    """Return the colour bar; an arrow at an end tells that values lie beyond it."""
    left, width = 0.17 * WIDTH, 0.5 * WIDTH
    y, high = top + 7, 12
    colours = _colours(scale.colours)
    ramp = png_of(np.arange(_LEVELS, dtype=np.uint8)[None], colours)
    parts = [
        f'<image x="{left:.0f}" y="{y:.1f}" width="{width:.0f}" height="{high}" '
        f'preserveAspectRatio="none" href="{ramp}"/>'
    ]
    finite = values[np.isfinite(values)]
    for beyond, x, way, colour in (
        ((finite < scale.low).mean() if finite.size else 0, left - 2, -1, colours[0]),
        ((finite > scale.high).mean() if finite.size else 0, left + width + 2, 1, colours[-1]),
    ):
        if beyond > 0.001:
            filled = f"rgb({','.join(str(c) for c in colour)})"
            parts.append(
                f'<path d="M{x:.0f} {y:.1f}l{9 * way} {high / 2}l{-9 * way} {high / 2}z" '
                f'fill="{filled}" stroke="{INK}" stroke-width="0.5"/>'
            )
    for tick in scale.ticks():
        x = left + float(scale.share(tick)) * width
        parts.append(f'<path d="M{x:.1f} {y + high:.1f}v4" stroke="{INK}"/>')
        parts.append(text_of(x, y + high + 17, f"{tick:g}", 13, anchor="middle"))
    parts.append(text_of(left + width + 18, y + high - 1, scale.label, 13))
    return "".join(parts)


def text_of(
    x: float, y: float, text: str, size: int, *, anchor: str = "start", on_picture: bool = False
) -> str:
    """Return a text; on a picture it is white with a dark rim."""
    look = f'fill="{INK}"'
    if on_picture:
        look = (
            'fill="#fff" stroke="#000" stroke-width="2.4" paint-order="stroke" font-weight="600"'
        )
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {look}>'
        f"{escape(text)}</text>"
    )


def svg_of(height: float, content: str) -> str:
    """Return a drawing as an address."""
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.1f}" '
        f'width="{WIDTH}" height="{height:.1f}" font-family="system-ui, sans-serif">'
        f"{content}</svg>"
    )
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def png_of(places: np.ndarray, palette: np.ndarray) -> str:
    """Return a picture of palette places as an address."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(places, dtype=np.uint8), mode="P")
    picture.putpalette(np.ascontiguousarray(palette, dtype=np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def rgb(colour: str) -> tuple[int, int, int]:
    """Return a colour from its hexadecimal digits."""
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))


@cache
def _colours(name: str) -> np.ndarray:
    """Return the colours of a map, (levels, 3)."""
    from matplotlib import colormaps

    found = colormaps[name](np.linspace(0, 1, _LEVELS))[:, :3]
    return (255 * found).round().astype(np.uint8)
