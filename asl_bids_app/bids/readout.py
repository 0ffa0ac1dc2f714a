"""When slices are read out, and whether that fits into the repetition time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from asl_bids_app.bids.fields import Fields
from asl_bids_app.bids.spans import show
from asl_bids_app.schemes import SCHEMES, Scheme

AXES: Final = ("i", "j", "k")


LATE: Final = 0.05
"""Seconds by which rounded times may exceed the repetition time."""


def slice_times(fields: Fields, shape: Sequence[int] | None) -> tuple[np.ndarray, int]:
    """Read when each slice is excited.

    Parameters
    ----------
    fields
        The run.
    shape
        Of its image; None if nobody knows it.

    Returns
    -------
    array, shape (n_slices,)
        Seconds after the first slice to be excited, by slice index; zeros for 3D.
    int
        The axis of the slices.

    Raises
    ------
    InputError
    """
    readout = ""
    with fields.collect():
        if "MRAcquisitionType" not in fields and "SliceTiming" not in fields:
            raise fields.missing(
                "MRAcquisitionType", "one of 2D, 3D", "with 2D also the SliceTiming"
            )
        readout = fields.choice("MRAcquisitionType", ("2D", "3D"))
    axis, reverse = 2, False
    key = "SliceEncodingDirection"
    if key in fields:
        value = fields[key]
        if not isinstance(value, str) or value.removesuffix("-") not in AXES:
            raise fields.fault(key, show(value), "i, j, k, i-, j- or k-")
        axis, reverse = AXES.index(value[0]), value.endswith("-")
    key = "SliceTiming"
    given = fields.get(key)
    n = shape[axis] if shape else len(given) if isinstance(given, list) else 1
    if not readout and key not in fields:
        return np.zeros(n), axis
    if readout == "3D":
        if key in fields:
            found = f"{key} with MRAcquisitionType 3D"
            fields.warn(key, found, "nothing: a 3D readout excites all at once", "not used")
        return np.zeros(n), axis
    if key not in fields:
        expected = f"the excitation time of each of the {n} slices in seconds"
        raise fields.missing(key, expected, "complete it from the protocol; 3D data have none")
    times = np.array(fields.numbers(key, "times in seconds"))
    if len(times) != n:
        cure = "check SliceEncodingDirection and whether the image was cropped"
        expected = f"{n}, the size of axis {AXES[axis]} of the image"
        raise fields.fault(key, f"{len(times)} values", expected, cure)
    if n > 1 and times.max() == times.min():
        outcome = "all slices are taken to have the same delay"
        fields.warn(key, "one time for all slices", "different times in a 2D readout", outcome)
    if times.min() > 0:
        fields.notes.inferred["slice_time"] = (
            f"{times.min():g} s taken off {key}: delays count to the first slice"
        )
    times = times - times.min()
    return (times[::-1].copy() if reverse else times), axis


def check_fit(
    fields: Fields,
    scheme: Scheme,
    delay: np.ndarray,
    duration: np.ndarray,
    slice_time: np.ndarray,
    repetition: np.ndarray,
) -> None:
    """Warn if label, delay and readout don't fit into the repetition time."""
    used = np.isfinite(delay)
    label = duration if SCHEMES[scheme].continuous else np.zeros_like(delay)
    needed = (label + delay + slice_time.max())[used]
    excess = needed - repetition[used]
    if excess.max() > LATE:
        i = int(excess.argmax())
        fields.warn(
            "PostLabelingDelay",
            f"label, delay and readout of {needed[i]:.3g} s in a repetition time of "
            f"{repetition[used][i]:.3g} s",
            "times that fit into each other",
            "taken at its word; a delay counted from the start of the label does this",
        )
