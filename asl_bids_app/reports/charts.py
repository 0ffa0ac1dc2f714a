"""Line drawings of a report: timing and distributions, as embedded SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.reports.series_data import Measurement
from asl_bids_app.reports.sheet import INK
from asl_bids_app.schemes import find_scheme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinguishable with any colour vision.
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#aa4499"
GREY: Final = "#8a949e"


def svg(figure: Figure) -> str:
    """Return a figure as the address of an embedded drawing."""
    import matplotlib as mpl

    stream = io.BytesIO()
    # A fixed salt and no date: equal data give equal files.
    with mpl.rc_context({"svg.hashsalt": "asl-app"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def _canvas(width: float, height: float) -> tuple:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)
    for item in axes.flat:
        tidy(item)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Give axes the look of all drawings."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.xaxis.label.set(size=8.5, color=INK)
    axes.yaxis.label.set(size=8.5, color=INK)


def timing(measurements: Sequence[Measurement], readout: float = 0.0) -> str:
    """Draw label, wait and readout of every measurement on one time axis.

    Parameters
    ----------
    measurements
        In order.
    readout
        Seconds between the first and the last slice; 0 for a 3D readout.

    Returns
    -------
    str
        Address of the embedded drawing.
    """
    n = len(measurements)
    figure, grid = _canvas(5.8, 0.95 + 0.2 * max(n, 3))
    axes = grid[0, 0]
    seen: set[str] = set()

    def once(name: str) -> str | None:
        if name in seen:
            return None
        seen.add(name)
        return name

    end = 0.0
    for i, item in enumerate(measurements):
        info = find_scheme(item.scheme)
        colour = info.colour if info else PURPLE
        continuous = info is not None and info.continuous
        duration, delay = item.label_duration, item.post_labeling_delay
        start = duration + delay if continuous else delay
        late = max(item.slice_timing, default=readout)
        if continuous:
            axes.barh(
                i, duration, color=colour, height=0.62, label=once(f"{item.scheme} labelling")
            )
        else:
            bolus = min(duration, delay) if math.isfinite(duration) else delay
            cut = "" if math.isfinite(duration) else " (not cut)"
            axes.plot(
                [0, 0],
                [i - 0.36, i + 0.36],
                color=colour,
                lw=3.5,
                solid_capstyle="butt",
                label=once(f"{item.scheme} pulse"),
            )
            axes.barh(
                i,
                bolus,
                color=colour,
                alpha=0.28,
                height=0.62,
                label=once(f"{item.scheme} bolus{cut}"),
            )
        axes.plot([0, start], [i, i], color=GREY, lw=0.9, zorder=0)
        axes.barh(
            i,
            max(late, 0.04),
            left=start,
            color=INK,
            height=0.62,
            label=once("readout (all slices)" if late else "readout"),
        )
        end = max(end, start + max(late, 0.04))
        axes.text(
            start + max(late, 0.04) + 0.05,
            i,
            f"{delay:g} s" + (f"  ×{item.repeats}" if item.repeats else ""),
            fontsize=7.5,
            va="center",
            color=INK,
        )
    axes.set_yticks(range(n), [f"{i + 1}  {m.scheme}" for i, m in enumerate(measurements)])
    axes.set_ylim(n - 0.4, -0.6)
    axes.set_xlim(-0.04, end * 1.14 + 0.1)
    axes.set_xlabel("time since labelling began (s); right: delay × pairs averaged")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False, handlelength=1.2)
    return svg(figure)


def distributions(
    groups: Sequence[tuple[str, str, np.ndarray, np.ndarray | None]],
    limits: tuple[float, float],
    label: str,
) -> str:
    """Draw how a quantity is distributed in tissues, main estimate against least squares.

    Parameters
    ----------
    groups
        Rows of (tissue, colour, main values, least-squares values or None).
    limits
        Ends of the axis; what lies beyond is counted in the last bins.
    label
        Quantity with unit.
    """
    figure, grid = _canvas(5.4, 2.7)
    axes = grid[0, 0]
    edges = np.linspace(*limits, 61)
    for tissue, colour, main, other in groups:
        for values, style in ((main, "-"), (other, "--")):
            finite = np.empty(0) if values is None else values[np.isfinite(values)]
            if not finite.size:
                continue
            counts, _ = np.histogram(np.clip(finite, *limits), edges)
            density = counts / counts.sum()
            name = f"{tissue}, {'main' if style == '-' else 'least squares'}"
            axes.stairs(
                density,
                edges,
                color=colour,
                ls=style,
                lw=1.4 if style == "-" else 1.1,
                label=name,
            )
            if style == "-":
                axes.stairs(density, edges, color=colour, fill=True, alpha=0.15)
    axes.set_xlabel(label)
    axes.set_ylabel("share of voxels")
    axes.set_ylim(bottom=0)
    axes.set_xlim(*limits)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False, handlelength=1.8)
    return svg(figure)
