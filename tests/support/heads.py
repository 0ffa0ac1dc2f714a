"""A head seen by a scanner, for tests of the preprocessing: tissue, scalp, eyes, motion.

The atlas is read at moved points, analytically; nothing here uses the package's resampling.
"""

from functools import cache

import numpy as np
from scipy import ndimage

from asl_bids_app.atlas import load_atlas

M0_OF = {"gm": 850.0, "wm": 700.0, "csf": 1000.0}
# Share left by background suppression at an early and a late delay: contrast flips between.
LEFT = {0.5: {"gm": 0.5, "wm": 0.35, "csf": 0.7}, 1.5: {"gm": 0.15, "wm": 0.22, "csf": 0.45}}


def turn(angles):
    """Rotation about x, then y, then z, of angles in radians (scipy's own)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


def pose(shift=(0, 0, 0), degrees=(0, 0, 0), centre=(0.0, -18.0, 8.0)):
    """A rigid motion of the head as a 4x4 matrix in world mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn(np.radians(degrees))
    matrix[:3, 3] = np.asarray(centre) + shift - matrix[:3, :3] @ centre
    return matrix


def grid(shape=(52, 60, 26), voxel=(4.0, 4.0, 6.0), centre=(0.0, -18.0, 5.0)):
    """Shape and affine of a scan; the first axis runs to the left."""
    affine = np.diag([-voxel[0], voxel[1], voxel[2], 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shape, affine


def scan_map(volume, shape, affine, motion=None, blur=(0, 0, 0)):
    """What a scan shows of a map on the atlas's grid after the head has moved."""
    atlas = load_atlas()
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    if motion is not None:
        back = np.linalg.inv(motion)
        world = back[:3, :3] @ world + back[:3, 3:]
    inverse = np.linalg.inv(atlas.affine)
    points = inverse[:3, :3] @ world + inverse[:3, 3:]
    image = np.asarray(volume, np.float32)
    if any(blur):
        image = ndimage.gaussian_filter(image, blur)
    return ndimage.map_coordinates(image, points, order=1).reshape(shape).astype(np.float32)


def tissue_image(shares, scalp=0.0):
    """A map on the atlas's grid: each tissue times its brightness, and a scalp."""
    atlas = load_atlas()
    image = sum(M0_OF[key] * share * getattr(atlas, key) for key, share in shares.items())
    if scalp:
        image = image + scalp * scalp_of()
    return image


@cache
def scalp_of():
    """A shell 8 to 13 mm from the brain, all round but below."""
    atlas = load_atlas()
    distance = ndimage.distance_transform_edt(~atlas.brain) * 2.0
    shell = (distance > 8) & (distance < 13)
    height = atlas.affine[2, 2] * np.arange(shell.shape[2]) + atlas.affine[2, 3]
    return ndimage.gaussian_filter((shell & (height > -40)).astype(np.float32), 0.7)


@cache
def eyes_of():
    """Two bright balls of 24 mm in front of the temporal poles, on stalks."""
    atlas = load_atlas()
    index = np.stack(np.meshgrid(*map(np.arange, atlas.gm.shape), indexing="ij"), axis=-1)
    world = index @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    image = np.zeros(atlas.gm.shape, np.float32)
    for side in (-1, 1):
        image[np.linalg.norm(world - (32 * side, 62, -38), axis=-1) < 12] = 1
        axis = np.linalg.norm((world - (32 * side, 62, -38))[..., [0, 2]], axis=-1)
        image[(axis < 2.5) & (world[..., 1] > 20) & (world[..., 1] < 62)] = 1
    return image


def brain_only(shape, affine, motion=None):
    """The truth of a brain mask."""
    return scan_map(load_atlas().brain, shape, affine, motion) > 0.5


def run_of(poses, delays, kinds, shape, affine, sd=4.0, label=8.0, seed=0):
    """Simulate volumes: M0, and control and label at delays with a contrast of their own."""
    rng = np.random.default_rng(seed)
    atlas = load_atlas()
    pictures = {0.0: tissue_image(dict.fromkeys(M0_OF, 1.0), scalp=250.0)}
    for delay, left in LEFT.items():
        pictures[delay] = tissue_image(left, scalp=60.0)
    # Slices excited later have recovered more, as in 2D readouts.
    recovery = np.linspace(0.7, 1.3, shape[2])
    volumes = []
    for motion, delay, kind in zip(poses, delays, kinds, strict=True):
        volume = scan_map(pictures[delay], shape, affine, motion)
        if kind != "m0scan":
            volume = volume * recovery
        if kind == "label":
            volume = volume - label * scan_map(atlas.gm + 0.3 * atlas.wm, shape, affine, motion)
        volumes.append(volume + sd * rng.standard_normal(shape))
    return np.stack(volumes, axis=-1).astype(np.float32)
