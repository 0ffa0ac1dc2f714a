"""Rewrite the parts of the documentation that the code knows best.

``python docs/generate.py`` fills every block between ``<!-- begin NAME -->`` and
``<!-- end NAME -->``; with ``--check`` it only says whether one is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
BLOCK: Final = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def outputs() -> str:
    """Table of everything that is written for a series."""
    from asl_bids_app.bids.outputs import OUTPUTS

    rows = [[f"`{o.pattern}`", o.units or "", o.description] for o in OUTPUTS.values()]
    return _table(("File", "Units", "What it is"), rows)


def flags() -> str:
    """Table of the flags."""
    from asl_bids_app.bids.flags import FLAGS

    return _table(
        ("Value", "Name", "Meaning"),
        ([str(row.value), row.name, row.description] for row in FLAGS),
    )


def bidsignore() -> str:
    """Lines of the `.bidsignore` that is written."""
    from asl_bids_app.bids.dataset_description import BIDSIGNORE

    return "```\n" + "\n".join(BIDSIGNORE) + "\n```\n"


def schemes() -> str:
    """Table of the labelling schemes with their defaults."""
    from asl_bids_app.schemes import SCHEMES

    rows = []
    for scheme, info in SCHEMES.items():
        kinds = {"": (info.labeling_efficiency, info.source)}
        if info.modules:
            kinds = {f" {module.value}": found for module, found in info.modules.items()}
        rows += [
            [scheme.value, info.title + kind, f"{value:g}", source, str(info.transit)]
            for kind, (value, source) in kinds.items()
        ]
    header = ("Scheme", "Labelling", "Default efficiency", "Source", "Prior of ATT")
    sources = dict.fromkeys(info.transit.source for info in SCHEMES.values())
    which = {
        source: ", ".join(s.value for s, i in SCHEMES.items() if i.transit.source == source)
        for source in sources
    }
    sources = "; ".join(f"{names}: {source}" for source, names in which.items())
    return _table(header, rows) + f"\nSources of the priors of ATT: {sources}.\n"


def constants() -> str:
    """Table of the other constants with their defaults."""
    from asl_bids_app import calibration as c

    def by_field(table: dict[float, Any]) -> str:
        values = {t: row[0] if isinstance(row, tuple) else row for t, row in table.items()}
        return ", ".join(f"{value:g} s at {tesla:g} T" for tesla, value in values.items())

    t1_sources = "; ".join(dict.fromkeys(source for _, source in c.T1_BLOOD.values()))
    value, source = c.PARTITION_COEFFICIENT
    each, pulse_source = c.PULSE_EFFICIENCY
    rows = [
        ["T1 of arterial blood", by_field(c.T1_BLOOD), "`--t1-blood`", t1_sources],
        ["T1 of tissue in the kinetics", "that of blood", "`--t1-tissue`", c.T1_BLOOD[3.0][1]],
        [
            "T1 of tissue in the M0",
            by_field(c.T1_TISSUE_M0),
            "",
            "Wright 2008, doi:10.1007/s10334-008-0104-8",
        ],
        ["Partition coefficient λ", f"{value:g} mL/g", "`--partition-coefficient`", source],
        [
            "Label left by one background-suppression pulse",
            f"{each:g}",
            "`--bs-efficiency`",
            pulse_source,
        ],
    ]
    return _table(("Constant", "Default", "Option", "Source"), rows)


# Defaults that depend on the machine, in words.
DEFAULTS: Final = {"nthreads": "all", "nprocs": "all", "n_cpus": "all"}


def options() -> str:
    """Tables of the command line's arguments, by group."""
    from asl_bids_app.cli.parser import build_parser

    parser = build_parser()
    parts = []
    for group in parser._action_groups:
        rows = [_option(action) for action in group._group_actions]
        if rows:
            title = (group.title or "").capitalize()
            parts.append(f"### {title}\n\n" + _table(("Option", "Meaning", "Default"), rows))
    return "\n" + "\n".join(parts) + "\n"


