"""What a protocol can be: shapes that agree, and times that can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from asl_bids_app.schemes import SCHEMES

LONGEST: Final = 10.0
"""Seconds: no delay, label or slice of ASL is longer; in milliseconds they all are."""

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from asl_bids_app.protocol import Protocol


def check_measurements(protocol: Protocol) -> None:
    """Check the measurements of a protocol.

    Raises
    ------
    ValueError
        If the shapes disagree, a time is negative, not a number or longer than `LONGEST`, or
        the label duration of PCASL, CASL or PASL is not finite and positive.
    """
    n = len(protocol.schemes)
    if n == 0:
        raise ValueError("a protocol needs at least one measurement")
    if protocol.vascular_crushing and len(protocol.vascular_crushing) != n:
        raise ValueError(
            f"vascular_crushing: {len(protocol.vascular_crushing)} values, expected {n}"
        )
    if any(not isinstance(each, bool) for each in protocol.vascular_crushing):
        raise ValueError(
            f"vascular_crushing: {protocol.vascular_crushing}, expected True or False"
        )
    for name in ("post_labeling_delay", "label_duration"):
        values = getattr(protocol, name)
        if tuple(values.shape) != (n,):
            raise ValueError(f"{name}: shape {tuple(values.shape)}, expected ({n},)")
    if protocol.slice_time.ndim != 2 or protocol.slice_time.shape[1] != n:
        raise ValueError(
            f"slice_time: shape {tuple(protocol.slice_time.shape)}, expected (n_slices, {n})"
        )
    for name in ("post_labeling_delay", "slice_time"):
        values = getattr(protocol, name)
        if not bool(values.isfinite().all()) or bool((values < 0).any()):
            raise ValueError(f"{name}: {values.tolist()}, expected finite times >= 0 s")
        _check_seconds(name, float(values.max()))
    for scheme, duration in zip(protocol.schemes, protocol.label_duration.tolist(), strict=True):
        endless = duration == float("inf") and SCHEMES[scheme].endless_bolus
        if not endless and not 0 < duration < float("inf"):
            raise ValueError(f"label_duration: {duration} s for {scheme.value}, expected > 0 s")
        if not endless:
            _check_seconds("label_duration", duration)


def _check_seconds(name: str, longest: float) -> None:
    if longest > LONGEST:
        raise ValueError(
            f"{name}: {longest:g} s, expected at most {LONGEST:g} s; are these milliseconds?"
        )


def check_rows(**times: ArrayLike) -> None:
    """Refuse times that are neither one nor a row of them; a `ValueError`."""
    for name, values in times.items():
        if np.ndim(values) > 1:
            raise ValueError(f"{name}: {np.ndim(values)} axes, expected a time or a row of them")


def common_slices(protocols: Iterable[Protocol]) -> int:
    """Return the number of slices of protocols of one grid, 1 where all are 3D readouts.

    Raises
    ------
    TypeError
        If one is no protocol.
    ValueError
        If the numbers of slices differ.
    """
    protocols = list(protocols)
    if not all(hasattr(protocol, "slice_time") for protocol in protocols):
        raise TypeError("only protocols can be added to a protocol")
    counts = {protocol.slice_time.shape[0] for protocol in protocols} - {1}
    if len(counts) > 1:
        raise ValueError(f"protocols of {sorted(counts)} slices can't be joined")
    return counts.pop() if counts else 1
