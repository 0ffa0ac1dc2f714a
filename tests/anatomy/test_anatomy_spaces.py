"""Spaces, grids and one resampling, against SimpleITK, closed forms and repeated noise."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from heads import grid, pose, scan_map

from asl_bids_app.anatomy.records import Normalisation
from asl_bids_app.anatomy.resampling import resample_maps
from asl_bids_app.anatomy.routes import Routes
from asl_bids_app.anatomy.spaces import Grid, Space, grid_of, read_space
from asl_bids_app.anatomy.transforms import (
    affine_transform,
    chain,
    field_grid,
    field_transform,
    move_points,
    read_transform,
    to_and_from_template,
    write_transform,
)
from asl_bids_app.anatomy.warp import invert_field
from asl_bids_app.atlas import load_atlas
from asl_bids_app.errors import InputError


@pytest.mark.parametrize(
    ("text", "name", "res"),
    [
        ("T1w", "T1w", ""),
        ("MNI152NLin2009cAsym:res-2", "MNI152NLin2009cAsym", "2"),
        ("MNI152NLin6Asym:res-01", "MNI152NLin6Asym", "1"),
        ("MNI152NLin6Asym:res-native", "MNI152NLin6Asym", "native"),
    ],
)
def test_spaces_are_read_as_nipreps_write_them(text, name, res):
    assert read_space(text) == Space(name, res)


@pytest.mark.parametrize("text", ["", "MNI:res", "MNI:cohort-1", "a b", "MNI:res-x", "MNI:res-0"])
def test_other_spellings_are_refused(text):
    with pytest.raises(InputError, match="--output-spaces"):
        read_space(text)


def test_grids_are_templateflows():
    # tpl-MNI152NLin6Asym_res-02_T1w and tpl-MNI152NLin2009cAsym_res-02_T1w.
    six = grid_of(Space("MNI152NLin6Asym", "2"), np.full(3, 4.0), None, None, None)
    assert six.shape == (91, 109, 91)
    assert six.affine[:3].tolist() == [[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72]]
    nine = grid_of(Space("MNI152NLin2009cAsym", "2"), np.full(3, 4.0), None, None, None)
    assert nine.shape == (97, 115, 97)
    assert nine.affine[:3, 3].tolist() == [-96, -132, -78]


def test_the_t1ws_grid_keeps_its_corner():
    t1w = Grid((100, 120, 90), np.diag([1.0, 1.0, 1.0, 1.0]))
    found = grid_of(Space("T1w"), np.array([3.0, 3.0, 5.0]), t1w, None, None)
    assert found.shape == (34, 40, 30)
    np.testing.assert_allclose(found.affine @ [-0.5, -0.5, -0.5, 1], [-0.5, -0.5, -0.5, 1])


def test_a_space_of_which_nothing_is_known_is_one_line():
    with pytest.raises(InputError, match="of which no grid is at hand"):
        grid_of(Space("Fsaverage7"), np.full(3, 4.0), None, None, None)
    with pytest.raises(InputError, match=r"no transform to it.*T1w, MNI152NLin2009aSym"):
        Routes(np.eye(4), to_space={"MNI152NLin2009aSym": affine_transform(np.eye(4))}).to_asl("X")


@pytest.fixture(scope="module")
def bent():
    """A smooth field on the packaged template's grid, and an affine."""
    atlas = load_atlas()
    affine = np.array(atlas.affine)
    affine[:3, :3] *= 2
    index = np.stack(np.meshgrid(*[np.arange(n // 2) for n in atlas.gm.shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    wave = 4 * np.sin(world / 25)[..., [1, 2, 0]].astype(np.float32)
    matrix = pose((3, -4, 5), (5, 2, -4))
    matrix[:3, :3] *= 1.05
    return Normalisation(matrix, wave, invert_field(wave, affine)), affine


def test_a_transform_moves_points_as_its_parts_say(bent):
    found, affine = bent
    there, _ = to_and_from_template(found, affine)
    shape = found.displacement.shape[:3]
    points = move_points(there, shape, affine)
    index = np.array([20, 30, 15])
    start = affine[:3, :3] @ index + affine[:3, 3]
    expected = found.matrix @ [*(start + found.displacement[tuple(index)]), 1]
    np.testing.assert_allclose(points[tuple(index)], expected[:3], atol=1e-3)


def test_there_and_back_is_where_it_began(bent):
    found, affine = bent
    there, back = to_and_from_template(found, affine)
    for point in ((10.0, -20.0, 30.0), (-40.0, 30.0, 5.0)):
        moved = back.TransformPoint(there.TransformPoint(point))
        np.testing.assert_allclose(moved, point, atol=0.1)


def test_transforms_are_written_and_read_again(bent, tmp_path):
    found, affine = bent
    there, _ = to_and_from_template(found, affine)
    for name, transform in (("a.h5", there), ("b.txt", affine_transform(found.matrix))):
        write_transform(tmp_path / name, transform)
        again = read_transform(tmp_path / name)
        point = (12.0, -7.0, 22.0)
        np.testing.assert_allclose(
            again.TransformPoint(point), transform.TransformPoint(point), atol=1e-4
        )
    shape, of_field = field_grid(read_transform(tmp_path / "a.h5"))
    assert shape == found.displacement.shape[:3]
    np.testing.assert_allclose(of_field, affine, atol=1e-4)
    (tmp_path / "c.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"c\.h5: found no transform that ITK reads"):
        read_transform(tmp_path / "c.h5")


def test_a_map_is_what_simpleitk_makes_of_it(bent):
    """One resampling through the composite equals an independent script's within 1 %."""
    found, affine = bent
    shape, of_asl = grid()
    pose_of_asl = pose((4, 3, -6), (3, -5, 8))
    image = 60 * scan_map(load_atlas().gm, shape, of_asl) + 20
    there, _ = to_and_from_template(found, affine)
    routes = Routes(pose_of_asl, to_space={"X": there})
    target = found.displacement.shape[:3]
    points = move_points(routes.to_asl("X"), target, affine)
    ours = resample_maps({"cbf": image}, {}, np.ones(shape, bool), of_asl, points)

    def as_itk(data, matrix):
        made = sitk.GetImageFromArray(np.asarray(data, np.float64).transpose(2, 1, 0))
        lps = np.diag([-1.0, -1, 1, 1]) @ matrix
        sizes = np.linalg.norm(lps[:3, :3], axis=0)
        made.SetSpacing(sizes)
        made.SetDirection((lps[:3, :3] / sizes).ravel())
        made.SetOrigin(lps[:3, 3])
        return made

    flip = np.diag([-1.0, -1, 1, 1])
    lps = flip @ np.linalg.inv(pose_of_asl) @ flip
    to_asl = sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
    whole = sitk.CompositeTransform([to_asl, there])
    theirs = sitk.Resample(
        as_itk(image, of_asl), as_itk(np.zeros(target), affine), whole, sitk.sitkLinear, 0.0
    )
    theirs = sitk.GetArrayFromImage(theirs).transpose(2, 1, 0)
    inner = ours.inside & (theirs > 0)
    assert inner.sum() > 30_000
    off = np.abs(ours.maps["cbf"] - theirs)[inner] / theirs[inner]
    assert off.max() < 0.01


def test_chains_apply_the_first_first():
    shift, scale = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    shift[:3, 3] = 3
    both = chain([affine_transform(shift), affine_transform(scale)])
    flip = np.array([-1.0, -1.0, 1.0])
    moved = np.array(both.TransformPoint((flip * 1.0).tolist())) * flip
    np.testing.assert_allclose(moved, [8, 8, 8])


@pytest.mark.parametrize("shared", [0.0, 0.4])
def test_the_sd_is_that_of_repeated_noise(shared):
    """Interpolate many noisy maps; their spread is the map of standard deviations."""
    shape, affine = (8, 9, 7), np.diag([3.0, 3.0, 5.0, 1.0])
    rng = np.random.default_rng(0)
    sd = 1 + rng.random(shape)
    points = np.stack(np.meshgrid(*[np.linspace(4, 14, 5)] * 3, indexing="ij"), -1)
    mask = np.ones(shape, bool)
    noise = np.sqrt(1 - shared) * rng.standard_normal((4000, *shape))
    # The shared part is one number for all voxels of a map.
    noise += np.sqrt(shared) * rng.standard_normal((4000, 1, 1, 1))
    maps = {str(k): sd * n for k, n in enumerate(noise)}
    found = resample_maps(maps, {"sd": sd}, mask, affine, points, {"sd": shared})
    spread = np.std([found.maps[str(k)] for k in range(4000)], axis=0)
    np.testing.assert_allclose(found.maps["sd"], spread, rtol=0.05)


def test_what_is_not_brain_takes_no_part():
    shape, affine = (6, 6, 6), np.eye(4)
    mask = np.zeros(shape, bool)
    mask[2:5, 2:5, 2:5] = True
    data = np.where(mask, 50.0, 1e6)
    points = np.array([[[[2.3, 3.0, 3.0], [1.7, 3.0, 3.0], [1.2, 3.0, 3.0], [99.0, 0, 0]]]])
    found = resample_maps({"cbf": data}, {}, mask, affine, points)
    assert found.inside.ravel().tolist() == [True, True, False, False]
    np.testing.assert_allclose(found.maps["cbf"].ravel(), [50, 50, 0, 0])


def test_a_field_has_the_sense_of_its_displacement():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    push = np.zeros((10, 10, 10, 3))
    push[..., 0] = 1.5  # to the right
    moved = field_transform(push, affine).TransformPoint((-8.0, -8.0, 8.0))
    np.testing.assert_allclose(moved, (-9.5, -8.0, 8.0))
