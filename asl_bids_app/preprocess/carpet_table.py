"""A run in a few numbers for each volume, so that a reader sees what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from asl_bids_app.preprocess.measurements import Measurement

BANDS: Final = 60
"""Groups of voxels: enough to see slices, few enough to leave noise small."""


def carpet_table(
    data: np.ndarray,
    mask: np.ndarray,
    m0: np.ndarray,
    slice_axis: int,
    volume_types: Sequence[str],
    measurements: Sequence[Measurement],
    left_out: Sequence[int],
) -> dict[str, np.ndarray]:
    """Return the columns of the carpet table of a run.

    Parameters
    ----------
    data : array, shape (X, Y, Z, N)
        Volumes after motion correction, in the units of the image.
    mask : array of bool, shape (X, Y, Z)
    m0 : array, shape (X, Y, Z)
        In the same units.
    slice_axis
        Bands follow each other along it.
    volume_types
        Of the N volumes.
    measurements
        Their pairs.
    left_out
        Volumes that were not averaged.

    Returns
    -------
    dict of str to array, shape (N,)
        ``volume_type``; ``pair``, counted from 1; ``averaged``, 1 or 0; the delay in seconds;
        and the mean signal of each band in percent of its mean M0. NaN for what does not exist.
    """
    n = len(volume_types)
    pair, averaged, delay = (np.full(n, np.nan) for _ in range(3))
    number = 0
    for measurement in measurements:
        for members in measurement.pairs:
            number += 1
            for volume in members:
                if volume is not None:
                    pair[volume], averaged[volume] = number, volume not in left_out
                    delay[volume] = measurement.post_labeling_delay
    columns: dict[str, Any] = {
        "volume_type": np.array(volume_types, dtype=object),
        "pair": pair,
        "averaged": averaged,
        "post_labeling_delay": delay,
    }
    inside = np.moveaxis(mask, slice_axis, 0)
    voxels = np.moveaxis(data, slice_axis, 0)[inside]
    scale = np.moveaxis(m0, slice_axis, 0)[inside]
    edges = np.linspace(0, len(voxels), BANDS + 1).astype(int)
    for band, (start, stop) in enumerate(pairwise(edges), 1):
        values = np.full(n, np.nan)
        if stop > start and (size := float(scale[start:stop].mean(dtype=np.float64))) > 0:
            values = 100 * voxels[start:stop].mean(axis=0, dtype=np.float64) / size
        columns[f"band_{band:02d}"] = np.where(np.isfinite(pair), values, np.nan)
    return columns


def describe_carpet() -> dict[str, Any]:
    """Return what the JSON file beside the table says of its columns."""
    return {
        "volume_type": {"Description": "As in aslcontext.tsv."},
        "pair": {"Description": "Pair of control and label (or difference), counted from 1."},
        "averaged": {
            "Description": "1 if the pair was averaged, 0 if it was left out as an outlier."
        },
        "post_labeling_delay": {"Description": "Delay of the pair.", "Units": "s"},
        **{
            f"band_{band:02d}": {
                "Description": f"Mean of band {band} of {BANDS} over mean M0: as many voxels of "
                "the brain in each, in the order of their slices.",
                "Units": "percent",
            }
            for band in range(1, BANDS + 1)
        },
    }


def join_tables(
    tables: Sequence[Mapping[str, np.ndarray] | None],
) -> dict[str, np.ndarray] | None:
    """Put tables of the runs of a unit one below the other; None if one is missing.

    Of several runs a column says to which each volume belongs.
    """
    known = [table for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return None
    if len(known) == 1:
        return dict(known[0])
    lengths = [len(next(iter(table.values()))) for table in known]
    joined = {key: np.concatenate([table[key] for table in known]) for key in known[0]}
    return {**joined, "run": np.repeat(np.arange(1, len(known) + 1), lengths)}
