"""Regions: nilearn's mean, signals by an independent integral, coverage, sides."""

from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest
import torch
from physics import integrated, simulate
from scipy import ndimage

from asl_bids_app.anatomy.region_fit import CALIBRATION_SD, fit_region
from asl_bids_app.anatomy.regions import Regions, region_table
from asl_bids_app.anatomy.sides import asymmetry, pairs
from asl_bids_app.anatomy.signals import Signals, att_grid, shared_noise, signals_of
from asl_bids_app.scheme_fields import Arrival
from asl_bids_app.schemes import PRIOR_BY_ARRIVAL

PRIOR = PRIOR_BY_ARRIVAL[Arrival.CONTINUOUS]
DELAYS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


@cache
def curves(delays=DELAYS, late=0.0):
    """ΔM/M0 per CBF of one slice over the grid of transit times, by quadrature."""
    return np.stack([integrated("PCASL", d + late, 1.8, att_grid()) for d in delays])[None]


def made(cbf, att, noise, delays=DELAYS, seed=0):
    """Signals of voxels (N,) in a row, with noise."""
    rng = np.random.default_rng(seed)
    times, back = np.unique(att, return_inverse=True)
    per_flow = np.stack([integrated("PCASL", d, 1.8, times) for d in delays], -1)
    clean = cbf[:, None] * per_flow[back]
    data = clean + noise * rng.standard_normal(clean.shape)
    shape = (len(cbf), 1, 1)
    return Signals(
        data.reshape(*shape, len(delays)),
        np.full((*shape, len(delays)), noise),
        np.zeros(shape, int),
        curves(delays),
        PRIOR,
    )


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(0)
    labels = np.zeros((12, 14, 9), int)
    labels[:4], labels[4:8], labels[8:10] = 1, 2, 7
    mask = rng.random(labels.shape) < 0.9
    mask[9:] = False
    cbf, att = rng.normal(50, 20, labels.shape), rng.normal(1.2, 0.3, labels.shape)
    where = np.stack([labels == k for k in (1, 2, 7)])
    regions = Regions("X", ("Left-A", "Right-A", "B"), (1, 2, 7), where, where.sum(axis=(1, 2, 3)))
    return labels, mask, cbf, att, regions


@pytest.mark.slow
def test_the_plain_mean_is_nilearns(labelled):
    maskers = pytest.importorskip("nilearn.maskers")
    labels, mask, cbf, att, regions = labelled
    affine = np.diag([3.0, 3.0, 3.0, 1.0])

    def image(data):
        return nib.Nifti1Image(data.astype(np.float64), affine)

    masker = maskers.NiftiLabelsMasker(
        image(labels), mask_img=image(mask), strategy="mean", standardize=None
    )
    table = region_table(regions, cbf, att, mask, None)
    for key, data in (("cbf_mean", cbf), ("att_mean", att)):
        theirs = masker.fit_transform(image(data)).ravel()
        there = np.isfinite(table[key])
        np.testing.assert_allclose(np.array(table[key])[there], theirs[there], rtol=1e-5)


def test_median_sd_count_and_coverage(labelled):
    labels, mask, cbf, att, regions = labelled
    table = region_table(regions, cbf, att, mask, None)
    inside = cbf[(labels == 2) & mask]
    assert table["voxels"][1] == inside.size
    assert table["cbf_median"][1] == pytest.approx(np.median(inside))
    assert table["cbf_sd"][1] == pytest.approx(inside.std())
    assert table["coverage"][1] == pytest.approx(inside.size / (labels == 2).sum())
    # The third region lies half outside the mask, and a tenth of the rest is missing.
    assert table["coverage"][2] < 0.5
    assert np.isnan(table["cbf_mean"][2])
    assert table["voxels"][2] > 0


def test_voxels_without_an_estimate_are_left_out(labelled):
    labels, mask, cbf, att, regions = labelled
    failed = labels == 1
    table = region_table(regions, cbf, att, mask, None, failed)
    assert np.isnan(table["cbf_mean"][0])
    assert table["voxels"][0] == 0


