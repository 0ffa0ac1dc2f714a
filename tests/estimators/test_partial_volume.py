"""Partial volume correction against known flows: physics by quadrature, algebra by numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physics import ALPHA, integrated
from scipy import ndimage
from slices import PROTOCOLS, measured, ribbons

from asl_bids_app.estimators.partial_volume import (
    METHODS,
    PartialVolumeError,
    correct_partial_volume,
)
from asl_bids_app.estimators.partial_volume_field import fit_fields
from asl_bids_app.estimators.partial_volume_matern import LENGTH_MM
from asl_bids_app.estimators.partial_volume_means import mix, two_flows
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.schemes import transit_prior

VOXEL = (5.0, 3.5, 3.5)
GREY, WHITE = 60.0, 20.0
PRIOR = transit_prior(("PCASL",))


def mixed(protocol, fractions, mask, snr, flows=(GREY, WHITE), times=(1.1, 1.3), seed=0):
    """Slices in which each tissue has its own flow and transit time (numbers, or maps)."""
    of_tissue = [
        measured(protocol, share * flow, np.broadcast_to(att, mask.shape), mask, np.inf)
        for share, flow, att in zip(fractions, flows, times, strict=True)
    ]
    noise = 0.007 / snr
    draw = np.random.default_rng(seed).standard_normal(of_tissue[0].delta_m.shape)
    signal = sum(part.delta_m for part in of_tissue)
    signal = signal + torch.tensor(noise * draw * mask[:, None], dtype=torch.float32)
    return replace(of_tissue[0], delta_m=signal, noise_sd=torch.full_like(signal, noise))


def corrected(observation, fractions, method, prior=PRIOR):
    given = torch.tensor(np.array(fractions), dtype=torch.float32)
    return correct_partial_volume(observation, given, VOXEL, prior, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("protocol", "times"),
    [
        ("pcasl", (1.1, 1.3)),
        pytest.param("pasl", (0.7, 0.9), marks=pytest.mark.slow),
        pytest.param("joint", (1.1, 1.3), marks=pytest.mark.slow),
        ("single", (PRIOR.mean, PRIOR.mean)),
        ("vsasl", (1.3, 1.3)),
    ],
)
def test_a_mixture_without_noise_gives_both_flows(method, protocol, times):
    fractions, mask = ribbons()
    measurements = {**PROTOCOLS, "vsasl": [("VSASL", 1.2, 0.9)]}[protocol]
    observation = mixed(measurements, fractions, mask, 1e4, times=times)
    found = corrected(observation, fractions, method, transit_prior((measurements[0][0],)))
    for key, share, flow in zip(("gm", "wm"), fractions, (GREY, WHITE), strict=True):
        there = found.inside[key].numpy()
        np.testing.assert_array_equal(there, mask & (share >= 0.1))
        # A kernel in which both tissues have one proportion can't tell them.
        off = np.abs(found.flows[key].numpy()[there & (share > 0.3)] / flow - 1)
        part, most = {"linear": (0.99, 0.01), "bayesian": (0.95, 0.02)}[method]
        assert np.quantile(off, part) < most, (key, off.max())
        assert not found.flows[key].numpy()[~there].any()


def test_the_kernel_is_the_regression_of_numpy():
    """One delay: flow is signal over response, and the signal that of least squares in 5 x 5."""
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["single"], fractions, mask, 5.0)
    found = corrected(observation, fractions, "linear")
    inner = ndimage.binary_erosion(mask, np.ones((1, 5, 5)))
    z, y, x = np.argwhere(inner & (fractions.min(axis=0) > 0.3))[60]
    window = (z, slice(y - 2, y + 3), slice(x - 2, x + 3))
    shares = np.stack([share[window].ravel() for share in fractions], 1)
    signal = observation.delta_m[z, 0].numpy()[window[1:]].ravel()
    expected = np.linalg.lstsq(shares, signal, rcond=None)[0]
    expected /= integrated(*PROTOCOLS["single"][0], PRIOR.mean)
    values = [float(found.flows[key][z, y, x]) for key in ("gm", "wm")]
    np.testing.assert_allclose(values, expected, rtol=2e-3)


def test_two_flows_of_a_brain_have_the_errors_of_least_squares():
    """One delay of VSASL, whose response doesn't hang on the transit time if it is late."""
    fractions, mask = ribbons()
    protocol = [("VSASL", 1.2, 0.2)]
    observation = mixed(protocol, fractions, mask, 2.0, times=(1.3, 1.3))
    mixture = mix(observation, torch.tensor(fractions))
    found = two_flows(mixture, TransitPrior(1.3, 0.1, ""))
    response = 2 * ALPHA["VSASL"] / 0.9 / 6000 * 0.2 * np.exp(-1.2 / 1.65)
    design = np.stack([share[mask] for share in fractions], 1) * response
    signal = observation.delta_m[:, 0].numpy()[mask]
    expected = np.linalg.lstsq(design, signal, rcond=None)[0]
    errors = 0.0035 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    np.testing.assert_allclose(found.flows, expected, rtol=0.01)
    np.testing.assert_allclose((found.gm_sd, found.wm_sd), errors, rtol=0.02)
    assert found.misfit == pytest.approx(1, abs=0.05)


