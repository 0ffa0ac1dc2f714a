"""How the grid of an M0, or of a mask, lies to that of its ASL image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.bids.headers import Header
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    pass


HALF: Final = 0.5
"""Two fields of view of which neither holds this share of the other are of different places."""


@dataclass(frozen=True)
class Grid:
    """How the grid of an M0 lies to that of its ASL image.

    Attributes
    ----------
    equal : bool
        Whether voxels correspond one to one; otherwise the M0 has to be resampled.
    overlap : float
        Fraction of the ASL field of view that the M0 covers.
    statement : str
        The same in words.
    guessed : bool
        Whether voxels are taken to correspond because one of the two has no orientation.
    """

    equal: bool
    overlap: float
    statement: str
    guessed: bool = False


def voxel_by_voxel(
    shape: tuple[int, ...],
    affine: np.ndarray,
    oriented: bool,
    other_shape: tuple[int, ...],
    other_affine: np.ndarray,
    other_oriented: bool,
) -> bool:
    """Say whether voxels of two images have to be taken for each other's.

    So they are where one of the two has no orientation, and both have the same matrix of voxels
    of the same size: two images of one session, one of which lost its orientation.

    Parameters
    ----------
    shape, other_shape
        Of which the first three axes count.
    affine, other_affine : array, shape (4, 4)
        For the voxel sizes.
    oriented, other_oriented
        Whether the file tells its affine; else it is a guess.
    """
    size, other_size = (np.linalg.norm(each[:3, :3], axis=0) for each in (affine, other_affine))
    return (
        oriented != other_oriented
        and tuple(shape[:3]) == tuple(other_shape[:3])
        and np.allclose(size, other_size, rtol=0.02)
    )


def check_grid(m0: Header, asl: Header) -> Grid:
    """Compare the grid of an M0 with that of its ASL image.

    Raises
    ------
    InputError
        If less than half of either field of view lies inside the other.
    """
    if voxel_by_voxel(m0.shape, m0.affine, m0.oriented, asl.shape, asl.affine, asl.oriented):
        lost, kept = (asl, m0) if m0.oriented else (m0, asl)
        return Grid(
            True,
            1.0,
            f"M0 taken voxel by voxel: {lost.name.rpartition('/')[2]} has no orientation, and "
            f"its matrix is that of {kept.name.rpartition('/')[2]}",
            guessed=True,
        )
    there, points = _corresponding(asl, m0)
    overlap, back = _inside(there, m0), _inside(_corresponding(m0, asl)[0], asl)
    if m0.shape[:3] == asl.shape[:3] and np.abs(there - points).max() < 0.01:
        return Grid(True, 1.0, f"M0 on the grid of the ASL image ({m0})")
    if overlap == 0:
        raise InputError(
            m0.name,
            "field of view",
            "nothing of the volume that the ASL image covers",
            f"a scan of the same place as {asl.name}",
            "look for a wrong affine or the M0 of another session",
        )
    if max(overlap, back) < HALF:
        raise InputError(
            m0.name,
            "field of view",
            f"{overlap:.0%} of the volume that the ASL image covers, and {back:.0%} of its own "
            "inside that",
            f"a scan of the same place as {asl.name}: {HALF:.0%} or more",
            "look for a wrong or missing orientation, or the M0 of another session",
        )
    return Grid(
        False,
        overlap,
        f"M0 of {m0} covers {overlap:.0%} of the ASL image of {asl} and is resampled onto it",
    )


def _corresponding(image: Header, other: Header) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of a grid over an image lie in another, and they themselves, voxels."""
    axes = [np.linspace(0, n - 1, min(n, 21)) for n in image.shape[:3]]
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")])
    between = np.linalg.inv(other.affine) @ image.affine
    return between[:3, :3] @ points + between[:3, 3:], points


def _inside(points: np.ndarray, image: Header) -> float:
    """Return the share of points, in voxels, that lie in the field of view of an image."""
    size = np.array(image.shape[:3])[:, None]
    return float(((points > -0.5) & (points < size - 0.5)).all(axis=0).mean())