def _option(action: argparse.Action) -> list[str]:
    spellings = [s for s in action.option_strings if "_" not in s] or [action.dest]
    metavar = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    if action.nargs == 0:
        metavar = ""
    if action.nargs == "?" and metavar:
        metavar = f"[{metavar}]"
    if action.nargs == "+":
        metavar += " ..."
    name = ", ".join(f"`{s}`" for s in spellings) + (f" `{metavar}`" if metavar else "")
    default = action.default
    switch = isinstance(default, bool) and not isinstance(action, argparse.BooleanOptionalAction)
    if default in (None, argparse.SUPPRESS, []) or switch or action.dest == "verbose":
        shown = ""
    elif action.dest in DEFAULTS:
        shown = DEFAULTS[action.dest]
    elif isinstance(default, bool):
        shown = "yes" if default else "no"
    else:
        path = Path(str(default))
        shown = f"`{path.name if path.is_absolute() else default}`"
    return [name.replace("|", "\\|"), (action.help or "").replace("|", "\\|"), shown]


def _validation() -> dict[str, Any]:
    """Return the validation report of the bundled model."""
    from asl_bids_app.models import store
    from asl_bids_app.training.validate.validation_report import REPORT

    place = ROOT / "benchmarks" / "results" / store.DEFAULT_MODEL / "validation"
    return json.loads((place / f"{REPORT}.json").read_text(encoding="utf-8"))


def _cells(methods: dict[str, Any], quantity: str) -> list[str]:
    """Cells of one quantity: errors by method, ratio to the network's, win rate, R²."""
    from asl_bids_app.training.validate import baselines as b

    digits = 2 if quantity == "cbf" else 0
    found = {name: methods[name][quantity] for name in (b.NETWORK, b.STRONG, b.POSTERIOR)}
    mine = found[b.NETWORK]
    cells = [f"{row['mae']:.{digits}f}" for row in found.values()]
    ratio = found[b.STRONG]["mae"] / mine["mae"]
    cells.append(f"**{ratio:.2f}**" if ratio >= 1 else f"{ratio:.2f} (loses)")
    return [*cells, f"{100 * mine['win_rate'][b.STRONG]:.0f}", f"{mine['r2']:.3f}"]


def accuracy() -> str:
    """Tables of errors of the bundled model and its baselines, by scenario and SNR."""
    parts = []
    for scenario in _validation()["scenarios"].values():
        rows = [
            [level, *(cell for q in ("cbf", "att") for cell in _cells(t["groups"]["tissue"], q))]
            for level, t in scenario["snr"].items()
        ]
        head = ["network", "strong LS", "posterior", "LS / network", "wins, %", "R²"]
        header = ["SNR", *(f"{name} {word}" for name in ("CBF", "ATT") for word in head)]
        title = scenario["title"]
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n" + _table(header, rows))
    return "\n" + "\n".join(parts) + "\n"


_TISSUES: Final = ("grey matter", "white matter", "lesion")


def intervals() -> str:
    """Table of biases and of coverage of the bundled model, by tissue."""
    from asl_bids_app.training.validate import baselines as b

    rows = []
    scenarios = _validation()["scenarios"]
    for scenario in (scenarios[name] for name in ("joint", "joint_off", "pcasl", "pcasl_off")):
        for level, tables in scenario["snr"].items():
            for group in _TISSUES:
                row = tables["groups"][group][b.NETWORK]
                cells = [scenario["title"], level, group]
                for quantity, digits in (("cbf", 1), ("att", 0)):
                    found = row[quantity]
                    inner, outer = (100 * found[f"coverage_{n}"] for n in (68, 95))
                    cells += [f"{found['bias']:+.{digits}f}", f"{inner:.0f} / {outer:.1f}"]
                rows.append(cells)
    header = (
        "Situation",
        "SNR",
        "Tissue",
        "CBF bias",
        "CBF within, %",
        "ATT bias",
        "ATT within, %",
    )
    return _table(header, rows)


