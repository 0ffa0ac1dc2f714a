"""Opening NIfTI images so that a broken one is told in one line.

Voxels that are NaN or infinite are set to 0 and left out by `Image.finite`, with a warning:
many tools write NaN outside the head, which must not cost the run. A volume without any
signal is an error, for it would enter an average unseen.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asl_bids_app.bids.headers import BROKEN, Header, open_image, read_header, short
from asl_bids_app.errors import InputError

__all__ = ["Grid", "Header", "Image", "check_grid", "load", "read_header"]


@dataclass(frozen=True, eq=False)
class Image:
    """An image in memory.

    Attributes
    ----------
    data : array of float32, shape (X, Y, Z) or (X, Y, Z, n)
        Scaled as the header says, finite everywhere.
    affine : array, shape (4, 4)
    zooms : tuple of 3 float
        mm.
    finite : array of bool, shape (X, Y, Z)
        False where some volume held NaN or infinity; such voxels must not be quantified.
    warnings : tuple of str
    """

    data: np.ndarray
    affine: np.ndarray
    zooms: tuple[float, float, float]
    finite: np.ndarray
    warnings: tuple[str, ...] = ()


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
    """

    equal: bool
    overlap: float
    statement: str


def load(
    path: Path | str,
    ndim: int | None = None,
    name: str | None = None,
    may_be_empty: Collection[int] = (),
    spare: Collection[int] = (),
) -> Image:
    """Read an image.

    Parameters
    ----------
    path
        The image.
    ndim
        3 or 4; None takes both. A 4D image of one volume is taken for a 3D one; the reverse
        is an error.
    name
        What messages call it; the path if None.
    may_be_empty
        Volumes that need no signal, and are not used.
    spare
        Volumes that are used if they have signal: one without, or with half as many numbers as
        the best of them, is set to 0 and left to the caller.

    Raises
    ------
    InputError
        As `read_header`, and if the dimensions are wrong, the data end early or a volume
        holds nothing but zeros and NaN.
    """
    name = name or str(path)
    image, header = open_image(Path(path), name)
    if ndim is not None and len(header.shape) != ndim and (ndim, header.n_volumes) != (3, 1):
        found = f"{len(header.shape)}D ({' x '.join(map(str, header.shape))})"
        raise InputError(name, "dimensions", found, f"{ndim}D", "convert the series again")
    try:
        if header.path.name.endswith(".gz"):
            # Read to the end, where the checksum stands; the library stops before it.
            image = type(image).from_bytes(gzip.decompress(header.path.read_bytes()))
        data = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
        data = data.reshape(header.shape)
    except BROKEN as error:
        raise InputError(
            name,
            "",
            f"image data that end early or are damaged ({short(error)})",
            str(header),
            "copy or convert it again",
        ) from error
    except MemoryError as error:
        raise InputError(name, "", str(header), "an image that fits into memory") from error

    valid = np.isfinite(data)
    bad = int(valid.size - np.count_nonzero(valid))
    if bad:
        data = np.where(valid, data, np.float32(0))
    volumes = data.reshape(*header.shape[:3], -1)
    if bad and spare:
        # Beside its fellows: NaN around the head, the same in all, is usual.
        share = valid.reshape(volumes.shape).mean(axis=(0, 1, 2))
        volumes[..., [i for i in spare if share[i] < 0.5 * share[list(spare)].max()]] = 0
    empty = [int(i) for i in np.flatnonzero(~volumes.any(axis=(0, 1, 2)))]
    if len(empty) == volumes.shape[3]:
        raise InputError(name, "", "only zeros" + (" and NaN" if bad else ""), "an image")
    missing = [i for i in empty if i not in {*may_be_empty, *spare}]
    if missing:
        listed = ", ".join(map(str, missing[:12])) + (" …" if len(missing) > 12 else "")
        raise InputError(
            name,
            f"volume {listed} (counted from 0)",
            "only zeros" + (" and NaN" if bad else ""),
            "signal in every volume",
            "convert it again, or mark the volume n/a in aslcontext.tsv",
        )
    # What isn't used may hold anything.
    used = [i for i in range(volumes.shape[3]) if i not in {*empty, *may_be_empty}]
    finite = valid.reshape(volumes.shape)[..., used].all(axis=3)
    warnings = list(header.warnings)
    if not finite.all():
        count = finite.size - int(np.count_nonzero(finite))
        if count == finite.size:
            raise InputError(name, "", "NaN or infinity in some volume of every voxel", "numbers")
        warnings.append(
            f"{name}: {count} of {finite.size} voxels are NaN or infinite in some volume and "
            "are not used"
        )
    if ndim == 3:
        data = volumes[..., 0]
    return Image(data, header.affine, header.zooms, finite, tuple(warnings))


def check_grid(m0: Header, asl: Header) -> Grid:
    """Compare the grid of an M0 with that of its ASL image.

    Raises
    ------
    InputError
        If their fields of view have nothing in common.
    """
    shape = np.array(asl.shape[:3])
    axes = [np.linspace(0, n - 1, min(n, 21)) for n in shape]
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")])
    between = np.linalg.inv(m0.affine) @ asl.affine
    there = between[:3, :3] @ points + between[:3, 3:]
    size = np.array(m0.shape[:3])[:, None]
    overlap = float(((there > -0.5) & (there < size - 0.5)).all(axis=0).mean())
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
    return Grid(
        False,
        overlap,
        f"M0 of {m0} covers {overlap:.0%} of the ASL image of {asl} and is resampled onto it",
    )
