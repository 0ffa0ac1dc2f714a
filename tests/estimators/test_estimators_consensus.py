"""The consensus formulas, against numbers worked out apart from the package."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import simulate
from slices import PROTOCOLS

from asl_bids_app.estimators.consensus import consensus
from asl_bids_app.series import NoiseEstimate


def one(protocol, value, slice_step=0.0, slices=2, **t1):
    series = simulate([protocol], np.full((slices, 3, 4), 50.0), np.ones((slices, 3, 4)), **t1)
    step = torch.arange(slices)[:, None] * slice_step
    series.protocol.slice_time[:] = step.to(series.protocol.slice_time)
    series.delta_m[:] = value
    return series


def given(series, noise_sd):
    """The series with a noise of our own."""
    return replace(series, noise=NoiseEstimate(noise_sd, {}))


# Written out: T1 of blood 1.65 s, λ 0.9 mL/g, ΔM/M0 0.006, efficiencies of `physics`.
@pytest.mark.parametrize(
    ("protocol", "bolus", "alpha"),
    [
        (("PCASL", 1.8, 1.8), 1.65 * (1 - math.exp(-1.8 / 1.65)), 0.85),
        (("CASL", 1.5, 2.0), 1.65 * (1 - math.exp(-2.0 / 1.65)), 0.68),
        (("PASL", 1.8, 0.7), 0.7, 0.98),
        (("VSASL", 1.5, 1.2), 1.2, 0.56),
        (("VSASL", 1.5, math.inf), 1.5, 0.56),
    ],
)
def test_formulas(protocol, bolus, alpha):
    series = one(protocol, 0.006)
    found = consensus(given(series, torch.full_like(series.delta_m, 0.001)))
    expected = 6000 * 0.9 * 0.006 * math.exp(protocol[1] / 1.65) / (2 * alpha * bolus)
    assert found.cbf.flatten().tolist() == pytest.approx([expected] * 24, rel=1e-5)
    assert found.cbf_sd.flatten().tolist() == pytest.approx([expected / 6] * 24, rel=1e-5)


def test_slice_times_count():
    series = one(("PCASL", 1.8, 1.8), 0.006, slice_step=0.1, slices=4)
    found = consensus(given(series, torch.ones_like(series.delta_m))).cbf[:, 0, 0]
    assert float(found[3] / found[0]) == pytest.approx(math.exp(0.3 / 1.65), rel=1e-5)


def test_sign_is_kept_and_tissue_decay_has_no_say():
    series = one(("PCASL", 1.8, 1.8), -0.006, t1_tissue=1.3)
    found = consensus(given(series, torch.ones_like(series.delta_m))).cbf
    assert float(found.max()) < 0
    other = consensus(one(("PCASL", 1.8, 1.8), 0.006)).cbf
    assert torch.allclose(found, -other)


def test_mean_of_noise_is_zero():
    rng = np.random.default_rng(5)
    series = one(("PCASL", 1.8, 1.8), 0.0, slices=12)
    series.delta_m[:] = torch.tensor(rng.normal(0, 0.01, series.delta_m.shape))
    found = consensus(given(series, torch.full_like(series.delta_m, 0.01)))
    z = found.cbf / found.cbf_sd
    assert float(z.std()) == pytest.approx(1, abs=0.2)
    assert abs(float(z.mean())) < 3 / z.numel() ** 0.5


def test_only_one_delay_and_only_inside_the_mask():
    many = simulate(PROTOCOLS["pcasl"], np.full((1, 3, 4), 50.0), np.ones((1, 3, 4)))
    assert consensus(given(many, torch.ones_like(many.delta_m))) is None
    series = one(("PASL", 1.8, 0.7), 0.006)
    series.mask[:, 1] = False
    found = consensus(given(series, torch.full_like(series.delta_m, torch.inf)))
    assert not bool(found.cbf[:, 1].any())
    assert bool(torch.isfinite(found.cbf_sd).all())
