"""A simulated head: real MNI anatomy with perfusion, transit times and lesions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from asl_bids_app.atlas import load_atlas

TISSUES: Final = {
    # Equilibrium magnetisation (with the receive weighting of a short echo time), T1 in
    # seconds at 3 T (grey, white: Wansapura 1999; CSF: long), and what background suppression
    # leaves of it at the first slice: later slices recover to equal grey and white.
    "grey": (850.0, 1.331, 0.13),
    "white": (720.0, 0.832, 0.08),
    "csf": (1000.0, 4.0, 0.20),
    "scalp": (300.0, 0.35, 0.10),
}
GREY_CBF: Final = 65.0
WHITE_CBF: Final = 22.0
"""mL/100 g/min of the pure tissues."""

TERRITORY_SEEDS: Final = {
    # MNI millimetres; "base" is the transit time at the seed in seconds.
    "anterior": ((5.0, 40.0, 25.0), 0.95),
    "middle": ((45.0, -8.0, 12.0), 0.85),
    "posterior": ((14.0, -75.0, 8.0), 1.15),
    "cerebellar": ((20.0, -60.0, -35.0), 1.0),
}
DELAY_PER_MM: Final = 0.006
WATERSHED_DELAY: Final = 0.4
WATERSHED_WIDTH_MM: Final = 16.0
WHITE_DELAY: Final = 0.25
ATT_RANGE: Final = (0.4, 3.0)

SHARPNESS: Final = 2.5
"""Power that turns the atlas's probabilities into the fractions of one brain."""

CSF_MM: Final = 2.5
SCALP_MM: Final = (8.0, 13.0)
"""Fluid lies around the brain up to a distance, the scalp between two others."""

LESIONS: Final = {
    # name: (centre in MNI mm, core radius, outer radius in mm)
    "stroke": ((42.0, -12.0, 20.0), 16.0, 32.0),
    "tumour": ((-28.0, -28.0, 32.0), 11.0, 19.0),
}


@dataclass(frozen=True)
class Head:
    """A head on a fine grid; all arrays have shape (X, Y, Z).

    Attributes
    ----------
    affine : array, shape (4, 4)
        Voxel to millimetre of the fine grid.
    grey, white, csf, scalp : array
        Tissue fractions.
    perfusion : array
        CBF in mL/100 g/min times equilibrium magnetisation, summed over the tissues: what
        adds up in a voxel, as the label does.
    att : array
        Seconds, defined everywhere.
    core, rim : array
        Fractions of lesion: its core, and the penumbra or rim around it.
    """

    affine: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    csf: np.ndarray
    scalp: np.ndarray
    perfusion: np.ndarray
    att: np.ndarray
    core: np.ndarray
    rim: np.ndarray


