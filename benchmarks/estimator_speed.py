"""Seconds from ΔM/M0 in memory to maps: ensemble, voxelwise posterior, least squares, curve_fit.

    python benchmarks/estimator_speed.py [--model DIR] [--threads 2]

A volume of 64x64x24 with 6 delays of PCASL and an elliptic brain of about half the voxels.
`curve_fit` fits a sample of the voxels, one by one from one start, in two ways: the same kinetics
in vectorised numpy (2 parameters), and the two-compartment model of current pipelines, delay by
delay (4 parameters). Its time is scaled up to the brain. Peak memory is that of the process,
interpreter and libraries included, when the default is done.

The default separates arteries, lets five networks look, and corrects the means of tissues. "As
version 6" is what version 6 of the model did: the networks alone, each with two flips. Wall times
are the shortest of several calls; processor times, of all threads, suffer less from other work.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import curve_fit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from physics import simulate

from asl_bids_app.estimators.bayes import Bayes
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.estimators.regional import correct_means
from asl_bids_app.models.store import load_model

DELAYS = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
DURATION = 1.4
NOISE = 0.001
VOXEL_MM = (3.4, 3.4, 5.0)
TWO_FLIPS = (((), (-2, -1)), ((-1,), (-2,)))


def volume():
    """Return a series of 24 slices, and fractions of its two tissues."""
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 64, 64)), indexing="ij")
    brain = (z / 1.1) ** 2 + (y / 0.95) ** 2 + (x / 0.8) ** 2 < 1
    grey = (x * y * 20).round() % 2 == 0
    cbf = np.where(grey, 60.0, 25.0) + rng.normal(0, 3, brain.shape)
    att = 1.0 + 0.4 * np.abs(y)
    protocol = [("PCASL", w, DURATION) for w in DELAYS]
    series = simulate(protocol, cbf * brain, att, noise_sd=NOISE)
    mask = torch.from_numpy(brain)
    affine = np.diag([*VOXEL_MM, 1.0])
    series = replace(
        series, mask=mask, delta_m=series.delta_m * mask[:, None], affine=affine, slice_axis=2
    )
    return series, torch.from_numpy(np.stack([grey, ~grey]) * brain).float()


def best(function, repeats):
    """Return the shortest wall and processor times of some calls."""
    wall, busy = [], []
    for _ in range(repeats):
        start, spent = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - spent)
    return min(wall), min(busy)


def fit_by_default(ensemble, series, fractions):
    """Fit as the app does by default."""

    def correct(maps, seen, att_trust):
        return correct_means(maps, seen, seen.voxel_mm, fractions, att_trust)

    return ensemble.fit(series, correct, fractions)


def fit_as_version_6(ensemble, series):
    """Fit by the networks alone, each with two flips."""

    def two_each(members, tta):
        return [TWO_FLIPS[k % 2] for k in range(members)]

    with patch("asl_bids_app.estimators.members.orientations", two_each):
        return ensemble.fit(series)


T1 = 1.65
EFFICIENCY = 0.85


def one_compartment(delay, cbf, att):
    """Tissue alone, all delays at once."""
    start = np.maximum(delay, att)
    grown = np.exp(-start / T1) - np.exp(-(delay + DURATION) / T1)
    return cbf / 6000 * 2 * EFFICIENCY / 0.9 * T1 * np.where(delay + DURATION > att, grown, 0)


def two_compartments(delay, cbf, att, arterial_att, arterial_volume):
    """Tissue and arteries, delay by delay (Woods 2024, doi:10.1002/mrm.30091, eqs. 2 and 4)."""
    signal = np.zeros(len(delay))
    for index, wait in enumerate(delay):
        time_since = wait + DURATION
        if time_since >= att:
            rest = max(time_since - DURATION - att, 0.0)
            grown = 1 - np.exp(-min(time_since - att, DURATION) / T1)
            decay = np.exp(-att / T1) * np.exp(-rest / T1)
            signal[index] += cbf / 6000 / 0.9 * 2 * EFFICIENCY * T1 * decay * grown
        if arterial_att <= time_since < arterial_att + DURATION:
            signal[index] += 2 * EFFICIENCY * arterial_volume * np.exp(-arterial_att / T1) / 0.9
    return signal


CURVE_FITS = {
    "curve_fit, 2 parameters": (one_compartment, (50.0, 1.2), ((0, 0.1), (250, 4))),
    "curve_fit, 4 parameters": (
        two_compartments,
        (60.0, 1.2, 1.0, 0.02),
        ((0, 0, 0, 0), (300, 5, 5, 0.1)),
    ),
}
"""Model, start and bounds."""


def curve_fit_seconds(series, voxels, model, start_at, bounds):
    """Wall seconds that scipy needs for a voxel."""
    data = series.delta_m.permute(0, 2, 3, 1)[series.mask].double().numpy()
    step = len(data) // voxels
    start = time.perf_counter()
    for signal in data[::step][:voxels]:
        with contextlib.suppress(RuntimeError):
            curve_fit(
                model,
                DELAYS,
                signal,
                p0=start_at,
                sigma=np.full(len(DELAYS), NOISE),
                bounds=bounds,
            )
    return (time.perf_counter() - start) / voxels


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="name or folder; the bundled one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--voxels", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    series, fractions = volume()
    brain = int(series.mask.sum())
    ensemble = Ensemble(load_model(options.model), device=options.device)
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "date": date.today().isoformat(),
        "threads": options.threads,
        "brain_voxels": brain,
        "members": len(ensemble.model.members),
    }
    alone = Ensemble(ensemble.model, device=options.device, arterial=False)
    ways = {
        "default": lambda: fit_by_default(ensemble, series, fractions),
        "as version 6": lambda: fit_as_version_6(alone, series),
        "networks alone": lambda: alone.fit(series),
        "voxelwise posterior": lambda: Bayes().fit(series),
        "strong least squares": lambda: LeastSquares().fit(series),
    }
    times = {}
    for name, way in ways.items():
        times[name] = best(way, options.repeats)
        if name == "default":
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found["peak_memory_mb"] = round(most / 1024)
    for name, how in CURVE_FITS.items():
        seconds = curve_fit_seconds(series, options.voxels, *how) * brain
        times[name] = seconds, seconds
    for place, kind in enumerate(("wall seconds", "processor seconds")):
        of_kind = {name: both[place] for name, both in times.items()}
        found[kind] = {name: round(value, 2) for name, value in of_kind.items()}
        found[f"{kind}, times the default"] = {
            name: round(value / of_kind["default"], 2) for name, value in of_kind.items()
        }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
