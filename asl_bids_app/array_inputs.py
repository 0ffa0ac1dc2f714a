"""Checks of arrays that come from Python: shapes, numbers, mask, and the series they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.argument_constants import CALL
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration
    from asl_bids_app.protocol import Protocol
    from asl_bids_app.series import Series


MOST_FRACTION: Final = 1.0
"""A ΔM/M0 above this in most of a brain is none: an M0 that is missing, or of another scale."""


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse an array of another shape than the one expected."""
    if tuple(found) != tuple(expected):
        raise InputError(CALL, name, f"shape {tuple(found)}", f"{tuple(expected)}")


def with_measurements(
    values: np.ndarray, protocol: Protocol, m0: np.ndarray | float, name: str = "delta_m"
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return an array with measurements last, and its shape in space."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise InputError(CALL, name, f"an array of {array.dtype}", "real numbers")
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


def on_grid(name: str, values: Any, space: tuple[int, ...]) -> np.ndarray:
    """Return an image of the grid with three axes of space."""
    array = np.asarray(values)
    check_shape(name, array.shape, space)
    return array.reshape((*space, *(1,) * (3 - len(space))))


def m0_image(m0: np.ndarray | float, space: tuple[int, ...]) -> np.ndarray:
    """Return M0 as an image of the grid with three axes of space."""
    array = np.asarray(m0, float)
    if array.ndim == 0:
        array = np.full(space, float(array))
    return on_grid("m0", array, space)


def mask_of_arrays(
    mask: np.ndarray | None, delta_m: np.ndarray, m0: np.ndarray, space: tuple[int, ...]
) -> np.ndarray:
    """Return the mask, three axes of space, and check ΔM and M0 inside it."""
    usable = np.isfinite(delta_m).all(axis=-1).reshape(m0.shape) & np.isfinite(m0) & (m0 > 0)
    if mask is None:
        inside = usable
    else:
        inside = on_grid("mask", mask, space).astype(bool)
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

    if slice_axis not in (0, 1, 2):
        raise InputError(CALL, "slice_axis", repr(slice_axis), "0, 1 or 2")
    n, n_slices = protocol.n_measurements, m0.shape[slice_axis]
    if slice_time is not None:
        protocol = protocol.with_slice_time(slice_time)
    if protocol.slice_time.shape[0] not in (1, n_slices):
        raise InputError(
            CALL,
            "slice_time",
            f"{protocol.slice_time.shape[0]} times",
            f"{n_slices}, one for each slice along axis {slice_axis}",
        )
    counts = np.broadcast_to(np.asarray(repeats), (n,)) if np.ndim(repeats) == 0 else repeats
    counts = np.asarray(counts)
    check_shape("repeats", counts.shape, (n,))
    if not (counts >= 1).all() or (counts % 1 != 0).any():
        raise InputError(CALL, "repeats", str(repeats), "whole numbers of 1 or more")

    def slices(volumes: np.ndarray) -> torch.Tensor:
        shaped = np.asarray(volumes, float).reshape(*m0.shape, n)
        calibrated = calibrate(shaped, m0, mask)
        calibrated = np.where(mask[..., None], calibrated, 0).astype(np.float32)
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
