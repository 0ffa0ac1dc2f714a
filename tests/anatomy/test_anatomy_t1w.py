"""The own path from a raw T1w: fields, tissues, and a whole head whose tissue is known."""

import numpy as np
import pytest
from heads import grid, pose, scalp_of, scan_map
from scipy import ndimage

from asl_bids_app.anatomy.records import AnatomyError
from asl_bids_app.anatomy.segment import segment, tissue_dice
from asl_bids_app.anatomy.t1w import understand
from asl_bids_app.anatomy.warp import find_field, invert_field
from asl_bids_app.atlas import Atlas, load_atlas

T1W = {"gm": 600.0, "wm": 900.0, "csf": 250.0}


@pytest.fixture(scope="module")
def coarse():
    """The packaged template on voxels of 4 mm."""
    atlas = load_atlas()
    n = [size // 2 * 2 for size in atlas.gm.shape]

    def halve(image):
        image = np.asarray(image[: n[0], : n[1], : n[2]], np.float32)
        return image.reshape(n[0] // 2, 2, n[1] // 2, 2, n[2] // 2, 2).mean(axis=(1, 3, 5))

    affine = np.array(atlas.affine)
    affine[:3, 3] += affine[:3, :3] @ np.full(3, 0.5)
    affine[:3, :3] *= 2
    maps = [halve(getattr(atlas, key)) for key in ("gm", "wm", "csf", "t1w")]
    return Atlas(*maps, halve(atlas.brain) > 0.5, affine)


def wave(atlas, size=6.0):
    index = np.stack(np.meshgrid(*map(np.arange, atlas.gm.shape), indexing="ij"), -1)
    world = index @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    return (size * np.sin(world / 30)[..., [1, 2, 0]]).astype(np.float32)


def read_moved(maps, displacement, affine):
    index = np.stack(np.meshgrid(*map(np.arange, maps.shape[1:]), indexing="ij"))
    place = index + np.einsum("ij,xyzj->ixyz", np.linalg.inv(affine[:3, :3]), displacement)
    return np.stack([ndimage.map_coordinates(m, place, order=1, mode="nearest") for m in maps])


def test_a_known_field_is_found_and_does_not_fold(coarse):
    maps = np.stack([coarse.gm, coarse.wm, coarse.csf])
    true = wave(coarse)
    fixed = read_moved(maps, true, coarse.affine)
    found = find_field(fixed, maps, coarse.affine, rounds=((2, 30), (1, 30)))
    after = read_moved(maps, found.displacement, coarse.affine)
    before = tissue_dice(maps, fixed)
    assert min(tissue_dice(after, fixed)[k] for k in ("gm", "wm")) > 0.85 > before["wm"]
    off = np.linalg.norm(found.displacement - true, axis=-1)[coarse.brain]
    assert np.median(off) < 0.35 * np.median(np.linalg.norm(true, axis=-1)[coarse.brain])
    assert found.jacobian[0] > 0


def test_the_inverse_undoes_the_field(coarse):
    there = wave(coarse)
    back = invert_field(there, coarse.affine)
    moved = read_moved(np.moveaxis(there, -1, 0), back, coarse.affine)
    left = np.linalg.norm(np.moveaxis(moved, 0, -1) + back, axis=-1)
    assert np.percentile(left[4:-4, 4:-4, 4:-4], 99) < 0.2


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_fractions_are_those_that_were_mixed(coarse, noise):
    """Sharp tissues, mixed where they touch; the template is what many such heads average to."""
    rng = np.random.default_rng(0)
    maps = np.stack([coarse.gm, coarse.wm, coarse.csf])
    maps = (maps == maps.max(axis=0)) * coarse.brain
    maps = np.stack([ndimage.gaussian_filter(m.astype(float), 0.4) for m in maps])
    image = sum(T1W[key] * m for key, m in zip(T1W, maps, strict=True))
    y = np.linspace(-1, 1, image.shape[1])[None, :, None]
    image = image * np.exp(0.1 * y) + noise * 900 * rng.standard_normal(image.shape)
    blurred = np.stack([ndimage.gaussian_filter(m, 1.0) for m in maps])
    found = segment(image, coarse.brain, blurred)
    inside = coarse.brain
    for mine, true in zip((found.gm, found.wm, found.csf), maps, strict=True):
        assert np.abs(mine - true)[inside].mean() < 0.08 + noise
    assert found.intensities[0] == pytest.approx(600 / 900, abs=0.06)


def test_an_image_without_t1_contrast_is_refused(coarse):
    maps = np.stack([coarse.gm, coarse.wm, coarse.csf]) * coarse.brain
    flat = 600 * (maps[0] + maps[1]) + 250 * maps[2]
    rng = np.random.default_rng(0)
    with pytest.raises(AnatomyError, match=r"no T1 contrast|no signal"):
        segment(flat + 5 * rng.standard_normal(flat.shape), coarse.brain, maps)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((20, 20, 20)), "without signal"),
        (np.full((20, 20, 20), np.nan), "without signal"),
        (np.ones((20, 20, 2)), "expected a volume"),
    ],
)
def test_what_is_no_image_is_refused(image, said):
    with pytest.raises(AnatomyError, match=said) as caught:
        understand(image, np.eye(4))
    error = caught.value
    assert str(error) == f"{error.found}, expected {error.expected}"


@pytest.mark.slow
def test_a_whole_head_is_understood(coarse):
    """A head with scalp, shading and noise, that lies elsewhere and turned in its scanner."""
    atlas = load_atlas()
    shape, affine = grid(shape=(74, 84, 76), voxel=(2.5, 2.5, 2.5), centre=(6.0, -25.0, 12.0))
    motion = pose((8, -6, 10), (6, -4, 5))
    parts = {key: scan_map(getattr(atlas, key), shape, affine, motion) for key in T1W}
    image = sum(T1W[key] * m for key, m in parts.items())
    image = image + 800 * scan_map(scalp_of(), shape, affine, motion)
    x = np.linspace(-1, 1, shape[0])[:, None, None]
    rng = np.random.default_rng(0)
    noise = 20 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    head, found = understand(np.abs(image * np.exp(0.2 * x) + noise), affine, coarse)
    true = np.stack([parts[key] for key in T1W])
    overlap = tissue_dice(head.tissue(), true)
    assert overlap["wm"] > 0.9
    assert overlap["gm"] > 0.85
    assert found.facts["dice"]["gm"] > 0.8
    # Template points come to where they were put, within two millimetres.
    for point in ((20.0, -30.0, 20.0), (-30.0, 10.0, 40.0), (0.0, -60.0, 10.0)):
        index = np.rint(np.linalg.inv(coarse.affine) @ [*point, 1])[:3].astype(int)
        start = (coarse.affine @ [*index, 1])[:3]
        moved = found.matrix @ [*(start + found.displacement[tuple(index)]), 1]
        assert np.linalg.norm(moved - motion @ [*start, 1]) < 3
