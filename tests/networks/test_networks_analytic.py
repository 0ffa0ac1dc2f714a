"""The voxelwise posterior against numerical integration that shares no code with it."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from physics import integrated
from slices import PROTOCOLS, maps, measured

from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.grid import PosteriorGrid


def brute_force(protocol, signal, noise, side=301):
    """Mean and sd of CBF, of ATT, their correlation, sd of CBF given ATT: by plain sums.

    The rectangle that is summed over closes in on the posterior round by round; the first
    rounds flatten the density so that they can't miss its top.
    """
    low, high = np.array([-300.0, 0.2]), np.array([400.0, 3.9])
    for flattened in (1e6, 1e5, 1e4, 1e3, 1e2, 10, 1, 1, 1):
        cbf, att = (np.linspace(*ends, side) for ends in zip(low, high, strict=True))
        density = -0.5 * ((cbf[:, None] - 45) / 45) ** 2 - 0.5 * ((att[None] - 1.3) / 0.8) ** 2
        for measurement, value in zip(protocol, signal, strict=True):
            curve = integrated(*measurement, att)
            density = density - 0.5 * ((value - cbf[:, None] * curve) / noise) ** 2
        density = np.exp((density - density.max()) / flattened)
        there = [np.flatnonzero((density > 1e-9).any(axis)) for axis in (1, 0)]
        axes = (cbf, att)
        low = np.array([a[max(i[0] - 1, 0)] for a, i in zip(axes, there, strict=True)])
        high = np.array([a[min(i[-1] + 1, side - 1)] for a, i in zip(axes, there, strict=True)])
    weight = density / density.sum()
    cbf_mean, att_mean = (weight.sum(1) * cbf).sum(), (weight.sum(0) * att).sum()
    cbf_off, att_off = cbf - cbf_mean, att - att_mean
    cbf_sd = np.sqrt((weight.sum(1) * cbf_off**2).sum())
    att_sd = np.sqrt((weight.sum(0) * att_off**2).sum())
    both = (weight * cbf_off[:, None] * att_off[None]).sum()
    given = (weight * cbf[:, None]).sum(0) / np.maximum(weight.sum(0), 1e-300)
    within = np.sqrt((weight * (cbf[:, None] - given) ** 2).sum())
    return cbf_mean, cbf_sd, att_mean, att_sd, both / cbf_sd / att_sd, within


@pytest.mark.parametrize(
    ("name", "snr"),
    [
        ("joint", 3),
        ("joint", 30),
        ("joint", 1000),
        ("pcasl", 10),
        ("pcasl", 300),
        ("pasl", 5),
        ("pasl", 60),
        ("single", 5),
    ],
)
def test_posterior_is_the_integral(name, snr):
    protocol = PROTOCOLS[name]
    rng = np.random.default_rng(snr)
    cbf, att = rng.uniform(10, 110, (1, 1, 3)), rng.uniform(0.4, 2.6, (1, 1, 3))
    observation = measured(protocol, cbf, att, np.ones((1, 1, 3), bool), snr, seed=snr)
    found = voxel_posterior(observation)
    for voxel in range(3):
        signal = observation.delta_m[0, :, 0, voxel].double().numpy()
        truth = brute_force(protocol, signal, 0.007 / snr)
        cbf_mean, cbf_sd, att_mean, att_sd, correlation, within = (
            float(getattr(found, f)[0, 0, voxel])
            for f in ("cbf", "cbf_sd", "att", "att_sd", "correlation", "cbf_noise_sd")
        )
        # At a signal-to-noise ratio of 1000 the sd of ATT is less than a millisecond.
        slack = 0.5 if snr == 1000 else 0.1
        assert abs(cbf_mean - truth[0]) < slack * truth[1]
        assert abs(att_mean - truth[2]) < max(slack * truth[3], 1e-6)
        assert cbf_sd == pytest.approx(truth[1], rel=0.03)
        assert att_sd == pytest.approx(truth[3], rel=0.25 if snr == 1000 else 0.04)
        assert abs(correlation - truth[4]) < (0.2 if snr == 1000 else 0.03)
        assert within == pytest.approx(truth[5], rel=0.03)


def test_posterior_covers_the_truth():
    """Drawn from its own prior, truth lies within the sds that the posterior states."""
    rng = np.random.default_rng(1)
    shape = (1, 40, 60)
    cbf = rng.normal(45, 45, shape)
    att = rng.normal(1.3, 0.8, (20, *shape))
    att = np.take_along_axis(att, ((att > 0.2) & (att < 3.9)).argmax(0)[None], 0)[0]
    observation = measured(PROTOCOLS["pcasl"], cbf, att, np.ones(shape, bool), 8, seed=2)
    found = voxel_posterior(observation)
    for mean, sd, truth in ((found.cbf, found.cbf_sd, cbf), (found.att, found.att_sd, att)):
        z = (torch.tensor(truth) - mean) / sd
        assert z.square().mean() == pytest.approx(1, abs=0.1)
        assert z.mean() == pytest.approx(0, abs=0.07)


def test_bins_are_probabilities_of_their_ranges():
    cbf, att, mask = maps((1, 12, 12))
    observation = measured(PROTOCOLS["joint"], cbf, np.full_like(att, 1.4), mask, 60)
    found = voxel_posterior(observation)
    inside = observation.mask[0]
    assert torch.allclose(found.att_bins[0].sum(0)[inside], torch.ones(int(inside.sum())))
    ends = PosteriorGrid().att.reshape(16, 4)
    holding = int(((ends[:, 0] <= 1.4) & (ends[:, -1] >= 1.4)).nonzero()[0])
    assert bool((found.att_bins[0, holding - 1 : holding + 2].sum(0)[inside] > 0.95).all())


def test_residual_tells_which_scheme_measures_more():
    cbf, att, mask = maps((1, 12, 12))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 40)
    more = observation.delta_m.clone()
    more[:, 6:] *= 1.2
    found = voxel_posterior(replace(observation, delta_m=more))
    continuous, pulsed, selective = found.residual[0][:, observation.mask[0]].mean(1)
    assert selective > 0.05
    assert continuous < -0.02
    assert pulsed == 0


def test_single_and_double_precision_agree():
    cbf, att, mask = maps((2, 12, 12))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 15)
    floating = {
        f.name: getattr(observation, f.name).double()
        for f in fields(observation)
        if getattr(observation, f.name).is_floating_point()
    }
    single, double = (
        voxel_posterior(each) for each in (observation, replace(observation, **floating))
    )
    inside = observation.mask
    error = ((single.cbf - double.cbf).abs() / double.cbf_sd)[inside]
    assert float(error.max()) < 0.01
    assert torch.allclose(single.att_sd[inside], double.att_sd[inside].float(), rtol=0.01)


def test_no_information_leaves_the_prior():
    cbf, att, mask = maps((1, 8, 8))
    observation = measured(PROTOCOLS["pcasl"], cbf, att, mask, 10)
    found = voxel_posterior(
        replace(observation, noise_sd=torch.full_like(observation.noise_sd, torch.inf))
    )
    inside = observation.mask
    assert torch.allclose(found.cbf[inside], torch.tensor(45.0))
    assert torch.allclose(found.cbf_sd[inside], torch.tensor(45.0))
    assert torch.equal(found.cbf[~inside], torch.zeros(int((~inside).sum())))


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e3])
def test_extreme_noise_stays_finite(noise):
    cbf, att, mask = maps((1, 8, 8))
    observation = measured(PROTOCOLS["joint"], cbf, att, mask, 20)
    found = voxel_posterior(
        replace(observation, noise_sd=torch.full_like(observation.noise_sd, noise))
    )
    assert all(bool(torch.isfinite(getattr(found, f.name)).all()) for f in fields(found))


@pytest.mark.parametrize(
    "wrong", [{"points": 65}, {"att_min": 0.0}, {"att_max": 0.1}, {"cbf_sd": 0.0}]
)
def test_wrong_grids_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        PosteriorGrid(**wrong)
