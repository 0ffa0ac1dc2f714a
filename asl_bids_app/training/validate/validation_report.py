"""Write the results of a validation: for machines, for readers, for plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from asl_bids_app.training.validate import baselines
from asl_bids_app.training.whole_files import finite, write_json, write_text

REPORT: Final = "llm_analysis_report"
PLOT_DATA: Final = "interactive_plot_data.json"

_LABELS: Final = {"cbf": "CBF", "att": "ATT"}


def write_report(output: Path, report: dict[str, Any], examples: dict[str, Any]) -> Path:
    """Write ``llm_analysis_report.json`` and ``.md``, the data of plots, and figures.

    Parameters
    ----------
    output
        Folder.
    report
        Of `asl_bids_app.training.validate.validation.validate_run`.
    examples
        Voxels of each scenario and SNR, for plots.

    Returns
    -------
    Path
        The report in words.
    """
    from asl_bids_app.training.validate.validation_figures import draw_figures

    # It goes with the model: a third of the size without spaces and needless digits.
    text = json.dumps(rounded(finite(report)), separators=(",", ":"), allow_nan=False)
    write_text(output / f"{REPORT}.json", text + "\n")
    curves = plot_curves(report)
    write_json(output / PLOT_DATA, {"curves": curves, "voxels": examples})
    figures = draw_figures(curves, report["units"], output)
    path = output / f"{REPORT}.md"
    write_text(path, words(report, [figure.name for figure in figures]))
    return path


def rounded(content: Any) -> Any:
    """Round all fractions to five significant digits, at any depth."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content


def plot_curves(report: dict[str, Any]) -> dict[str, Any]:
    """Turn the tables of a report into curves over SNR: scenario, group, quantity, method."""
    curves: dict[str, Any] = {}
    for name, scenario in report["scenarios"].items():
        levels = sorted(scenario["snr"], key=float)
        groups: dict[str, Any] = {}
        for group in scenario["snr"][levels[0]]["groups"]:
            groups[group] = {
                quantity: _method_curves(scenario, levels, group, quantity) for quantity in _LABELS
            }
        curves[name] = {
            "title": scenario["title"],
            "snr": [float(level) for level in levels],
            "groups": groups,
        }
    return curves


def _method_curves(
    scenario: dict[str, Any], levels: list[str], group: str, quantity: str
) -> dict[str, dict[str, list[float | None]]]:
    metrics = ("mae", "rmse", "bias", "r2", "coverage_68", "coverage_95")
    made: dict[str, dict[str, list[float | None]]] = {}
    for method in baselines.METHODS:
        rows = [
            scenario["snr"][level]["groups"].get(group, {}).get(method, {}).get(quantity, {})
            for level in levels
        ]
        if any(rows):
            made[method] = {name: [row.get(name) for row in rows] for name in metrics}
    return made


def words(report: dict[str, Any], figures: list[str]) -> str:
    """Return the report as Markdown."""
    model = report["model"]
    phantoms = report["phantoms"]
    lines = [
        f"# Validation of {model['config']}",
        "",
        f"{model['network']}, {len(model['members'])} members"
        + ("" if model["complete"] else " (TRAINING NOT COMPLETE)")
        + f", made {report['made']}. {phantoms['test']} phantoms never seen in training, "
        f"{phantoms['of_held_out_anatomy']} of them of a kind of anatomy held back from it.",
        "",
    ]
    if model["noncritical_settings"]:
        lines += [f"**Critical settings changed:** {model['noncritical_settings']}", ""]
    lines += [
        "Errors are over voxels of tissue (no fluid) unless a table says otherwise: CBF in "
        "mL/100 g/min, ATT in ms. Every row names its method; win rate is the share of voxels "
        "in which the network is nearer the truth than the method of that row. Coverage is the "
        "share of voxels within 1 sd (aim 68 %) and 1.96 sd (aim 95 %).",
        "",
        "Methods:",
        "",
        f"- {baselines.NETWORK}: mean of the members; sds calibrated on phantoms of their own.",
        f"- {baselines.STRONG}: the honest baseline.",
        f"- {baselines.SMOOTHED}.",
        f"- {baselines.NAIVE}: on some of the voxels; common in the field, and weak.",
        f"- {baselines.POSTERIOR}.",
        f"- {baselines.ORACLE}: only where the calibration that the others assume is wrong.",
        "",
    ]
    for scenario in report["scenarios"].values():
        lines += [f"## {scenario['title'][0].upper()}{scenario['title'][1:]}", ""]
        for quantity, label in _LABELS.items():
            lines += _main_table(scenario, quantity, label, report["units"][quantity])
        lines += _group_table(scenario)
    if figures:
        lines += ["## Figures", ""] + [f"![{name}]({name})" for name in figures] + [""]
    return "\n".join(lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - nan


def _percent(value: float | None) -> str:
    return "" if value is None or value != value else f"{100 * value:.1f}"  # noqa: PLR0124 - nan


def _main_table(scenario: dict[str, Any], quantity: str, label: str, unit: str) -> list[str]:
    lines = [
        f"**{label}** ({unit}), tissue",
        "",
        "| SNR | method | MAE | RMSE | bias | R² | within 1 sd, % | within 1.96 sd, % | "
        "network wins, % | MAE / network's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    digits = 2 if quantity == "cbf" else 1
    for level, tables in scenario["snr"].items():
        methods = tables["groups"]["tissue"]
        network = methods[baselines.NETWORK][quantity]
        for method, found in methods.items():
            row = found[quantity]
            if not row["n"]:
                continue
            wins, ratio = "", ""
            if method != baselines.NETWORK:
                rate = row["win_rate"].get(baselines.NETWORK)
                wins = _percent(None if rate is None else 1 - rate)
                ratio = _number(row["mae"] / network["mae"])
            lines.append(
                f"| {level} | {method} | {_number(row['mae'], digits)} | "
                f"{_number(row['rmse'], digits)} | {_number(row['bias'], digits)} | "
                f"{_number(row['r2'], 3)} | {_percent(row['coverage_68'])} | "
                f"{_percent(row['coverage_95'])} | {wins} | {ratio} |"
            )
    return [*lines, ""]


def _group_table(scenario: dict[str, Any]) -> list[str]:
    strong = baselines.STRONG
    lines = [
        f"**By tissue and condition**: {baselines.NETWORK} | baseline: {strong}",
        "",
        "| SNR | voxels | n | CBF MAE | CBF bias | CBF 68/95 % | ATT MAE | ATT bias | "
        "ATT 68/95 % | baseline CBF MAE | baseline CBF bias | baseline ATT MAE | "
        "baseline ATT bias |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for level, tables in scenario["snr"].items():
        for group, methods in tables["groups"].items():
            cells = [level, group, str(methods[baselines.NETWORK]["cbf"]["n"])]
            for method, shares in ((baselines.NETWORK, True), (strong, False)):
                for quantity, digits in (("cbf", 2), ("att", 0)):
                    row = methods[method][quantity]
                    cells += [_number(row.get("mae"), digits), _number(row.get("bias"), digits)]
                    if shares:
                        covered = (row.get("coverage_68"), row.get("coverage_95"))
                        cells.append(" / ".join(_percent(c) for c in covered))
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
