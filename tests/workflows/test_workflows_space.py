"""The second run of a joint series on the grid of the first: places, values and slice times."""

import numpy as np
import pytest
from runs import ball, grid, planned, prepared, world

from asl_bids_app.errors import InputError
from asl_bids_app.preprocess import align
from asl_bids_app.preprocess.joint_space import into_space

SHAPE, ZOOMS = (20, 22, 12), (7.0, 7.0, 10.0)
AFFINE = grid(SHAPE, ZOOMS)
TIMES = 0.04 * np.arange(SHAPE[2]) ** 1.5  # no symmetry, no line


@pytest.fixture
def head_moved(monkeypatch):
    """Say by which transform the head moved between the runs, without looking for it."""

    def by(matrix):
        monkeypatch.setattr(align, "align_to", lambda *_, **__: np.asarray(matrix, float))

    return by


def shift(x=0.0, y=0.0, z=0.0):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def turn(degrees, axis=0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    matrix = np.eye(4)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def place(affine=AFFINE, shape=SHAPE, times=TIMES, axis=2, move=False, mask=None, **changes):
    """Bring a run of some grid into the space of one on the usual grid."""
    first = prepared(ball(SHAPE, AFFINE), AFFINE)
    mask = ball(shape, affine) if mask is None else mask
    other = prepared(mask, affine, **changes)
    run = planned(slice_time=times, slice_axis=axis, path="sub-01_acq-b_asl.nii.gz")
    return into_space(run, other, planned(slice_time=np.zeros(SHAPE[2])), first, move=move)


def flipped(affine, shape, axis):
    """The same grid, stored from the other end of an axis."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    return affine @ matrix


def test_slices_stored_from_the_other_end_bring_their_times_along():
    """The run's slice 0 is at the top: what lies in the first's top slice came first."""
    placed, times, how = place(affine=flipped(AFFINE, SHAPE, 2))
    np.testing.assert_allclose(times, TIMES[::-1], atol=1e-9)
    assert placed.delta_m.shape[:3] == SHAPE
    assert how == "resampled by the scanner's coordinates onto another grid"


def test_slice_times_of_a_head_that_moved(head_moved):
    """The head went up by 1.5 slices: what lies in slice k was excited with slice k + 1.5."""
    head_moved(shift(z=15))
    _, times, _ = place(move=True)
    expected = np.interp(np.arange(SHAPE[2]) + 1.5, np.arange(SHAPE[2]), TIMES)
    np.testing.assert_allclose(times, expected, atol=1e-9)
    head_moved(shift(z=-15))
    _, times, _ = place(move=True)
    expected = np.interp(np.arange(SHAPE[2]) - 1.5, np.arange(SHAPE[2]), TIMES)
    np.testing.assert_allclose(times, expected, atol=1e-9)


def test_slice_times_along_another_axis():
    """A coronal run: its slices are the first's rows, so all axial slices cut all of them."""
    shape = (20, 12, 22)
    affine = grid(shape, (7.0, 10.0, 7.0))
    _, times, _ = place(affine, shape, axis=1)
    # Each axial slice's middle lies in the middle of the coronal ones.
    np.testing.assert_allclose(times, np.interp(5.5, np.arange(12), TIMES), atol=1e-9)
    # Laid down, the axial slices are the coronal ones.
    lying = np.eye(4)[[0, 2, 1, 3]]
    _, times, _ = place(lying @ affine, shape, axis=1)
    np.testing.assert_allclose(times, TIMES, atol=1e-9)


def test_slice_times_of_a_turned_head_are_those_of_the_middle(head_moved):
    """A nod of 5 degrees about the middle: cos(5 degrees) of the way in each slice."""
    head_moved(turn(5))
    _, times, _ = place(move=True)
    way = (np.arange(SHAPE[2]) - 5.5) * np.cos(np.radians(5)) + 5.5
    np.testing.assert_allclose(times, np.interp(way, np.arange(SHAPE[2]), TIMES), atol=1e-9)


def test_a_3d_readout_has_no_slice_times():
    _, times, _ = place(affine=flipped(AFFINE, SHAPE, 2), times=np.zeros(1))
    np.testing.assert_array_equal(times, np.zeros(SHAPE[2]))


def test_still_heads_on_one_grid_are_not_resampled(head_moved):
    head_moved(shift(x=0.2))
    placed, times, how = place(move=True)
    np.testing.assert_array_equal(placed.delta_m, prepared(ball(SHAPE, AFFINE), AFFINE).delta_m)
    np.testing.assert_array_equal(times, TIMES)
    assert how == "as scanned (0.20 mm apart, not moved)"
    head_moved(shift(x=0.5))
    placed, _, how = place(move=True)
    assert how == "moved by up to 0.50 mm"
    assert not np.array_equal(placed.m0, prepared(ball(SHAPE, AFFINE), AFFINE).m0)


def test_values_go_where_they_belong_and_the_rim_keeps_its_height(head_moved):
    shape = (24, 20, 15)
    affine = grid(shape, (6.0, 8.0, 8.0), (2.0, -3.0, 1.0))
    matrix = shift(5, -4, 7) @ turn(8)
    # In the run's own space the ball, and what it holds, lies where the transform sends it.
    back = np.linalg.inv(matrix)
    own = world(shape, affine) @ back[:3, :3].T + back[:3, 3]
    mask = np.linalg.norm(own, axis=-1) < 60
    # A slope across the head, and a constant in the second measurement.
    values = np.stack([0.01 + 5e-5 * own[..., 2], np.full(shape, 0.01)], axis=-1)
    head_moved(matrix)
    placed, _, how = place(affine, shape, move=True, mask=mask, delta_m=values, n=2)
    expected = 0.01 + 5e-5 * world(SHAPE, AFFINE)[..., 2]
    inside = ball(SHAPE, AFFINE, 45)
    assert placed.mask[inside].all()
    np.testing.assert_allclose(placed.delta_m[inside, 0], expected[inside], rtol=0.01)
    np.testing.assert_allclose(placed.delta_m[inside, 1], 0.01, rtol=0.01)
    # At the rim a voxel is half brain; its signal is that of brain all the same.
    rim = placed.mask & ~inside
    np.testing.assert_allclose(placed.delta_m[rim, 1], 0.01, rtol=0.02)
    np.testing.assert_allclose(placed.standard_error[rim, 1], 0.001, rtol=0.02)
    truth = ball(SHAPE, AFFINE)
    assert (placed.mask != truth).mean() < 0.04
    assert not placed.delta_m[~placed.mask].any()
    assert how.startswith("moved by up to ")
    np.testing.assert_array_equal(placed.affine, AFFINE)


@pytest.mark.parametrize(("far", "refused"), [(30.0, False), (60.0, True), (400.0, True)])
def test_brains_with_less_than_half_in_common_are_refused(far, refused):
    """Balls of 60 mm whose centres are d apart share 1 - 3d/240 + d³/(16 60³)."""
    share = 1 - 3 * far / 240 + far**3 / (16 * 60**3) if far < 120 else 0
    assert (share < 0.5) == refused
    mask = ball(SHAPE, AFFINE, centre=(far, 0, 0)) if far < 100 else ball(SHAPE, AFFINE)
    affine = AFFINE if far < 100 else shift(x=far) @ AFFINE
    if not refused:
        assert place(affine, mask=mask)[0].mask.any()
        return
    with pytest.raises(InputError, match="of the brain in common with sub-01_asl") as caught:
        place(affine, mask=mask)
    assert caught.value.file == "sub-01_acq-b_asl.nii.gz"


def test_a_slab_in_a_whole_brain_is_no_fault():
    shape = (20, 22, 3)
    placed, times, _ = place(grid(shape, ZOOMS, (0, 0, 10)), shape, times=[0.0, 0.1, 0.2])
    filled = placed.mask.any(axis=(0, 1))
    assert 2 <= filled.sum() <= 4
    assert times[0] == 0
    assert times[-1] == pytest.approx(0.2)


def test_a_head_that_cannot_be_found_is_told(monkeypatch):
    def fail(*_, **__):
        raise align.AlignmentError("nothing in common")

    monkeypatch.setattr(align, "align_to", fail)
    with pytest.raises(InputError, match="alignment: found nothing in common"):
        place(move=True)


def test_without_orientation_on_one_side_runs_go_voxel_by_voxel():
    far = shift(x=300) @ AFFINE
    mask = ball(SHAPE, AFFINE)
    placed, times, how = place(far, mask=mask, oriented=False)
    np.testing.assert_array_equal(placed.mask, mask)
    np.testing.assert_array_equal(times, TIMES)
    assert how.startswith("as scanned")
    assert any("taken voxel by voxel: it has no orientation" in text for text in placed.warnings)
