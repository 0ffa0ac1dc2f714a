"""Tissue priors and alignment against heads whose anatomy and motion are known."""

import numpy as np
import pytest
from heads import LEFT, M0_OF, brain_only, grid, pose, scan_map, tissue_image
from scipy import ndimage

from asl_bids_app.atlas import load_atlas
from asl_bids_app.preprocess.align import AlignmentError, align_to, resample
from asl_bids_app.preprocess.tissue import tissue_priors

FULL = grid()
COARSE = grid((35, 40, 18), (6.0, 6.0, 9.0))
SLAB = grid((52, 60, 9), (4.0, 4.0, 6.0), (0.0, -18.0, 20.0))


def head(shape, affine, motion=None, shares=None, scalp=250.0, sd=10.0, seed=0):
    picture = tissue_image(shares or dict.fromkeys(M0_OF, 1.0), scalp)
    rng = np.random.default_rng(seed)
    return scan_map(picture, shape, affine, motion) + sd * rng.standard_normal(shape)


def distances(matrix, truth, mask, affine):
    """RMS distance in the brain between where two transforms send it, mm."""
    points = np.argwhere(mask)[::20]
    world = affine @ np.c_[points, np.ones(len(points))].T
    return np.sqrt((((matrix - truth) @ world)[:3] ** 2).sum(axis=0).mean())


def other_head(scale=(0.92, 0.95, 0.9), shift=(4, -12, 9), degrees=(12, -4, 6)):
    """A smaller head, turned and moved: affine from the atlas to the scanner."""
    return pose(shift, degrees) @ np.diag([*scale, 1.0])


@pytest.mark.parametrize(
    ("where", "limit"),
    [(FULL, 1.0), pytest.param(SLAB, 2.0, marks=pytest.mark.slow)],
    ids=["whole brain", "slab"],
)
def test_priors_lie_on_the_anatomy(where, limit):
    shape, affine = where
    motion = other_head() if where is FULL else other_head(shift=(4, -12, -20))
    mask = brain_only(shape, affine, motion)
    tissue = tissue_priors(head(shape, affine, motion) * mask, affine, mask)
    assert not tissue.warnings
    assert distances(tissue.matrix, np.linalg.inv(motion), mask, affine) < limit
    atlas = load_atlas()
    for key in ("gm", "wm", "csf"):
        found = getattr(tissue, key)
        truth = scan_map(getattr(atlas, key), shape, affine, motion)
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1.01
        assert (found[~mask] == 0).all()
        assert np.corrcoef(found[mask], truth[mask])[0, 1] > (0.9 if where is FULL else 0.8)
    total = tissue.gm + tissue.wm + tissue.csf
    assert total.max() < 1.01


def test_without_contrast_outlines_must_do():
    shape, affine = COARSE
    motion = other_head()
    mask = brain_only(shape, affine, motion)
    tissue = tissue_priors(np.full(shape, 1000.0), affine, mask)
    assert "outline" in tissue.warnings[0]
    assert distances(tissue.matrix, np.linalg.inv(motion), mask, affine) < 6.0


@pytest.mark.slow
def test_what_is_no_brain_is_announced():
    shape, affine = COARSE
    rng = np.random.default_rng(0)
    mask = brain_only(shape, affine)
    texture = 1000 + 200 * ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    tissue = tissue_priors(texture * mask, affine, mask)
    assert any("doubtful" in text for text in tissue.warnings)
    with pytest.raises(ValueError, match="empty"):
        tissue_priors(texture, affine, np.zeros(shape, bool))


@pytest.mark.parametrize("delay", [pytest.param(0.5, marks=pytest.mark.slow), 1.5])
def test_runs_on_different_grids_are_laid_on_each_other(delay):
    shape, affine = FULL
    other_shape, other_affine = grid((60, 64, 22), (3.5, 3.6, 7.0), (3.0, -12.0, 9.0))
    motion = pose((2.5, -1.5, 3.0), (3.0, -2.0, 2.5))
    fixed = head(shape, affine)
    moving = head(other_shape, other_affine, motion, LEFT[delay], scalp=60.0, seed=1)
    matrix = align_to(moving, other_affine, fixed, affine)
    mask = brain_only(shape, affine)
    # A fifth of a voxel, though the contrasts differ and flip.
    assert distances(matrix, motion, mask, affine) < 1.0
    truth = scan_map(tissue_image(LEFT[delay], 60.0), shape, affine)
    inside = ndimage.binary_erosion(mask, iterations=2)

    def error(transform):
        laid = resample(moving, other_affine, shape, affine, transform)
        return np.abs(laid - truth)[inside].mean()

    assert error(matrix) < 1.1 * error(motion) < 0.8 * error(np.eye(4))


def test_images_without_anything_in_common():
    shape, affine = FULL
    with pytest.raises(AlignmentError):
        align_to(np.zeros(shape), affine, head(shape, affine), affine)


@pytest.mark.slow
@pytest.mark.real_data
def test_real_grey_matter_is_better_perfused(real_data):
    import nibabel as nib

    from asl_bids_app.preprocess.mask import brain_mask

    image = nib.load(real_data / "sub-01" / "perf" / "sub-01_acq-pcasl2depi_asl.nii.gz")
    data = np.asarray(image.dataobj, np.float32)
    m0 = data[..., 0]
    mask = brain_mask(m0, image.affine)
    tissue = tissue_priors(m0 * mask, image.affine, mask)
    delta_m = (data[..., 2::2] - data[..., 1::2]).mean(axis=3)  # label first
    grey, white = delta_m[tissue.gm > 0.7].mean(), delta_m[tissue.wm > 0.7].mean()
    assert 1.5 < grey / white < 5
    # In an M0, grey matter holds more water than white.
    assert m0[tissue.gm > 0.7].mean() > 1.05 * m0[tissue.wm > 0.7].mean()
    assert not tissue.warnings
