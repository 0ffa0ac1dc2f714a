"""Checks of arrays that come from Python: shapes, numbers, mask, and the series they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.argument_checks import as_array
from asl_bids_app.argument_constants import CALL
from asl_bids_app.errors import InputError
from asl_bids_app.protocol_checks import LONGEST

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration
    from asl_bids_app.protocol import Protocol
    from asl_bids_app.series import Series


WHOLE: Final = "whole numbers of 1 or more"
MOST_FRACTION: Final = 1.0
"""A ΔM/M0 above this in most of a brain is none: an M0 that is missing, or of another scale."""


def affine_matrix(affine: Any) -> np.ndarray:
    """Return an affine, and refuse one that no grid can have."""
    expected = "a matrix of 4 x 4 numbers, voxel to world, mm"
    matrix = as_array("affine", affine, expected).astype(float)
    check_shape("affine", matrix.shape, (4, 4))
    if not np.isfinite(matrix).all() or not abs(np.linalg.det(matrix[:3, :3])) > 0:
        raise InputError(CALL, "affine", "no invertible matrix of numbers", expected)
    return matrix


def check_errors(error: np.ndarray, mask: np.ndarray, repeats: int | Sequence[int]) -> None:
    """Refuse standard errors that can't be, or that no repeats stand behind."""
    if as_array("repeats", repeats, WHOLE).max(initial=0) < 2:
        raise InputError(
            CALL, "repeats", repr(repeats), "the pairs that standard_error is of, 2 or more"
        )
    inside = error.astype(float).reshape(*mask.shape, -1)[mask]
    wrong = int((~np.isnan(inside) & ~((inside > 0) & np.isfinite(inside))).sum())
    if wrong:
        raise InputError(
            CALL,
            "standard_error",
            f"{wrong} values in the mask that are 0, negative or infinite",
            "errors above 0, NaN where there are too few repeats",
        )


