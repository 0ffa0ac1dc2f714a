"""ASL laid on a T1w: known poses, slabs, other contrasts, and what must not register."""

import numpy as np
import pytest
from heads import grid, pose, scan_map
from scipy import ndimage

from asl_bids_app.anatomy.poses import distance
from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.register import register_asl
from asl_bids_app.atlas import load_atlas

CENTRE = np.array([0.0, -18.0, 8.0])


@pytest.fixture(scope="module")
def head():
    atlas = load_atlas()
    parts = [np.array(m) for m in (atlas.gm, atlas.wm, atlas.csf)]
    return Head(np.array(atlas.t1w), np.array(atlas.affine), np.array(atlas.brain), *parts)


def scan(contrast, motion=None, noise=0.02, seed=0, **where):
    """An ASL image of a head that moved: tissues by brightness, a coil's shading, noise."""
    atlas = load_atlas()
    shape, affine = grid(**where)
    gm, wm, csf = (
        scan_map(getattr(atlas, key), shape, affine, motion) for key in ("gm", "wm", "csf")
    )
    image = sum(b * m for b, m in zip(contrast, (gm, wm, csf), strict=True))
    mask = gm + wm + csf > 0.5
    x = np.linspace(-1, 1, shape[0])[:, None, None]
    rng = np.random.default_rng(seed)
    return image * (1 + 0.2 * x) + noise * rng.standard_normal(shape), mask, affine


M0 = (0.85, 0.70, 1.0)
FLOW = (0.6, 0.2, 0.0)


def error(found, motion):
    """The head moved by `motion`, so scanner points go to the T1w by its inverse."""
    return distance(found.matrix, np.linalg.inv(motion), CENTRE)


@pytest.mark.parametrize("seed", [pytest.param(k, marks=pytest.mark.slow) for k in range(4)])
def test_known_poses_are_found_to_half_a_millimetre(head, seed):
    rng = np.random.default_rng(seed)
    shift, turn = rng.standard_normal(3), rng.standard_normal(3)
    shift *= 30 / np.linalg.norm(shift)
    turn *= 20 / np.linalg.norm(turn)
    motion = pose(shift, turn)
    # The scanner's field of view goes along, so that the brain stays in it.
    image, mask, affine = scan(M0, motion, seed=seed, centre=CENTRE + shift)
    found = register_asl({"M0": image}, mask, affine, head)
    assert found.registered, found.reason
    assert error(found, motion) < 0.5


@pytest.mark.slow
def test_perfusion_alone_serves_and_says_how_far_it_may_be_off(head):
    motion = pose((5, -8, 4), (4, -6, 3))
    image, mask, affine = scan(FLOW, motion, noise=0.15)
    found = register_asl({"CBF": image}, mask, affine, head)
    assert found.registered, found.reason
    assert error(found, motion) < 4 * found.error_mm < 4


@pytest.mark.slow
def test_the_contrast_that_leaves_least_open_is_chosen(head):
    motion = pose((5, -8, 4), (4, -6, 3))
    good, mask, affine = scan(FLOW, motion, noise=0.02)
    bad, *_ = scan(M0, motion, noise=1.0)
    found = register_asl({"M0": bad, "CBF": good}, mask, affine, head)
    assert found.image == "CBF"
    assert error(found, motion) < 0.5


@pytest.mark.slow
def test_a_slab_is_found(head):
    motion = pose((5, -8, 10), (4, -6, 3))
    image, mask, affine = scan(M0, motion, shape=(52, 60, 10), centre=(0.0, -18.0, 30.0))
    found = register_asl({"M0": image}, mask, affine, head)
    assert found.registered, found.reason
    assert error(found, motion) < 1.5


@pytest.mark.slow
def test_sides_that_are_swapped_are_told(head):
    """The template is symmetric, so that flow tells the sides: one half has less grey matter."""
    from dataclasses import replace

    half = np.arange(head.gm.shape[0])[:, None, None] < head.gm.shape[0] // 2
    lopsided = replace(head, gm=head.gm * np.where(half, 0.3, 1.0).astype(np.float32))
    image, mask, affine = scan(M0)
    shape = mask.shape
    image = image - 0.85 * scan_map(head.gm - lopsided.gm, shape, affine)
    right = register_asl({"M0": image}, mask, affine, lopsided)
    assert right.registered
    assert not right.warnings
    flipped = replace(lopsided, affine=np.diag([-1.0, 1, 1, 1]) @ head.affine)
    wrong = register_asl({"M0": image}, mask, affine, flipped)
    assert any("left and right look swapped" in line for line in wrong.warnings)


@pytest.mark.slow
def test_noise_is_not_registered(head):
    _, mask, affine = scan(M0)
    noise = np.random.default_rng(0).standard_normal(mask.shape)
    noise = ndimage.gaussian_filter(noise, 1.0) + 1
    found = register_asl({"M0": noise}, mask, affine, head)
    assert not found.registered
    assert found.reason


@pytest.mark.slow
def test_images_that_contradict_each_other_are_not_registered(head):
    first, mask, affine = scan(M0)
    # The same head, but shifted inside its field of view: one of the two is not of this scan.
    other, *_ = scan(FLOW, pose((0, 9, 0)))
    found = register_asl({"M0": first, "CBF": other}, mask, affine, head)
    assert not found.registered
    assert "apart" in found.reason


@pytest.mark.parametrize("image", [np.zeros((52, 60, 26)), np.full((52, 60, 26), 3.0)])
def test_an_image_without_contrast_says_so(head, image):
    _, mask, affine = scan(M0)
    found = register_asl({"M0": image}, mask, affine, head)
    assert not found.registered
    assert "contrast" in found.reason
