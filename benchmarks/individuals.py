"""Means of regions on independent anatomies: the ensemble before and after its correction.

usage: python benchmarks/individuals.py SIMULATOR [CASE ...] [--data DIR] [--json FILE]

SIMULATOR is a folder with ``sim.py``, an ASL simulator that shares no code with this package,
and the anatomies it works on. Each case is simulated (or taken from ``--data``), prepared without
motion correction, and estimated with ``--error-bars noise``. Regional bias comes first: it is
what a study of regional means sees.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CASES = (
    *("L10", "L05", "L03", "D305", "S10", "S03", "SL10"),
    *("PASL05", "J05", "STEN05", "LATE05", "LES05", "LT05"),
    *("ART05", "ARTO10"),
)
LESIONS = {
    1: "core",
    2: "penumbra",
    3: "large tumour",
    4: "small tumour",
    5: "stenosis",
    6: "artery 0.2-1 %",
    7: "artery > 1 %",
}
BLUR_MM, SHIFT_MM = 3.0, 1.0
"""How far the simulator's fractions are made worse, as those of a T1w image would be."""


def truth_of(data: Path, case: str) -> dict[str, np.ndarray]:
    """Read what is true of a case."""
    import nibabel as nib

    def read(name: str) -> np.ndarray:
        return np.squeeze(nib.load(data / "truth" / f"sub-{case}_{name}.nii.gz").get_fdata())

    truth = {name: read(name) for name in ("cbf", "att", "dseg", "tissue", "gm", "wm")}
    there = (data / "truth" / f"sub-{case}_lesion.nii.gz").exists()
    truth["lesion"] = np.round(read("lesion")) if there else np.zeros_like(truth["cbf"])
    return truth


def regions(truth: dict[str, np.ndarray], mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Go through the regions: pure tissue free of lesions, then the lesions."""
    label, lesion = np.round(truth["dseg"]), truth["lesion"]
    usable = mask & (truth["cbf"] > 5)
    yield "GM", (label == 1) & (lesion == 0) & usable
    yield "WM", (label == 2) & (lesion == 0) & usable
    for number, name in LESIONS.items():
        where = (lesion == number) & (truth["tissue"] > 0.5) & usable
        if where.any():
            yield name, where


def degraded(truth: dict[str, np.ndarray], affine: np.ndarray) -> dict[str, np.ndarray]:
    """Return the true fractions, blurred and moved as those of another image would be."""
    from scipy import ndimage

    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    blur, move = BLUR_MM / 2.3548 / sizes, [SHIFT_MM / sizes[0], 0, 0]
    return {
        key: ndimage.shift(ndimage.gaussian_filter(truth[key], blur), move, order=1)
        for key in ("gm", "wm")
    }


def estimates(data: Path, case: str, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """Estimate a case by every method, in one run; maps as (X, Y, Z)."""
    from asl_bids_app.estimators.bayes import Bayes
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.estimators.least_squares import LeastSquares
    from asl_bids_app.estimators.regional import correct_means, tissue_fractions
    from asl_bids_app.models.store import load_model
    from asl_bids_app.options.table import AppOptions
    from asl_bids_app.preprocess.assemble import assemble
    from asl_bids_app.preprocess.moved import correct_motion
    from asl_bids_app.preprocess.prepare import prepare_run
    from asl_bids_app.preprocess.tissue_maps import find_tissue, sharpen
    from asl_bids_app.series import to_volume
    from asl_bids_app.workflows.plan import make_plan

    options = AppOptions(data, data, data, participant_label=(case,), skip_bids_validation=True)
    unit = make_plan(options).participants[0].units[0]
    prepared = [
        prepare_run(
            run, correct_motion(run.acquisition, hmc=False, threads=1), align_m0=False
        )
        for run in unit.runs
    ]  # fmt: skip
    series = assemble(unit, prepared, move=False)
    tissue = sharpen(prepared[0], find_tissue(prepared[0], {}), given=False)
    model = load_model(None)
    maps = {
        "least squares": LeastSquares().fit(series),
        "posterior": Bayes().fit(series),
        "networks alone": Ensemble(model, error_bars="noise", arterial=False).fit(series),
        "ensemble": Ensemble(model, error_bars="noise").fit(series),
    }
    fractions = {
        "corrected, M0": tissue.maps,
        "corrected, given": degraded(truth, series.affine),
    }
    for name, given in fractions.items():
        started = time.perf_counter()
        shares = tissue_fractions(given, series.slice_axis)
        maps[name] = correct_means(maps["ensemble"], series, series.voxel_mm, shares)
        facts = maps[name].consistency
        print(f"# {case} {name}: {time.perf_counter() - started:.2f} s, {facts}", file=sys.stderr)
    keys = ("cbf", "att", "cbf_sd", "att_sd")
    return {
        "mask": to_volume(series.mask.numpy(), series.slice_axis),
        **{
            name: {key: to_volume(getattr(found, key).numpy(), series.slice_axis) for key in keys}
            for name, found in maps.items()
        },
    }


def rows_of(
    case: str, truth: dict[str, np.ndarray], found: dict[str, Any]
) -> list[dict[str, Any]]:
    """Score every method in every region."""
    mask = found.pop("mask")
    rows = []
    for region, where in regions(truth, mask):
        for method, maps in found.items():
            off = (maps["cbf"] - truth["cbf"])[where]
            late = 1000 * (maps["att"] - truth["att"])[where]
            inside = np.abs(off) / np.maximum(maps["cbf_sd"][where], 1e-6)
            rows.append(
                {
                    "case": case,
                    "region": region,
                    "method": method,
                    "n": int(where.sum()),
                    "bias_percent": 100 * float(off.mean() / truth["cbf"][where].mean()),
                    "bias": float(off.mean()),
                    "mae": float(np.abs(off).mean()),
                    "c68": 100 * float((inside <= 1).mean()),
                    "c95": 100 * float((inside <= 1.96).mean()),
                    "att_bias": float(late.mean()),
                    "att_mae": float(np.abs(late).mean()),
                }
            )
    return rows


def main() -> int:
    """Simulate, estimate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("simulator", type=Path, help="folder of sim.py")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--data", type=Path, help="simulated before, or to be kept here")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    given = parser.parse_args()
    simulator = given.simulator / "sim.py"
    if not simulator.is_file():
        print(f"{simulator}: found nothing, expected the simulator; nothing to benchmark")
        return 0
    rows = []
    print("| Case | Region | Method | Bias, % | Bias | MAE CBF | 68 % | 95 % | MAE ATT, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or Path(folder)
        for case in given.cases:
            if not (data / "truth" / f"sub-{case}_params.json").is_file():
                command = [sys.executable, str(simulator), str(data), case]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            truth = truth_of(data, case)
            for row in rows_of(case, truth, estimates(data, case, truth)):
                rows.append(row)
                print(
                    "| {case} | {region} | {method} | {bias_percent:+.1f} | {bias:+.1f} "
                    "| {mae:.2f} | {c68:.0f} | {c95:.0f} | {att_mae:.0f} |".format(**row),
                    flush=True,
                )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
