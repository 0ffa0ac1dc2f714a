"""Which volumes belong to one measurement, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asl_bids_app.wording import seconds


@dataclass(frozen=True)
class Measurement:
    """Volumes of one (delay, duration): pairs of control and label, or differences.

    Attributes
    ----------
    pairs : tuple of (int, int or None)
        Indices of control and label, or of a difference and None.
    """

    post_labeling_delay: float
    label_duration: float
    pairs: tuple[tuple[int, int | None], ...]


def find_measurements(
    volume_types: Sequence[str],
    post_labeling_delay: np.ndarray,
    label_duration: np.ndarray,
) -> tuple[Measurement, ...]:
    """Pair the volumes of a run: the k-th control with the k-th label of a measurement.

    Parameters
    ----------
    volume_types
        As in `aslcontext.tsv`.
    post_labeling_delay, label_duration : array, shape (N,)
        Seconds, by volume.

    Raises
    ------
    ValueError
        If a measurement has unequal numbers of controls and labels, or there is none.
    """
    groups: dict[tuple[float, float], dict[str, list[int]]] = {}
    for index, kind in enumerate(volume_types):
        if kind in {"control", "label", "deltam"}:
            key = (
                round(float(post_labeling_delay[index]), 6),
                round(float(label_duration[index]), 6),
            )
            groups.setdefault(key, {"control": [], "label": [], "deltam": []})[kind].append(index)
    found = []
    for key in sorted(groups):
        members = groups[key]
        if len(members["control"]) != len(members["label"]):
            raise ValueError(
                f"delay {key[0]:g} s, duration {seconds(key[1])}: {len(members['control'])} "
                f"control and {len(members['label'])} label volumes"
            )
        pairs = [*zip(members["control"], members["label"], strict=True)]
        found.append(Measurement(*key, (*pairs, *((i, None) for i in members["deltam"]))))
    if not found:
        raise ValueError("no control, label or deltam volume")
    return tuple(found)


def differences(data: np.ndarray, measurement: Measurement) -> np.ndarray:
    """Return control minus label of every pair, (V, repeats), of voxels in rows (V, N)."""
    return np.stack(
        [
            data[:, first] if second is None else data[:, first] - data[:, second]
            for first, second in measurement.pairs
        ],
        axis=1,
    )
