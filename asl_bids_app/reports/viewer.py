"""What the voxel viewer in a report needs, packed small enough to be embedded.

Numbers become integers in steps of 1/2000 of a large value, finer than anything the viewer
shows; only voxels of the brain are kept, and the result is compressed. The page unpacks it
with what every browser since 2023 has built in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from asl_bids_app.reports.compressed import compress
from asl_bids_app.reports.estimates import PLAIN, flag_legend
from asl_bids_app.reports.mosaics import crop
from asl_bids_app.reports.scales import Scale
from asl_bids_app.reports.series_data import SeriesData
from asl_bids_app.schemes import find_scheme

MISSING: Final = -32768
"""The integer that stands for what isn't a number."""
_LIMIT: Final = 32767
_STEPS: Final = 2000
_MAPS: Final = ("cbf", "att", "cbf_sd", "att_sd")
_BYTES: Final = 1.1
"""Of the page for each byte before compression: noise hardly shrinks, and base64 adds a third."""


def quantise(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Turn numbers into 16-bit integers.

    Returns
    -------
    array of int16, float
        The integers, and their factor.
    """
    finite = np.isfinite(values)
    size = np.abs(values[finite])
    # Steps by what is usual, so that noise isn't stored; wider only if outliers need it.
    scale = max(np.percentile(size, 99) / _STEPS, size.max() / _LIMIT) if size.size else 0.0
    scale = float(scale) or 1.0
    integers = np.full(values.shape, MISSING, dtype="<i2")
    integers[finite] = np.round(values[finite] / scale)
    return integers, scale


def stride_for(n_voxels: int, n_channels: int, budget: int) -> int:
    """Return the step in the plane with which the data stay under so many bytes of a page."""
    size = n_voxels * n_channels * 2 * _BYTES
    return max(1, math.ceil(math.sqrt(size / budget)))


def pack(data: SeriesData, scales: Mapping[str, Scale], budget: int) -> dict[str, Any] | None:
    """Pack a series for the viewer.

    Parameters
    ----------
    data
        Derivatives of a series.
    scales
        Colour scale of ``cbf``, ``att``, ``cbf_sd``, ``att_sd`` and the differences
        ``cbf_difference`` and ``att_difference``, as the mosaics have them.
    budget
        Bytes of the page that the data may take.

    Returns
    -------
    dict or None
        Ready for JSON; None if measurements, mask or main maps are missing.
    """
    needed = ("delta_m", "noise", "mask", *_MAPS)
    if any(key not in data.images for key in needed) or not data.measurements:
        return None
    images = data.images
    n = images["delta_m"].shape[3]
    if n != len(data.measurements):
        return None
    mask = images["mask"] > 0
    keys = [key for estimate in data.estimates for key in estimate.keys.values()]
    keys += [key for key in ("gm", "wm", "csf", "abv", "abv_sd") if key in images]
    series = [key for key in ("delta_m", "noise", "residual") if key in images]
    step = stride_for(int(mask.sum()), len(keys) + n * len(series) + 1, budget)
    box = crop(mask)
    view = tuple(slice(s.start, s.stop, step if axis < 2 else 1) for axis, s in enumerate(box))
    mask = mask[view]
    if not mask.any():
        return None
    place = np.diag([step, step, 1.0, 1.0])
    place[:3, 3] = [s.start for s in box]

    channels: list[dict[str, Any]] = []
    rows: list[np.ndarray] = []
    known: dict[bytes, int] = {}

    def add(name: str, values: np.ndarray) -> None:
        integers, scale = quantise(values.astype(np.float64))
        row = known.setdefault(integers.tobytes(), len(rows))  # equal noise is stored once
        if row == len(rows):
            rows.append(integers)
        channels.append({"name": name, "scale": scale, "row": row})

    for key in keys:
        add(key, images[key][view][mask])
    for key in series:
        for i in range(n):
            add(f"{key}{i}", images[key][..., i][view][mask])
    timing: list[Any] = []
    for time in data.slice_time:
        values = time[view][mask]
        if not any(np.array_equal(other, values) for _, other in timing):
            timing.append((len(timing), values))
            add(f"time{len(timing) - 1}", values)
    # Without tissue maps any voxel of the brain will do to start from.
    grey = images["gm"][view] > 0.5 if "gm" in images else mask
    return {
        "title": data.title,
        "shape": list(mask.shape),
        "affine": (data.affine @ place).tolist(),
        "stored": (data.stored @ place).tolist(),
        "step": step,
        "mask": compress(np.ascontiguousarray(mask, dtype=np.uint8).tobytes()),
        "values": compress(np.concatenate(rows).tobytes()),
        "voxels": int(mask.sum()),
        "channels": channels,
        "missing": MISSING,
        "measurements": _measurements(data, [v for _, v in timing], view, mask),
        "constants": {
            "t1_blood": _number(data.constant("t1_blood")),
            "t1_tissue": _number(data.constant("t1_tissue")),
            "partition_coefficient": _number(data.constant("partition_coefficient")),
        },
        "baseline": data.baseline,
        "estimates": [
            {"name": e.name, "bars": e.bars, "keys": dict(e.keys)} for e in data.estimates
        ],
        "flags": flag_legend(),
        "plain": PLAIN,
        "scales": {
            name: {
                "low": scale.low,
                "high": scale.high,
                "unit": scale.label,
                "colours": scale.colours,
                "kind": scale.kind,
            }
            for name, scale in scales.items()
        },
        "colours": {
            name: _lookup_table(name) for name in {scale.colours for scale in scales.values()}
        },
        "start": _start(images["cbf"][view], mask & grey),
    }


def _measurements(
    data: SeriesData, timing: list[np.ndarray], view: tuple[slice, ...], mask: np.ndarray
) -> list[dict[str, Any]]:
    found = []
    for item, time in zip(data.measurements, data.slice_time, strict=True):
        values = time[view][mask]
        found.append(
            {
                "scheme": item.scheme,
                "arrival": int(info.arrival) if (info := find_scheme(item.scheme)) else 0,
                "delay": item.post_labeling_delay,
                "duration": _number(item.label_duration),
                "repeats": item.repeats,
                "efficiency": _number(data.efficiency(item.scheme)),
                "time": next(i for i, other in enumerate(timing) if np.array_equal(other, values)),
            }
        )
    return found


def _number(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return value if math.isfinite(value) else None


def _lookup_table(name: str) -> str:
    """Return 256 colours of a map as one string of hexadecimal digits."""
    from matplotlib import colormaps

    colours = (colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return colours.tobytes().hex()


def _start(cbf: np.ndarray, where: np.ndarray) -> list[int]:
    """Choose a voxel to begin with: typical of grey matter, in the slice with most of it."""
    z = int(where.sum(axis=(0, 1)).argmax())
    x, y = np.nonzero(where[:, :, z])
    if not x.size:
        return [n // 2 for n in cbf.shape]
    values = np.nan_to_num(cbf[x, y, z])
    i = int(np.abs(values - np.median(values)).argmin())
    return [int(x[i]), int(y[i]), z]
