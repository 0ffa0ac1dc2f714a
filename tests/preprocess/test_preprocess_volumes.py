"""Pairing and averaging, against hand-made series and simulated noise."""

import numpy as np
import pytest

from asl_bids_app.preprocess.measurements import find_measurements
from asl_bids_app.preprocess.volumes import average_measurements

MASK = np.ones((10, 10, 6), bool)


def series(order, _, noise=0.0, seed=0, shape=MASK.shape):
    """Volumes whose difference at delay d is 10 + d; order lists (kind, delay)."""
    rng = np.random.default_rng(seed)
    volumes = []
    for kind, delay in order:
        value = {"control": 1000.0, "label": 990.0 - delay, "deltam": 10.0 + delay}.get(kind, 7.0)
        volumes.append(np.full(shape, value) + noise * rng.standard_normal(shape))
    kinds = [kind for kind, _ in order]
    times = np.array([d for _, d in order], float)
    return np.stack(volumes, -1).astype(np.float32), kinds, times, np.full(len(order), 1.8)


@pytest.mark.parametrize(
    "order",
    [
        [(k, d) for _ in range(3) for d in (1, 2, 3) for k in ("control", "label")],
        [(k, d) for _ in range(3) for d in (3, 1, 2) for k in ("label", "control")],
        [(k, d) for d in (1, 2, 3) for _ in range(3) for k in ("label", "control")],
        [(k, d) for k in ("control", "label") for d in (1, 2, 3) for _ in range(3)],
        [("deltam", d) for d in (2, 1, 3) for _ in range(3)],
        [("m0scan", 0), ("noRF", 0)]
        + [(k, d) for _ in range(3) for d in (1, 2, 3) for k in ("label", "control")],
    ],
)
def test_pairs_in_any_order(order):
    averaged = average_measurements(*series(order, (1, 2, 3)), MASK)
    assert averaged.post_labeling_delay.tolist() == [1, 2, 3]
    assert averaged.repeats.tolist() == [3, 3, 3]
    for index, delay in enumerate((1, 2, 3)):
        assert np.allclose(averaged.delta_m[..., index], 10 + delay, atol=1e-3)


def test_measurements_differ_by_label_duration_too():
    kinds = ["deltam"] * 4
    found = find_measurements(kinds, np.zeros(4), np.array([1.0, 2.0, 1.0, 2.0]))
    assert [(m.label_duration, len(m.pairs)) for m in found] == [(1.0, 2), (2.0, 2)]


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="2 control and 1 label"):
        find_measurements(["control", "label", "control"], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="no control"):
        find_measurements(["m0scan"], np.ones(1), np.ones(1))


def test_average_of_gaussian_noise_is_unbiased_and_nearly_efficient():
    order = [(k, d) for _ in range(8) for d in (1, 2, 3, 4, 5, 6) for k in ("control", "label")]
    shape = (30, 30, 12)
    averaged = average_measurements(*series(order, None, 1.0, shape=shape), np.ones(shape, bool))
    error = averaged.delta_m - (10 + averaged.post_labeling_delay)
    best = 2 / 8  # variance of the mean of eight differences of unit noise
    assert np.var(error) / best < 1 / 0.9
    assert abs(error.mean()) < 4 * np.sqrt(best / error.size)
    # The standard error is right: its square is the variance on average, and it covers.
    assert np.mean(averaged.standard_error**2) == pytest.approx(np.var(error), rel=0.05)
    # 68 % of a t distribution with 7 degrees of freedom lie within 1.07 standard errors.
    assert np.mean(np.abs(error) < 1.07 * averaged.standard_error) == pytest.approx(0.68, abs=0.03)


def test_outlying_voxels_hardly_matter():
    order = [(k, d) for _ in range(10) for d in (1, 2, 3) for k in ("control", "label")]
    data, *rest = series(order, None, 0.5, seed=1)
    clean = average_measurements(data, *rest, MASK)
    rng = np.random.default_rng(2)
    hit = rng.random(data.shape) < 0.02
    spoilt = average_measurements(data + 60 * hit.astype(np.float32), *rest, MASK)
    plain = np.abs(60 * hit[..., ::2].mean())
    assert np.abs(spoilt.delta_m - clean.delta_m).mean() < 0.15
    assert plain > 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pairs", [3, 8])
def test_units_don_t_matter(pairs):
    """Images in units of 1e22: their squares are beyond single precision."""
    order = [(k, d) for _ in range(pairs) for d in (1, 2) for k in ("control", "label")]
    data, *rest = series(order, None, 1.0, seed=6)
    plain, large = (average_measurements(each, *rest, MASK) for each in (data, data * 1e22))
    np.testing.assert_allclose(large.delta_m / 1e22, plain.delta_m, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(large.standard_error / 1e22, plain.standard_error, rtol=3e-3)


def test_a_bad_pair_is_left_out_and_told():
    order = [(k, d) for _ in range(8) for d in (1, 2) for k in ("control", "label")]
    data, *rest = series(order, None, 1.0, seed=3)
    # A jerk of the head: the whole volume is another one.
    data[..., 6] += 30 * np.random.default_rng(4).standard_normal(MASK.shape)
    averaged = average_measurements(data, *rest, MASK)
    assert sorted(averaged.repeats.tolist()) == [7, 8]
    assert len(averaged.rejected) == 1
    assert "volumes 6 and 7" in averaged.rejected[0]
    assert np.abs(averaged.delta_m - (10 + averaged.post_labeling_delay)).mean() < 0.6


def test_nothing_is_rejected_from_clean_noise():
    order = [(k, d) for _ in range(8) for d in (1, 2, 3) for k in ("control", "label")]
    for seed in range(5):
        assert average_measurements(*series(order, None, 1.0, seed), MASK).rejected == ()


def test_few_repeats_are_a_plain_mean_and_one_has_no_error():
    data, *rest = series([("deltam", 1)] * 3, None, 1.0, seed=5)
    averaged = average_measurements(data, *rest, MASK)
    assert np.allclose(averaged.delta_m[..., 0], data.mean(-1), atol=1e-4)
    assert np.allclose(averaged.standard_error[..., 0], data.std(-1, ddof=1) / 3**0.5, atol=1e-4)
    single = average_measurements(data[..., :1], ["deltam"], np.ones(1), np.ones(1), MASK)
    assert np.isnan(single.standard_error[MASK]).all()
