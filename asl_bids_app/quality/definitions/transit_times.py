"""Metrics of the maps: ATT."""

from __future__ import annotations

from typing import Final

from asl_bids_app.bids.outputs import UNITS_ATT
from asl_bids_app.quality.definitions.shared_words import OURS, TIME
from asl_bids_app.quality.metric import Metric

ROWS: Final = (
    Metric(
        "att_mean_gm",
        TIME,
        "Mean ATT of grey matter",
        "Mean over grey-matter voxels (probability above 0.7).",
        UNITS_ATT,
        good=(0.6, 1.8),
        fair=(0.3, 2.5),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "att_mean_gm_sd",
        TIME,
        "Error bar of the mean ATT of grey matter",
        "One standard deviation of the mean, from those of the voxels and from how errors of "
        "neighbours hang together, as measured for the model.",
        UNITS_ATT,
    ),
    Metric(
        "att_mean_wm",
        TIME,
        "Mean ATT of white matter",
        "Mean over white-matter voxels (probability above 0.7).",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "att_mean_wm_sd",
        TIME,
        "Error bar of the mean ATT of white matter",
        "One standard deviation of the mean, from those of the voxels and from how errors of "
        "neighbours hang together, as measured for the model.",
        UNITS_ATT,
    ),
    Metric(
        "att_mean_brain",
        TIME,
        "Mean ATT of the brain",
        "Mean over the brain mask.",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "att_asymmetry_gm",
        TIME,
        "Right-left difference of ATT",
        "Right minus left mean of grey-matter ATT. A stenosis delays its side.",
        UNITS_ATT,
        good=(-0.15, 0.15),
        fair=(-0.4, 0.4),
        basis=OURS,
        baseline=True,
    ),
)
