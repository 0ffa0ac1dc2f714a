"""Pictures of the maps of a cohort."""

from __future__ import annotations

from typing import Any

import numpy as np

from asl_bids_app.reports import mosaics, scales
from asl_bids_app.reports.group_map_files import UNITS, GroupMap
from asl_bids_app.reports.mosaics import Frame
from asl_bids_app.reports.scales import Scale


def draw_group_map(found: GroupMap) -> dict[str, Any]:
    """Draw mean and standard deviation where at least half of the participants have a value."""
    import nibabel as nib

    turn = nib.io_orientation(found.affine)
    stored = nib.orientations.inv_ornt_aff(turn, found.count.shape)
    mean, sd, count = (
        nib.apply_orientation(volume, turn) for volume in (found.mean, found.sd, found.count)
    )
    mask = count >= max(found.participants / 2, 1)
    pictures = []
    if mask.any():
        frame = Frame(mask, found.affine @ stored, stored)
        unit = UNITS[found.kind.suffix]
        pictures = [
            {"title": title, "src": mosaics.mosaic(volume.astype(np.float32), frame, scale)}
            for title, volume, scale in (
                ("Mean", mean, _scale(found.kind.suffix, mean[mask])),
                ("Standard deviation between participants", sd, _spread(unit, sd[mask])),
            )
        ]
    return {
        "title": found.kind.title,
        "participants": found.participants,
        "left_out": dict(found.left_out),
        "pictures": pictures,
    }


def _scale(suffix: str, values: np.ndarray) -> Scale:
    if suffix == "cbf":
        return scales.flow_scale(values)
    return scales.time_scale(values) if suffix == "att" else scales.volume_scale(values)


def _spread(unit: str, values: np.ndarray) -> Scale:
    return Scale(0.0, scales.nice(float(np.percentile(values, 98))), "cividis", unit)