def error_bars() -> str:
    """Least and greatest coverage over all SNR, by situation and tissue."""
    from asl_bids_app.training.validate import baselines as b

    rows = []
    for scenario in _validation()["scenarios"].values():
        cells = [scenario["title"]]
        for quantity, group in product(("cbf", "att"), _TISSUES):
            found = [t["groups"][group][b.NETWORK][quantity] for t in scenario["snr"].values()]
            inner, outer = ([100 * each[f"coverage_{n}"] for each in found] for n in (68, 95))
            cells.append(
                f"{min(inner):.0f} to {max(inner):.0f} / {min(outer):.0f} to {max(outer):.0f}"
            )
        rows.append(cells)
    return _table(["", *(f"{q}, {t}" for q, t in product(("CBF", "ATT"), _TISSUES))], rows)


_ODD: Final = ("network", "LS, posterior", "bias", "within, %")


def odd_data() -> str:
    """Tables of errors on unusual data, of `benchmarks/odd_data.py`."""
    from asl_bids_app.training.validate import baselines as b

    report = json.loads((ROOT / "docs" / "odd_data.json").read_text(encoding="utf-8"))
    header = ["", *(f"{q} {w}" for q in ("CBF", "ATT") for w in _ODD)]
    parts = []
    for snr, tables in report["snr"].items():
        rows = []
        for label, found in (row for table in tables.values() for row in table.items()):
            cells = [label]
            for quantity, digits in (("cbf", 1), ("att", 0)):
                mine = found[b.NETWORK][quantity]
                rivals = [found[name][quantity]["mae"] for name in (b.STRONG, b.POSTERIOR)]
                network = f"{mine['mae']:.{digits}f}"
                inner, outer = (100 * mine[f"coverage_{n}"] for n in (68, 95))
                cells += [
                    f"{network} (loses)" if mine["mae"] > min(rivals) else f"**{network}**",
                    ", ".join(f"{mae:.{digits}f}" for mae in rivals),
                    f"{mine['bias']:+.{digits}f}",
                    f"{inner:.0f} / {outer:.0f}",
                ]
            rows.append(cells)
        parts.append(f"SNR {snr}:\n\n" + _table(header, rows))
    return "\n".join(parts)


def neighbours() -> str:
    """Table of `benchmarks/neighbour_yardstick.py`."""
    from asl_bids_app.training.validate.scenarios import find

    report = json.loads((ROOT / "docs" / "neighbour_yardstick.json").read_text(encoding="utf-8"))
    errors = report["errors"]
    columns = [f"{q} {w}" for q in ("CBF", "ATT") for w in ("strong LS", "network", "yardstick")]
    rows = []
    for name, snr in [(name, snr) for name, each in errors.items() for snr in each]:
        # Least squares first, then what it is divided by.
        reference, *others = errors[name][snr].values()
        cells = [find(name).title, snr]
        for place, digits in ((0, 2), (1, 0)):
            worst = reference[place]
            cells.append(f"{worst:.{digits}f}")
            cells += [f"{x[place]:.{digits}f} ({worst / x[place]:.2f})" for x in others]
        rows.append(cells)
    return _table(["Situation", "SNR", *columns], rows)


_SHORT: Final = ("L05", "D305", "S03", "SL10", "PASL05", "J05", "ART05", "LT05")
"""Cases of the table that stands first."""


def _individuals() -> dict[str, Any]:
    """Return the names of `benchmarks/plot_individuals.py`, and its rows."""
    names = runpy.run_path(str(ROOT / "benchmarks" / "plot_individuals.py"))
    return {**names, "rows": names["read_rows"]()}


def individuals() -> str:
    """Table of regional bias and error of voxels for a quick look."""
    found = _individuals()
    methods = ("least squares", "corrected, M0")
    bias = "bias_percent"
    columns = ((bias, "GM", "+.0f"), (bias, "WM", "+.0f"), ("mae", "GM", ".1f"))
    rows = [
        [found["TITLES"][case]]
        + [
            f"{found['rows'][case, region, method][key]:{digits}}"
            for key, region, digits in columns
            for method in methods
        ]
        for case in _SHORT
    ]
    words = ("Mean, grey matter", "Mean, white matter", "Voxels, grey matter")
    header = ["Case", *(f"{word}: {name}" for word in words for name in ("LS", "**default**"))]
    return _table(header, rows)


