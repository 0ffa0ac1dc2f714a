"""Seconds from ΔM/M0 in memory to maps: ensemble, voxelwise posterior, least squares, curve_fit.

    python benchmarks/estimator_speed.py [--model DIR] [--threads 2]

A volume of 64x64x24 with 6 delays of PCASL and an elliptic brain of about half the voxels.
`curve_fit` fits a sample of the voxels, one by one from one start, in two ways: the same kinetics
in vectorised numpy (2 parameters), and the two-compartment model of current pipelines, delay by
delay (4 parameters). Its time is scaled up to the brain. Peak memory is that of the process,
interpreter and libraries included, when the ensemble is done.
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

import numpy as np
import torch
from scipy.optimize import curve_fit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from physics import simulate

from asl_bids_app.estimators.bayes import Bayes
from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.models.store import load_model

DELAYS = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
DURATION = 1.4
NOISE = 0.001


def volume():
    """A series of 24 slices, and its truth."""
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 64, 64)), indexing="ij")
    brain = (z / 1.1) ** 2 + (y / 0.95) ** 2 + (x / 0.8) ** 2 < 1
    cbf = np.where((x * y * 20).round() % 2 == 0, 60.0, 25.0) + rng.normal(0, 3, brain.shape)
    att = 1.0 + 0.4 * np.abs(y)
    protocol = [("PCASL", w, DURATION) for w in DELAYS]
    series = simulate(protocol, cbf * brain, att, noise_sd=NOISE)
    mask = torch.from_numpy(brain)
    return replace(series, mask=mask, delta_m=series.delta_m * mask[:, None])


def best(function, repeats):
    """Shortest wall time of some calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


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
    series = volume()
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
    seconds = {"ensemble, flips": best(lambda: ensemble.fit(series), options.repeats)}
    found["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    plain = Ensemble(ensemble.model, tta=False, device=options.device)
    seconds["ensemble, no flips"] = best(lambda: plain.fit(series), options.repeats)
    seconds["voxelwise posterior"] = best(lambda: Bayes().fit(series), options.repeats)
    seconds["strong least squares"] = best(lambda: LeastSquares().fit(series), options.repeats)
    for name, how in CURVE_FITS.items():
        seconds[name] = curve_fit_seconds(series, options.voxels, *how) * brain
    fastest = seconds["ensemble, flips"]
    found["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    found["times the ensemble"] = {n: round(value / fastest, 2) for n, value in seconds.items()}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
