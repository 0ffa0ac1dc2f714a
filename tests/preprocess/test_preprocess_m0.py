"""M0: closed forms, and what must never give a silent wrong number."""

import numpy as np
import pytest

from asl_bids_app.preprocess.m0 import (
    M0Error,
    average_m0,
    calibrate,
    finish_m0,
    recovery,
    tissue_m0_of_blood,
)


def ball(n=24):
    grid = np.stack(np.meshgrid(*[np.arange(n) - n / 2] * 3, indexing="ij"))
    return (grid**2).sum(0) < (n / 3) ** 2


def test_short_repetition_times_are_corrected_volume_by_volume():
    truth = np.full((4, 4, 4), 500.0)
    times = (2.0, 4.1, 10.0)
    volumes = np.stack([truth * (1 - np.exp(-t / 1.6)) for t in times], -1)
    found, factor, used = average_m0(volumes, times, 1.6)
    assert np.allclose(found, 500)
    assert used == 3
    assert factor == pytest.approx(np.mean([1 / (1 - np.exp(-t / 1.6)) for t in times]))
    assert recovery(np.inf, 1.6) == 1


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan")])
def test_a_repetition_time_of_zero_is_never_a_silent_zero(time):
    with pytest.raises(M0Error, match="repetition time"):
        average_m0(np.ones((2, 2, 2)), [time], 1.6)


def test_volumes_of_zeros_are_passed_over_and_only_zeros_refused():
    volumes = np.stack([np.zeros((3, 3, 3)), np.full((3, 3, 3), 7.0)], -1)
    found, _, used = average_m0(volumes, [1e9], 1.6)
    assert np.allclose(found, 7)
    assert used == 1
    with pytest.raises(M0Error, match="without any signal"):
        average_m0(volumes[..., :1], [1e9], 1.6)
    with pytest.raises(M0Error, match="2 M0 volumes and 3"):
        average_m0(volumes, [1, 2, 3], 1.6)


def test_holes_are_filled_from_neighbours_and_counted():
    mask = ball()
    m0 = np.where(mask, 100.0, 0)
    m0[12, 12, 12] = 0
    m0[11, 12, 12] = -50
    m0[10, 12, 12] = 0.5
    data, filled = finish_m0(m0, mask, (1, 1, 1))
    assert filled == 3
    assert np.allclose(data[mask], 100)
    assert not data[~mask].any()
    # A hole wider than any neighbourhood is filled as well.
    m0[:, :, :12] = 0
    data, filled = finish_m0(m0, mask, (1, 1, 1))
    assert np.allclose(data[mask], 100)
    with pytest.raises(M0Error, match="positive"):
        finish_m0(np.zeros(mask.shape), mask, (1, 1, 1))


def test_smoothing_takes_nothing_from_outside_the_mask():
    mask = ball()
    m0 = np.where(mask, 100.0, 9999.0)
    data, _ = finish_m0(m0, mask, (2, 2, 4), fwhm_mm=8)
    assert np.allclose(data[mask], 100)
    rng = np.random.default_rng(0)
    noisy = np.where(mask, 100 + 10 * rng.standard_normal(mask.shape), 0)
    smooth, _ = finish_m0(noisy, mask, (2, 2, 2), fwhm_mm=6)
    assert smooth[mask].std() < 3
    assert smooth[mask].mean() == pytest.approx(100, rel=0.01)


def test_division_is_safe_outside_the_mask():
    mask = ball()
    signal = np.ones((*mask.shape, 2))
    m0 = np.where(mask, 200.0, 0)
    with np.errstate(all="raise"):
        fraction = calibrate(signal, m0, mask)
    assert np.allclose(fraction[mask], 1 / 200)
    assert not fraction[~mask].any()


def test_blood_holds_more_water_than_tissue():
    assert tissue_m0_of_blood(1000, 0.9) == 900