def matern(shape, length, seed):
    """Draw a field of Matérn's correlation, by numpy's own root of it along each axis."""
    values = np.random.default_rng(seed).standard_normal(shape)
    for axis, (size, mm) in enumerate(zip(shape, VOXEL, strict=True)):
        apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) * mm / length
        root = np.linalg.cholesky((1 + apart) * np.exp(-apart) + 1e-9 * np.eye(size))
        values = np.moveaxis(np.tensordot(root, values, (1, axis)), 0, axis)
    return values


@pytest.mark.parametrize("protocol", ["pcasl", "single"])
def test_error_bars_hold_the_errors_of_fields(protocol):
    """Over draws of flows and noise, errors have the standard deviations that are stated."""
    fractions, mask = ribbons()
    z = {"gm": [], "wm": []}
    for seed in range(4):
        fields = [matern(mask.shape, LENGTH_MM, 10 * seed + k) for k in (0, 1)]
        flows = [GREY * (1 + 0.2 * fields[0]), WHITE * (1 + 0.2 * fields[1])]
        times = (PRIOR.mean, PRIOR.mean) if protocol == "single" else (1.1, 1.3)
        observation = mixed(PROTOCOLS[protocol], fractions, mask, 5.0, flows, times, seed)
        mixture = mix(observation, torch.tensor(fractions))
        found = fit_fields(mixture, two_flows(mixture, PRIOR), VOXEL)
        for k, key in enumerate(z):
            there = fractions[k][mask] > 0.3
            off = found.flows[k].numpy() - flows[k][mask]
            z[key].append((off / found.sd[k].numpy())[there])
    for key, values in z.items():
        together = np.concatenate(values)
        assert 0.75 < np.sqrt((together**2).mean()) < 1.2, key
        assert (np.abs(together) < 1.96).mean() > 0.9, key


def test_flow_does_not_follow_the_thickness_of_the_cortex():
    fractions, mask = ribbons()
    rng = np.random.default_rng(8)
    flows = [f * (1 + 0.15 * matern(mask.shape, 8.0, 90 + k)) for k, f in enumerate((GREY, WHITE))]
    observation = mixed(PROTOCOLS["pcasl"], fractions, mask, 5.0, flows, seed=int(rng.integers(9)))
    rmse = {}
    share = fractions[0]
    where = mask & (share > 0.3) & (share < 0.9)
    for method in METHODS:
        found = corrected(observation, fractions, method)
        off = (found.flows["gm"].numpy() - flows[0])[where]
        rmse[method] = np.sqrt((off**2).mean())
        assert abs(off.mean()) < 0.03 * GREY
        assert abs(np.polyfit(share[where], off, 1)[0]) < 0.05 * GREY
    assert rmse["bayesian"] < 0.8 * rmse["linear"]


