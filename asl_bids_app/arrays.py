"""Quantifying arrays from Python: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from asl_bids_app.argument_checks import as_array, check_arguments, naming_arguments
from asl_bids_app.argument_constants import CALL, calibration_of
from asl_bids_app.array_inputs import (
    affine_matrix,
    check_errors,
    check_shape,
    fractions_of_arrays,
    m0_image,
    mask_of_arrays,
    series_of_arrays,
    with_measurements,
)
from asl_bids_app.notices import Notice
from asl_bids_app.options import defaults

if TYPE_CHECKING:
    from asl_bids_app.estimators.base import ParameterMaps
    from asl_bids_app.protocol import Protocol


def quantify(
    delta_m: np.ndarray,
    m0: np.ndarray | float,
    protocol: Protocol,
    *,
    estimator: str = defaults.ESTIMATOR,
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
    error_bars: str = defaults.ERROR_BARS,
    arterial: bool = defaults.ARTERIAL,
    tta: bool = defaults.TTA,
    device: str = defaults.DEVICE,
    batch_size: int = defaults.BATCH_SIZE,
    threads: int = defaults.THREADS,
    seed: int = defaults.SEED,
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
        Seconds after the first slice, zeros for a 3D readout; None keeps the protocol's.
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
        zero outside the mask; and ``warnings``, sentences to be read. They also say so if CBF
        can't be believed, as where `delta_m` is in per cent of M0 and `m0` is 1.

    Raises
    ------
    InputError
        If shapes disagree, or an argument is of a wrong kind or can't be: one line that names
        it. It is a `ValueError`.

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
    import torch

    from asl_bids_app.estimators.estimate import estimate

    check_arguments(
        estimator=estimator,
        error_bars=error_bars,
        model=model,
        protocol=protocol,
        threads=threads,
        batch_size=batch_size,
        seed=seed,
        field_strength=field_strength,
        tta=tta,
        arterial=arterial,
        device=device,
        slice_axis=slice_axis,
    )
    m0 = as_array("m0", m0)
    delta_m, space = with_measurements(delta_m, protocol, m0)
    scale = m0_image(m0, space)
    inside = mask_of_arrays(mask, delta_m, scale, space)
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
        error, shape = with_measurements(standard_error, protocol, m0, "standard_error")
        check_shape("standard_error", shape, space)
        check_errors(error, inside, repeats)
    series = series_of_arrays(
        protocol, calibration, delta_m, scale, inside, repeats, error, slice_axis, slice_time
    )
    if affine is not None:
        series = replace(series, affine=affine_matrix(affine))
    fractions = fractions_of_arrays(tissue, space)
    # What is drawn, and how many threads there are, is the caller's in this process.
    usual = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), naming_arguments(CALL):
        try:
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
        finally:
            torch.set_num_threads(usual)
    if affine is None and estimator == "ensemble":
        note = Notice(
            "affine",
            found="none",
            expected="the voxel-to-world matrix",
            outcome="the means of regions are not brought back to what the data say",
        )
        maps = replace(maps, warnings=(*maps.warnings, note))
    found = maps.volumes(slice_axis)
    found = replace(found, warnings=(*found.warnings, *_unlikely_flow(found.cbf[inside])))
    return _of_shape(found, space)


def _unlikely_flow(cbf: np.ndarray) -> list[Notice]:
    """Return the warnings that a dataset with such a flow would have; (voxels,)."""
    from asl_bids_app.quality.plausibility import plausibility

    causes = (
        "an M0 of another scale (delta_m is in the unit of m0; of a delta_m in per cent m0 is "
        "100), times that are not in seconds, or control and label swapped"
    )
    zero = float((cbf == 0).mean())
    return plausibility({"cbf_mean_brain": cbf.mean(), "cbf_zero_fraction": zero}, causes)


def _of_shape(
    maps: ParameterMaps[np.ndarray], space: tuple[int, ...]
) -> ParameterMaps[np.ndarray]:
    """Give maps the axes of space that came in."""
    if len(space) == 3:
        return maps
    values: dict[str, Any] = {
        name: value.reshape((*space, *value.shape[3:]))
        for name, value in vars(maps).items()
        if isinstance(value, np.ndarray)
    }
    return replace(maps, **values)