def test_the_curves_are_those_of_the_integral():
    from asl_bids_app.observation import observe

    measured = (("PCASL", 1.0, 1.8), ("PCASL", 2.0, 1.8))
    simulated = simulate(measured, np.full((1, 2, 2), 50.0), np.full((1, 2, 2), 1.2))
    seen = observe(simulated, torch.full_like(simulated.delta_m, 1e-3))
    found = signals_of(seen, 2, PRIOR).curves
    np.testing.assert_allclose(found[0], curves((1.0, 2.0))[0], rtol=2e-3, atol=1e-8)


@pytest.mark.parametrize("noise", [1e-3, 4e-3])
def test_intervals_hold_what_they_claim_and_the_mean_is_unbiased(noise):
    """60 regions of 50 noisy voxels, each with its own flow and transit time."""
    rng = np.random.default_rng(1)
    inside, off = [], []
    for seed in range(60):
        cbf, att = rng.uniform(20, 90), rng.uniform(0.7, 1.8)
        signals = made(np.full(50, cbf), np.full(50, att), noise, seed=seed)
        found = fit_region(signals, np.ones((50, 1, 1), bool))
        sd = np.hypot(found.se_noise, found.se_model)
        inside.append(abs(found.cbf - cbf) < 1.96 * sd)
        off.append(found.cbf / cbf - 1)
    assert np.mean(inside) > 0.88
    assert abs(np.mean(off)) < 0.02


def test_errors_fall_with_the_root_of_the_voxels_but_for_the_calibration():
    found = [
        fit_region(made(np.full(n, 50.0), np.full(n, 1.2), 2e-3, seed=3), np.ones((n, 1, 1), bool))
        for n in (100, 1600)
    ]
    assert found[0].se_noise / found[1].se_noise == pytest.approx(4, rel=0.15)
    for fit in found:
        assert fit.se_calibration == pytest.approx(CALIBRATION_SD * fit.cbf)
        assert fit.se == pytest.approx(
            np.sqrt(fit.se_noise**2 + fit.se_model**2 + fit.se_calibration**2)
        )


def test_transit_times_that_differ_inside_a_region_make_no_bias():
    rng = np.random.default_rng(0)
    att = rng.normal(1.3, 0.35, 4000).clip(0.4, 3).round(2)
    signals = made(np.full(4000, 50.0), att, 1e-4)
    alone = fit_region(signals, np.ones((4000, 1, 1), bool))
    wide = Signals(
        *(getattr(signals, k) for k in ("delta_m", "noise", "slice_number", "curves", "prior")),
        att=att.reshape(-1, 1, 1),
        att_sd=np.full((4000, 1, 1), 0.02),
    )
    found = fit_region(wide, np.ones((4000, 1, 1), bool))
    assert found.cbf == pytest.approx(50, rel=0.01)
    assert abs(found.cbf - 50) < abs(alone.cbf - 50)


def test_one_delay_leaves_the_doubt_about_arrival_to_the_model():
    signals = made(np.full(900, 50.0), np.full(900, 1.3), 1e-3, delays=(1.8,))
    found = fit_region(signals, np.ones((900, 1, 1), bool))
    assert found.se_model > 10 * found.se_noise
    assert abs(found.cbf - 50) < 2 * found.se_model
    # Blood later than the prior by its standard deviation has the same signal with a third more
    # CBF. Without a bound, transit times at which hardly any label arrives made it hundreds.
    last = np.exp(-3.6 / 1.65)
    gain = (np.exp(-1.8 / 1.65) - last) / (np.exp(-2.1 / 1.65) - last)
    assert found.se_model == pytest.approx((gain - 1) * found.cbf, rel=0.15)
    assert np.isnan(found.misfit)
    # That of ATT is the prior's width: one measurement tells nothing of it.
    assert found.att_se_model == pytest.approx(PRIOR.sd, rel=0.2)
    assert found.att_se_noise == 0


