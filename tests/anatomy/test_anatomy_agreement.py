"""Measures of a registration against closed forms."""

import numpy as np
import pytest
from heads import turn
from scipy.stats import entropy

from asl_bids_app.anatomy.agreement import agreement, boundary_contrast, mutual
from asl_bids_app.anatomy.agreement import normalised_mutual_information as nmi
from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.request import UnitMaps


def test_equal_values_share_all_and_independent_ones_nothing():
    levels = np.arange(32.0)
    first, second = np.repeat(levels, 32), np.tile(levels, 32)
    assert mutual(first, first) == pytest.approx(2)
    assert mutual(first, -3 * first + 1) == pytest.approx(2)
    assert mutual(first, second) == pytest.approx(1)


def test_a_table_of_two_by_two_has_the_entropies_of_the_textbook():
    table = np.array([[40, 10], [15, 35]])
    rows, columns = np.repeat([[0, 0], [1, 1]], 1, axis=0).ravel(), np.array([0, 1, 0, 1])
    first, second = (np.repeat(v, table.ravel()).astype(float) for v in (rows, columns))
    expected = (entropy(table.sum(axis=0)) + entropy(table.sum(axis=1))) / entropy(table.ravel())
    assert mutual(first, second) == pytest.approx(expected)


AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = [58.5, -58.5, -58.5]
SHAPE = (40, 40, 40)


def world():
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return index @ AFFINE[:3, :3].T + AFFINE[:3, 3]


def two_halves():
    """A head of white matter where a plane's normal points away, on a grid that is turned."""
    shape = (100, 100, 100)
    place = np.eye(4)
    place[:3, :3] = turn(np.radians([10, -20, 30]))
    place[:3, 3] = place[:3, :3] @ np.full(3, -49.5)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = index @ place[:3, :3].T + place[:3, 3]
    inside = np.linalg.norm(points, axis=-1) < 40
    # Half a millimetre of mixture on each side of the plane.
    white = np.clip(0.5 - points[..., 0], 0, 1) * inside
    grey = inside - white
    t1w = 90 * white + 60 * grey
    return Head(t1w, place, inside, grey, white, np.zeros(shape))


def shifted(mm):
    matrix = np.eye(4)
    matrix[0, 3] = mm
    return matrix


@pytest.mark.parametrize(
    ("shift", "expected"),
    # 2 mm to each side of the plane: in place 60 and 20; far off on one side of it, no change.
    [(0.0, 2 * (60 - 20) / (60 + 20)), (12.0, 0.0), (-12.0, 0.0)],
)
def test_contrast_across_the_boundary(shift, expected):
    x = world()[..., 0]
    # Linear within a voxel of the plane, so that interpolation is exact 2 mm away of it.
    image = np.where(x < 0, 20.0, 60.0)
    mask = np.linalg.norm(world(), axis=-1) < 55
    found = boundary_contrast(image, mask, AFFINE, two_halves(), shifted(shift))
    assert found == pytest.approx(expected, abs=0.03)


def test_too_little_to_judge_by_is_not_a_number():
    head = two_halves()
    empty = np.zeros(SHAPE, bool)
    assert np.isnan(boundary_contrast(np.ones(SHAPE), empty, AFFINE, head, np.eye(4)))
    assert np.isnan(nmi(np.ones(SHAPE), empty, AFFINE, head, np.eye(4)))


def test_agreement_is_best_in_place():
    points = world()
    mask = np.linalg.norm(points, axis=-1) < 40
    image = np.where(mask, np.where(points[..., 0] < 0, 20.0, 60.0), 0)
    unit = UnitMaps({"sub": "1"}, {"M0": image, "CBF": image}, mask, ~mask, AFFINE, {}, {})
    found = [agreement(unit, two_halves(), shifted(mm)) for mm in (0.0, 4.0, 8.0)]
    for key in ("nmi", "boundary_contrast"):
        values = [one[key] for one in found]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[1] + 0.02
