"""Motion, control, label and ΔM of every volume on one time axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.reports.charts import BLUE, GREEN, GREY, ORANGE, svg, tidy
from asl_bids_app.reports.scales import nice
from asl_bids_app.reports.sheet import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 5.8
"""Inches."""
_LINES: Final = 0.85
_CARPET: Final = 1.05
"""Inches of the height of a panel of lines, and of one of bands."""
_GAP: Final = 0.16
_LEFT, _RIGHT = 0.82, 0.78


def time_course(carpet: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the panels of a carpet plot from the columns of its table.

    Parameters
    ----------
    carpet
        ``volume_type``, ``pair``, ``averaged``, ``post_labeling_delay``, maybe ``run``, and the
        bands in percent of M0, each of shape (N,).

    Returns
    -------
    dict of str to array, shape (bands, N)
        ``control`` and ``label``: percent by which a band is off its mean over the averaged
        pairs of the same delay (of all delays, where there are fewer than two such pairs).
        ``delta_m``: percent of M0. Each volume shows its pair's; NaN where there is none. What
        a series has none of is missing.
    """
    bands = np.stack([v for name, v in carpet.items() if name.startswith("band_")])
    kinds, pair = carpet["volume_type"], carpet["pair"]
    run = carpet.get("run", np.ones(len(pair)))
    found: dict[str, np.ndarray] = {}
    signals: dict[str, np.ndarray] = {}
    for kind in ("control", "label", "deltam"):
        place = {(run[i], pair[i]): i for i in np.flatnonzero((kinds == kind) & np.isfinite(pair))}
        if not place:
            continue
        # A volume stands for its whole pair, so that all panels share an axis without gaps.
        of = np.array([place.get(key, -1) for key in zip(run, pair, strict=True)])
        signals[kind] = np.where(of >= 0, bands[:, of], np.nan)
    for kind in ("control", "label"):
        if kind in signals:
            usual = _usual(signals[kind], carpet, run)
            with np.errstate(divide="ignore", invalid="ignore"):
                found[kind] = 100 * (signals[kind] / usual - 1)
    if "control" in signals and "label" in signals:
        found["delta_m"] = signals["control"] - signals["label"]
    if "deltam" in signals:
        known = found.get("delta_m", np.full_like(bands, np.nan))
        found["delta_m"] = np.where(np.isfinite(known), known, signals["deltam"])
    return found


def _usual(values: np.ndarray, carpet: Mapping[str, np.ndarray], run: np.ndarray) -> np.ndarray:
    """Mean of each band over what was averaged of the same delay and run, (bands, N)."""
    good = (carpet["averaged"] == 1) & np.isfinite(values).any(axis=0)
    usual = np.full_like(values, np.nan)
    for one in np.unique(run):
        for delay in np.unique(carpet["post_labeling_delay"][(run == one) & good]):
            same = (run == one) & (carpet["post_labeling_delay"] == delay)
            members = same & good
            if len(np.unique(carpet["pair"][members])) < 2:
                members = (run == one) & good
            usual[:, same] = values[:, members].mean(axis=1, keepdims=True)
    return usual


def draw_time_course(confounds: Mapping[str, np.ndarray], carpet: Mapping[str, np.ndarray]) -> str:
    """Draw what happened to each volume of a series.

    Parameters
    ----------
    confounds
        Columns ``trans_*`` (mm), ``rot_*`` (rad), ``framewise_displacement`` (mm), and ``run``
        of a joint series; may be empty.
    carpet
        Columns of the carpet table; may be empty.

    Returns
    -------
    str
        Address of the embedded drawing.
    """
    table = confounds or carpet
    n = len(next(iter(table.values())))
    if carpet and len(carpet["pair"]) != n:
        carpet = {}
    panels = time_course(carpet) if carpet else {}
    n_lines = 3 if confounds else 0
    height = n_lines * (_LINES + _GAP) + len(panels) * (_CARPET + _GAP) + 0.75
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    drawn: list[Axes] = []

    def panel(size: float) -> Axes:
        top = 0.25 + sum(a.get_position().height * height + _GAP for a in drawn)
        axes = figure.add_axes(
            (_LEFT / WIDTH, 1 - (top + size) / height, 1 - (_LEFT + _RIGHT) / WIDTH, size / height)
        )
        tidy(axes)
        axes.set_xlim(0.5, n + 0.5)
        drawn.append(axes)
        return axes

    if confounds:
        _motion(panel, confounds, n)
    for name, values in panels.items():
        _bands(figure, panel(_CARPET), name, values, n)
    left_out = [] if not carpet else (np.flatnonzero(carpet["averaged"] == 0) + 1).tolist()
    run = (confounds or carpet).get("run")
    starts = [] if run is None else (np.flatnonzero(np.diff(run)) + 1.5).tolist()
    for axes in drawn:
        for volume in left_out:
            axes.axvspan(
                volume - 0.5, volume + 0.5, fill=False, hatch="/////", ec=ORANGE, lw=0, zorder=3
            )
        for start in starts:
            axes.axvline(start, color=INK, lw=1.4, zorder=4)
        axes.tick_params(labelbottom=axes is drawn[-1])
        axes.locator_params(axis="x", integer=True)
    drawn[-1].set_xlabel("volume, counted from 1")
    ends = [0.5, *starts, n + 0.5]
    for i in range(len(starts) + 1 if starts else 0):
        middle = (ends[i] + ends[i + 1]) / 2
        drawn[0].text(
            middle,
            1.04,
            f"run {i + 1}",
            transform=drawn[0].get_xaxis_transform(),
            fontsize=8,
            ha="center",
            color=INK,
        )
    return svg(figure)