def texture(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random field of mean 0 and standard deviation 1; sigma in voxels."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (smooth - smooth.mean()) / smooth.std()


def transit_times(mni: np.ndarray) -> np.ndarray:
    """Compute transit times (s) of the vascular territories with late watersheds.

    Parameters
    ----------
    mni : array, shape (..., 3)
        MNI millimetres.
    """
    mirrored = np.abs(mni * (1, 0, 0)) + mni * (0, 1, 1)
    distances = np.stack(
        [np.linalg.norm(mirrored - seed, axis=-1) for seed, _ in TERRITORY_SEEDS.values()], axis=-1
    )
    base = np.array([start for _, start in TERRITORY_SEEDS.values()])
    weights = np.exp(-distances / 8.0)
    weights /= weights.sum(axis=-1, keepdims=True) + 1e-30
    near = np.sort(distances, axis=-1)
    watershed = np.exp(-(((near[..., 1] - near[..., 0]) / WATERSHED_WIDTH_MM) ** 2))
    return (weights * base).sum(-1) + DELAY_PER_MM * near[..., 0] + WATERSHED_DELAY * watershed


def make_head(seed: int, lesion: str = "", coarseness: int = 1) -> Head:
    """Make a head that differs from others in shape, perfusion and transit times.

    Parameters
    ----------
    seed
        Of all that is random.
    lesion
        ``""``, ``"stroke"`` or ``"tumour"``.
    coarseness
        Every so-many-th voxel of the atlas is used; for large voxels this is enough.
    """
    rng = np.random.default_rng(seed)
    tissues, affine = _tissues(coarseness)
    mm = float(np.abs(np.linalg.det(affine[:3, :3])) ** (1 / 3))
    shape = tissues[0].shape

    # This head's points, in the atlas: other proportions, a slight turn, a smooth warp.
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = grid @ affine[:3, :3].T + affine[:3, 3]
    mni = points / rng.uniform(0.94, 1.04, 3) @ rotation(rng.uniform(-3, 3, 3)).T
    mni += np.stack([2.0 * texture(shape, 20 / mm, rng) for _ in range(3)], axis=-1)
    inverse = np.linalg.inv(affine)
    voxels = np.moveaxis(mni @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    grey, white, csf = (
        np.clip(ndimage.map_coordinates(p, voxels, order=1, output=np.float32), 0, 1)
        for p in tissues
    )
    grey, white, csf = _sharpen(grey, white, csf)
    outside = ndimage.distance_transform_edt(grey + white + csf < 0.5) * mm
    csf = np.where((outside > 0) & (outside <= CSF_MM), 1 - grey - white, csf)
    scalp = ((outside > SCALP_MM[0]) & (outside < SCALP_MM[1])).astype(np.float32)

    grey_m0, white_m0 = TISSUES["grey"][0], TISSUES["white"][0]
    perfusion = grey * grey_m0 * GREY_CBF + white * white_m0 * WHITE_CBF
    perfusion *= rng.uniform(0.9, 1.1) * np.clip(
        1 + 0.12 * texture(shape, 8 / mm, rng) + 0.1 * texture(shape, 3 / mm, rng), 0.3, 2
    )
    att = transit_times(mni) + WHITE_DELAY * ndimage.gaussian_filter(white, 3 / mm)
    att += 0.08 * texture(shape, 8 / mm, rng) + 0.04 * texture(shape, 4 / mm, rng)

    core = rim = np.zeros(shape, np.float32)
    if lesion:
        centre, inner, outer = LESIONS[lesion]
        distance = np.linalg.norm(mni - centre, axis=-1)
        brain = np.clip(grey + white, 0, 1)
        core = brain / (1 + np.exp((distance - inner) / 1.5))
        rim = brain / (1 + np.exp((distance - outer) / 1.5)) - core
        if lesion == "stroke":
            perfusion = perfusion * (1 - 0.75 * core - 0.45 * rim)
            att = att + 0.9 * core + 0.8 * rim
        else:
            there = np.clip(1 - core - rim, 0, 1)
            perfusion = perfusion * there + grey_m0 * (12.0 * core + 110.0 * rim)
            att = att + 0.3 * core - 0.1 * rim
    rim = np.clip(rim, 0, 1)
    att = np.clip(att, *ATT_RANGE)
    return Head(affine, grey, white, csf, scalp, perfusion, att, core, rim)


def _tissues(coarseness: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return grey matter, white matter and CSF of the atlas, and their affine."""
    atlas = load_atlas()
    affine = np.array(atlas.affine, float)
    maps = [atlas.gm, atlas.wm, atlas.csf]
    if coarseness > 1:
        step = slice(None, None, coarseness)
        maps = [ndimage.gaussian_filter(p, coarseness / 3)[step, step, step] for p in maps]
        affine[:3, :3] *= coarseness
    return maps, affine


def _sharpen(*maps: np.ndarray) -> list[np.ndarray]:
    """Make a mean of many brains more like a single one; the sum of the tissues stays."""
    total = sum(maps)
    powers = [p**SHARPNESS for p in maps]
    scale = total / np.maximum(sum(powers), 1e-6)
    return [p * scale for p in powers]


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Build the matrix of rotations about x, y and z, applied in this order."""
    cx, cy, cz = np.cos(np.deg2rad(degrees))
    sx, sy, sz = np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
