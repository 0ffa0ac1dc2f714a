"""Slices for the report: what lies at one place lies there in every layer."""

import numpy as np
import pytest
from heads import grid, pose, scan_map

from asl_bids_app.anatomy import views
from asl_bids_app.anatomy.records import Head
from asl_bids_app.anatomy.request import UnitMaps
from asl_bids_app.anatomy.routes import Routes
from asl_bids_app.anatomy.transforms import affine_transform
from asl_bids_app.anatomy.view_files import read_views, views_file, write_views
from asl_bids_app.atlas import load_atlas

MOVED = pose((14, -9, 6), (8, -6, 12))
"""Takes points of the series to those of the T1w."""
BALL = np.array([24.0, -40.0, 22.0])
RADIUS = 13.0
SHAPE, AFFINE = grid(voxel=(4.0, 4.0, 6.0))


def ball(shape, affine, centre):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return np.clip(RADIUS + 0.5 - np.linalg.norm(points - centre, axis=-1), 0, 1)


@pytest.fixture(scope="module")
def unit():
    atlas = load_atlas()
    mask = scan_map(atlas.brain, SHAPE, AFFINE) > 0.5
    flow = 10 + 50 * scan_map(atlas.gm, SHAPE, AFFINE)
    images = {"M0": ball(SHAPE, AFFINE, BALL), "CBF": flow}
    return UnitMaps({"sub": "01"}, images, mask, np.zeros(SHAPE, bool), AFFINE, {"cbf": flow}, {})


@pytest.fixture(scope="module")
def head():
    """The template's head elsewhere, with the ball in it at the place that the pose says."""
    atlas = load_atlas()
    affine = MOVED @ atlas.affine
    there = (MOVED @ [*BALL, 1])[:3]
    return Head(
        ball(atlas.gm.shape, affine, there), affine, atlas.brain, atlas.gm, atlas.wm, atlas.csf
    )


def middle(layer, size_mm):
    """Middle of what is bright, in mm from the corner of the rectangle; None without any."""
    values = np.nan_to_num(np.asarray(layer, float))
    if values.max() < 0.5 * (255 if layer.dtype == np.uint8 else 1):
        return None
    index = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"))
    mean = (index * values).sum(axis=(1, 2)) / values.sum()
    return (mean + 0.5) * np.array(size_mm) / values.shape


def test_the_t1w_lies_where_the_series_has_it(unit, head):
    found = views.registration_views(unit, head, MOVED)
    assert [item.axis for item in found.slices] == [2, 2, 2, 2, 1, 1, 0, 0]
    compared = 0
    for item in found.slices:
        seen, laid = (middle(item.layers[key], item.size_mm) for key in ("M0", "T1w"))
        if seen is None or laid is None:
            continue
        compared += 1
        # Of a ball in voxels of 4 x 4 x 6 mm the middle is known to a fraction of one.
        np.testing.assert_allclose(seen, laid, atol=1.5)
        # Right of the middle and behind it, as the ball lies.
        width, height = item.size_mm
        assert seen[0] > width / 2 or item.axis == 0
        if item.axis == 2:
            assert seen[1] < height / 2
        if item.axis == 0:
            assert seen[0] < width / 2
    assert compared >= 2


def test_the_outline_of_the_t1w_bounds_the_brain_of_the_series(unit, head):
    found = views.registration_views(unit, head, MOVED)
    for item in found.slices:
        brain = np.isfinite(item.layers["CBF"])
        tissue = item.layers["tissue"] > 127
        for axis in (0, 1):
            low, high = (
                np.flatnonzero(shape.any(axis=1 - axis))[[0, -1]] / shape.shape[axis]
                for shape in (brain, tissue)
            )
            size = item.size_mm[axis]
            assert abs(low - high).max() * size < 12  # fluid around it, and a voxel


def test_on_the_template_its_own_head_lies_on_its_lines(unit):
    atlas = load_atlas()
    own = Head(atlas.t1w, MOVED @ atlas.affine, atlas.brain, atlas.gm, atlas.wm, atlas.csf)
    space = "MNI152NLin2009aSym"
    routes = Routes(MOVED, "T1w", {space: affine_transform(MOVED)})
    found = views.template_views(unit, own, space, routes)
    assert found.about["space"] == space
    for item in found.slices:
        t1w, model = item.layers["T1w"].astype(float), item.layers["template"].astype(float)
        double = np.kron(model, np.ones((2, 2)))
        assert t1w.shape == double.shape
        assert np.corrcoef(t1w.ravel(), double.ravel())[0, 1] > 0.97
        # CBF is bright where the template has grey matter: the series lies on it too.
        cbf, white = item.layers["CBF"], item.layers["wm"] / 255.0
        grey = item.layers["tissue"] / 255.0 - white
        seen = np.isfinite(cbf)
        assert np.corrcoef(cbf[seen], grey[seen])[0, 1] > 0.6


def test_slices_come_back_as_they_were(tmp_path, unit, head):
    made = views.registration_views(unit, head, MOVED)
    path = views_file(tmp_path, {"sub": "01", "ses": "a"})
    assert path == tmp_path / "sub-01/figures/sub-01_ses-a_desc-anatomy_slices.npz"
    write_views(path, {views.REGISTRATION: made}, {"kind": "raw T1w"})
    found, facts = read_views(path)
    assert facts == {"kind": "raw T1w"}
    for old, new in zip(made.slices, found[views.REGISTRATION].slices, strict=True):
        assert (old.axis, old.number) == (new.axis, new.number)
        assert set(old.layers) == set(new.layers)
        for key, layer in old.layers.items():
            np.testing.assert_array_equal(layer, new.layers[key])
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"x" * 1000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"slices\.npz: can't be read"):
            read_views(path)
