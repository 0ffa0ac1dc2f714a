"""An artery beside the tissue in least squares and the posterior.

Truth: `scipy.optimize.nnls` at every pair of arrival times, and simulated voxels whose tissue is
made by quadrature and whose artery is written out.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from slices import PROTOCOLS, maps, measured, series_of

from asl_bids_app.estimators.arteries import CRITERION, fit_arteries
from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.bayes import Bayes
from asl_bids_app.estimators.least_squares import LeastSquares

EARLY = [("PCASL", w, 1.4) for w in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)]
SNR = 10


def artery(delay, duration, volume, arrival):
    """ΔM/M0 of an artery of PCASL with edges of 0.08 s: 2 α v / λ e^(-a / T1b) while it fills."""
    first, last = (arrival - delay) / 0.08, (delay + duration - arrival) / 0.08
    there = (1 - 1 / (1 + np.exp(2 * first))) * (1 - 1 / (1 + np.exp(2 * last)))
    return 2 * 0.85 / 0.9 * volume * np.exp(-arrival / 1.65) * there


@pytest.fixture(scope="module")
def scene():
    """A series with an artery in a seventh of its voxels, and what is true of it."""
    rng = np.random.default_rng(5)
    cbf, att, mask = maps((2, 28, 28))
    att = np.clip(att, 0.8, 1.6)
    series = series_of(EARLY, cbf, att, mask, SNR)
    volume = (
        np.where(rng.random(mask.shape) < 0.15, rng.uniform(0.008, 0.03, mask.shape), 0) * mask
    )
    arrival = np.minimum(rng.uniform(0.35, 0.9, mask.shape), att - 0.15)
    beside = np.stack([artery(w, d, volume, arrival) for _, w, d in EARLY], 1)
    shown = replace(series, delta_m=series.delta_m + torch.tensor(beside).float())
    return shown, {"cbf": cbf, "att": att, "volume": volume, "arrival": arrival, "mask": mask}


def test_every_pair_of_times_is_a_non_negative_problem():
    cbf, att, mask = maps((1, 12, 12), seed=2)
    observation = measured(EARLY, cbf, att, mask, 6)
    noise = float(observation.noise_sd.flatten()[0])
    rng = np.random.default_rng(0)
    found = fit_arteries(observation)
    for row, column in rng.permutation(np.argwhere(mask[0]))[:12]:
        data = observation.delta_m[0, :, row, column].double().numpy() / noise
        tissue_at, artery_at = np.linspace(0.1, 3.5, 35), np.linspace(0.1, 1.5, 15)
        tissue = observation.response(torch.tensor(tissue_at)[None])[0].double().numpy() / noise
        vessels = np.stack([[artery(w, d, 1, a) for a in artery_at] for _, w, d in EARLY]) / noise
        alone = min(nnls(tissue[:, [g]], data)[1] for g in range(len(tissue_at)))
        pairs = [
            nnls(np.stack([tissue[:, g], vessels[:, k]], 1), data)[1]
            for g in range(len(tissue_at))
            for k in range(len(artery_at))
            if artery_at[k] < tissue_at[g]
        ]
        gain = alone**2 - min(pairs) ** 2
        # Near the criterion the fine grid decides.
        if gain > 1.3 * CRITERION or gain < 0.4 * CRITERION:
            assert bool(found.found[0, row, column]) == (gain > CRITERION)


@pytest.mark.parametrize("estimator", [LeastSquares, Bayes])
def test_arteries_are_fitted_beside_the_tissue(scene, estimator):
    series, truth = scene
    there = truth["volume"] > 0.01
    found, without = estimator().fit(series), estimator(arterial=False).fit(series)
    flagged = (found.flags.numpy() & int(Flag.ARTERY)) > 0
    assert flagged[there].mean() > 0.7
    assert flagged[truth["mask"] & (truth["volume"] == 0)].mean() < 0.01

    def off(answer, name):
        return np.abs(getattr(answer, name).numpy() - truth[name])[there].mean()

    assert off(found, "cbf") < 0.6 * off(without, "cbf")
    assert off(found, "att") < 0.75 * off(without, "att")
    volume = found.abv.numpy() / 100
    error = np.abs(volume - truth["volume"])[there]
    assert np.median(error) < 0.25 * truth["volume"][there].mean()
    inside = np.abs(volume - truth["volume"]) < 1.96 * found.abv_sd.numpy() / 100 + 0.2 * volume
    assert inside[there & flagged].mean() > 0.85
    assert without.abv is None
    # The residual is what neither tissue nor artery explains.
    assert float(found.residual.square().mean()) < 0.8 * float(without.residual.square().mean())


@pytest.mark.parametrize("estimator", [LeastSquares, Bayes])
def test_no_artery_where_none_can_be_seen(scene, estimator):
    series, _ = scene
    crushed = replace(series.protocol, vascular_crushing=(True,) * len(EARLY))
    assert estimator().fit(replace(series, protocol=crushed)).abv is None
    cbf, att, mask = maps((1, 12, 12))
    single = series_of(PROTOCOLS["single"], cbf, att, mask, SNR)
    assert estimator().fit(single).abv is None
    early = series_of([("PCASL", 0.3, 1.4)], cbf, att, mask, SNR)
    assert estimator().fit(early).abv is None, "one delay tells no artery from flow"


def test_no_volume_is_larger_than_what_a_voxel_can_hold(scene):
    """Noise at the edges of the label, where an artery has next to no signal."""
    series, truth = scene
    rng = np.random.default_rng(2)
    noise = torch.tensor(0.004 * rng.standard_normal(series.delta_m.shape)).float()
    noisy = replace(series, delta_m=(series.delta_m + noise) * series.mask.unsqueeze(1))
    found = LeastSquares().fit(noisy)
    assert float(found.abv.max()) <= 30
    there = truth["volume"] > 0.01
    assert np.abs(found.abv.numpy() / 100 - truth["volume"])[there].mean() < 0.05
