"""Partial volume correction against known flows of grey and white matter.

usage: python benchmarks/partial_volume.py SIMULATOR [CASE ...] [--data DIR] [--fractions NAME ...]

SIMULATOR is a folder with ``sim.py``, an ASL simulator that shares no code with this package, and
the anatomy it works on. Each case is simulated again without flow in white matter, which gives
the true flow of grey matter; lesions, which have their own, are left out. Fractions: true; of a
simulated T1w (``t1w``); moved; of another head. Slopes are per mean flow, less that of the truth.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anatomy import colin, make_t1w
from individuals import truth_of
from scipy import ndimage

from asl_bids_app.anatomy.pose_files import fractions
from asl_bids_app.anatomy.register import register_asl
from asl_bids_app.anatomy.t1w import understand
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.estimators.noise import noise_level, with_noise
from asl_bids_app.estimators.partial_volume import PartialVolumeError, correct_partial_volume
from asl_bids_app.observation import observe
from asl_bids_app.options.table import AppOptions
from asl_bids_app.preprocess.assemble import assemble
from asl_bids_app.preprocess.moved import correct_motion
from asl_bids_app.preprocess.prepare import prepare_run
from asl_bids_app.series import Series, to_slices, to_volume
from asl_bids_app.workflows.plan import make_plan

CASES = ("L10", "L05", "L03", "S03", "PASL05", "J05", "ART05", "LES05", "LAM10")
FRACTIONS = ("true", "t1w", *(f"moved {mm} mm" for mm in (1, 2, 4)), "mirrored")
Maps = dict[str, Any]


def simulate(simulator: Path, data: Path, case: str) -> None:
    """Simulate a case, and again without white matter, where that isn't there yet."""
    spec = importlib.util.spec_from_file_location("sim", simulator / "sim.py")
    sim = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(sim)  # type: ignore[union-attr]
    for folder, changed in ((data, {}), (data / "gm", {"wm": 0})):
        if not (folder / "truth" / f"sub-{case}_params.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            sim.make(case, {**sim.CASES[case], **changed}, str(folder))
    (data / "dataset_description.json").write_text('{"Name": "Sim", "BIDSVersion": "1.9.0"}')


def prepare(data: Path, case: str) -> tuple[Series, Any]:
    """Prepare a case without motion correction; return its series without arteries, and prior."""
    options = AppOptions(data, data, data, participant_label=(case,), skip_bids_validation=True)
    unit = make_plan(options).participants[0].units[0]
    moved = [correct_motion(run.acquisition, hmc=False, threads=1) for run in unit.runs]
    runs = [prepare_run(r, m, align_m0=False) for r, m in zip(unit.runs, moved, strict=True)]
    series = with_noise(assemble(unit, runs, move=False))
    maps = LeastSquares().fit(series)
    kept = {**series.volumes, "cbf": to_volume(maps.cbf.numpy())}
    return replace(series.without_arteries(maps.vessels), volumes=kept), maps.att_prior


def fractions_of(name: str, truth: Maps, series: Series, simulator: Path, kept: dict) -> Maps:
    """Return true fractions, what was done to them, or those of a T1w."""
    if name == "t1w":
        if "head" not in kept:
            tissue, affine = colin(simulator)
            kept["head"] = understand(make_t1w(tissue), affine)[0]
        mask = to_volume(series.mask.numpy())
        found = register_asl({"M0": series.volumes["m0"]}, mask, series.affine, kept["head"])
        return fractions(kept["head"], found.matrix, mask.shape, series.affine)
    by = [float(name.split()[1]) / series.voxel_mm[1] if "moved" in name else 0.0, 0, 0]
    maps = {k: ndimage.shift(truth[k], by, order=1) if any(by) else truth[k] for k in ("gm", "wm")}
    return {k: v[:, ::-1].copy() for k, v in maps.items()} if name == "mirrored" else maps


def score(y: Any, sd: Any, fraction: Any, true: Any, mask: Any) -> dict[str, float]:
    """Score a tissue's flow where its true fraction is 0.3 to 0.9."""
    where = mask & (fraction >= 0.3) & (fraction <= 0.9)
    x, y, t = (values[where] for values in (fraction, y, true))
    bins = [(x >= low) & (x < low + 0.1) for low in np.arange(0.3, 0.85, 0.1)]
    slopes = [np.polyfit(x, values, 1)[0] / t.mean() for values in (y, t)]
    return {
        "bias_percent": 100 * float((y - t).mean() / t.mean()),
        "worst_bin_percent": 100 * max(abs((y - t)[b].mean() / t[b].mean()) for b in bins),
        "slope": float(slopes[0] - slopes[1]),
        "rmse": float(np.sqrt(((y - t) ** 2).mean())),
        "c95": np.nan if sd is None else 100 * float((abs(y - t) < 1.96 * sd[where]).mean()),
    }


def rows_of(simulator: Path, data: Path, case: str, names: list[str], kept: Any) -> Any:
    """Estimate and score a case by every method and every kind of fractions."""
    simulate(simulator, data, case)
    truth, grey = truth_of(data, case), truth_of(data / "gm", case)["cbf"]
    series, prior = prepare(data, case)
    parts = {"gm": grey, "wm": truth["cbf"] - grey}
    true = {key: part / np.maximum(truth[key], 1e-3) for key, part in parts.items()}
    mask = to_volume(series.mask.numpy()) & (truth["lesion"] == 0) & (truth["tissue"] > 0.5)
    for key, flow in true.items():
        found = score(series.volumes["cbf"], None, truth[key], flow, mask)
        yield {"case": case, "fractions": "", "method": "uncorrected", "tissue": key, **found}
    for name in names:
        maps = fractions_of(name, truth, series, simulator, kept)
        stack = torch.from_numpy(np.stack([to_slices(maps[k].astype("f4")) for k in true]).copy())
        for method in ("linear", "bayesian"):
            began = time.process_time()
            about = {"case": case, "fractions": name, "method": method}
            seen = observe(series, noise_level(series))
            try:
                found = correct_partial_volume(seen, stack, series.voxel_mm, prior, method)
            except PartialVolumeError as error:
                yield {**about, "refused": str(error)}
                continue
            about["seconds"] = round(time.process_time() - began, 2)
            about["explained"] = found.facts["ExplainedVariance"]
            for key, known in true.items():
                flow, sd = (to_volume(m[key].numpy()) for m in (found.flows, found.sds))
                scores = score(flow, sd, truth[key], known, mask & (sd > 0))
                yield {**about, "tissue": key, **scores}


def main() -> None:
    """Simulate, correct, and print rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("simulator", type=Path)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--data", type=Path, required=True, help="simulated before, or kept here")
    parser.add_argument("--fractions", nargs="+", default=["true"], choices=FRACTIONS)
    parser.add_argument("--json", type=Path, help="add the rows to this file")
    given = parser.parse_args()
    rows = json.loads(given.json.read_text()) if given.json and given.json.exists() else []
    kept: dict[str, Any] = {}
    for case in given.cases:
        for row in rows_of(given.simulator, given.data, case, given.fractions, kept):
            rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
            print("  ".join(f"{k}={v}" for k, v in rows[-1].items()), flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
