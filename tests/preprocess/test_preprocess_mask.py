"""The brain mask against heads whose brain is known, and against what is no head."""

import numpy as np
import pytest
from heads import M0_OF, brain_only, eyes_of, grid, pose, scan_map, tissue_image
from scipy import ndimage

from asl_bids_app.preprocess.geometry import voxel_sizes
from asl_bids_app.preprocess.mask import MaskError, brain_mask

FULL = grid()
COARSE = grid((35, 40, 18), (6.0, 6.0, 9.0))


def head(
    shape, affine, scalp=250.0, eyes=1200.0, blur_mm=(0, 0, 0), shade=0.3, sd=8.0, motion=None
):
    """A magnitude image of a head, with the coils' shading and noise."""
    rng = np.random.default_rng(0)
    picture = tissue_image(dict.fromkeys(M0_OF, 1.0), scalp) + eyes * eyes_of()
    image = ndimage.gaussian_filter(
        scan_map(picture, shape, affine, motion), np.array(blur_mm) / voxel_sizes(affine)
    )
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = image * (1 + shade * (x**2 + y**2 - 0.5 * y + 0.3 * z))
    return np.hypot(
        image + sd * rng.standard_normal(shape), sd * rng.standard_normal(shape)
    ).astype(np.float32)


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.mark.parametrize(
    ("where", "how", "least"),
    [
        (FULL, {}, 0.97),
        pytest.param(FULL, {"shade": 0.8}, 0.97, marks=pytest.mark.slow),
        pytest.param(FULL, {"sd": 100.0}, 0.97, marks=pytest.mark.slow),
        (FULL, {"scalp": 700.0}, 0.97),
        pytest.param(FULL, {"scalp": 0.0, "eyes": 0.0}, 0.97, marks=pytest.mark.slow),
        (FULL, {"motion": pose((3, 10, -8), (20, 5, -5))}, 0.97),
        (grid((64, 64, 32), (3.5, 3.5, 5.0)), {"blur_mm": (3, 3, 5)}, 0.95),
        (grid((26, 30, 16), (8.0, 8.0, 10.0)), {}, 0.97),
        pytest.param(
            grid((52, 60, 5), (4.0, 4.0, 6.0), (0, -18, -10)), {}, 0.97, marks=pytest.mark.slow
        ),
        (grid((52, 60, 8), (4.0, 4.0, 6.0), (0, -18, 45)), {}, 0.97),
        (grid((52, 60, 1), (4.0, 4.0, 6.0), (0, -18, 20)), {}, 0.97),
        (grid((6, 60, 40), (6.0, 4.0, 4.0), (20, -18, 8)), {}, 0.97),
    ],
    ids=[
        "plain",
        "strong shading",
        "noisy",
        "bright scalp",
        "brain only",
        "tilted",
        "blurred 3D",
        "8 mm voxels",
        "slab at the eyes",
        "slab at the top",
        "single slice",
        "sagittal slab",
    ],
)
def test_brain_is_found(where, how, least):
    shape, affine = where
    truth = brain_only(shape, affine, how.get("motion"))
    mask = brain_mask(head(shape, affine, **how), affine)
    assert mask.dtype == bool
    assert dice(mask, truth) > least
    # Eyes and scalp lie further out than the rim of the brain.
    rim = ndimage.distance_transform_edt(~truth, sampling=voxel_sizes(affine)) <= 8.0
    assert (mask & ~rim).sum() < 0.02 * mask.sum()
    assert ndimage.label(mask)[1] == 1
    assert np.array_equal(mask, ndimage.binary_fill_holes(mask))


def test_axes_and_units_don_t_matter():
    shape, affine = FULL
    image = head(shape, affine)
    mask = brain_mask(image, affine)
    turned = affine[:, [2, 0, 1, 3]]
    other = brain_mask(np.transpose(image, (2, 0, 1)) * 1e-3, turned)
    assert dice(np.transpose(other, (1, 2, 0)), mask) > 0.999


def test_holes_in_the_data_don_t_matter():
    shape, affine = FULL
    image = head(shape, affine)
    mask = brain_mask(image, affine)
    image[26, 30, 13] = np.nan
    image[2, 2, 2] = np.inf
    assert dice(brain_mask(image, affine), mask) > 0.999


def ball(radius_mm):
    shape, affine = COARSE
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = (index - np.array(shape) / 2) * voxel_sizes(affine)
    noise = np.random.default_rng(0).standard_normal(shape)
    return 100.0 * (np.linalg.norm(away, axis=-1) < radius_mm) + noise


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones(COARSE[0]), "without any contrast"),
        (np.zeros(COARSE[0]), "without any contrast"),
        (np.full(COARSE[0], np.nan), "without any contrast"),
        (np.abs(np.random.default_rng(0).standard_normal(COARSE[0])), "less than a brain"),
        (np.abs(np.random.default_rng(0).standard_normal((35, 40, 3))), "less than a brain"),
        (ball(25.0), "less than a brain"),
        (ball(100.0), "more than a brain"),
    ],
    ids=["constant", "zero", "nan", "noise", "noise in a slab", "small ball", "large ball"],
)
def test_what_is_no_brain_is_refused(image, message):
    with pytest.raises(MaskError, match=message):
        brain_mask(image, COARSE[1])


@pytest.mark.real_data
def test_real_m0(real_data):
    import nibabel as nib

    image = nib.load(real_data / "sub-01" / "perf" / "sub-01_acq-pcasl2depi_asl.nii.gz")
    m0 = np.asarray(image.dataobj[..., 0], np.float32)
    mask = brain_mask(m0, image.affine)
    volume = mask.sum() * voxel_sizes(image.affine).prod() * 1e-3
    assert 1100 < volume < 1600  # the field of view ends in the cerebellum
    # Points read off the image by eye (voxels): inside, and in eyes, scalp, air.
    for inside in ((32, 25, 12), (20, 30, 9), (32, 20, 1), (32, 30, 20)):
        assert mask[inside], inside
    for outside in ((20, 54, 5), (45, 54, 5), (32, 60, 15), (5, 5, 5), (52, 32, 20)):
        assert not mask[outside], outside
