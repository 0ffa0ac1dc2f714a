"""Small simulated slices for the tests of networks and estimators; physics by quadrature."""

import numpy as np
import torch
from physics import ALPHA, integrated, simulate
from scipy import ndimage

from asl_bids_app.observation import Observation
from asl_bids_app.schemes import SCHEMES, Scheme

SIX = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
PROTOCOLS = {
    "joint": [("PCASL", w, 1.8) for w in SIX] + [("VSASL", w, np.inf) for w in SIX],
    "pcasl": [("PCASL", w, 1.8) for w in SIX],
    "pasl": [("PASL", 0.3 * (i + 1), 0.7) for i in range(10)],
    "single": [("PCASL", 1.8, 1.8)],
}


def maps(shape, seed=0):
    """CBF and ATT in blocks of 4x4 voxels, and an ellipse of a brain; each `shape`."""
    rng = np.random.default_rng(seed)
    coarse = (shape[0], -(-shape[1] // 4), -(-shape[2] // 4))

    def blocks(low, high):
        values = rng.uniform(low, high, coarse).repeat(4, 1).repeat(4, 2)
        return values[:, : shape[1], : shape[2]]

    y, x = (np.linspace(-1, 1, n) for n in shape[1:])
    mask = np.broadcast_to((y[:, None] ** 2 + x[None] ** 2) < 0.9, shape)
    return blocks(15, 90), blocks(0.5, 2.2), mask.copy()


def ribbons(shape=(8, 32, 32), seed=3):
    """Fractions of grey and white matter in folds, and a round brain."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal([2 * n for n in shape]), 3)
    field /= field.std()
    white, grey = field > 0.35, (field <= 0.35) & (field > -0.7)
    pool = [n for size in shape for n in (size, 2)]
    fractions = np.stack([part.reshape(pool).mean((1, 3, 5)) for part in (grey, white)])
    y, x = (np.linspace(-1, 1, n) for n in shape[1:])
    mask = np.broadcast_to((y[:, None] ** 2 + x[None] ** 2) < 0.95, shape).copy()
    return fractions, mask


def measured(protocol, cbf, att, mask, snr, seed=0):
    """Observation of maps (B, H, W); SNR is 0.7 % of M0 over the noise."""
    rng = np.random.default_rng(seed)
    curves = [integrated(*m, att) for m in protocol]
    signal = np.stack([cbf * curve for curve in curves], 1)
    noise = 0.007 / snr
    signal = (signal + noise * rng.standard_normal(signal.shape)) * mask[:, None]
    batch, n = signal.shape[:2]

    def rows(values):
        return torch.tensor(values, dtype=torch.float32).expand(batch, n).clone()

    def each(value):
        return torch.full((batch,), value)

    codes = torch.tensor([int(SCHEMES[Scheme(s)].arrival) for s, *_ in protocol])
    return Observation(
        torch.tensor(signal, dtype=torch.float32),
        torch.full(signal.shape, noise, dtype=torch.float32),
        torch.tensor(mask),
        codes.expand(batch, n).clone(),
        rows([w for _, w, _ in protocol]),
        rows([d for *_, d in protocol]),
        rows([ALPHA[s] for s, *_ in protocol]),
        each(1.65),
        each(1.65),
        each(0.9),
        each(1.0),
        torch.arange(batch),
        torch.ones(batch, n),
        torch.zeros(batch, 3, *signal.shape[2:]),
    )


def series_of(protocol, cbf, att, mask, snr, seed=0, **rest):
    """A series of maps (S, H, W), zero outside the mask."""
    from dataclasses import replace

    made = simulate(protocol, cbf, att, noise_sd=0.007 / snr, seed=seed, **rest)
    inside = torch.tensor(mask)
    return replace(made, mask=inside, delta_m=made.delta_m * inside[:, None])
