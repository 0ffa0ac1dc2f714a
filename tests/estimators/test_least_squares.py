"""Least squares against simulated truth made with an independent forward model."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import integrated, simulate

from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.least_squares import LeastSquares, least_squares
from asl_bids_app.observation import observe

INF = float("inf")
PCASL = [("PCASL", w, 1.8) for w in (0.5, 0.9, 1.3, 1.7, 2.1, 2.5)]
PASL = [("PASL", w, 0.8) for w in (0.4, 0.8, 1.2, 1.6, 2.0, 2.6)]
VSASL = [("VSASL", w, INF) for w in (0.5, 0.9, 1.3, 1.7, 2.1, 2.5)]
VSS = [("VSASL", w, 1.2) for w in (0.5, 0.9, 1.3, 1.7, 2.1, 2.5)]
ENCODED = [("PCASL", 0.0, 0.6), ("PCASL", 0.7, 0.9), ("PCASL", 1.6, 1.1), ("PCASL", 2.4, 1.8)]
PROTOCOLS = {
    "pcasl": PCASL,
    "pasl": PASL,
    "vsasl": VSASL,
    "vsasl cut": VSS,
    "joint": PCASL + VSASL,
    "time-encoded": ENCODED,
}


def truth_maps(slices=3):
    att = np.broadcast_to(np.linspace(0.3, 2.6, 47), (slices, 8, 47)).copy()
    cbf = np.broadcast_to(np.linspace(15, 120, 8)[None, :, None], att.shape).copy()
    return cbf, att


def cramer_rao(measurements, cbf, att, noise_sd, t1):
    """Lower bounds of the sd of CBF and ATT, the worse of those 30 ms to either side of ATT."""
    bounds = []
    for shift in (-0.03, 0.0, 0.03):
        curves = np.stack([integrated(s, w, d, att + shift, **t1) for s, w, d in measurements])
        later = np.stack(
            [integrated(s, w, d, att + shift + 1e-4, **t1) for s, w, d in measurements]
        )
        slope = cbf * (later - curves) / 1e-4
        a, b, c = (curves**2).sum(0), (slope**2).sum(0), (curves * slope).sum(0)
        free = np.maximum(a * b - c * c, 1e-9 * a * b + 1e-30)
        bounds.append(noise_sd * np.sqrt(np.stack([b / free, a / free])))
    return np.max(bounds, axis=0)


@pytest.mark.parametrize("t1_tissue", [1.65, 1.3])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_truth_is_found_at_snr_1000_wherever_the_delays_identify_it(name, t1_tissue):
    measurements, t1 = PROTOCOLS[name], {"t1_tissue": t1_tissue}
    cbf, att = truth_maps(1)
    curves = [integrated(s, w, d, np.array(1.3), **t1) for s, w, d in measurements]
    noise_sd = 60 * np.mean(curves) / 1000
    bound_cbf, bound_att = cramer_rao(measurements, cbf[0], att[0], noise_sd, t1)
    identified = (bound_cbf < 0.0025 * cbf[0]) & (bound_att < 0.0025)
    assert identified.mean() > 0.2
    series = simulate(measurements, cbf, att, noise_sd, repeats=1, **t1)
    maps = LeastSquares().fit(series)
    assert not maps.flags[0].numpy()[identified].any()
    assert np.abs(maps.cbf[0].numpy() / cbf[0] - 1)[identified].max() < 0.01
    assert np.abs(maps.att[0].numpy() - att[0])[identified].max() < 0.010
    # And where they don't, the error bar says so: the truth is within a few of them.
    score = np.abs(maps.att[0].numpy() - att[0]) / maps.att_sd[0].numpy()
    assert np.mean(score[~identified] < 4) > 0.97 if (~identified).any() else True


@pytest.mark.parametrize("name", ["pcasl", "pasl", "joint"])
def test_slice_times_are_used_slice_by_slice(name):
    cbf, att = truth_maps(4)
    series = simulate(PROTOCOLS[name], cbf, att, slice_step=0.2)
    maps = LeastSquares().fit(series)
    inner = (att > 1.15) & (att < 1.95)
    assert np.abs(maps.att.numpy() - att)[inner].max() < 0.010
    assert np.abs(maps.cbf.numpy() / cbf - 1)[inner].max() < 0.01
    # Told that the last slice is excited with the first, the fit is off by far more.
    last = simulate(PROTOCOLS[name], cbf[3:], att[3:])
    mistold = replace(last, delta_m=series.delta_m[3:])
    wrong = LeastSquares().fit(mistold)
    assert np.abs(wrong.att.numpy() - att[3:])[inner[3:]].mean() > 0.05


@pytest.mark.parametrize("name", ["pcasl", "joint"])
def test_standard_errors_cover_as_they_say(name):
    rng = np.random.default_rng(1)
    att = rng.uniform(0.8, 1.9, (1, 60, 60))
    cbf = rng.uniform(40, 90, att.shape)
    noise_sd = (
        60 * np.mean([integrated(s, w, d, np.array(1.3)) for s, w, d in PROTOCOLS[name]]) / 5
    )
    series = simulate(PROTOCOLS[name], cbf, att, noise_sd, repeats=8)
    maps = LeastSquares().fit(series)
    for found, sd, truth in ((maps.cbf, maps.cbf_sd, cbf), (maps.att, maps.att_sd, att)):
        score = np.abs(found.numpy() - truth) / sd.numpy()
        assert 0.60 < np.mean(score < 1) < 0.76
        assert 0.91 < np.mean(score < 2) < 0.985


def test_noise_of_measurements_with_few_and_many_repeats():
    """White noise, the same in all: the variance of a mean is its share of it."""
    from asl_bids_app.estimators.noise import estimate_noise

    shape, sd = (3, 40, 40), 4e-4
    repeats = torch.tensor([2, 2, 2, 8, 8])
    rng = np.random.default_rng(5)
    errors = [rng.normal(0, sd, (r, *shape)).std(0, ddof=1) / np.sqrt(r) for r in repeats.tolist()]
    series = simulate(
        [("PCASL", d, 1.8) for d in (0.5, 1.0, 1.5, 2.0, 2.5)],
        np.full(shape, 60.0),
        np.full(shape, 1.2),
        sd,
        repeats=8,
    )
    error = torch.from_numpy(np.stack(errors, axis=1)).float()
    series = replace(series, repeats=repeats, standard_error=error)
    found = estimate_noise(series).noise_sd.square().mean((0, 2, 3)) * repeats
    assert found.numpy() == pytest.approx(np.full(5, sd**2), rel=0.05)


def test_noise_is_found_from_repeats_residuals_and_neighbours():
    rng = np.random.default_rng(2)
    att = np.full((2, 50, 50), 1.2) + rng.uniform(-0.1, 0.1, (2, 1, 1))
    cbf = np.full(att.shape, 60.0)
    noise_sd = 4e-4
    from asl_bids_app.estimators.noise import estimate_noise

    for measurements, repeats, method in (
        (PCASL, 8, "repeats"),
        (PCASL, 1, "residuals"),
        (PCASL[:2], 1, "neighbours"),
    ):
        estimate = estimate_noise(simulate(measurements, cbf, att, noise_sd, repeats=repeats))
        assert estimate.method == {"PCASL": method}
        truth = noise_sd / np.sqrt(repeats)
        assert estimate.noise_sd.median().item() == pytest.approx(truth, rel=0.08), method


def test_a_noisier_measurement_is_seen_and_weighted():
    cbf, att = truth_maps(2)
    series = simulate(PCASL, cbf, att, 2e-4, repeats=20)
    rng = np.random.default_rng(3)
    loud = torch.tensor(rng.standard_normal((20, *series.delta_m[:, 2].shape)) * 4e-3)
    delta_m = series.delta_m.clone()
    delta_m[:, 2] += loud.mean(0)
    error = series.standard_error.clone()
    error[:, 2] = torch.hypot(error[:, 2], (loud.std(0) / 20**0.5).float())
    noisy = replace(series, delta_m=delta_m, standard_error=error)
    from asl_bids_app.estimators.noise import noise_level

    level = noise_level(noisy).flatten(2).median(2).values.mean(0)
    assert level[2] > 8 * level[1]
    good = (att > 1.0) & (att < 2.0)
    maps = LeastSquares().fit(noisy)
    assert np.abs(maps.cbf.numpy() / cbf - 1)[good].mean() < 0.03


def test_a_single_delay_takes_att_from_the_prior_and_says_so():
    cbf = np.full((1, 6, 6), 60.0)
    att = np.full(cbf.shape, 1.0)
    series = simulate([("PCASL", 1.8, 1.8)], cbf, att, 1e-5, repeats=10)
    maps = LeastSquares().fit(series)
    assert (maps.flags & int(Flag.ATT_UNIDENTIFIABLE)).all()
    assert torch.allclose(maps.att, torch.tensor(1.3))
    assert torch.allclose(maps.att_sd, torch.tensor(0.8))
    # After arrival, with T1t = T1b, the signal doesn't depend on ATT: CBF is right all the same.
    assert maps.cbf.numpy() == pytest.approx(60.0, rel=0.02)
    # But the error bar holds a later arrival (1.3 + 0.8 s is after 1.8 s), in full: an earlier
    # one changes nothing, and half of the difference would be a bar that misses it.
    late = integrated("PCASL", 1.8, 1.8, np.array(2.1)) / integrated("PCASL", 1.8, 1.8, 1.3)
    assert maps.cbf_sd.median().item() == pytest.approx(60 * (1 / late - 1), rel=0.1)


def test_flags_of_bounds_and_failures():
    cbf = np.array([[[60.0, 60.0, 60.0, 500.0, 0.0]]])
    att = np.full((1, 1, 5), 1.2)
    series = simulate(PCASL, cbf, att, 0.0)
    series.delta_m[0, :, 0, 2] *= -1
    series.delta_m[0, :, 0, 4] *= 0
    noise = torch.full((1, 6, 1, 5), 1e-4)
    noise[..., 1] = torch.inf  # nothing is known of it
    observation = observe(series, noise)
    cbf, att, cbf_sd, att_sd, flags = least_squares(observation)
    assert flags[0, 0, 0] == 0
    assert flags[0, 0, 1] == int(Flag.FAILED)
    assert flags[0, 0, 2] & int(Flag.CBF_AT_BOUND)
    assert flags[0, 0, 3] & int(Flag.CBF_AT_BOUND)
    assert cbf[0, 0].tolist() == pytest.approx([60, 0, 0, 300, 0], abs=0.1)
    # A signal of 0 is a measurement: no flow, and an ATT that nobody can tell.
    assert flags[0, 0, 4] == int(Flag.CBF_AT_BOUND | Flag.ATT_UNIDENTIFIABLE)
    assert att[0, 0, 4].item() == pytest.approx(1.3, abs=0.03)
    assert 0 < cbf_sd[0, 0, 4] < 20
    for values in (cbf, att, cbf_sd, att_sd):
        assert torch.isfinite(values).all()


def test_outside_the_mask_is_zero_and_an_empty_mask_is_no_crash():
    cbf, att = truth_maps(1)
    series = simulate(PCASL, cbf, att, 1e-5)
    series.mask[:, :, 20:] = False
    maps = LeastSquares().fit(series)
    for values in (maps.cbf, maps.att, maps.cbf_sd, maps.att_sd, maps.flags, maps.residual[:, 0]):
        assert not values[..., 20:].any()
    series.mask[:] = False
    assert not LeastSquares().fit(series).cbf.any()


@pytest.mark.slow
def test_a_whole_brain_takes_less_than_a_gigabyte():
    rng = np.random.default_rng(4)
    att = np.repeat(rng.uniform(0.5, 2.2, (1, 64, 64)), 24, 0)
    cbf = np.repeat(rng.uniform(20, 100, (1, 64, 64)), 24, 0)
    series = simulate(PCASL, cbf, att, 3e-4, slice_step=0.045, repeats=3)
    LeastSquares().fit(simulate(PCASL, cbf[:1], att[:1], 3e-4, repeats=3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    LeastSquares().fit(series)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e6
