"""Mosaics of slices as pictures inside a page, with colour bar, unit and sides marked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH: Final = 5.4
"""Inches of a figure that takes half of a wide page."""
DPI: Final = 160
INK: Final = "#1d2733"
BACKGROUND: Final = "#22272d"
"""Around the brain: not the colour of any value."""
_MOST_SLICES: Final = 24


@dataclass(frozen=True)
class Scale:
    """How numbers become colours; figures that are to be compared share one.

    Attributes
    ----------
    low, high : float
    colours : str
        A map that colour-blind readers can read.
    label : str
        Quantity with unit.
    """

    low: float
    high: float
    colours: str
    label: str


def flow_scale(*maps: np.ndarray) -> Scale:
    """Return the scale of CBF maps from their values inside the brain."""
    # Voxels without signal blow up in any voxelwise fit: the top percentiles say nothing.
    top = 1.15 * max((_percentile(values, 95) for values in maps), default=80.0)
    return Scale(0, float(np.clip(10 * np.ceil(top / 10), 60, 200)), "inferno", "mL/100 g/min")


def time_scale(*maps: np.ndarray) -> Scale:
    """Return the scale of ATT maps from their values inside the brain."""
    low = min((_percentile(values, 2) for values in maps), default=0.5)
    high = max((_percentile(values, 98) for values in maps), default=2.5)
    low, high = np.floor(5 * low) / 5, np.ceil(5 * high) / 5
    return Scale(float(max(low, 0)), float(max(high, low + 0.4)), "viridis", "s")


def spread_scale(unit: str, *maps: np.ndarray) -> Scale:
    """Return the scale of maps of standard deviations."""
    top = max((_percentile(values, 90) for values in maps), default=1.0)
    return Scale(0, nice(top), "cividis", unit)


def difference_scale(unit: str, values: np.ndarray, least: float) -> Scale:
    """Return a scale around zero that reaches at least so far: what is less is nothing."""
    top = max(nice(_percentile(np.abs(values), 95)), least)
    return Scale(-top, top, "RdBu_r", unit)


def _percentile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, q)) if finite.size else 1.0


def nice(value: float) -> float:
    """Round up to two digits, so that the ends of a colour bar are readable."""
    if not value > 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / step) * step)


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


def aspect(affine: np.ndarray) -> float:
    """Return height over width of a voxel of an axial slice."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    return float(size[1] / size[0])


def picture_of(figure: Figure) -> str:
    """Return a figure as the address of an embedded picture, without loss."""
    stream = io.BytesIO()
    # Half the size of PNG; quality is the effort, not the precision, of a lossless file.
    options = {"lossless": True, "quality": 50, "method": 2}
    figure.savefig(stream, format="webp", dpi=DPI, pil_kwargs=options)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def mosaic(
    volume: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
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
    mask : array of bool, shape (X, Y, Z)
        Nothing is drawn outside it, unless there is a contour.
    affine : array, shape (4, 4)
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
        Address of the embedded picture.
    """
    box = crop(mask)
    chosen = spread(box[2].stop - box[2].start, _MOST_SLICES)
    inside = mask[box][:, :, chosen]
    shown = np.asarray(volume[box][:, :, chosen], dtype=np.float32)
    columns = min(columns, shown.shape[2])
    if contour is None:
        return _draw(tile(np.where(inside, shown, np.nan), columns), scale, aspect(affine))
    line = np.asarray(contour[box][:, :, chosen], dtype=np.float32)
    return _draw(
        tile(shown, columns),
        scale,
        aspect(affine),
        outline=(tile(line, columns), colour),
    )


def measurement_rows(
    volume: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    scale: Scale,
    titles: Sequence[str],
    n_slices: int = 6,
) -> str:
    """Draw a few slices of each measurement, one row each.

    Parameters
    ----------
    volume : array, shape (X, Y, Z, n)
    mask : array of bool, shape (X, Y, Z)
    affine : array, shape (4, 4)
    scale
        Of all rows.
    titles
        One for each measurement.
    n_slices
        Slices in a row.
    """
    box = crop(mask)
    chosen = spread(box[2].stop - box[2].start, n_slices)
    inside = mask[box][:, :, chosen]
    rows = [
        tile(np.where(inside, volume[..., i][box][:, :, chosen], np.nan), len(chosen))
        for i in range(volume.shape[3])
    ]
    return _draw(np.vstack(rows), scale, aspect(affine), row_titles=titles)


def _draw(
    sheet: np.ndarray,
    scale: Scale,
    voxel_aspect: float,
    *,
    outline: tuple[np.ndarray, str] | None = None,
    row_titles: Sequence[str] = (),
) -> str:
    background = "black" if outline is not None else BACKGROUND
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left, foot = (0.95, 0.5) if row_titles else (0.0, 0.5)
    width = WIDTH - left
    height = width * sheet.shape[0] / sheet.shape[1] * voxel_aspect
    figure = Figure(figsize=(WIDTH, height + foot), facecolor="white")
    FigureCanvasAgg(figure)
    total = height + foot
    axes = figure.add_axes((left / WIDTH, foot / total, width / WIDTH, height / total))
    colours = colormaps[scale.colours].with_extremes(bad=background)
    picture = axes.imshow(
        sheet,
        cmap=colours,
        vmin=scale.low,
        vmax=scale.high,
        aspect="auto",
        interpolation="nearest",
    )
    if outline is not None and np.nanmax(outline[0]) > 0.5:
        axes.contour(outline[0], levels=[0.5], colors=outline[1], linewidths=0.9)
    axes.set_axis_off()
    for x, side, align in ((0.008, "L", "left"), (0.992, "R", "right")):
        axes.text(
            x,
            0.985 if not row_titles else 0.995,
            side,
            transform=axes.transAxes,
            color="white",
            fontsize=10,
            ha=align,
            va="top",
            weight="bold",
        )
    step = sheet.shape[0] / max(len(row_titles), 1)
    for i, title in enumerate(row_titles):
        axes.text(
            -0.012,
            1 - (i + 0.5) * step / sheet.shape[0],
            title,
            transform=axes.transAxes,
            color=INK,
            fontsize=9,
            ha="right",
            va="center",
        )
    bar = figure.add_axes((0.17, 0.33 / total, 0.5, 0.11 / total))
    drawn = figure.colorbar(picture, cax=bar, orientation="horizontal")
    drawn.outline.set_visible(False)
    drawn.ax.tick_params(labelsize=9.5, length=2, colors=INK, pad=1.5)
    bar.text(1.03, 0.5, scale.label, transform=bar.transAxes, fontsize=9.5, va="center", color=INK)
    return picture_of(figure)