def _by_region(columns: Iterable[tuple[str, str, str]]) -> list[list[str]]:
    """Return rows by case and region; columns are methods, keys of the results and formats."""
    found = _individuals()
    places = dict.fromkeys((case, region) for case, region, _ in found["rows"])
    order = list(found["TITLES"])
    return [
        [found["TITLES"][case], found["REGIONS"].get(region, region)]
        + [f"{found['rows'][case, region, name][key]:{digits}}" for name, key, digits in columns]
        for case, region in sorted(places, key=lambda place: order.index(place[0]))
    ]


_ESTIMATES: Final = {
    "least squares": "LS",
    "networks alone": "networks alone",
    "corrected, M0": "**default**",
    "corrected, given": "tissue given",
}


def region_bias() -> str:
    """Table of the bias of regional means on an independent anatomy."""
    rows = _by_region([(name, "bias_percent", "+.1f") for name in _ESTIMATES])
    return _table(("Case", "Region", *(f"{word}, %" for word in _ESTIMATES.values())), rows)


def region_errors() -> str:
    """Table of the errors of voxels on an independent anatomy."""
    default = "corrected, M0"
    columns = [(name, "mae", ".2f") for name in _ESTIMATES]
    columns += [(default, "c68", ".0f"), (default, "c95", ".0f")]
    columns += [(name, "att_mae", ".0f") for name in ("networks alone", default)]
    columns += [(name, "att_bias", "+.0f") for name in ("networks alone", default)]
    header = [f"CBF: {word}" for word in _ESTIMATES.values()]
    header += ["default: within 1 SD, %", "default: within 1.96 SD, %"]
    header += ["ATT: networks alone", "ATT: **default**"]
    header += ["ATT bias: networks alone", "ATT bias: **default**"]
    return _table(("Case", "Region", *header), _by_region(columns))


def training_settings() -> str:
    """Tables of the settings of a training, by section."""
    from asl_bids_app.training.config import declaration, reading, run_config

    parts: dict[str, list[list[str]]] = {}
    for key, cls, item in declaration.walk_settings(run_config.RunConfig):
        head, _, name = key.rpartition(".")
        declared = declaration.get_declared(item)
        factor = declared.factor
        expected = declaration.word_expected(cls, item, factor)
        expected = "" if expected == "a number" else expected
        default = json.dumps(reading.file_default(item), ensure_ascii=False)
        parts.setdefault(head, []).append([f"`{name}`", f"`{default}`", expected, declared.text])
    header = ("Key", "Default", "Expected", "What it is")
    return "\n".join(
        (f"### `{head}`\n\n" if head else "") + _table(header, rows)
        for head, rows in parts.items()
    )


def critical_settings() -> str:
    """Table of the settings of a training of which one value is known to work."""
    from asl_bids_app.training.config import declaration, run_config

    rows = [
        [f"`{key}`", f"`{run_config.CRITICAL[key]}`", declaration.get_declared(item).critical]
        for key, _, item in declaration.walk_settings(run_config.RunConfig)
        if key in run_config.CRITICAL
    ]
    return _table(("Setting", "Value", "Why"), rows)


BLOCKS: Final[dict[str, Callable[[], str]]] = {
    f.__name__: f
    for f in (
        outputs,
        flags,
        bidsignore,
        schemes,
        constants,
        options,
        accuracy,
        intervals,
        error_bars,
        odd_data,
        neighbours,
        individuals,
        region_bias,
        region_errors,
        training_settings,
        critical_settings,
    )
}


def fill(text: str) -> str:
    """Return a document with its generated blocks as the code has them now."""
    return BLOCK.sub(lambda m: m[1] + "\n" + BLOCKS[m[2]]() + "\n" + m[3], text)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(argv).check
    stale = []
    guides = [ROOT / "README.md", ROOT / "training" / "README.md"]
    for path in sorted([*guides, *(ROOT / "docs").glob("*.md")]):
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(new, encoding="utf-8")
    if stale:
        sys.stdout.write(f"{'out of date' if check else 'rewritten'}: {', '.join(stale)}\n")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
