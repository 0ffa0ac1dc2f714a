"""Metrics of what was measured."""

from __future__ import annotations

from typing import Final

from asl_bids_app.quality.definitions.shared_words import DATA, INF, OURS
from asl_bids_app.quality.metric import Metric

ROWS: Final = (
    Metric(
        "tsnr_brain",
        DATA,
        "Temporal signal-to-noise ratio",
        "Median over the brain of mean over standard deviation in time of the control (or ΔM) "
        "volumes.",
        "ratio",
    ),
    Metric(
        "snr_delta_m_gm",
        DATA,
        "Signal-to-noise ratio of ΔM",
        "Median over grey matter of ΔM over its noise in the strongest averaged measurement.",
        "ratio",
        good=(3.0, INF),
        fair=(1.5, INF),
        basis=OURS,
    ),
    Metric(
        "fd_mean",
        DATA,
        "Mean framewise displacement",
        "Mean over volumes of the sum of absolute changes of three translations and three "
        "rotations (on a sphere of 50 mm).",
        "mm",
        "Power 2012, doi:10.1016/j.neuroimage.2011.10.018",
        good=(0.0, 0.25),
        fair=(0.0, 0.5),
        basis="Power 2012 censors volumes above 0.5 mm; the inner bound is a choice of this "
        "program",
    ),
    Metric(
        "fd_max",
        DATA,
        "Largest framewise displacement",
        "Maximum over volumes.",
        "mm",
        "Power 2012, doi:10.1016/j.neuroimage.2011.10.018",
    ),
    Metric(
        "fd_above_half_mm",
        DATA,
        "Volumes with motion",
        "Share of volumes with a framewise displacement above 0.5 mm.",
        "fraction",
        "Power 2012, doi:10.1016/j.neuroimage.2011.10.018",
        good=(0.0, 0.1),
        fair=(0.0, 0.3),
        basis=OURS,
    ),
    Metric(
        "mask_volume",
        DATA,
        "Volume of the brain mask",
        "Number of voxels of the mask times their volume.",
        "mL",
        good=(900.0, 2000.0),
        fair=(500.0, 2300.0),
        basis=f"{OURS}, for adults and whole brains",
    ),
    Metric(
        "mask_coverage",
        DATA,
        "Mask with data",
        "Share of the brain with a finite ΔM in every measurement and an M0 above 0. What the "
        "scanner blanked, and what lies outside the field of view of a run, has no data.",
        "fraction",
        good=(0.98, 1.0),
        fair=(0.9, 1.0),
        basis=OURS,
    ),
    Metric(
        "mask_tissue_agreement",
        DATA,
        "Mask within the tissue maps",
        "Share of the brain mask where the probabilities of grey matter, white matter and fluid "
        "sum to more than 0.5. Low where the mask holds more than brain, or the tissue maps were "
        "registered badly.",
        "fraction",
        good=(0.88, 1.0),
        fair=(0.75, 1.0),
        basis=OURS,
    ),
    Metric(
        "m0_median",
        DATA,
        "Median M0",
        "Median of the M0 image over the brain mask.",
        "units of the image",
    ),
    Metric(
        "m0_cov",
        DATA,
        "Variation of M0",
        "Standard deviation of M0 over the brain mask divided by the mean; coil shading and a "
        "wrong mask raise it.",
        "ratio",
        good=(0.0, 0.4),
        fair=(0.0, 0.7),
        basis=OURS,
    ),
    Metric(
        "m0_nonpositive_fraction",
        DATA,
        "M0 not positive",
        "Share of the brain mask where M0 is 0, negative or not finite.",
        "fraction",
        good=(0.0, 0.001),
        fair=(0.0, 0.02),
        basis=OURS,
    ),
)
