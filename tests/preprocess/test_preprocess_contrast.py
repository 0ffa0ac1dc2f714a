"""Classes of an M0 without an atlas: made by hand, found again."""

import numpy as np
import pytest

from asl_bids_app.preprocess.contrast import contrast_classes

SHAPE, VOXEL = (32, 36, 20), np.array([3.5, 3.5, 5.0])


def ball(field=0.0, noise=0.0, seed=0):
    """M0 of a ball of three shells (fluid, white, grey), its mask and its shells."""
    grid = [np.linspace(-1, 1, n) for n in SHAPE]
    x, y, z = np.meshgrid(*grid, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2) / 0.9
    shells = [(r >= 0.72) & (r < 1), (r >= 0.25) & (r < 0.72), r < 0.25]
    m0 = sum(v * s for v, s in zip((850.0, 700.0, 1000.0), shells, strict=True))
    m0 = m0 * np.exp(field * (x + 0.5 * y))
    m0 = m0 + noise * np.random.default_rng(seed).standard_normal(SHAPE)
    return m0, r < 1, shells


@pytest.mark.parametrize(("field", "noise"), [(0, 0), (0, 20), (0.25, 10)])
def test_shells_are_found(field, noise):
    m0, mask, shells = ball(field, noise)
    first, second = contrast_classes(m0, mask, VOXEL)
    grey, white = shells[:2]
    for found, truth in ((first, grey), (second, white)):
        dice = 2 * (found * truth).sum() / (found.sum() + truth.sum())
        assert dice > 0.9
    assert not first[~mask].any()
    assert not second[~mask].any()
    assert not (first * second).any()


def test_no_contrast_has_no_classes():
    _, mask, _ = ball()
    assert contrast_classes(np.where(mask, 500.0, 0), mask, VOXEL) is None
    assert contrast_classes(np.zeros(SHAPE), mask, VOXEL) is None
    assert contrast_classes(np.zeros(SHAPE), mask & False, VOXEL) is None


def test_a_single_slice_is_served():
    m0, mask, shells = ball(noise=10)
    one = (slice(None), slice(None), slice(10, 11))
    found = contrast_classes(m0[one], mask[one], VOXEL)
    assert found is not None
    grey = shells[0][one]
    assert max((f * grey).sum() / grey.sum() for f in found) > 0.9
