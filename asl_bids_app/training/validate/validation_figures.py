"""Figures of a validation: error, bias and coverage over SNR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asl_bids_app.training.validate import baselines
from asl_bids_app.training.whole_files import replacing_file

_COLOURS: Final = {
    baselines.NETWORK: "#0072b2",
    baselines.STRONG: "#d55e00",
    baselines.SMOOTHED: "#e69f00",
    baselines.NAIVE: "#999999",
    baselines.POSTERIOR: "#009e73",
    baselines.ORACLE: "#000000",
}
_GROUPS: Final = ("grey matter", "white matter", "lesion")


def draw_figures(curves: Mapping[str, Any], units: Mapping[str, str], output: Path) -> list[Path]:
    """Draw one figure of errors and one of coverage for each scenario.

    Parameters
    ----------
    curves
        Of `asl_bids_app.training.validate.validation_report.plot_curves`.
    units
        Of CBF and ATT.
    output
        Folder.
    """
    made = []
    for name, scenario in curves.items():
        made.append(_errors(scenario, units, output / f"errors_{name}.png"))
        made.append(_coverage(scenario, output / f"coverage_{name}.png"))
    return made


def _figure(rows: int, columns: int, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.1 * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    with replacing_file(path) as beside:
        figure.savefig(beside, dpi=110, format="png")
    return path


def _snr_axis(axes: Any, levels: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.minorticks_off()
    axes.set_xlabel("SNR")


def _errors(scenario: Mapping[str, Any], units: Mapping[str, str], path: Path) -> Path:
    figure, axes = _figure(2, 2, scenario["title"])
    levels = scenario["snr"]
    for column, (quantity, label) in enumerate((("cbf", "CBF"), ("att", "ATT"))):
        for row, (metric, text) in enumerate((("mae", "mean absolute error"), ("bias", "bias"))):
            panel = axes[row][column]
            for method, found in scenario["groups"]["tissue"][quantity].items():
                values = [float("nan") if v is None else v for v in found[metric]]
                panel.plot(levels, values, "o-", ms=3, color=_COLOURS[method], label=method)
            panel.set_ylabel(f"{label} {text}, {units[quantity]}")
            _snr_axis(panel, levels)
            if metric == "mae":
                panel.set_yscale("log")
            else:
                panel.axhline(0, color="0.8", lw=1)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=7, ncols=2)
    return _save(figure, path)


def _coverage(scenario: Mapping[str, Any], path: Path) -> Path:
    figure, axes = _figure(1, 2, f"{baselines.NETWORK}: {scenario['title']}")
    levels = scenario["snr"]
    groups = [group for group in _GROUPS if group in scenario["groups"]]
    for panel, (quantity, label) in zip(axes[0], (("cbf", "CBF"), ("att", "ATT")), strict=True):
        for index, group in enumerate(groups):
            found = scenario["groups"][group][quantity].get(baselines.NETWORK, {})
            for metric, style in (("coverage_68", "o-"), ("coverage_95", "s--")):
                values = [float("nan") if v is None else 100 * v for v in found[metric]]
                text = f"{group}, {metric[-2:]} %"
                panel.plot(levels, values, style, ms=3, color=f"C{index}", label=text)
        for aim, low, high in ((68, 65, 71), (95, 93.5, 96.5)):
            panel.axhspan(low, high, color="0.9", zorder=0)
            panel.axhline(aim, color="0.7", lw=0.8, zorder=0)
        panel.set_ylabel(f"{label} within the interval, %")
        panel.set_ylim(40, 101)
        _snr_axis(panel, levels)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=7, ncols=3)
    return _save(figure, path)
