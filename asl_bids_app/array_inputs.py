"""Checks of arrays that come from Python: shapes, numbers, mask, and the series they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def check_arguments(
    *,
    estimator: Any,
    error_bars: Any,
    protocol: Any,
    threads: Any,
    batch_size: Any,
    seed: Any,
    field_strength: Any,
    tta: Any,
    arterial: Any,
    device: Any,
) -> None:
    """Refuse arguments that aren't arrays and can't be."""
    from asl_bids_app.options.groups import ERROR_BARS, ESTIMATORS
    from asl_bids_app.protocol import Protocol

    for name, value, words in (
        ("estimator", estimator, ESTIMATORS),
        ("error_bars", error_bars, ERROR_BARS),
    ):
        if value not in words:
            raise InputError(CALL, name, repr(value), f"one of {', '.join(words)}")
    if not isinstance(protocol, Protocol):
        raise InputError(
            CALL, "protocol", type(protocol).__name__, "a Protocol, such as Protocol.pcasl(...)"
        )
    for name, value, least in (
        ("threads", threads, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(CALL, name, repr(value), f"a whole number of {least} or more")
    if isinstance(field_strength, bool) or not isinstance(field_strength, (int, float, np.number)):
        raise InputError(CALL, "field_strength", repr(field_strength), "a number, tesla")
    for name, value in (("tta", tta), ("arterial", arterial)):
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(CALL, name, repr(value), "True or False")
    if not isinstance(device, str):
        raise InputError(CALL, "device", repr(device), "auto, cpu, cuda, cuda:N or mps")


def check_affine(matrix: np.ndarray) -> None:
    """Refuse an affine that no grid can have."""
    if not np.isfinite(matrix).all() or not abs(np.linalg.det(matrix[:3, :3])) > 0:
        raise InputError(CALL, "affine", "no invertible matrix of numbers", "voxel to world, mm")


def check_errors(error: np.ndarray, mask: np.ndarray, repeats: int | Sequence[int]) -> None:
    """Refuse standard errors that can't be, or that no repeats stand behind."""
    if np.max(np.asarray(repeats)) < 2:
        raise InputError(
            CALL, "repeats", repr(repeats), "the pairs that standard_error is of, 2 or more"
        )
    inside = np.asarray(error, float).reshape(*mask.shape, -1)[mask]
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
    images = {key: on_grid(key, image, space) for key, image in tissue.items()}
    for key, image in images.items():
        if image.dtype.kind not in "iufb" or not np.isfinite(image).all():
            raise InputError(CALL, key, "values that are no numbers", "0 to 1")
        if float(image.min()) < -0.01 or float(image.max()) > 1.01:
            raise InputError(CALL, key, f"{image.min():g} to {image.max():g}", "0 to 1")
    return images


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
    array = np.asarray(m0)
    if array.dtype.kind not in "iuf":
        raise InputError(CALL, "m0", _kind(m0), "real numbers")
    array = array.astype(float)
    if array.ndim == 0:
        array = np.full(space, float(array))
    return on_grid("m0", array, space)


def _kind(value: Any) -> str:
    kind = np.asarray(value).dtype
    return type(value).__name__ if kind.kind in "OUS" else f"values of {kind}"


def mask_of_arrays(
    mask: np.ndarray | None, delta_m: np.ndarray, m0: np.ndarray, space: tuple[int, ...]
) -> np.ndarray:
    """Return the mask, three axes of space, and check ΔM and M0 inside it."""
    usable = np.isfinite(delta_m).all(axis=-1).reshape(m0.shape) & np.isfinite(m0) & (m0 > 0)
    inside: np.ndarray = usable
    if mask is not None:
        image = on_grid("mask", mask, space)
        if image.dtype.kind not in "biuf" or not np.isfinite(image).all():
            raise InputError(CALL, "mask", _kind(mask), "True or False, or numbers")
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

    if slice_axis not in (0, 1, 2):
        raise InputError(CALL, "slice_axis", repr(slice_axis), "0, 1 or 2")
    n, n_slices = protocol.n_measurements, m0.shape[slice_axis]
    if slice_time is not None:
        times = np.asarray(slice_time)
        if times.dtype.kind not in "iuf" or times.ndim > 1:
            raise InputError(CALL, "slice_time", repr(slice_time), "one number a slice, seconds")
        try:
            protocol = protocol.with_slice_time(slice_time)
        except ValueError as error:
            raise InputError(CALL, "slice_time", str(error), "seconds") from error
    if protocol.slice_time.shape[0] not in (1, n_slices):
        raise InputError(
            CALL,
            "slice_time",
            f"{protocol.slice_time.shape[0]} times",
            f"{n_slices}, one for each slice along axis {slice_axis}",
        )
    if np.asarray(repeats).dtype.kind not in "iuf":
        raise InputError(CALL, "repeats", repr(repeats), "whole numbers of 1 or more")
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
