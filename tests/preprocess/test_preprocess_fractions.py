"""Tissue fractions from an M0 whose mixtures, field, noise and contrast are known."""

import numpy as np
import pytest
from runs import prepared
from scipy import ndimage

from asl_bids_app.preprocess.fractions import tissue_fractions
from asl_bids_app.preprocess.tissue_maps import TissueMaps, sharpen

VOXEL = np.array([3.5, 3.5, 5.0])
SHAPE = (40, 44, 14)


def head(seed=0):
    """Folded white matter, a ribbon of grey matter around it, fluid; and a vague atlas of them."""
    rng = np.random.default_rng(seed)
    fine = [3 * n for n in SHAPE]
    step = VOXEL / 3
    where = np.stack(np.meshgrid(*map(np.arange, fine), indexing="ij"), -1) * step
    middle = np.array(fine) * step / 2
    radius = np.linalg.norm(((where - middle) / (0.46 * middle[0] * 2))[..., :2], axis=-1)
    folds = ndimage.gaussian_filter(rng.standard_normal(fine), 7 / step)
    depth = (1 - radius) * 60 - 14 + 9 * folds / folds.std()
    white, grey = depth > 8, (depth <= 8) & (depth > -6)
    brain = radius < 1
    tissues = [grey & brain, white & brain, brain & ~grey & ~white]
    pool = [n for size in SHAPE for n in (size, 3)]
    truth = np.stack([part.reshape(pool).mean((1, 3, 5)) for part in tissues])
    mask = truth.sum(0) > 0.95
    vague = [ndimage.gaussian_filter(part, 9 / 2.3548 * 2 / VOXEL) for part in truth]
    atlas = dict(zip(("gm", "wm", "csf"), np.clip(vague, 0, 1).astype(np.float32), strict=True))
    return truth, mask, atlas


def seen(truth, intensities, noise=0.005, seed=1):
    """An M0 of mixtures under a coil's field, in units of a scanner."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, n)[:, None] for n in (SHAPE[0], SHAPE[1]))
    field = np.exp(0.25 * y - 0.2 * x.T + 0.15 * (y**2 + x.T**2))[..., None]
    image = sum(a * part for a, part in zip(intensities, truth, strict=True)) * field
    return 3000 * (image + noise * rng.standard_normal(SHAPE))


CONTRASTS = {
    "proton density": (0.80, 0.70, 1.00),
    "short repetition time": (0.74, 0.68, 0.60),
    "white brightest": (0.62, 0.68, 0.45),
}


@pytest.fixture(scope="module")
def anatomy():
    return head()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_fractions_are_nearer_the_truth_than_the_atlas(anatomy, contrast):
    truth, mask, atlas = anatomy
    found = tissue_fractions(seen(truth, CONTRASTS[contrast]), mask, atlas, VOXEL)
    assert found.from_m0
    grey, white, _ = CONTRASTS[contrast]
    assert np.sign(found.contrast) == np.sign(grey - white)
    for index, key in enumerate(("gm", "wm")):
        image = getattr(found, key)
        assert image.dtype == np.float32
        assert (image[~mask] == 0).all()
        assert image.min() >= 0
        assert image.max() <= 1 + 1e-5
        error = np.abs(image - truth[index])[mask].mean()
        before = np.abs(atlas[key] - truth[index])[mask].mean()
        assert error < 0.8 * before
    assert (found.gm + found.wm + found.csf).max() <= 1 + 1e-5


def test_scale_of_the_image_does_not_matter(anatomy):
    truth, mask, atlas = anatomy
    m0 = seen(truth, CONTRASTS["proton density"])
    first = tissue_fractions(m0, mask, atlas, VOXEL)
    second = tissue_fractions(m0 * 1e-4, mask, atlas, VOXEL)
    np.testing.assert_allclose(first.gm, second.gm, atol=1e-3)


@pytest.mark.parametrize("kind", ["constant", "noise", "one tissue", "zero", "tiny mask"])
def test_without_contrast_the_atlas_is_all_there_is(anatomy, kind):
    truth, mask, atlas = anatomy
    rng = np.random.default_rng(2)
    m0 = {
        "constant": np.full(SHAPE, 7.0),
        "noise": 100 * (1 + 0.05 * rng.standard_normal(SHAPE)),
        "one tissue": seen(truth, (0.75, 0.75, 0.75)),
        "zero": np.zeros(SHAPE),
        "tiny mask": seen(truth, CONTRASTS["proton density"]),
    }[kind]
    if kind == "tiny mask":
        small = np.zeros_like(mask)
        small[20:24, 20:24, 7] = True
        mask = small
    found = tissue_fractions(m0, mask, atlas, VOXEL)
    assert not found.from_m0
    np.testing.assert_array_equal(found.gm, atlas["gm"] * mask)


def test_noise_of_the_m0_makes_it_no_worse_than_the_atlas(anatomy):
    truth, mask, atlas = anatomy
    m0 = seen(truth, CONTRASTS["proton density"], noise=0.06)
    found = tissue_fractions(m0, mask, atlas, VOXEL)
    error = np.abs(found.gm - truth[0])[mask].mean()
    assert error < 1.05 * np.abs(atlas["gm"] - truth[0])[mask].mean()


def test_slabs_and_single_slices(anatomy):
    truth, mask, atlas = anatomy
    m0 = seen(truth, CONTRASTS["proton density"])
    part = (slice(None), slice(None), slice(6, 7))
    found = tissue_fractions(
        m0[part], mask[part], {key: image[part] for key, image in atlas.items()}, VOXEL
    )
    assert np.isfinite(found.gm).all()
    error = np.abs(found.gm - truth[0][part])[mask[part]].mean()
    assert error < np.abs(atlas["gm"] - truth[0])[part][mask[part]].mean()


def test_an_empty_mask_is_refused(anatomy):
    truth, mask, atlas = anatomy
    with pytest.raises(ValueError, match="empty"):
        tissue_fractions(truth[0], np.zeros_like(mask), atlas, VOXEL)


def test_maps_of_derivatives_stay(anatomy):
    _, _, atlas = anatomy
    given = TissueMaps(atlas, {"source": "x"})
    found = sharpen(None, given, given=True)
    assert found.facts["fractions"] == "derivatives"
    assert found.maps is atlas


def test_an_m0_without_contrast_gives_no_tissue():
    mask = np.ones((8, 8, 6), bool)
    flat = prepared(mask, np.diag([4.0, 4, 6, 1]), m0=1000.0)
    none = TissueMaps({}, {"source": "none"})
    assert sharpen(flat, none, given=False) is none