def _motion(panel: Any, confounds: Mapping[str, np.ndarray], n: int) -> None:
    volumes = np.arange(1, n + 1)
    run = confounds.get("run", np.ones(n))
    for kind, label, factor in (
        ("trans", "shift\n(mm)", 1.0),
        ("rot", "rotation\n(degrees)", 180 / math.pi),
    ):
        axes = panel(_LINES)
        for axis, colour in zip("xyz", (BLUE, ORANGE, GREEN), strict=True):
            values = confounds.get(f"{kind}_{axis}")
            if values is None:
                continue
            # Each run has a reference of its own: no line leads from one to the next.
            for i, one in enumerate(np.unique(run)):
                axes.plot(
                    volumes[run == one],
                    factor * values[run == one],
                    color=colour,
                    lw=1.1,
                    label=axis if i == 0 else None,
                )
        axes.set_ylabel(label)
        if axes.lines:
            axes.legend(
                loc="center left",
                bbox_to_anchor=(1, 0.5),
                fontsize=8,
                frameon=False,
                handlelength=1.2,
                labelspacing=0.2,
            )
    axes = panel(_LINES)
    moved = confounds.get("framewise_displacement")
    if moved is not None:
        size = np.nan_to_num(moved)
        axes.bar(volumes, size, color=INK, width=0.8)
        axes.axhline(0.5, color=ORANGE, lw=1, ls="--")
        axes.set_ylim(0, max(0.6, 1.1 * float(size.max())))
    axes.set_ylabel("framewise\ndisp. (mm)")


_TITLES: Final = {"control": "control", "label": "label", "delta_m": "ΔM"}


def _bands(figure: Figure, axes: Axes, name: str, values: np.ndarray, n: int) -> None:
    from matplotlib import colormaps

    finite = values[np.isfinite(values)]
    if name == "delta_m":
        low, high = np.percentile(finite, (1, 99)) if finite.size else (0, 1)
        colours, unit = "inferno", "% of M0"
        low = min(low, 0.0)
        high = max(high, low + 1e-6)
    else:
        high = max(nice(float(np.percentile(np.abs(finite), 98)) if finite.size else 1.0), 0.5)
        low, colours, unit = -high, "RdBu_r", "% off mean"
    picture = axes.imshow(
        values,
        cmap=colormaps[colours].with_extremes(bad="#d5dade"),
        vmin=low,
        vmax=high,
        extent=(0.5, n + 0.5, 0, 1),
        origin="lower",
        aspect="auto",
        interpolation="none",
    )
    axes.set_yticks([])
    axes.set_ylabel(f"{_TITLES[name]}\nslices →")
    place = axes.get_position()
    bar = figure.add_axes((place.x1 + 0.08 / WIDTH, place.y0, 0.09 / WIDTH, place.height))
    drawn = figure.colorbar(picture, cax=bar)
    drawn.outline.set_visible(False)
    bar.tick_params(labelsize=7.5, length=2, colors=INK, pad=1.5)
    bar.text(5.6, 0.5, unit, transform=bar.transAxes, fontsize=7.5, rotation=90, va="center")
    axes.spines[["left", "bottom"]].set_color(GREY)
