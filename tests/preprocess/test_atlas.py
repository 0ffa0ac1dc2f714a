"""The packaged atlas against anatomy: volumes, landmarks, symmetry."""

import numpy as np
import pytest

from asl_bids_app.atlas import load_atlas


def at(atlas, volume, x, y, z):
    """Value at an MNI152 coordinate in mm."""
    voxel = np.rint(np.linalg.inv(atlas.affine) @ [x, y, z, 1])[:3].astype(int)
    return volume[tuple(voxel)]


def test_probabilities_add_up():
    atlas = load_atlas()
    total = atlas.gm + atlas.wm + atlas.csf
    for volume in (atlas.gm, atlas.wm, atlas.csf):
        assert volume.dtype == np.float32
        assert volume.shape == atlas.brain.shape
        assert volume.min() >= 0
        assert volume.max() <= 1
    assert total.max() < 1.01
    inside = atlas.brain & (total > 0.99)
    assert inside.sum() > 0.9 * atlas.brain.sum()


def test_volumes_are_those_of_an_adult_brain():
    atlas = load_atlas()
    litres = abs(np.linalg.det(atlas.affine[:3, :3])) * 1e-6
    assert 1.6 < atlas.brain.sum() * litres < 2.0  # the MNI152 brain is a large one
    assert 0.7 < atlas.gm.sum() * litres < 1.1
    assert 0.4 < atlas.wm.sum() * litres < 0.8
    assert 0.1 < atlas.csf.sum() * litres < 0.4


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("csf", (6, -8, 22)),  # body of the lateral ventricle
        ("csf", (-6, -8, 22)),
        ("wm", (0, 26, 6)),  # genu of the corpus callosum
        ("wm", (26, -20, 30)),  # corona radiata
        ("wm", (-26, -20, 30)),
        ("gm", (12, 10, 10)),  # caudate head
        ("gm", (-12, 10, 10)),
        ("gm", (6, -60, 40)),  # precuneus
    ],
)
def test_landmarks(name, place):
    atlas = load_atlas()
    tissues = {tissue: at(atlas, getattr(atlas, tissue), *place) for tissue in ("gm", "wm", "csf")}
    assert max(tissues, key=tissues.get) == name, tissues


def test_left_right_symmetric_about_the_midline():
    # The template is the symmetric one: a wrong origin by one voxel would show here.
    atlas = load_atlas()
    x = atlas.affine[0, 0] * np.arange(atlas.gm.shape[0]) + atlas.affine[0, 3]
    centre = (atlas.gm.sum(axis=(1, 2)) * x).sum() / atlas.gm.sum()
    assert abs(centre) < 0.5


def test_one_shared_read_only_object():
    atlas = load_atlas()
    assert load_atlas() is atlas
    with pytest.raises(ValueError, match="read-only"):
        atlas.gm[0, 0, 0] = 1