@pytest.mark.parametrize("method", METHODS)
def test_wrong_fractions_are_refused_or_widen_the_bars(method):
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["pcasl"], fractions, mask, 10.0)
    true = corrected(observation, fractions, method)
    other, _ = ribbons(seed=77)
    with pytest.raises(PartialVolumeError, match="of the variance of CBF, expected 33 % or more"):
        corrected(observation, other, method)
    with pytest.raises(PartialVolumeError, match="less flow in grey than in white matter"):
        corrected(observation, fractions[::-1], method)
    moved = [ndimage.shift(share, (0, 0.7, 0), order=1) for share in fractions]
    found = corrected(observation, moved, method)
    there = (found.inside["gm"] & true.inside["gm"]).numpy() & (fractions[0] > 0.3)
    bar = found.sds["gm"].numpy()[there]
    assert np.median(bar) > 1.2 * np.median(true.sds["gm"].numpy()[there])
    off = np.abs(found.flows["gm"].numpy()[there] - GREY)
    assert (off < 1.96 * bar).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_fractions_of_nothing_are_refused(method):
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["pcasl"], fractions, mask, 10.0)
    with pytest.raises(PartialVolumeError, match="0 voxels of grey matter in the brain mask"):
        corrected(observation, np.zeros_like(fractions), method)
    with pytest.raises(PartialVolumeError, match="0 voxels of white matter"):
        corrected(observation, fractions * [[[[1]]], [[[0]]]], method)
    with pytest.raises(PartialVolumeError, match="voxels of grey matter"):
        corrected(observation, np.full_like(fractions, np.nan), method)


@pytest.mark.parametrize("method", METHODS)
def test_holes_in_data_and_fractions_stay_holes(method):
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["pcasl"], fractions, mask, 1e3)
    broken = fractions.copy()
    broken[:, 2, 10:14, 10:14] = np.nan
    noise = observation.noise_sd.clone()
    noise[5, :, 12:20, 12:20] = torch.inf
    noise[3, 2] = torch.inf
    found = corrected(replace(observation, noise_sd=noise), broken, method)
    for key in ("gm", "wm"):
        assert torch.isfinite(found.flows[key]).all()
        assert torch.isfinite(found.sds[key]).all()
        assert not found.inside[key][2, 10:14, 10:14].any()
        assert not found.inside[key][5, 12:20, 12:20].any()
        assert (found.sds[key][found.inside[key]] > 0).all()
    there = found.inside["gm"].numpy() & (fractions[0] > 0.3)
    off = np.abs(found.flows["gm"].numpy()[there] / GREY - 1)
    assert np.quantile(off, 0.98) < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_one_slice_is_enough(method):
    fractions, mask = (part[..., 3:4, :, :] for part in ribbons())
    observation = mixed(PROTOCOLS["pcasl"], fractions, mask, 100.0)
    found = corrected(observation, fractions, method)
    there = found.inside["gm"].numpy() & (fractions[0] > 0.3)
    assert abs(np.median(found.flows["gm"].numpy()[there]) / GREY - 1) < 0.02


def test_one_delay_holds_the_doubt_about_arrival():
    """Its bars hold what flow would be if blood came one sd of the prior later."""
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["single"], fractions, mask, 1e3, times=(1.3, 1.3))
    found = corrected(observation, fractions, "bayesian")
    usual, late = (
        integrated(*PROTOCOLS["single"][0], PRIOR.mean + more) for more in (0, PRIOR.sd)
    )
    there = found.inside["gm"].numpy() & (fractions[0] > 0.3)
    expected = np.hypot(0.05, usual / late - 1) * GREY
    assert np.median(found.sds["gm"].numpy()[there]) == pytest.approx(expected, rel=0.05)


def test_what_is_no_input_is_refused():
    fractions, mask = ribbons()
    observation = mixed(PROTOCOLS["single"], fractions, mask, 10.0)
    given = torch.tensor(fractions)
    with pytest.raises(ValueError, match="fractions: "):
        correct_partial_volume(observation, given[:1], VOXEL, PRIOR)
    with pytest.raises(ValueError, match="voxel_mm"):
        correct_partial_volume(observation, given, (5.0, 0.0, 3.5), PRIOR)
    with pytest.raises(ValueError, match="method"):
        correct_partial_volume(observation, given, VOXEL, PRIOR, "none")
