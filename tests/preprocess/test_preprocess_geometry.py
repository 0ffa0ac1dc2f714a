"""Transforms and resampling against analytic functions of space."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from asl_bids_app.preprocess.align import resample as place
from asl_bids_app.preprocess.geometry import (
    resample,
    same_grid,
    to_matrix,
    to_parameters,
    voxel_sizes,
)
from asl_bids_app.preprocess.interpolation import Spline
from asl_bids_app.preprocess.tissue import resample_to

AFFINE = np.array(
    [[-3.0, 0.2, 0.0, 50.0], [0.2, 3.0, -0.4, -60.0], [0.0, 0.3, 5.0, -40.0], [0, 0, 0, 1.0]]
)
SHAPE = (34, 40, 18)


def world(shape, affine):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def hill(points):
    """A smooth function of space that is wider than the voxels."""
    away = (points - [0.0, 5.0, 3.0]) / [20.0, 28.0, 24.0]
    return 100 * np.exp(-0.5 * (away**2).sum(axis=-1))


def test_parameters_are_shift_then_euler_angles_about_the_centre():
    parameters = np.array([1.5, -2.0, 0.7, 0.1, -0.2, 0.3])
    centre = np.array([10.0, -20.0, 30.0])
    matrix = to_matrix(parameters, centre)
    turn = Rotation.from_euler("XYZ", parameters[3:]).as_matrix()
    point = np.array([3.0, 4.0, 5.0])
    expected = turn @ (point - centre) + centre + parameters[:3]
    assert (matrix @ [*point, 1.0])[:3] == pytest.approx(expected)
    assert to_parameters(matrix, centre) == pytest.approx(parameters)


@pytest.mark.parametrize("shape", [(9, 8, 7), (40, 30, 1)])
@pytest.mark.parametrize("order", [1, 3])
def test_splines_are_those_of_scipy(order, shape):
    rng = np.random.default_rng(0)
    volume = np.asfortranarray(rng.normal(100, 20, shape))
    # More points than are read at a time, up to three voxels outside.
    place = rng.uniform(-3, np.array(shape)[:, None] + 2, (3, 40000))
    expected = ndimage.map_coordinates(volume, place, order=order, mode="nearest")
    assert np.abs(Spline.through(volume, order).at(place) - expected).max() < 0.001
    voxels = np.indices(shape).reshape(3, -1)
    assert Spline.through(volume, order).at(voxels) == pytest.approx(volume.ravel(), abs=1e-3)


def test_far_outside_the_value_of_the_border_goes_on():
    volume = np.arange(60.0).reshape(5, 4, 3)
    for order in (1, 3):
        spline = Spline.through(volume, order)
        far = spline.at(np.array([[-1e3, 1e9], [2.0, 2.0], [1.0, 1.0]]))
        assert far == pytest.approx([volume[0, 2, 1], volume[-1, 2, 1]], abs=0.2)


def deep(points, voxels):
    """Points at least so many voxels away from the border of the grid."""
    inverse = np.linalg.inv(AFFINE)
    place = points @ inverse[:3, :3].T + inverse[:3, 3]
    return ((place > voxels) & (place < np.array(SHAPE) - 1 - voxels)).all(axis=-1)


@pytest.mark.parametrize("order", [1, 3])
def test_resampling_reads_the_function_at_the_moved_points(order):
    matrix = to_matrix(np.array([1.3, -2.1, 3.2, 0.05, -0.04, 0.08]), np.array([0.0, 5.0, 3.0]))
    moved = resample(hill(world(SHAPE, AFFINE)), AFFINE, matrix, order=order)
    points = world(SHAPE, AFFINE) @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.isfinite(moved).mean() > 0.8
    error = np.abs(moved - hill(points))
    # Linear interpolation is off by up to an eighth of the curvature times voxel squared.
    assert error[deep(points, 3)].max() < (0.03 if order == 3 else 1.0)
    # In the half voxel beyond the last centres it is the border's value.
    assert np.nanmax(error) < 2.5


def test_resampling_onto_another_grid():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-40, -45, -30]
    shape = (20, 22, 15)
    moved = resample(hill(world(SHAPE, AFFINE)), AFFINE, np.eye(4), shape, affine)
    points = world(shape, affine)
    assert np.abs(moved - hill(points))[deep(points, 3)].max() < 0.03


def test_outside_the_field_of_view_is_unknown():
    volume = np.ones(SHAPE)
    up = np.eye(4)
    up[:3, 3] = 2.0 * AFFINE[:3, 2]  # two slices
    moved = resample(volume, AFFINE, up)
    assert np.isnan(moved[..., -2:]).all()
    assert np.allclose(moved[..., :-2], 1)
    part = np.eye(4)
    part[:3, 3] = 0.4 * AFFINE[:3, 2]
    assert np.isfinite(resample(volume, AFFINE, part)).all()
    assert (place(volume, AFFINE, SHAPE, AFFINE, up)[..., -2:] == 0).all()


def test_missing_voxels_stay_missing_and_don_t_spread():
    volume = hill(world(SHAPE, AFFINE))
    volume[10:13, 10:13, 8] = np.nan
    shift = np.eye(4)
    shift[:3, 3] = AFFINE[:3, 0]  # a whole voxel
    moved = resample(volume, AFFINE, shift)
    assert np.isnan(moved[9:12, 10:13, 8]).all()
    assert np.isnan(moved[:-2]).sum() == 9


def test_no_motion_changes_nothing():
    volume = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert np.array_equal(resample(volume, AFFINE, np.eye(4)), volume)


def test_volumes_of_a_series_are_moved_alike():
    series = np.stack([hill(world(SHAPE, AFFINE)) * k for k in (1, 2)], axis=-1)
    shift = np.eye(4)
    shift[0, 3] = 1.0
    moved = place(series, AFFINE, SHAPE, AFFINE, shift)
    assert moved.shape == (*SHAPE, 2)
    assert np.allclose(moved[..., 1], 2 * moved[..., 0], rtol=1e-4, atol=1e-4)


def test_a_fine_map_is_averaged_over_coarse_voxels():
    fine = np.eye(4)
    stripes = np.zeros((48, 48, 24))
    stripes[::2] = 1  # 1 mm stripes: any 4 mm voxel holds half
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    coarse[:3, 3] = 5.5
    mean = resample_to(stripes, fine, (8, 8, 3), coarse)
    assert np.abs(mean - 0.5).max() < 1e-3


def test_grids_are_compared_where_it_matters():
    other = AFFINE.copy()
    other[0, 3] += 0.01
    assert same_grid(SHAPE, AFFINE, SHAPE, other)
    other[0, 0] += 0.01  # a hundredth of a mm a voxel is a third of one at the far side
    assert not same_grid(SHAPE, AFFINE, SHAPE, other)
    assert not same_grid(SHAPE, AFFINE, (34, 40, 17), AFFINE)
    assert voxel_sizes(np.diag([2.0, -3.0, 4.0, 1.0])).tolist() == [2, 3, 4]
