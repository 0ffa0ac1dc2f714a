"""Independent physics for tests: the general kinetic model by plain numpy quadrature.

Nothing here imports the package's own kinetics.
"""

import numpy as np
import torch

from asl_bids_app.calibration import Calibration
from asl_bids_app.constants import Quantity, Source
from asl_bids_app.protocol import Protocol
from asl_bids_app.schemes import Scheme
from asl_bids_app.series import Series

ALPHA = {"PCASL": 0.85, "CASL": 0.68, "PASL": 0.98, "VSASL": 0.56}


NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
"""Gauss-Legendre's rule on [-1, 1]: exact to 1e-14 for the exponentials below."""


def integrated(scheme, delay, duration, att, t1_blood=1.65, t1_tissue=1.65):
    """ΔM/M0 per mL/100 g/min by quadrature, for an array of ATT (s)."""
    att = np.asarray(att, float)
    continuous = scheme in {"PCASL", "CASL"}
    seen = delay + duration if continuous else delay
    first = np.zeros_like(att) if scheme == "VSASL" else att
    last = np.minimum(seen, np.minimum(att, duration) if scheme == "VSASL" else att + duration)
    half = np.maximum(last - first, 0) / 2
    total = np.zeros_like(att)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        t = first + half * (1 + node)
        age = att if continuous else t
        total += weight * half * np.exp(-age / t1_blood - (seen - t) / t1_tissue)
    return 2 * ALPHA[scheme] / 0.9 / 6000 * total


def calibration(*schemes, t1_blood=1.65, t1_tissue=1.65):
    """A calibration with the constants of `integrated`."""

    def number(value, unit=""):
        return Quantity(value, unit, Source.DEFAULT)

    return Calibration(
        number(t1_blood, "s"),
        number(t1_tissue, "s"),
        number(0.9, "mL/g"),
        {Scheme(s): number(ALPHA[s]) for s in schemes},
        {Scheme(s): number(1.0) for s in schemes},
        number(1.6, "s"),
        number(1.0),
    )


def simulate(measurements, cbf, att, noise_sd=0.0, slice_step=0.0, seed=0, repeats=1, **t1):
    """A series of (scheme, delay, duration) measurements over maps (S, H, W).

    `noise_sd` is that of one pair; with repeats the series carries their standard error.
    """
    cbf, att = np.asarray(cbf, float), np.asarray(att, float)
    slices = len(cbf)
    offsets = np.arange(slices) * slice_step
    signal = np.stack(
        [
            np.stack(
                [
                    cbf[z] * integrated(s, w + offsets[z], d, att[z], **t1)
                    for s, w, d in measurements
                ]
            )
            for z in range(slices)
        ]
    )
    rng = np.random.default_rng(seed)
    pairs = signal + noise_sd * rng.standard_normal((repeats, *signal.shape))
    error = pairs.std(0, ddof=1) / np.sqrt(repeats) if repeats > 1 else None
    schemes = tuple(Scheme(s) for s, _, _ in measurements)
    protocol = Protocol(
        schemes,
        torch.tensor([w for _, w, _ in measurements], dtype=torch.float32),
        torch.tensor([d for *_, d in measurements], dtype=torch.float32),
        torch.tensor(np.repeat(offsets[:, None], len(measurements), 1), dtype=torch.float32),
    )
    return Series(
        protocol,
        calibration(*dict.fromkeys(s for s, _, _ in measurements), **t1),
        torch.tensor(pairs.mean(0), dtype=torch.float32),
        torch.ones(cbf.shape, dtype=torch.bool),
        torch.full((len(measurements),), repeats),
        None if error is None else torch.tensor(error, dtype=torch.float32),
    )
