"""The header of a NIfTI image, and what can be wrong with the file before it is read."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.bids.file_length import check_file_length, check_start, needed_bytes
from asl_bids_app.bids.unfetched import unfetched
from asl_bids_app.errors import InputError
from asl_bids_app.notices import Notice
from asl_bids_app.remarks import collected

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

HEADER_BYTES: Final = 348
GZIP_MAGIC: Final = b"\x1f\x8b"
VOXEL_MM: Final = (0.2, 50.0)
"""Voxel sizes outside this range are a fault of the header."""
LARGEST_SCALING: Final = 1e15
"""Factors and offsets of image values beyond this are a fault of the header."""
FORMS_MM: Final = 0.5
"""Places that differ by more between qform and sform bring a warning."""

_UNITS: Final = {1: "meter", 3: "micron"}
"""Codes of NIfTI for spatial units other than mm."""
BROKEN: Final = (OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True, eq=False)
class Header:
    """What an image says of itself.

    Attributes
    ----------
    path : Path
    name : str
        What messages call it.
    shape : tuple of int
        3D or 4D.
    affine : array, shape (4, 4)
        Voxel to scanner, mm.
    zooms : tuple of 3 float
        Voxel size, mm.
    warnings : tuple of str
    oriented : bool
        Whether it tells where the voxels lie; else `affine` is a guess.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    affine: np.ndarray
    zooms: tuple[float, float, float]
    warnings: tuple[Notice, ...] = ()
    oriented: bool = True

    @property
    def n_volumes(self) -> int:
        """Number of volumes; 1 for a 3D image."""
        return self.shape[3] if len(self.shape) == 4 else 1

    def __str__(self) -> str:
        size = " x ".join(f"{zoom:.3g}" for zoom in self.zooms)
        return f"{' x '.join(map(str, self.shape))} voxels of {size} mm"


def read_header(path: Path | str, name: str | None = None) -> Header:
    """Read and check the header of a NIfTI image; no image data is read.

    Parameters
    ----------
    path
        The image.
    name
        What messages call it; the path if None.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, no NIfTI, of more than 4 dimensions, its affine
        or voxel size is impossible, or its length or `vox_offset` doesn't fit the header.
    """
    return open_image(Path(path), name or str(path))[1]


def open_image(path: Path, name: str) -> tuple[Nifti1Image, Header]:
    """Open an image and read its header; as `read_header`."""
    import nibabel as nib

    odd = _check_file(path, name)
    expected = "a NIfTI image"
    cure = "copy or convert it again"
    try:
        with collected() as remarks:
            image = nib.load(path)
            shape = tuple(int(n) for n in image.shape)
            affine = np.asarray(image.affine, dtype=float)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged header the library raises whatever it meets
        raise InputError(
            name, "", f"no readable header ({short(error)})", expected, cure
        ) from error
    if not isinstance(image, nib.Nifti1Image | nib.Nifti2Image):
        raise InputError(name, "", type(image).__name__, expected)
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == "c":
        what = "complex" if kind.kind == "c" else "colour"
        raise InputError(name, "data type", f"{what} values", "magnitude values")
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        found = f"{len(shape)}D ({' x '.join(map(str, shape))})"
        raise InputError(name, "dimensions", found, "3D or 4D", "convert the series again")
    reported = (*odd, *(Notice(name, "header", text) for text in remarks))
    header = Header(path, name, shape, affine, (0.0, 0.0, 0.0), reported)
    _check_scaling(image.dataobj, name)
    with collected():  # of arithmetic with odd numbers, which are reported here
        header = _check_geometry(header, image.header)
    check_file_length(path, header, needed_bytes(image))
    return image, header


