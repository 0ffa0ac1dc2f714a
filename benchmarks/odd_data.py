"""Errors of the bundled model on data unlike the usual: delays, labels, grids, odd voxels.

    python benchmarks/odd_data.py [--model NAME|DIR] [--snr 5 20] [--output FILE.json]

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
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from asl_bids_app.estimators.ensemble import Ensemble
from asl_bids_app.estimators.members import ANSWERS
from asl_bids_app.models.store import load_model
from asl_bids_app.models.uncertainty import calibrated_sds
from asl_bids_app.schemes import Scheme
from asl_bids_app.training.config.domain_config import DomainConfig
from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.fit.training_run import environment
from asl_bids_app.training.phantoms.drawing import concatenate, draw
from asl_bids_app.training.phantoms.tissue_codes import FLUID
from asl_bids_app.training.simulate.physics import draw_calibration
from asl_bids_app.training.simulate.schedules import PROTOCOLS, make_protocol, repeat_protocol
from asl_bids_app.training.simulate.simulation import simulate
from asl_bids_app.training.validate import baselines
from asl_bids_app.training.validate.baselines import Maps
from asl_bids_app.training.validate.scenarios import Scenario
from asl_bids_app.training.validate.trials import QUANTITIES, dilate, flat
from asl_bids_app.training.validate.voxel_errors import GROUPS, compare

SEED = 90210
BATCH = 8


def even(count, first=0.5, last=3.0):
    """Delays in seconds."""
    return np.linspace(first, last, count).round(3).tolist()


PCASL6 = PROTOCOLS["pcasl 6"]
INF = float("inf")
ACQUISITIONS = {
    "PCASL, 1 delay (1.8 s)": make_protocol(Scheme.PCASL, [1.8], 1.8),
    "PCASL, 2 delays": make_protocol(Scheme.PCASL, [1.0, 2.0], 1.8),
    "PCASL, 3 delays": make_protocol(Scheme.PCASL, [1.0, 1.75, 2.5], 1.8),
    "PCASL, 4 delays": make_protocol(Scheme.PCASL, even(4), 1.8),
    "PCASL, 6 delays": PCASL6,
    "PCASL, 8 delays": make_protocol(Scheme.PCASL, even(8), 1.8),
    "PCASL, 12 delays": make_protocol(Scheme.PCASL, even(12), 1.8),
    "PCASL, 6 delays, labels of 0.8 s": make_protocol(Scheme.PCASL, even(6), 0.8),
    "PCASL, 6 delays, labels of 3.6 s": make_protocol(Scheme.PCASL, even(6), 3.6),
    "PCASL, 6 labels of 0.5 to 3 s, no delay": make_protocol(Scheme.PCASL, [0.1] * 6, even(6)),
    "PCASL, 6 delays, last slice 1.2 s later": make_protocol(Scheme.PCASL, even(6, 1.7, 4.2), 1.8),
    "PCASL, time-encoded, 7 labels of 0.5 s": make_protocol(
        Scheme.PCASL, [0.1 + 0.5 * k for k in range(7)], 0.5
    ),
    "PCASL, time-encoded, 7 labels of 0.2 to 1.9 s": make_protocol(
        Scheme.PCASL,
        [0.1, 2.0, 2.7, 3.1, 3.4, 3.65, 3.85],
        [1.9, 0.7, 0.4, 0.3, 0.25, 0.2, 0.2],
    ),
    "CASL, 5 delays": make_protocol(Scheme.CASL, even(5), 2.0),
    "PASL, 3 delays": make_protocol(Scheme.PASL, [0.8, 1.6, 2.4], 0.7),
    "PASL, 12 delays": make_protocol(Scheme.PASL, even(12, 0.3, 3.0), 0.7),
    "VSASL, 1 delay (1.8 s)": make_protocol(Scheme.VSASL, [1.8], 1.4),
    "VSASL, 3 delays": make_protocol(Scheme.VSASL, [1.0, 1.75, 2.5], 1.4),
    "joint PCASL + VSASL, 1 delay each": make_protocol(Scheme.PCASL, [1.8], 1.8)
    + make_protocol(Scheme.VSASL, [1.8], 1.4),
    "joint PCASL + VSASL, 12 delays each": make_protocol(Scheme.PCASL, even(12), 1.8)
    + make_protocol(Scheme.VSASL, even(12), INF),
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


def phantoms_of(count, size=64, voxel=None):
    """Half of them of anatomy that was held back from training."""
    config = PhantomConfig(size=size, slices=3)
    if voxel:
        config = replace(config, voxel_size=(voxel, voxel))
    usual = draw(config, count // 2, SEED)
    rest = count - usual.count
    return concatenate([usual, draw(replace(config, held_out=True), rest, SEED + 1)])


@dataclass(frozen=True)
class Found:
    """Voxels of the masks in a row: maps by method, the truth, tissue codes, and places."""

    maps: dict
    truth: dict
    tissue: np.ndarray
    places: dict


def estimates(ensemble, phantoms, protocol, snr):
    """Simulate phantoms with the calibration known and thermal noise, and estimate them."""
    known = Scenario("calibration known", "random")
    noise = known.noise(NoiseConfig(), snr)
    table = ensemble.model.spec.calibration[ensemble.error_bars]
    generator, unused = torch.Generator().manual_seed(SEED), torch.Generator()
    parts = []
    for begin in range(0, phantoms.count, BATCH):
        part = phantoms.pick(slice(begin, begin + BATCH))
        schedule = repeat_protocol(protocol, part.count)
        physics = draw_calibration(schedule, known.domain(DomainConfig()), unused)
        batch = simulate(part, physics, noise, generator)
        asked = batch.asked
        part, seen = part[asked], batch.observation[asked]
        mask = seen.mask
        answer = ensemble.estimate(batch.observation, asked)
        answer = dict(zip(ANSWERS, answer, strict=True))
        methods = {
            baselines.NETWORK: Maps(answer["cbf"], answer["att"], *calibrated_sds(table, answer)),
            baselines.STRONG: baselines.strong(seen),
            baselines.POSTERIOR: baselines.posterior(seen),
        }
        parts.append(
            Found(
                {name: flat(maps, mask) for name, maps in methods.items()},
                {q: getattr(part, q)[mask].numpy() for q in QUANTITIES},
                part.tissue[mask].numpy(),
                {
                    "edge": dilate(~mask)[mask].numpy(),
                    "fluid": dilate(part.tissue == FLUID)[mask].numpy(),
                },
            )
        )
    return Found(*(joined([getattr(part, f.name) for part in parts]) for f in fields(Found)))


def joined(parts):
    """Put arrays, or dictionaries of them, behind each other."""
    if isinstance(parts[0], dict):
        return {key: joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def row(found, chosen):
    """Errors of some voxels by method and quantity; ATT in ms."""
    table = compare(found.maps, found.truth, chosen, ())
    kept = ("n", "mae", "bias", "coverage_68", "coverage_95")
    return {
        method: {q: {key: round(each[q][key], 4) for key in kept} for q in QUANTITIES}
        for method, each in table.items()
    }


def tissue_of(found):
    """Voxels of all tissue but fluid."""
    return GROUPS["tissue"](found.tissue)


def between(found, name, low, high):
    """Voxels of tissue whose truth lies between two numbers."""
    truth = found.truth[name]
    return tissue_of(found) & (truth >= low) & (truth < high)


def inside(found, name):
    """Voxels of tissue at a place."""
    return tissue_of(found) & found.places[name]


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
    "beside ventricles and sulci": partial(inside, name="fluid"),
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
        for name, protocol in ACQUISITIONS.items():
            found = estimates(ensemble, usual, protocol, snr)
            tables["acquisitions"][name] = row(found, tissue_of(found))
            if protocol is PCASL6:
                for kind, choose in VOXELS.items():
                    tables["voxels"][kind] = row(found, choose(found))
        for name, (size, voxel) in GRIDS.items():
            phantoms = phantoms_of(options.phantoms, size, voxel)
            found = estimates(ensemble, phantoms, PCASL6, snr)
            tables["grids"][name] = row(found, tissue_of(found))
        found = estimates(ensemble, usual.alone(), PCASL6, snr)
        tables["grids"]["a single slice, none beside it"] = row(found, tissue_of(found))
        for rows in tables.values():
            for name, numbers in rows.items():
                sys.stdout.write(f"SNR {snr:g}, {name}: {json.dumps(numbers)}\n")
                sys.stdout.flush()
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
