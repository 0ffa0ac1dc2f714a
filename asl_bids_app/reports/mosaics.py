"""Mosaics of slices as drawings inside a page, with colour bar, unit, sides and slice numbers.

Each is an SVG that holds one small picture with a pixel for each voxel: sharp at any zoom, and
made in milliseconds.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
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
_MOST_SLICES: Final = 24
_LEVELS: Final = 255
"""Colours of a picture; one more is that of the background."""
_MARGIN: Final = 84
"""Units left of a mosaic for the titles of its rows."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the pictures of a series are cut.

    Attributes
    ----------
    mask : array of bool, shape (X, Y, Z)
        What is drawn; axes run to the right, to the front and up.
    affine : array, shape (4, 4)
        From voxels to mm.
    stored : array, shape (4, 4)
        From these voxels to those of the file, whose numbers are written on the slices.
    """

    mask: np.ndarray
    affine: np.ndarray
    stored: np.ndarray

    @property
    def aspect(self) -> float:
        """Height over width of a voxel of an axial slice."""
        size = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(size[1] / size[0])

    def slices(self, most: int) -> tuple[tuple[slice, slice, slice], np.ndarray, list[int]]:
        """Return the box around the mask, the slices chosen in it, and their numbers on disk."""
        box = crop(self.mask)
        chosen = spread(box[2].stop - box[2].start, most)
        axis = int(np.abs(self.stored[:3, 2]).argmax())
        numbers = self.stored[axis, 2] * (box[2].start + chosen) + self.stored[axis, 3]
        return box, chosen, [int(n) for n in np.rint(numbers)]


def crop(mask: np.ndarray, margin: int = 2) -> tuple[slice, slice, slice]:
    """Return the box around a mask; in the plane with a margin."""
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)  # type: ignore[return-value]
    box = []
    for axis, n in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        edge = margin if axis < 2 else 0
        box.append(slice(max(inside[0] - edge, 0), min(inside[-1] + edge + 1, n)))
    return tuple(box)  # type: ignore[return-value]


def spread(n_slices: int, most: int) -> np.ndarray:
    """Choose at most so many slices, evenly over all."""
    if n_slices <= most:
        return np.arange(n_slices)
    return np.unique(np.linspace(0, n_slices - 1, most + 2)[1:-1].round().astype(int))


def tile(volume: np.ndarray, n_columns: int) -> np.ndarray:
    """Lay axial slices out in rows, the front of the head up and the patient's left left.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
        RAS+, so the first axis runs to the patient's right.

    Returns
    -------
    array, shape (rows * Y, n_columns * X)
        NaN where there is no slice.
    """
    width, height, n = volume.shape
    n_rows = -(-n // n_columns)
    sheet = np.full((n_rows * height, n_columns * width), np.nan, dtype=np.float32)
    for i in range(n):
        row, column = divmod(i, n_columns)
        top, left = row * height, column * width
        sheet[top : top + height, left : left + width] = volume[:, ::-1, i].T
    return sheet


def mosaic(
    volume: np.ndarray,
    frame: Frame,
    scale: Scale,
    *,
    contour: np.ndarray | None = None,
    colour: str = "#ffb000",
    columns: int = 6,
) -> str:
    """Draw the slices of a map that hold brain.

    Parameters
    ----------
    volume : array, shape (X, Y, Z)
    frame
        Nothing is drawn outside its mask, unless there is a contour.
    scale
        Shared by the pictures that are compared.
    contour : array, shape (X, Y, Z), or None
        Show the whole image, and the line at which this is one half.
    colour
        Of the contour.
    columns
        Slices in a row.

    Returns
    -------
    str
        Address of the embedded drawing.
    """
    box, chosen, numbers = frame.slices(_MOST_SLICES)
    shown = np.asarray(volume[box][:, :, chosen], dtype=np.float32)
    columns = min(columns, shown.shape[2])
    if contour is None:
        shown = np.where(frame.mask[box][:, :, chosen], shown, np.nan)
    sheet = Sheet(tile(shown, columns), frame.aspect, -(-len(chosen) // columns), columns, numbers)
    line = ""
    if contour is not None:
        outline = tile(np.asarray(contour[box][:, :, chosen], dtype=np.float32), columns)
        line = sheet.outline(outline, colour)
    picture = sheet.picture(scale, BACKGROUND if contour is None else "#000000")
    height = sheet.height + 42
    return _svg(height, picture + line + sheet.marks() + _bar(scale, sheet.values, sheet.height))


def measurement_rows(
    volume: np.ndarray,
    frame: Frame,
    scale: Scale,
    titles: Sequence[str],
    n_slices: int = 6,
) -> str:
    """Draw a few slices of each measurement, one row each.

    Parameters
    ----------
    volume : array, shape (X, Y, Z, n)
    frame
    scale
        Of all rows.
    titles
        One for each measurement.
    n_slices
        Slices in a row.
    """
    box, chosen, numbers = frame.slices(n_slices)
    inside = frame.mask[box][:, :, chosen]
    rows = [
        tile(np.where(inside, volume[..., i][box][:, :, chosen], np.nan), len(chosen))
        for i in range(volume.shape[3])
    ]
    sheet = Sheet(np.vstack(rows), frame.aspect, len(rows), len(chosen), numbers, _MARGIN)
    step = sheet.height / max(len(titles), 1)
    names = "".join(
        _text(_MARGIN - 6, (i + 0.5) * step + 4, title, 12, anchor="end")
        for i, title in enumerate(titles)
    )
    content = sheet.picture(scale, BACKGROUND) + sheet.marks() + names
    return _svg(sheet.height + 42, content + _bar(scale, sheet.values, sheet.height))


def categories(
    values: np.ndarray, frame: Frame, legend: Sequence[tuple[str, str]], columns: int = 6
) -> str:
    """Draw a map of kinds with a legend.

    Parameters
    ----------
    values : array of int, shape (X, Y, Z)
        Places in the legend; the first is that of nothing special.
    frame
    legend
        Pairs of colour and text.
    columns
        Slices in a row.
    """
    box, chosen, numbers = frame.slices(_MOST_SLICES)
    columns = min(columns, len(chosen))
    shown = np.where(frame.mask[box][:, :, chosen], values[box][:, :, chosen], np.nan)
    sheet = Sheet(tile(shown, columns), frame.aspect, -(-len(chosen) // columns), columns, numbers)
    background = len(legend)
    places = np.where(np.isfinite(sheet.values), sheet.values, background).astype(np.uint8)
    palette = np.array([_rgb(colour) for colour, _ in legend] + [_rgb(BACKGROUND)], np.uint8)
    keys = "".join(
        f'<rect x="2" y="{sheet.height + 8 + 19 * i:.0f}" width="13" height="13" fill="{colour}"/>'
        + _text(22, sheet.height + 19 + 19 * i, text, 13)
        for i, (colour, text) in enumerate(legend)
    )
    height = sheet.height + 12 + 19 * len(legend)
    return _svg(height, sheet.image(places, palette) + sheet.marks() + keys)


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
            f'href="{_png(places, palette)}"/>'
        )

    def picture(self, scale: Scale, background: str) -> str:
        """Return the values in the colours of a scale."""
        share = scale.share(self.values)
        known = np.isfinite(share)
        places = np.full(share.shape, _LEVELS, np.uint8)
        places[known] = np.rint(share[known] * (_LEVELS - 1))
        return self.image(places, np.vstack([_colours(scale.colours), [_rgb(background)]]))

    def outline(self, values: np.ndarray, colour: str) -> str:
        """Return the lines at which an image of the same tiles is one half."""
        from contourpy import contour_generator

        # In tenths of a pixel, each point relative to the one before: short texts.
        paths = []
        for line in contour_generator(z=np.nan_to_num(values)).lines(0.5):
            points = np.rint(10 * (line + 0.5)).astype(int)
            steps = np.diff(points, axis=0)
            steps = steps[np.any(steps != 0, axis=1)]
            if not len(steps):
                continue
            paths.append(
                f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps)
            )
        across = self.width / (10 * values.shape[1])
        down = self.height / (10 * values.shape[0])
        return (
            f'<path transform="translate({self.left} 0) scale({across:.6g} {down:.6g})" '
            f'fill="none" stroke="{colour}" stroke-width="1.3" vector-effect="non-scaling-stroke" '
            f'd="{"".join(paths)}"/>'
        )

    def marks(self) -> str:
        """Return the sides and the numbers of the slices; of equal rows the first has them."""
        across, down = self.width / self.columns, self.height / self.rows
        found = [
            _text(
                self.left + (i % self.columns) * across + 3,
                (i // self.columns + 1) * down - 4,
                str(number),
                11,
                on_picture=True,
            )
            for i, number in enumerate(self.numbers)
        ]
        found.append(_text(self.left + 5, 16, "L", 14, on_picture=True))
        found.append(_text(WIDTH - 5, 16, "R", 14, anchor="end", on_picture=True))
        return "".join(found)


def _bar(scale: Scale, values: np.ndarray, top: float) -> str:
    """Return the colour bar; an arrow at an end tells that values lie beyond it."""
    left, width = 0.17 * WIDTH, 0.5 * WIDTH
    y, high = top + 7, 12
    colours = _colours(scale.colours)
    ramp = _png(np.arange(_LEVELS, dtype=np.uint8)[None], colours)
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
        parts.append(_text(x, y + high + 17, f"{tick:g}", 13, anchor="middle"))
    parts.append(_text(left + width + 18, y + high - 1, scale.label, 13))
    return "".join(parts)


def _text(
    x: float, y: float, text: str, size: int, *, anchor: str = "start", on_picture: bool = False
) -> str:
    look = f'fill="{INK}"'
    if on_picture:
        look = (
            'fill="#fff" stroke="#000" stroke-width="2.4" paint-order="stroke" font-weight="600"'
        )
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {look}>'
        f"{escape(text)}</text>"
    )


def _svg(height: float, content: str) -> str:
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.1f}" '
        f'width="{WIDTH}" height="{height:.1f}" font-family="system-ui, sans-serif">'
        f"{content}</svg>"
    )
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _png(places: np.ndarray, palette: np.ndarray) -> str:
    """Return a picture of palette places as an address."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(places, dtype=np.uint8), mode="P")
    picture.putpalette(np.ascontiguousarray(palette, dtype=np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _rgb(colour: str) -> tuple[int, int, int]:
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))


@cache
def _colours(name: str) -> np.ndarray:
    """Return the colours of a map, (levels, 3)."""
    from matplotlib import colormaps

    found = colormaps[name](np.linspace(0, 1, _LEVELS))[:, :3]
    return (255 * found).round().astype(np.uint8)