def _check_file(path: Path, name: str) -> tuple[Notice, ...]:
    """Tell what is wrong with a file before the library stumbles over it; return warnings."""
    expected = "a NIfTI image"
    if placeholder := unfetched(path, name):
        raise InputError(name, "", placeholder.found, expected, placeholder.cure)
    if not path.exists():
        raise InputError(name, "", "no such file", expected)
    try:
        with path.open("rb") as stream:
            start = stream.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(name, "", error.strerror or str(error), expected) from error
    if not start:
        raise InputError(name, "", "an empty file", expected, "copy or convert it again")
    zipped, named = start.startswith(GZIP_MAGIC), path.name.endswith(".gz")
    if zipped and not named:
        raise InputError(name, "", "gzip data", "a plain .nii", "rename it to .nii.gz")
    is_header = start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    if named and is_header:
        raise InputError(name, "", "a plain NIfTI", "gzip data", "rename it to .nii")
    if not zipped and not is_header:
        size = path.stat().st_size
        found = f"{size} byte{'s' * (size != 1)} that are no NIfTI"
        raise InputError(name, "", found, expected, "copy or convert it again")
    if not zipped and len(start) < HEADER_BYTES:
        raise InputError(name, "", f"{len(start)} bytes", "a header of 348", "copy it again")
    if zipped:
        try:
            with gzip.open(path) as stream:
                start = stream.read(HEADER_BYTES)
        except BROKEN as error:
            found = f"damaged gzip data ({short(error)})"
            raise InputError(name, "", found, expected, "copy or convert it again") from error
    return check_start(start, name)


def _check_geometry(header: Header, raw: Any) -> Header:
    name, affine = header.name, header.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(name, "affine", "no invertible matrix", "voxel to scanner in mm")
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    low, high = VOXEL_MM
    if zooms.min() < low or zooms.max() > high:
        units = _UNITS.get(int(raw["xyzt_units"]) % 8, "")
        cure = f"the header says {units}: convert it to mm" if units in {"meter", "micron"} else ""
        found = " x ".join(f"{zoom:.3g}" for zoom in zooms) + " mm"
        raise InputError(name, "voxel size", found, f"{low:g} to {high:g} mm", cure)
    warnings = list(header.warnings)
    codes = int(raw["qform_code"]), int(raw["sform_code"])
    if not any(codes):
        outcome = "the axes are taken as left, anterior, superior around the middle of the image"
        warnings.append(
            Notice(name, "affine", "neither qform nor sform", "an orientation", outcome)
        )
    elif all(codes):
        warnings += _disagreement(header, raw)
    pixdim = np.asarray(raw.get_zooms()[:3], dtype=float)
    if not np.allclose(pixdim, zooms, rtol=0.02):
        found = " x ".join(f"{zoom:.3g}" for zoom in pixdim)
        used = " x ".join(f"{zoom:.3g}" for zoom in zooms)
        expected = f"{used} mm as in the affine, which is used"
        warnings.append(Notice(name, "pixdim", f"{found} mm", expected))
    return replace(
        header,
        zooms=(float(zooms[0]), float(zooms[1]), float(zooms[2])),
        warnings=tuple(warnings),
        oriented=any(codes),
    )


def _check_scaling(data: Any, name: str) -> None:
    """Refuse factors with which no measurement can have been written."""
    for key, number in (("scl_slope", data.slope), ("scl_inter", data.inter)):
        value = abs(float(number))
        if np.isfinite(value) and value > LARGEST_SCALING:
            expected = f"a number up to {LARGEST_SCALING:g}"
            raise InputError(name, key, f"{value:g}", expected, "convert the image again")


def _disagreement(header: Header, raw: Any) -> list[Notice]:
    """Tell if qform and sform send a corner of the image to different places."""
    from nibabel.spatialimages import HeaderDataError

    try:
        other = np.asarray(raw.get_qform(), dtype=float)
    except (HeaderDataError, ValueError):
        return [Notice(header.name, "qform", "no rotation", "one as in the sform, used")]
    ends = [(0, n - 1) for n in header.shape[:3]]
    corners = np.stack([a.ravel() for a in np.meshgrid(*ends, indexing="ij")])
    between = header.affine - other
    apart = np.linalg.norm(between[:3, :3] @ corners + between[:3, 3:], axis=0).max()
    if not apart > FORMS_MM:
        return []
    found = f"qform and sform that differ by up to {apart:.1f} mm"
    return [Notice(header.name, "affine", found, "one place", "the sform is used")]


def short(error: BaseException) -> str:
    """Return the text of another library's error on one short line."""
    return " ".join(str(error).split())[:80] or type(error).__name__
