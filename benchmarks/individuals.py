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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

CASES = (
    *("L10", "L05", "L03", "D305", "S10", "S03", "SL10"),
    *("PASL05", "J05", "STEN05", "LATE05", "LES05", "LT05"),
    *("ART05", "ARTO10"),
    *("LAM10", "CAL10"),
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
SEEN, BESIDE_MM = (0.002, 0.0002), 5.0
"""Arterial volume of an artery, and below which there is none (mL/mL); what is beside one."""
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
    if (data / "truth" / f"sub-{case}_abv.nii.gz").exists():
        truth["beside arteries"] = beside_arteries(data, case, read("abv"))
    return truth


def beside_arteries(data: Path, case: str, volume: np.ndarray) -> np.ndarray:
    """Find the voxels free of arteries within 5 mm of one of more than 0.2 %."""
    import nibabel as nib
    from scipy.ndimage import distance_transform_edt

    affine = nib.load(data / "truth" / f"sub-{case}_abv.nii.gz").affine
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    distance = distance_transform_edt(volume <= SEEN[0], sampling=sizes)
    return (volume < SEEN[1]) & (distance <= BESIDE_MM)


def regions(truth: dict[str, np.ndarray], mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Go through the regions: pure tissue free of lesions, then the lesions."""
    label, lesion = np.round(truth["dseg"]), truth["lesion"]
    usable = mask & (truth["cbf"] > 5)
    yield "GM", (label == 1) & (lesion == 0) & usable
    yield "WM", (label == 2) & (lesion == 0) & usable
    if "beside arteries" in truth:
        yield "GM beside arteries", (label == 1) & truth["beside arteries"] & usable
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
    from asl_bids_app.estimators.consensus import consensus
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.estimators.least_squares import LeastSquares
    from asl_bids_app.estimators.regional import tissue_fractions
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
    by_formula = consensus(series)
    if by_formula is not None:
        maps["consensus"] = replace(
            maps["least squares"], cbf=by_formula.cbf, cbf_sd=by_formula.cbf_sd
        )
    fractions = {
        "corrected, M0": tissue.alike,
        "corrected, given": degraded(truth, series.affine),
    }
    for name, given in fractions.items():
        started = time.perf_counter()
        maps[name] = default(model, series, "noise", tissue_fractions(given, series.slice_axis))
        facts = maps[name].consistency
        print(f"# {case} {name}: {time.perf_counter() - started:.2f} s, {facts}", file=sys.stderr)
    # As the app does by default: bars that hold the constants too.
    shares = tissue_fractions(tissue.alike, series.slice_axis)
    maps["default, total bars"] = default(model, series, "total", shares)
    keys = ("cbf", "att", "cbf_sd", "att_sd", "abv")
    return {
        "mask": to_volume(series.mask.numpy(), series.slice_axis),
        **{
            name: {
                key: to_volume(values.numpy(), series.slice_axis)
                for key in keys
                if (values := getattr(found, key)) is not None
            }
            for name, found in maps.items()
        },
    }


def default(model: Any, series: Any, error_bars: str, shares: Any) -> Any:
    """Estimate as the app does by default: arteries apart, means of tissues corrected."""
    from asl_bids_app.estimators.ensemble import Ensemble
    from asl_bids_app.estimators.regional import correct_means

    def correct(maps: Any, seen: Any, att_trust: Any) -> Any:
        return correct_means(maps, seen, seen.voxel_mm, shares, att_trust)

    return Ensemble(model, error_bars=error_bars).fit(series, correct, shares)


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
                    "att_c95": 100 * float((np.abs(late) <= 1960 * maps["att_sd"][where]).mean()),
                    **mean_of_region(method, maps, where, off),
                }
            )
    return rows


def mean_of_region(
    method: str, maps: dict[str, np.ndarray], where: np.ndarray, off: np.ndarray
) -> dict[str, float]:
    """Return the error bar of a region's mean, where the bundled model has one."""
    from asl_bids_app.estimators.coherence import mean_sd, read_coherence
    from asl_bids_app.models.store import load_model

    word = {"corrected, M0": "noise", "default, total bars": "total"}.get(method)
    coherence = read_coherence(load_model(None).spec.coherence.get(word, {}), "cbf")
    if coherence is None:
        return {}
    bar = mean_sd(maps["cbf_sd"], where, coherence)
    return {"mean_sd": bar, "mean_off_in_sd": float(off.mean()) / bar}


def vessels_found(
    data: Path, case: str, found: dict[str, Any], truth: dict[str, np.ndarray]
) -> Iterator[str]:
    """Measure how well vessels are distinguished from tissue, where the truth has arteries."""
    import nibabel as nib
    from scipy.stats import rankdata

    path = data / "truth" / f"sub-{case}_abv.nii.gz"
    if not path.exists():
        return
    volume = np.squeeze(nib.load(path).get_fdata())
    inside = found["mask"] & (truth["tissue"] > 0.5)
    for method, maps in found.items():
        if method == "mask" or "abv" not in maps:
            continue
        for low, high in ((0.01, np.inf), (0.002, 0.01)):
            vessel, none = inside & (volume > low) & (volume <= high), inside & (volume < 2e-4)
            ranks = rankdata(np.concatenate([maps["abv"][vessel], maps["abv"][none]]))
            count, other = int(vessel.sum()), int(none.sum())
            area = (ranks[:count].sum() - count * (count + 1) / 2) / (count * other)
            error = np.abs(maps["abv"] - 100 * volume)[vessel].mean()
            yield (
                f"# {case} {method}: arteries above {100 * low:g} %: area under the curve "
                f"{area:.3f}, MAE of the volume {error:.2f} mL/100 mL"
            )


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
    print(
        "| Case | Region | Method | Bias, % | Bias | MAE CBF | 68 % | 95 % "
        "| Bias ATT | MAE ATT, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or Path(folder)
        for case in given.cases:
            if not (data / "truth" / f"sub-{case}_params.json").is_file():
                command = [sys.executable, str(simulator), str(data), case]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            truth = truth_of(data, case)
            found = estimates(data, case, truth)
            for line in vessels_found(data, case, found, truth):
                print(line, flush=True)
            for row in rows_of(case, truth, found):
                rows.append(row)
                line = (
                    "| {case} | {region} | {method} | {bias_percent:+.1f} | {bias:+.1f} "
                    "| {mae:.2f} | {c68:.0f} | {c95:.0f} | {att_bias:+.0f} | {att_mae:.0f} |"
                )
                print(line.format(**row), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
