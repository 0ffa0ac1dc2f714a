"""Quantifying arrays from Python: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asl_bids_app.argument_constants import CALL, calibration_of
from asl_bids_app.errors import InputError

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration
    from asl_bids_app.estimators.base import ParameterMaps
    from asl_bids_app.protocol import Protocol
    from asl_bids_app.series import Series

MOST_FRACTION: Final = 1.0
"""A ΔM/M0 above this in most of a brain is none: an M0 that is missing, or of another scale."""


def quantify(
    delta_m: np.ndarray,
    m0: np.ndarray | float,
    protocol: Protocol,
    *,
    estimator: str = "ensemble",
    mask: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    slice_axis: int = 2,
    slice_time: Sequence[float] | None = None,
    repeats: int | Sequence[int] = 1,
    standard_error: np.ndarray | None = None,
    tissue: Mapping[str, np.ndarray] | None = None,
    labeling_efficiency: float | Mapping[str, float] | None = None,
    suppression_efficiency: float = 1.0,
    t1_blood: float | None = None,
    t1_tissue: float | None = None,
    partition_coefficient: float | None = None,
    field_strength: float = 3.0,
    model: str | None = None,
    error_bars: str = "total",
    arterial: bool = True,
    tta: bool = True,
    device: str = "auto",
    batch_size: int = 8,
    threads: int = 1,
    seed: int = 0,
) -> ParameterMaps[np.ndarray]:
    """Estimate CBF and ATT with error bars from ΔM and M0.

    Parameters
    ----------
    delta_m : array, shape (X, Y, Z, n)
        Control minus label, averaged over its repeats, in the unit of `m0`; n measurements in
        the order of the protocol. Fewer axes of space will do, and the last axis may be left out
        of a single measurement.
    m0 : array, shape (X, Y, Z), or float
        M0 of tissue at full relaxation. Give 1 if `delta_m` is a fraction of M0 already.
    protocol
        What was measured, such as ``Protocol.pcasl([0.5, 1.0, 1.5, 2.0], 1.8)``.
    estimator
        ``ensemble``, ``bayes`` or ``least-squares``.
    mask : array of bool, shape (X, Y, Z)
        The brain. By default where M0 is positive and all values are numbers.
    affine : array, shape (4, 4)
        Voxel to world, mm. The ensemble needs voxel sizes to bring the means of regions back to
        what the data say; without it that step is left out, and a warning says so.
    slice_axis
        0, 1 or 2: the axis that slices lie along.
    slice_time : sequence of float, length of the slice axis
        Seconds after the first slice; outranks the protocol's. None or zeros: 3D readout.
    repeats : int or sequence of int, length n
        Pairs that were averaged in each measurement.
    standard_error : array, shape of `delta_m`
        Standard error of `delta_m` from the spread of its repeats, in its unit; NaN where there
        are too few. Without it the noise is found from residuals or neighbours.
    tissue : mapping of str to array, shape (X, Y, Z)
        Fractions of grey (``gm``) and white matter (``wm``) in each voxel.
    labeling_efficiency : float or mapping of str to float
        A fraction, for all schemes or by scheme; by default that of the scheme.
    suppression_efficiency : float
        Factor by which all background-suppression pulses together weaken the label.
    t1_blood, t1_tissue : float
        Seconds; by default blood's by `field_strength`, and tissue's equal to it.
    partition_coefficient : float
        mL/g; 0.9 by default.
    field_strength : float
        Tesla.
    model, error_bars, arterial, tta, device, batch_size
        Of the ensemble, as on the command line.
    threads, seed
        Processors, and the seed of whatever is drawn.

    Returns
    -------
    ParameterMaps
        Numpy arrays of the shape of `m0` (or of `delta_m` without its last axis): ``cbf``,
        ``cbf_sd`` (mL/100 g/min), ``att``, ``att_sd`` (s), ``flags``, ``residual`` and more,
        zero outside the mask; and ``warnings``, sentences to be read.

    Raises
    ------
    InputError
        If shapes disagree or a value can't be; it is a `ValueError`.

    Examples
    --------
    The signal of 60 mL/100 g/min by the general kinetic model (Buxton 1998,
    doi:10.1002/mrm.1910400308), that arrives after 1.2 s and is seen 1.8 s after a label of
    1.8 s:

    >>> import numpy as np
    >>> import asl_bids_app
    >>> from asl_bids_app import Protocol
    >>> delays = np.array([0.5, 1.0, 1.5, 2.0, 2.5])
    >>> start = np.maximum(delays, 1.2)
    >>> arrived = np.exp(-start / 1.65) - np.exp(-(delays + 1.8) / 1.65)
    >>> fraction = 2 * 0.85 / 0.9 * 60 / 6000 * 1.65 * arrived
    >>> maps = asl_bids_app.quantify(
    ...     np.full((4, 4, 2, 5), 1000 * fraction),
    ...     np.full((4, 4, 2), 1000.0),
    ...     Protocol.pcasl(post_labeling_delay=delays, label_duration=1.8),
    ...     estimator="least-squares",
    ... )
    >>> maps.cbf.shape
    (4, 4, 2)
    >>> print(f"{maps.cbf[0, 0, 0]:.1f} mL/100 g/min, {maps.att[0, 0, 0]:.2f} s")
    60.0 mL/100 g/min, 1.20 s
    """
    from asl_bids_app.estimators.estimate import estimate

    _check_estimator(estimator)
    delta_m, space = _with_measurements(delta_m, protocol, m0)
    scale = _m0_of(m0, space)
    inside = _mask_of(mask, delta_m, scale, space)
    calibration = calibration_of(
        protocol,
        labeling_efficiency=labeling_efficiency,
        suppression_efficiency=suppression_efficiency,
        t1_blood=t1_blood,
        t1_tissue=t1_tissue,
        partition_coefficient=partition_coefficient,
        field_strength=field_strength,
    )
    error = None
    if standard_error is not None:
        error, shape = _with_measurements(standard_error, protocol, m0, "standard_error")
        _check_shape("standard_error", shape, space)
    series = _series(
        protocol, calibration, delta_m, scale, inside, repeats, error, slice_axis, slice_time
    )
    if affine is not None:
        matrix = np.asarray(affine, float)
        _check_shape("affine", matrix.shape, (4, 4))
        series = replace(series, affine=matrix)
    fractions = {key: _on_grid(key, image, space) for key, image in (tissue or {}).items()}
    maps = estimate(
        series,
        estimator,
        model=model,
        tta=tta,
        error_bars=error_bars,
        device=device,
        batch_size=batch_size,
        threads=threads,
        seed=seed,
        tissue=fractions,
        consistent=affine is not None,
        arterial=arterial,
    )
    if affine is None and estimator == "ensemble":
        note = (
            "affine: found none, expected the voxel-to-world matrix; the means of regions are "
            "not brought back to what the data say"
        )
        maps = replace(maps, warnings=(*maps.warnings, note))
    return _of_shape(maps.volumes(slice_axis), space)


def _check_estimator(name: str) -> None:
    from asl_bids_app.options.groups import ESTIMATORS

    if name not in ESTIMATORS:
        raise InputError(CALL, "estimator", repr(name), f"one of {', '.join(ESTIMATORS)}")


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(CALL, name, f"shape {tuple(found)}", f"{tuple(expected)}")


def _with_measurements(
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


def _on_grid(name: str, values: Any, space: tuple[int, ...]) -> np.ndarray:
    """Return an image of the grid with three axes of space."""
    array = np.asarray(values)
    _check_shape(name, array.shape, space)
    return array.reshape((*space, *(1,) * (3 - len(space))))


def _m0_of(m0: np.ndarray | float, space: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(m0, float)
    if array.ndim == 0:
        array = np.full(space, float(array))
    return _on_grid("m0", array, space)


def _mask_of(
    mask: np.ndarray | None, delta_m: np.ndarray, m0: np.ndarray, space: tuple[int, ...]
) -> np.ndarray:
    usable = np.isfinite(delta_m).all(axis=-1).reshape(m0.shape) & np.isfinite(m0) & (m0 > 0)
    if mask is None:
        inside = usable
    else:
        inside = _on_grid("mask", mask, space).astype(bool)
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


def _series(
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
    _check_shape("repeats", counts.shape, (n,))
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


def _of_shape(
    maps: ParameterMaps[np.ndarray], space: tuple[int, ...]
) -> ParameterMaps[np.ndarray]:
    """Give maps the axes of space that came in."""
    if len(space) == 3:
        return maps
    values = {
        name: value.reshape((*space, *value.shape[3:]))
        for name, value in vars(maps).items()
        if isinstance(value, np.ndarray)
    }
    return replace(maps, **values)
