"""Errors of the bundled model on data unlike the usual: delays, labels, grids, odd voxels.

    python tests/benchmarks/odd_data.py [--model NAME|DIR] [--snr 5 20] [--output FILE.json]

Simulates phantoms of its own (half of them of anatomy held back from training), with the
calibration known and thermal noise only: acquisitions from one to twelve delays and of unusual
labels, voxels of 2 to 8 mm in grids of 32 to 128, and, for PCASL of 6 delays, voxels by their true
CBF and ATT and by their place. Errors are means over tissue (no fluid), beside those of strong
least squares and the voxelwise posterior. Prints a line each; ``docs/generate.py`` makes tables of
``docs/odd_data.json``.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from asl_bids_app.calibration import PARTITION_COEFFICIENT, T1_BLOOD
from asl_bids_app.estimators.ensemble import ANSWERS, Ensemble
from asl_bids_app.estimators.uncertainty import calibration_factors
from asl_bids_app.models.store import load_model
from asl_bids_app.protocol import SCHEMES, Scheme
from asl_bids_app.training import baselines
from asl_bids_app.training.domain import Kinetics, Physics
from asl_bids_app.training.metrics import GROUPS
from asl_bids_app.training.noise import NoiseConfig
from asl_bids_app.training.phantoms import PhantomConfig, concatenate, draw
from asl_bids_app.training.run_folder import environment
from asl_bids_app.training.simulate import simulate
from asl_bids_app.training.tissues import FLUID

SEED = 90210
BATCH = 8


def even(count, first=0.5, last=3.0):
    """Delays in seconds."""
    return np.linspace(first, last, count).round(3).tolist()


def timed(scheme, delays, durations):
    """Return a list of measurements (scheme, delay, duration in seconds)."""
    if not isinstance(durations, list):
        durations = [durations] * len(delays)
    return [(scheme, *times) for times in zip(delays, durations, strict=True)]


PCASL6 = timed(Scheme.PCASL, even(6), 1.8)
INF = float("inf")
ACQUISITIONS = {
    "PCASL, 1 delay (1.8 s)": timed(Scheme.PCASL, [1.8], 1.8),
    "PCASL, 2 delays": timed(Scheme.PCASL, [1.0, 2.0], 1.8),
    "PCASL, 3 delays": timed(Scheme.PCASL, [1.0, 1.75, 2.5], 1.8),
    "PCASL, 4 delays": timed(Scheme.PCASL, even(4), 1.8),
    "PCASL, 6 delays": PCASL6,
    "PCASL, 8 delays": timed(Scheme.PCASL, even(8), 1.8),
    "PCASL, 12 delays": timed(Scheme.PCASL, even(12), 1.8),
    "PCASL, 6 delays, labels of 0.8 s": timed(Scheme.PCASL, even(6), 0.8),
    "PCASL, 6 delays, labels of 3.6 s": timed(Scheme.PCASL, even(6), 3.6),
    "PCASL, 6 labels of 0.5 to 3 s, no delay": timed(Scheme.PCASL, [0.1] * 6, even(6)),
    "PCASL, 6 delays, last slice 1.2 s later": timed(Scheme.PCASL, even(6, 1.7, 4.2), 1.8),
    "PCASL, time-encoded, 7 labels of 0.5 s": timed(
        Scheme.PCASL, [0.1 + 0.5 * k for k in range(7)], 0.5
    ),
    "PCASL, time-encoded, 7 labels of 0.2 to 1.9 s": timed(
        Scheme.PCASL,
        [0.1, 2.0, 2.7, 3.1, 3.4, 3.65, 3.85],
        [1.9, 0.7, 0.4, 0.3, 0.25, 0.2, 0.2],
    ),
    "CASL, 5 delays": timed(Scheme.CASL, even(5), 2.0),
    "PASL, 3 delays": timed(Scheme.PASL, [0.8, 1.6, 2.4], 0.7),
    "PASL, 12 delays": timed(Scheme.PASL, even(12, 0.3, 3.0), 0.7),
    "VSASL, 1 delay (1.8 s)": timed(Scheme.VSASL, [1.8], 1.4),
    "VSASL, 3 delays": timed(Scheme.VSASL, [1.0, 1.75, 2.5], 1.4),
    "joint PCASL + VSASL, 1 delay each": [(Scheme.PCASL, 1.8, 1.8), (Scheme.VSASL, 1.8, 1.4)],
    "joint PCASL + VSASL, 12 delays each": [
        *timed(Scheme.PCASL, even(12), 1.8),
        *timed(Scheme.VSASL, even(12), INF),
    ],
}
# Side of the slice in voxels, and their size in mm.
GRIDS = {
    "32x32 of 7 mm": (32, 7.0),
    "64x64 of 2 mm": (64, 2.0),
    "64x64 of 3.5 mm": (64, 3.5),
    "64x64 of 8 mm": (64, 8.0),
    "96x96 of 2.5 mm": (96, 2.5),
    "128x128 of 2 mm": (128, 2.0),
}


def physics_of(measurements, n):
    """Default constants of 3 T, known exactly, for n slices."""
    schemes, delays, durations = zip(*measurements, strict=True)

    def rows(values, dtype=torch.float32):
        return torch.tensor(values, dtype=dtype).expand(n, -1)

    t1 = torch.full((n,), T1_BLOOD[3.0][0])
    kinetics = Kinetics(
        rows([int(SCHEMES[s].arrival) for s in schemes], torch.long),
        rows(delays),
        rows(durations),
        rows([SCHEMES[s].labeling_efficiency for s in schemes]),
        t1,
        t1,
        torch.full((n,), PARTITION_COEFFICIENT[0]),
    )
    there = torch.ones(n, len(schemes))
    return Physics(kinetics, kinetics, torch.ones(n), there, there.bool(), torch.zeros(n))


def phantoms_of(count, size=64, voxel=None):
    """Half of them of anatomy that was held back from training."""
    config = PhantomConfig(size=size)
    if voxel:
        config = replace(config, voxel_size=(voxel, voxel))
    if size * (voxel or 4) < 100:
        config = replace(config, smallest_brain=80)
    usual = draw(config, count // 2, SEED)
    return concatenate([usual, draw(replace(config, held_out=True), count - len(usual), SEED + 1)])


def estimates(ensemble, phantoms, measurements, snr):
    """By method the maps of the voxels of the mask, beside the truth and their places."""
    noise = replace(NoiseConfig(), snr=(snr, snr), thermal_chance=1.0)
    table = ensemble.model.spec.calibration["noise"]
    generator = torch.Generator().manual_seed(SEED)
    found = {}
    for begin in range(0, len(phantoms), BATCH):
        part = phantoms[begin : begin + BATCH]
        batch = simulate(part, physics_of(measurements, len(part)), noise, generator)
        mask = batch.mask
        answer = dict(zip(ANSWERS, ensemble.estimate(batch.observation), strict=True))
        factors = calibration_factors(table, answer)
        network = {
            "cbf": answer["cbf"],
            "att": answer["att"],
            "cbf_sd": answer["cbf_sd"] * factors[0],
            "att_sd": answer["att_sd"] * factors[1],
        }
        strong, alone = (f(batch.observation) for f in (baselines.strong, baselines.posterior))
        maps = {
            **{f"network {k}": v for k, v in network.items()},
            **{f"ls {k}": getattr(strong, k) for k in ("cbf", "att")},
            **{f"posterior {k}": getattr(alone, k) for k in ("cbf", "att")},
            "cbf": part.cbf,
            "att": part.att,
            "tissue": part.tissue,
            "edge": near(~mask),
            "beside fluid": near(part.tissue == FLUID),
        }
        for name, values in maps.items():
            found.setdefault(name, []).append(values[mask].numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def near(where):
    """Tell which voxels lie beside (or in) others."""
    return functional.max_pool2d(where.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0


def row(found, chosen):
    """Numbers of a table's row; ATT in ms."""
    numbers = {"voxels": int(chosen.sum())}
    if not numbers["voxels"]:
        return numbers
    for name, unit in (("cbf", 1.0), ("att", 1000.0)):
        truth = found[name][chosen]
        off = {
            m: (found[f"{m} {name}"][chosen] - truth) * unit
            for m in ("network", "ls", "posterior")
        }
        numbers[name] = {
            "mae": {m: round(float(np.abs(e).mean()), 3) for m, e in off.items()},
            "bias": {m: round(float(e.mean()), 3) for m, e in off.items()},
        }
        sd = found[f"network {name}_sd"][chosen] * unit
        within = [float((np.abs(off["network"]) <= z * sd).mean()) for z in (1.0, 1.959964)]
        numbers[name]["within"] = [round(share, 4) for share in within]
    return numbers


