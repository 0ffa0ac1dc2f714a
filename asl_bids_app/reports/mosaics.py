"""Mosaics of slices as drawings inside a page, with colour bar, unit, sides and slice numbers.

Each is an SVG that holds one small picture with a pixel for each voxel: sharp at any zoom, and
made in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.sheet import BACKGROUND, Sheet, bar_of, rgb, svg_of, text_of

_MOST_SLICES: Final = 24
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
    return svg_of(
        height, picture + line + sheet.marks() + bar_of(scale, sheet.values, sheet.height)
    )


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
        text_of(_MARGIN - 6, (i + 0.5) * step + 4, title, 12, anchor="end")
        for i, title in enumerate(titles)
    )
    content = sheet.picture(scale, BACKGROUND) + sheet.marks() + names
    return svg_of(sheet.height + 42, content + bar_of(scale, sheet.values, sheet.height))


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
    palette = np.array([rgb(colour) for colour, _ in legend] + [rgb(BACKGROUND)], np.uint8)
    keys = "".join(
        f'<rect x="2" y="{sheet.height + 8 + 19 * i:.0f}" width="13" height="13" fill="{colour}"/>'
        + text_of(22, sheet.height + 19 + 19 * i, text, 13)
        for i, (colour, text) in enumerate(legend)
    )
    height = sheet.height + 12 + 19 * len(legend)
    return svg_of(height, sheet.image(places, palette) + sheet.marks() + keys)
