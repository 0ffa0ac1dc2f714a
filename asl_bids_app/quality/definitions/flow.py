"""Metrics of the maps: the quality evaluation index and CBF."""

from __future__ import annotations

from typing import Final

from asl_bids_app.bids.outputs import UNITS_ABV, UNITS_CBF
from asl_bids_app.limits import CBF_LIMIT
from asl_bids_app.quality.definitions.shared_words import (
    DOLUI,
    FLOW,
    INDEX,
    OURS,
    PLAUSIBLE_GM_CBF,
)
from asl_bids_app.quality.metric import Metric

ROWS: Final = (
    Metric(
        "qei",
        INDEX,
        "Quality evaluation index (QEI)",
        "Cube root of (1 - exp(-3.0126 s^2.4419)) exp(-0.054 d^0.9272 - 2.8478 n^0.5196) with s, "
        "d and n the three components below; 0 is the worst and 1 the best. The constants are "
        "those of the original implementation; the paper gives them rounded.",
        "ratio",
        DOLUI,
        good=(0.53, 1.0),
        fair=(0.5, 1.0),
        basis="Dolui 2024: 0.53 separated acceptable from unacceptable maps, 0.5 is its rule of "
        "thumb; derived on single-delay maps",
        baseline=True,
    ),
    Metric(
        "qei_similarity",
        INDEX,
        "QEI: structural similarity",
        "Pearson correlation of the CBF smoothed by 5 mm with 2.5 times the grey-matter plus the "
        "white-matter probability, inside the brain mask where the tissue maps sum to more than "
        "0.5; 0 if negative.",
        "ratio",
        DOLUI,
        baseline=True,
    ),
    Metric(
        "qei_dispersion",
        INDEX,
        "QEI: index of dispersion",
        "Variance of the smoothed CBF within tissues (grey matter, white matter and fluid, "
        "pooled; probability above 0.7) divided by the mean in grey matter.",
        UNITS_CBF,
        DOLUI,
        baseline=True,
    ),
    Metric(
        "qei_negative",
        INDEX,
        "QEI: negative grey matter",
        "Share of grey-matter voxels with a negative smoothed CBF.",
        "fraction",
        DOLUI,
        baseline=True,
    ),
    Metric(
        "cbf_mean_gm",
        FLOW,
        "Mean CBF of grey matter",
        "Mean over voxels of the mask with a grey-matter probability above 0.7.",
        UNITS_CBF,
        good=(40.0, 100.0),
        fair=PLAUSIBLE_GM_CBF,
        basis="Alsop 2015, doi:10.1002/mrm.25197: 40-100 can be normal; the outer range is a "
        "choice of this program",
        baseline=True,
    ),
    Metric(
        "cbf_pvc_gm",
        FLOW,
        "CBF of grey matter, corrected for partial volume",
        "Mean over the mask of the grey matter's own CBF (`--pvc`), each voxel by its fraction of "
        "grey matter.",
        UNITS_CBF,
        anatomy=True,
    ),
    Metric(
        "cbf_pvc_gm_sd",
        FLOW,
        "Error bar of the CBF of grey matter, corrected for partial volume",
        "Standard error of one flow for all grey matter, by noise, misfit, wrong fractions and, "
        "with error bars that hold it, calibration.",
        UNITS_CBF,
        anatomy=True,
    ),
    Metric(
        "cbf_pvc_wm",
        FLOW,
        "CBF of white matter, corrected for partial volume",
        "Mean over the mask of the white matter's own CBF (`--pvc`), each voxel by its fraction "
        "of white matter.",
        UNITS_CBF,
        anatomy=True,
    ),
    Metric(
        "cbf_pvc_wm_sd",
        FLOW,
        "Error bar of the CBF of white matter, corrected for partial volume",
        "As that of grey matter.",
        UNITS_CBF,
        anatomy=True,
    ),
    Metric(
        "pvc_explained",
        FLOW,
        "Variance of CBF that tissue fractions explain",
        "Share of the variance of CBF over the mask, noise taken off, that one flow for grey and "
        "one for white matter explain. Low where tissue maps or their registration are wrong, "
        "images are blurred, or flow differs much within a tissue; below 0.25 there is no partial "
        "volume correction.",
        "fraction",
        good=(0.6, 1.0),
        fair=(0.25, 1.0),
        basis=OURS,
        anatomy=True,
    ),
    Metric(
        "cbf_mean_gm_sd",
        FLOW,
        "Error bar of the mean CBF of grey matter",
        "One standard deviation of the mean, from those of the voxels and from how errors of "
        "neighbours hang together, as measured for the model.",
        UNITS_CBF,
    ),
    Metric(
        "cbf_mean_wm",
        FLOW,
        "Mean CBF of white matter",
        "Mean over voxels of the mask with a white-matter probability above 0.7.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "cbf_mean_wm_sd",
        FLOW,
        "Error bar of the mean CBF of white matter",
        "One standard deviation of the mean, from those of the voxels and from how errors of "
        "neighbours hang together, as measured for the model.",
        UNITS_CBF,
    ),
    Metric(
        "cbf_mean_brain",
        FLOW,
        "Mean CBF of the brain",
        "Mean over the brain mask.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "cbf_ratio_gm_wm",
        FLOW,
        "Grey-to-white ratio of CBF",
        "Mean CBF of grey matter divided by that of white matter.",
        "ratio",
        good=(1.5, 5.0),
        fair=(1.1, 8.0),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "cbf_scov_gm",
        FLOW,
        "Spatial coefficient of variation",
        "Standard deviation of CBF over grey-matter voxels divided by the mean. High where "
        "label is still in arteries, or by noise.",
        "ratio",
        "Mutsaerts 2017, doi:10.1177/0271678X16683690",
        good=(0.0, 0.6),
        fair=(0.0, 1.0),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "cbf_asymmetry_gm",
        FLOW,
        "Right-left asymmetry of CBF",
        "Right minus left mean of grey-matter CBF over their average; the halves meet at the "
        "brain mask's centre. Disease may cause it as well as a fault of the labelling.",
        "fraction",
        good=(-0.1, 0.1),
        fair=(-0.25, 0.25),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "cbf_negative_fraction",
        FLOW,
        "Negative CBF",
        "Share of brain voxels with CBF below 0.",
        "fraction",
        good=(0.0, 0.02),
        fair=(0.0, 0.1),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "cbf_zero_fraction",
        FLOW,
        "CBF of zero",
        "Share of brain voxels with a CBF of exactly 0.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.2),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "cbf_implausible_fraction",
        FLOW,
        "Implausible CBF",
        f"Share of brain voxels with a CBF above {CBF_LIMIT:g} mL/100 g/min or no finite number.",
        "fraction",
        good=(0.0, 0.01),
        fair=(0.0, 0.05),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "artery_fraction",
        FLOW,
        "Voxels with an artery",
        "Share of brain voxels in which label in an artery beside the tissue was found (flag 32); "
        "empty where no delay is early enough to show any.",
        "fraction",
    ),
    Metric(
        "abv_mean_arteries",
        FLOW,
        "Mean arterial volume where an artery was found",
        "Mean of the arterial blood volume over the voxels with an artery.",
        UNITS_ABV,
    ),
)