def test_a_wrong_t1_shows_in_the_error_of_the_transit_time():
    """Blood's T1 and tissue's 9 % longer than assumed: twice their standard deviation."""
    from asl_bids_app.observation import observe

    measured = tuple(("PCASL", d, 1.8) for d in DELAYS)
    shape = (1, 20, 20)
    inside, off = [], []
    for att in (0.8, 1.2, 1.6):
        maps = np.full(shape, 50.0), np.full(shape, att)
        longer = dict.fromkeys(("t1_blood", "t1_tissue"), 1.65 * 1.09)
        true = simulate(measured, *maps, **longer).delta_m
        simulated = replace(simulate(measured, *maps), delta_m=true)
        seen = observe(simulated, torch.full_like(simulated.delta_m, 1e-4))
        fit = fit_region(signals_of(seen, 2, PRIOR), np.ones((20, 20, 1), bool))
        off.append(abs(fit.att - att) / fit.att_se)
        inside.append(abs(fit.att - att) / fit.att_se_noise)
        assert fit.att_se == pytest.approx(
            np.sqrt(fit.att_se_noise**2 + fit.att_se_model**2 + fit.att_se_calibration**2)
        )
    # Two standard deviations, and noise alone is far too small for it.
    assert max(off) < 2.5
    assert max(inside) > 3


def test_slices_have_their_own_times():
    """Half of a region is seen 0.8 s later: one curve for all would be wrong."""
    n = 50
    clean = np.concatenate(
        [
            np.tile(
                [60 * integrated("PCASL", d + lag, 1.8, np.array(1.2)) for d in DELAYS], (n, 1)
            )
            for lag in (0.0, 0.8)
        ]
    )
    numbers = np.repeat([0, 1], n)
    signals = Signals(
        clean.reshape(2 * n, 1, 1, -1),
        np.full((2 * n, 1, 1, len(DELAYS)), 1e-3),
        numbers.reshape(-1, 1, 1),
        np.stack([curves()[0], curves(late=0.8)[0]]),
        PRIOR,
    )
    found = fit_region(signals, np.ones((2 * n, 1, 1), bool))
    assert found.cbf == pytest.approx(60, rel=0.005)
    assert found.att == pytest.approx(1.2, abs=0.01)


def test_nothing_comes_of_nothing():
    signals = made(np.full(5, 50.0), np.full(5, 1.2), 1e-3)
    assert np.isnan(fit_region(signals, np.zeros((5, 1, 1), bool)).cbf)


def test_noise_that_neighbours_share_is_measured():
    """Variances of means of blurred noise against the factor, on other noise."""
    rng = np.random.default_rng(0)
    mask = np.ones((24, 24, 24), bool)

    def noise(sigma):
        raw = rng.standard_normal((24, 24, 24, 6))
        return raw if sigma == 0 else ndimage.gaussian_filter(raw, (sigma, sigma, 0, 0))

    assert shared_noise(noise(0), mask) == pytest.approx(1, abs=0.15)
    blurred = noise(0.8)
    # A mean of blurred noise is nearly that of the noise before: its variance stays.
    true = 1 / blurred.var()
    assert shared_noise(blurred, mask) == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Left-Putamen", "Right-Putamen"], [(0, 1, "Putamen")]),
        (["17networks_LH_Vis_1", "17networks_RH_Vis_1"], [(0, 1, "17networks_Vis_1")]),
        (["HIP-rh", "HIP-lh"], [(1, 0, "HIP")]),
        (["L_V1_ROI", "R_V1_ROI"], [(0, 1, "V1_ROI")]),
        (["Lobule", "Robule", "Clef"], []),
        (["Left-Alone"], []),
    ],
)
def test_sides_are_paired(names, expected):
    found = pairs(names)
    assert [(a, b) for a, b, _ in found] == [(a, b) for a, b, _ in expected]


def test_asymmetry_and_its_error_by_repetition():
    rng = np.random.default_rng(0)
    left, right, se = 60.0, 50.0, 2.0
    drawn = np.array([left, right]) + se * rng.standard_normal((20000, 2))
    spread = (200 * (drawn[:, 0] - drawn[:, 1]) / drawn.sum(axis=1)).std()
    table = {
        "name": ["Left-A", "Right-A"],
        "cbf_fit": [left, right],
        "cbf_se_noise": [se, se],
        "cbf_se_model": [0.0, 0.0],
    }
    found = asymmetry(table)
    assert found["asymmetry"][0] == pytest.approx(200 * 10 / 110)
    assert found["asymmetry_se"][0] == pytest.approx(spread, rel=0.05)
