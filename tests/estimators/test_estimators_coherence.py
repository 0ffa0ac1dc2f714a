"""Error bars of regions: against sums over all pairs, and against errors drawn at random."""

import numpy as np
import pytest
from scipy import ndimage

from asl_bids_app.estimators.coherence import Coherence, common_of_corners, mean_sd, measure

SHAPE = (24, 20, 12)


def ball(radius, centre=(12, 10, 6)):
    index = np.indices(SHAPE)
    return sum((index[k] - centre[k]) ** 2 for k in range(3)) < radius**2


def drawn(neighbour, shared, rng):
    """Errors of variance 1: an autoregressive field along each axis, and one number for all."""
    margin = 40
    field = rng.standard_normal([n + margin for n in SHAPE])
    for axis in range(3):
        field = np.moveaxis(field, axis, 0)
        for k in range(1, len(field)):
            field[k] = neighbour * field[k - 1] + np.sqrt(1 - neighbour**2) * field[k]
        field = np.moveaxis(field, 0, axis)
    field = field[margin:, margin:, margin:]
    return np.sqrt(1 - shared) * field + np.sqrt(shared) * rng.standard_normal()


def test_the_sum_over_all_pairs():
    rng = np.random.default_rng(1)
    where = np.argwhere(ball(3.4))
    sd, weight = np.zeros(SHAPE), np.zeros(SHAPE)
    sd[tuple(where.T)] = rng.uniform(2, 9, len(where))
    weight[tuple(where.T)] = rng.uniform(0.2, 1, len(where))
    a = (sd * weight)[tuple(where.T)] / weight.sum()
    steps = np.abs(where[:, None] - where[None]).sum(-1)
    expected = np.sqrt(0.9 * a @ (0.4**steps) @ a + 0.1 * a.sum() ** 2)
    assert mean_sd(sd, weight, Coherence(0.4, 0.1)) == pytest.approx(expected, rel=1e-3)


def test_independent_errors_average_out_and_shared_ones_do_not():
    mask = ball(5)
    sd = np.full(SHAPE, 6.0)
    alone = mean_sd(sd, mask, Coherence(0, 0))
    assert alone == pytest.approx(6 / np.sqrt(mask.sum()))
    assert mean_sd(sd, mask, Coherence(0, 1)) == pytest.approx(6)
    assert np.isnan(mean_sd(sd, mask & False, Coherence(0, 0)))


@pytest.mark.parametrize(
    ("neighbour", "shared"),
    [
        pytest.param(0.0, 0.0, marks=pytest.mark.slow),
        pytest.param(0.35, 0.06, marks=pytest.mark.slow),
        (0.6, 0.2),
    ],
)
def test_what_was_drawn_is_measured_and_bars_of_means_hold(neighbour, shared):
    rng = np.random.default_rng(7)
    heads = [drawn(neighbour, shared, rng) for _ in range(60)]
    found = measure((head, ball(9)) for head in heads)
    assert found.neighbour == pytest.approx(neighbour, abs=0.05)
    assert found.shared == pytest.approx(shared, abs=0.07)
    for region in (ball(2), ball(4, (8, 8, 6)), ball(8)):
        bar = mean_sd(np.ones(SHAPE), region, found)
        off = np.array([head[region].mean() for head in heads]) / bar
        assert np.sqrt(np.mean(off**2)) == pytest.approx(1, abs=0.3)


def test_bars_that_are_too_wide_make_shared_errors_small():
    rng = np.random.default_rng(3)
    heads = [0.5 * drawn(0.3, 0.2, rng) for _ in range(40)]
    found = measure((head, ball(9)) for head in heads)
    assert found.shared == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("values", [(-0.1, 0), (0.2, 1.1)])
def test_a_coherence_is_a_correlation(values):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        Coherence(*values)


def test_smooth_maps_are_not_taken_for_independent():
    """A Gaussian blur, which is no autoregression: the bar of a mean is right within a quarter."""
    rng = np.random.default_rng(5)
    heads = [
        ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.7, mode="wrap") for _ in range(60)
    ]
    scale = np.std(heads)
    found = measure((head / scale, ball(9)) for head in heads)
    off = [head[ball(6)].mean() / scale for head in heads]
    bar = mean_sd(np.ones(SHAPE), ball(6), found)
    assert bar == pytest.approx(np.sqrt(np.mean(np.square(off))), rel=0.25)


@pytest.mark.parametrize(("neighbour", "shared"), [(0.0, 0.0), (0.3, 0.0), (0.5, 0.2)])
def test_the_deviation_of_an_interpolated_value_by_repetition(neighbour, shared):
    """Fields are read at random places, as maps are in another space."""
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 1, (3, 500)) * (np.array(SHAPE) - 1)[:, None]
    read = [
        ndimage.map_coordinates(drawn(neighbour, shared, rng), place, order=1) for _ in range(60)
    ]
    part = place % 1
    weights = [
        np.prod([part[k] if corner[k] else 1 - part[k] for k in range(3)], axis=0)
        for corner in np.ndindex(2, 2, 2)
    ]
    common = common_of_corners(Coherence(neighbour, shared))
    squares = np.sum(np.square(weights), axis=0).mean()
    expected = (1 - common) * squares + common
    assert np.mean(np.square(read)) == pytest.approx(expected, rel=0.08)
