"""The voxelwise posterior as an estimator of a series."""

import numpy as np
import pytest
import torch
from slices import PROTOCOLS, maps, series_of

from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.bayes import Bayes, prior_att_sd
from asl_bids_app.estimators.least_squares import LeastSquares
from asl_bids_app.networks.grid import PosteriorGrid


def test_recovers_the_truth_within_its_error_bars():
    cbf, att, mask = maps((3, 24, 24))
    series = series_of(PROTOCOLS["joint"], cbf, att, mask, 20, slice_step=0.05)
    found = Bayes().fit(series)
    assert found.estimator == "bayes"
    for mean, sd, truth in ((found.cbf, found.cbf_sd, cbf), (found.att, found.att_sd, att)):
        z = ((mean - torch.tensor(truth)) / sd)[series.mask]
        assert float(z.square().mean()) == pytest.approx(1, abs=0.35)
        assert float(z.mean()) == pytest.approx(0, abs=0.15)
    assert not bool(found.cbf[~series.mask].any())
    assert not bool((found.flags & ~int(Flag.ARTERY)).any())
    artery = (found.flags[series.mask] & int(Flag.ARTERY)) > 0
    assert float(artery.float().mean()) < 0.02, "there is none"


def test_beats_least_squares_where_noise_is_high():
    cbf, att, mask = maps((3, 24, 24))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 4)
    truth = torch.tensor(cbf)
    errors = [
        float((estimator.fit(series).cbf - truth)[series.mask].abs().mean())
        for estimator in (Bayes(), LeastSquares())
    ]
    assert errors[0] < errors[1]


def test_single_delay_says_that_att_is_the_priors():
    cbf, att, mask = maps((2, 20, 20))
    series = series_of(PROTOCOLS["single"], cbf, np.full_like(att, 1.2), mask, 20)
    found = Bayes().fit(series)
    inside = series.mask
    assert float((found.flags[inside] & int(Flag.ATT_UNIDENTIFIABLE) > 0).float().mean()) > 0.9
    assert float(found.att_sd[inside].mean()) > 0.8 * prior_att_sd(PosteriorGrid())
    # One delay after arrival gives CBF all the same, wide enough to hold the truth.
    z = ((found.cbf - torch.tensor(cbf)) / found.cbf_sd)[inside]
    assert float((z.abs() < 2).float().mean()) > 0.9


def test_prior_sd_of_att_by_quadrature():
    att = np.linspace(0.2, 3.9, 20001)
    density = np.exp(-0.5 * ((att - 1.3) / 0.8) ** 2)
    mean = (density * att).sum() / density.sum()
    sd = np.sqrt((density * (att - mean) ** 2).sum() / density.sum())
    assert prior_att_sd(PosteriorGrid()) == pytest.approx(sd, rel=0.01)


def test_a_signal_of_zero_is_a_measurement():
    """As certain as its neighbours of other values, and no gap between them."""
    cbf, att, mask = maps((2, 16, 16))
    series = series_of(PROTOCOLS["joint"], cbf, att, mask, 20)
    series.delta_m[0, :, 8, 8] = 0
    found = Bayes().fit(series)
    assert not bool((found.flags & int(Flag.FAILED)).any())
    assert abs(float(found.cbf[0, 8, 8])) < 3 * float(found.cbf_sd[0, 8, 8]) < 30
    assert float(found.att_sd[0, 8, 8]) == pytest.approx(prior_att_sd(PosteriorGrid()), rel=0.1)


def test_voxels_without_a_noise_are_flagged_and_hold_the_prior(monkeypatch):
    from asl_bids_app.estimators import bayes

    cbf, att, mask = maps((2, 16, 16))
    series = series_of(PROTOCOLS["joint"], cbf, att, mask, 20)
    noise = bayes.noise_level(series)
    noise[0, :, 8, 8] = torch.inf
    noise[0, :, 8, 9] = torch.nan
    monkeypatch.setattr(bayes, "noise_level", lambda _: noise)
    found = Bayes().fit(series)
    for column in (8, 9):
        assert int(found.flags[0, 8, column]) == int(Flag.FAILED)
        assert float(found.cbf[0, 8, column]) == 0
        assert float(found.cbf_sd[0, 8, column]) == pytest.approx(45)
    sd = prior_att_sd(PosteriorGrid())
    assert float(found.att_sd[0, 8, 8]) == pytest.approx(sd, rel=5e-3)


def test_residual_is_measured_minus_predicted():
    cbf, att, mask = maps((2, 16, 16))
    series = series_of(PROTOCOLS["pcasl"], cbf, att, mask, 20)
    found = Bayes().fit(series)
    assert found.residual.shape == series.delta_m.shape
    inside = series.mask.unsqueeze(1).expand_as(found.residual)
    assert float(found.residual[inside].std()) == pytest.approx(0.007 / 20, rel=0.25)


def test_late_arrival_is_flagged_at_the_bound():
    cbf, att, mask = maps((2, 16, 16))
    series = series_of(PROTOCOLS["joint"], cbf + 40, np.full_like(att, 4.3), mask, 60)
    found = Bayes().fit(series)
    at_bound = (found.flags[series.mask] & int(Flag.ATT_AT_BOUND)) > 0
    assert float(at_bound.float().mean()) > 0.5
