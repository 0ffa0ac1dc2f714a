"""Opening NIfTI images and reporting a broken one in one line.

Voxels that are NaN or infinite are set to 0 and left out by `Image.finite`, with a warning:
many tools write NaN outside the head, which must not cost the run. Single values that no
scanner writes (1e38) take those of their neighbours and are counted in `Image.spikes`: they would
spread over the image with every filter. A volume without any signal is an error, for it would
enter an average unseen.
"""

from __future__ import annotations

import gzip
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.bids.file_length import check_length, needed_bytes
from asl_bids_app.bids.grids import Grid, check_grid
from asl_bids_app.bids.headers import BROKEN, Header, open_image, read_header, short
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.remarks import collected, select_numeric

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SPIKE: Final = 1000.0
"""A value this many times the 99th percentile of the image is no measurement: arteries, fat and
artefacts reach 10 to 50."""
_SAMPLES: Final = 200_000
"""Values from which the percentile is taken."""

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
    oriented : bool
        Whether the header tells where the voxels lie; else `affine` is a guess.
    spikes : array of bool, shape (X, Y, Z), or None
        Where some volume held a value that can't be one; None if there is no such voxel.
    """

    data: np.ndarray
    affine: np.ndarray
    zooms: tuple[float, float, float]
    finite: np.ndarray
    warnings: tuple[Notice, ...] = ()
    oriented: bool = True
    spikes: np.ndarray | None = None


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
    data, remarks = _read_data(image, header)
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
    warnings += [
        Notice(
            name,
            found=f"values that can't be held as numbers ({text})",
            expected="signal of a usual size",
        )
        for text in select_numeric(remarks)
    ]
    if not finite.all():
        count = finite.size - int(np.count_nonzero(finite))
        if count == finite.size:
            raise InputError(name, "", "NaN or infinity in some volume of every voxel", "numbers")
        found = (
            f"{count} of {finite.size} voxels are NaN or infinite in some volume and are not used"
        )
        warnings.append(Notice(name, found=found))
    volumes, spikes = _without_spikes(volumes, valid.reshape(volumes.shape), may_be_empty)
    if spikes is not None:
        warnings.append(
            Notice(
                name,
                found=f"{np.count_nonzero(spikes)} of {spikes.size} voxels hold a value of more "
                f"than {SPIKE:g} times the image's 99th percentile, which no scanner measures",
                outcome="those of their neighbours stand in",
            )
        )
    data = volumes[..., 0] if ndim == 3 else volumes.reshape(header.shape)
    return Image(
        data, header.affine, header.zooms, finite, tuple(warnings), header.oriented, spikes
    )


def _read_data(image: Nifti1Image, header: Header) -> tuple[np.ndarray, list[str]]:
    """Read the voxels of an opened image to the end, and what the library remarks on them."""
    name = header.name
    try:
        if header.path.name.endswith(".gz"):
            # Read to the end, where the checksum stands; the library stops before it.
            content = gzip.decompress(header.path.read_bytes())
            check_length(header, len(content), needed_bytes(image))
            with collected():  # what is odd in the header has been reported
                image = type(image).from_bytes(content)
        with collected() as remarks:
            data = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
        return data.reshape(header.shape), remarks
    except InputError:
        raise
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


def _without_spikes(
    volumes: np.ndarray, valid: np.ndarray, unused: Collection[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Put the median of their neighbours in place of single impossible values.

    Parameters
    ----------
    volumes, valid : array, shape (X, Y, Z, n)
        Values, and which of them the file holds as finite numbers.
    unused
        Volumes that nobody looks at.

    Returns
    -------
    array (X, Y, Z, n), array of bool (X, Y, Z) or None
        The volumes, and where some volume that is used held such a value.
    """
    # Picked by place, not from a flat copy: files have their first axis fastest.
    places = np.arange(0, volumes.size, max(volumes.size // _SAMPLES, 1))
    sample = np.abs(volumes[np.unravel_index(places, volumes.shape)])
    sample = sample[sample > 0]
    if not sample.size:
        return volumes, None
    limit = SPIKE * np.float64(np.percentile(sample, 99, method="lower"))
    if max(volumes.max(), -volumes.min()) <= limit:
        return volumes, None
    bad = np.abs(volumes) > limit
    volumes, valid = volumes.copy(), valid & ~bad
    for x, y, z, n in np.argwhere(bad):
        box = tuple(slice(max(i - 1, 0), i + 2) for i in (x, y, z))
        near = volumes[box][..., n][valid[box][..., n]]
        volumes[x, y, z, n] = np.median(near) if near.size else 0
    used = [i for i in range(volumes.shape[3]) if i not in set(unused)]
    spikes = bad[..., used].any(axis=3)
    return volumes, spikes if spikes.any() else None
