"""What `align_to` promises beside its accuracy: the mask it looks at, and how far is too far."""

import numpy as np
import pytest
from runs import ball, grid, world

from asl_bids_app.preprocess import align
from asl_bids_app.preprocess.align import AlignmentError, align_to, resample
from asl_bids_app.preprocess.registration import RegistrationError

SHAPE = (20, 22, 12)
AFFINE = grid(SHAPE, (7.0, 7.0, 10.0))
HEAD = 900.0 * ball(SHAPE, AFFINE)


@pytest.fixture
def registered(monkeypatch):
    """Let the registration find a given matrix, and keep what it was asked."""
    asked = {}

    def give(matrix):
        def register(*arguments, **options):
            asked.update(options, arguments=arguments)
            if isinstance(matrix, Exception):
                raise matrix
            return np.asarray(matrix, float)

        monkeypatch.setattr(align, "register", register)
        monkeypatch.setattr(align, "normalise", lambda image, _: image)
        return asked

    return give


def shifted(x, y=0.0, z=0.0):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


@pytest.mark.parametrize(("apart", "fails"), [(39.0, False), (41.0, True)])
def test_a_head_does_not_move_further_than_40_mm(registered, apart, fails):
    registered(shifted(0, 0.6 * apart, 0.8 * apart))
    if not fails:
        np.testing.assert_array_equal(
            align_to(HEAD, AFFINE, HEAD, AFFINE), shifted(0, 0.6 * apart, 0.8 * apart)
        )
        return
    with pytest.raises(AlignmentError, match="images 41 mm apart"):
        align_to(HEAD, AFFINE, HEAD, AFFINE)


def test_a_turn_about_the_head_is_no_distance(registered):
    """A head far from the origin that turns by 20 degrees where it is."""
    centre = np.array([0.0, 100.0, 100.0])
    affine = grid(SHAPE, (7.0, 7.0, 10.0), centre)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    registered(turn)
    head = 900.0 * ball(SHAPE, affine, centre=centre)
    np.testing.assert_array_equal(align_to(head, affine, head, affine), turn)
    # The same turn about the origin moves the head by 2 sin(10 degrees) 141 mm.
    turn[:3, 3] = 0
    registered(turn)
    with pytest.raises(AlignmentError, match="images 49 mm apart"):
        align_to(head, affine, head, affine)


def test_the_brain_and_its_rim_are_compared(registered):
    asked = registered(np.eye(4))
    align_to(HEAD, AFFINE, HEAD, AFFINE)
    brain = HEAD > 0
    assert asked["mask"][brain].all()
    far = np.linalg.norm(world(SHAPE, AFFINE), axis=-1) > 60 + 20
    assert not asked["mask"][far].any()
    assert asked["mask"].sum() > 1.2 * brain.sum()
    # A mask that is given counts, widened by a voxel.
    given = np.zeros(SHAPE, bool)
    given[10, 11, 6] = True
    align_to(HEAD, AFFINE, HEAD, AFFINE, mask=given)
    assert asked["mask"].sum() == 7
    # Where no brain is found (a plate of 130 mL), what is bright.
    picture = np.ones(SHAPE)
    picture[:1] = 100
    align_to(HEAD, AFFINE, picture, AFFINE)
    assert asked["mask"][:2].all()
    assert not asked["mask"][2:].any()


def test_the_fixed_image_comes_first(registered):
    asked = registered(np.eye(4))
    other = grid((8, 8, 8), (9.0, 9.0, 9.0))
    align_to(np.ones((8, 8, 8)), other, HEAD, AFFINE)
    fixed, fixed_affine, moving, moving_affine = asked["arguments"]
    assert (fixed.shape, moving.shape) == (SHAPE, (8, 8, 8))
    np.testing.assert_array_equal(fixed_affine, AFFINE)
    np.testing.assert_array_equal(moving_affine, other)


def test_a_failed_registration_says_why(registered):
    registered(RegistrationError("no contrast"))
    with pytest.raises(AlignmentError, match=r"^no contrast$"):
        align_to(HEAD, AFFINE, HEAD, AFFINE)


def test_resampling_volumes_and_what_lies_outside():
    x = world(SHAPE, AFFINE)[..., 0]
    data = np.stack([x, 2 * x], axis=-1)
    # Points of the target are 14 mm further to the right in the data: two voxels.
    moved = resample(data, AFFINE, SHAPE, AFFINE, shifted(14), outside=-9.0)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved[:18, ..., 0], x[:18] + 14, atol=1e-3)
    np.testing.assert_allclose(moved[:18, ..., 1], 2 * (x[:18] + 14), atol=2e-3)
    assert (moved[18:] == -9).all()
    alone = resample(x, AFFINE, SHAPE, AFFINE, shifted(14))
    assert alone.shape == SHAPE
    assert not alone[18:].any()
    # The nearest voxel, no mixture, and a mixture in the range of the values.
    mask = (x > 0).astype(np.float32)
    assert set(np.unique(resample(mask, AFFINE, SHAPE, AFFINE, shifted(3), order=0))) == {0, 1}
    linear = resample(mask, AFFINE, SHAPE, AFFINE, shifted(3), order=1)
    assert linear.max() <= 1
    assert linear.min() >= 0
    assert resample(mask, AFFINE, SHAPE, AFFINE, shifted(3)).max() > 1.01