def tissue_of(found):
    """Voxels of all tissue but fluid."""
    return GROUPS["tissue"](found["tissue"])


def between(found, name, low, high):
    """Voxels of tissue whose truth lies between two numbers."""
    return tissue_of(found) & (found[name] >= low) & (found[name] < high)


def inside(found, name):
    """Voxels of tissue at a place."""
    return tissue_of(found) & found[name]


VOXELS = {
    "CBF below 15": partial(between, name="cbf", low=0, high=15),
    "CBF 15 to 40": partial(between, name="cbf", low=15, high=40),
    "CBF 40 to 80": partial(between, name="cbf", low=40, high=80),
    "CBF above 80": partial(between, name="cbf", low=80, high=INF),
    "ATT below 0.7 s": partial(between, name="att", low=0, high=0.7),
    "ATT 0.7 to 1.5 s": partial(between, name="att", low=0.7, high=1.5),
    "ATT 1.5 to 2.2 s": partial(between, name="att", low=1.5, high=2.2),
    "ATT above 2.2 s": partial(between, name="att", low=2.2, high=INF),
    "at the brain's edge": partial(inside, name="edge"),
    "beside ventricles and sulci": partial(inside, name="beside fluid"),
}


def main():
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--snr", type=float, nargs="+", default=[5, 20])
    parser.add_argument("--phantoms", type=int, default=32)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = load_model(options.model)
    ensemble = Ensemble(model, device="cpu", error_bars="noise")
    report = {
        "environment": environment(),
        "model": f"{model.spec.name} {model.spec.version}",
        "phantoms": options.phantoms,
        "snr": {},
    }
    usual = phantoms_of(options.phantoms)
    for snr in options.snr:
        tables = report["snr"][f"{snr:g}"] = {"acquisitions": {}, "grids": {}, "voxels": {}}
        for name, measurements in ACQUISITIONS.items():
            found = estimates(ensemble, usual, measurements, snr)
            tables["acquisitions"][name] = row(found, tissue_of(found))
            if measurements is PCASL6:
                for kind, choose in VOXELS.items():
                    tables["voxels"][kind] = row(found, choose(found))
        for name, (size, voxel) in GRIDS.items():
            phantoms = phantoms_of(options.phantoms, size, voxel)
            found = estimates(ensemble, phantoms, PCASL6, snr)
            tables["grids"][name] = row(found, tissue_of(found))
        for rows in tables.values():
            for name, numbers in rows.items():
                sys.stdout.write(f"SNR {snr:g}, {name}: {json.dumps(numbers)}\n")
                sys.stdout.flush()
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