def fractions_of_arrays(tissue: Any, space: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return fractions of tissues with three axes of space."""
    if tissue is None:
        return {}
    known = ("gm", "wm", "csf")
    if not isinstance(tissue, Mapping) or not set(tissue) <= set(known):
        found = sorted(map(str, tissue)) if isinstance(tissue, Mapping) else type(tissue).__name__
        raise InputError(CALL, "tissue", str(found), f"a mapping with keys of {', '.join(known)}")
    images = {key: on_grid(f"tissue: {key}", each, space) for key, each in tissue.items()}
    for key, image in images.items():
        field = f"tissue: {key}"
        if not np.isfinite(image).all():
            raise InputError(CALL, field, "values that are no numbers", "0 to 1")
        if float(image.min()) < -0.01 or float(image.max()) > 1.01:
            raise InputError(CALL, field, f"{image.min():g} to {image.max():g}", "0 to 1")
    if not {"gm", "wm"} <= set(tissue):
        found = ", ".join(sorted(tissue)) or "none"
        raise InputError(CALL, "tissue", found, "gm and wm, and csf if you like")
    most = float(np.sum(list(images.values()), axis=0).max())
    if most > 1.05:
        raise InputError(
            CALL, "tissue", f"a sum of up to {most:g}", "fractions of a voxel: 1 at most"
        )
    return images


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse an array of another shape than the one expected."""
    if tuple(found) != tuple(expected):
        raise InputError(CALL, name, f"shape {tuple(found)}", f"{tuple(expected)}")


def with_measurements(
    values: np.ndarray, protocol: Protocol, m0: np.ndarray | float, name: str = "delta_m"
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return an array with measurements last, and its shape in space."""
    array = as_array(name, values)
    n = protocol.n_measurements
    # Of a single measurement its axis may be missing; M0 tells, where it is an image.
    missing = array.shape == np.shape(m0) if np.ndim(m0) else array.shape[-1:] != (1,)
    if n == 1 and missing:
        array = array[..., None]
    if not 1 <= array.ndim <= 4 or array.shape[-1] != n:
        raise InputError(
            CALL,
            name,
            f"shape {array.shape}",
            f"(X, Y, Z, {n}): up to three axes of space, and the {n} of the protocol last",
        )
    return array, array.shape[:-1]


def on_grid(
    name: str, values: Any, space: tuple[int, ...], expected: str = "real numbers"
) -> np.ndarray:
    """Return an image of the grid with three axes of space."""
    array = as_array(name, values, expected, "biuf")
    check_shape(name, array.shape, space)
    return array.reshape((*space, *(1,) * (3 - len(space))))


def m0_image(m0: np.ndarray | float, space: tuple[int, ...]) -> np.ndarray:
    """Return M0 as an image of the grid with three axes of space."""
    array = as_array("m0", m0).astype(float)
    if not (np.isfinite(array) & (array > 0)).any():
        found = f"{array:g}" if array.ndim == 0 else "no positive number"
        raise InputError(CALL, "m0", found, "positive numbers")
    if array.ndim == 0:
        array = np.full(space, float(array))
    return on_grid("m0", array, space)


def mask_of_arrays(
    mask: np.ndarray | None, delta_m: np.ndarray, m0: np.ndarray, space: tuple[int, ...]
) -> np.ndarray:
    """Return the mask, three axes of space, and check ΔM and M0 inside it."""
    usable = np.isfinite(delta_m).all(axis=-1).reshape(m0.shape) & np.isfinite(m0) & (m0 > 0)
    inside: np.ndarray = usable
    if mask is not None:
        words = "True or False, or numbers"
        image = on_grid("mask", mask, space, words)
        if not np.isfinite(image).all():
            raise InputError(CALL, "mask", "values that are no numbers", words)
        inside = image.astype(bool)
        if lost := int((inside & ~usable).sum()):
            raise InputError(
                CALL,
                "mask",
                f"{lost} voxels whose delta_m is no number, or whose m0 isn't positive",
                "numbers and a positive M0 in the whole mask",
                "leave them out of the mask",
            )
    if not inside.any():
        raise InputError(CALL, "mask", "no voxel", "a brain with numbers and a positive M0")
    fraction = np.abs(delta_m.reshape(*m0.shape, -1)[inside]) / m0[inside][:, None]
    if float(np.median(fraction)) > MOST_FRACTION:
        raise InputError(
            CALL,
            "m0",
            f"values of which delta_m is {np.median(fraction):.3g} times as large",
            "a ΔM of at most a few per cent of M0",
            "give the M0 image in the unit of delta_m",
        )
    return inside


def series_of_arrays(
    protocol: Protocol,
    calibration: Calibration,
    delta_m: np.ndarray,
    m0: np.ndarray,
    mask: np.ndarray,
    repeats: int | Sequence[int],
    standard_error: np.ndarray | None,
    slice_axis: int,
    slice_time: Sequence[float] | None,
) -> Series:
    """Return the calibrated series that the arrays make."""
    import torch

    from asl_bids_app.preprocess.m0 import calibrate
    from asl_bids_app.series import Series, to_slices

    n, n_slices = protocol.n_measurements, m0.shape[slice_axis]
    if slice_time is not None:
        words = "one number a slice, seconds"
        times = as_array("slice_time", slice_time, words)
        if times.ndim > 1 or not times.size:
            raise InputError(CALL, "slice_time", f"shape {times.shape}", words)
        if not (np.isfinite(times).all() and times.min() >= 0 and times.max() <= LONGEST):
            low, high = times.min(), times.max()
            limits = f"0 to {LONGEST:g} s (milliseconds are more)"
            raise InputError(CALL, "slice_time", f"{low:g} to {high:g}", limits)
        protocol = protocol.with_slice_time(times)
    if protocol.slice_time.shape[0] not in (1, n_slices):
        raise InputError(
            CALL,
            "slice_time",
            f"{protocol.slice_time.shape[0]} times",
            f"{n_slices}, one for each slice along axis {slice_axis}",
        )
    counts = as_array("repeats", repeats, WHOLE)
    counts = np.broadcast_to(counts, (n,)) if counts.ndim == 0 else counts
    check_shape("repeats", counts.shape, (n,))
    if not np.isfinite(counts).all() or (counts < 1).any() or (counts % 1 != 0).any():
        raise InputError(CALL, "repeats", str(repeats), WHOLE)

    def slices(volumes: np.ndarray) -> torch.Tensor:
        shaped = np.asarray(volumes, float).reshape(*m0.shape, n)
        calibrated = calibrate(np.where(mask[..., None], shaped, 0), m0, mask)
        return torch.from_numpy(np.ascontiguousarray(to_slices(calibrated, slice_axis)))

    return Series(
        protocol,
        calibration,
        slices(delta_m),
        torch.from_numpy(np.ascontiguousarray(to_slices(mask, slice_axis))),
        torch.tensor(counts.astype(int)),
        None if standard_error is None else slices(standard_error),
        slice_axis=slice_axis,
    )
