"""Metrics of the fit and of its uncertainty."""

from __future__ import annotations

from typing import Final

from asl_bids_app.bids.outputs import UNITS_ATT, UNITS_CBF
from asl_bids_app.quality.definitions.shared_words import FIT, OURS
from asl_bids_app.quality.metric import Metric

ROWS: Final = (
    Metric(
        "cbf_sd_gm",
        FIT,
        "Uncertainty of CBF in grey matter",
        "Median over grey matter of the CBF's own standard deviation.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "att_sd_gm",
        FIT,
        "Uncertainty of ATT in grey matter",
        "Median over grey matter of the ATT's own standard deviation.",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "residual_to_noise_gm",
        FIT,
        "Residual against noise",
        "Square root of the median over grey matter of Σ(residual/noise)², over what pure noise "
        "gives (the median of chi square with n - 2 degrees of freedom). 1: the model explains "
        "the data to within the noise; more: signal that the model lacks, such as arterial "
        "blood or motion.",
        "ratio",
        good=(0.7, 1.5),
        fair=(0.4, 2.5),
        basis=OURS,
    ),
    Metric(
        "bound_fraction",
        FIT,
        "At a bound",
        "Share of brain voxels whose CBF or ATT ended at a bound of its range.",
        "fraction",
        good=(0.0, 0.1),
        fair=(0.0, 0.3),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "failed_fraction",
        FIT,
        "No fit",
        "Share of brain voxels without an estimate.",
        "fraction",
        good=(0.0, 0.01),
        fair=(0.0, 0.05),
        basis=OURS,
        baseline=True,
    ),
    Metric(
        "att_unidentifiable_fraction",
        FIT,
        "ATT not identifiable",
        "Share of brain voxels whose data don't determine ATT; ATT comes from the prior there.",
        "fraction",
        baseline=True,
    ),
    Metric(
        "ensemble_spread_cbf_gm",
        FIT,
        "Ensemble spread of CBF",
        "Median over grey matter of the standard deviation of CBF between ensemble members.",
        UNITS_CBF,
        "Lakshminarayanan 2017, doi:10.48550/arXiv.1612.01474",
    ),
    Metric(
        "ensemble_spread_att_gm",
        FIT,
        "Ensemble spread of ATT",
        "Median over grey matter of the standard deviation of ATT between ensemble members.",
        UNITS_ATT,
        "Lakshminarayanan 2017, doi:10.48550/arXiv.1612.01474",
    ),
    Metric(
        "difference_cbf_gm",
        FIT,
        "Difference from least squares, CBF",
        "Median over grey matter of the main minus the least-squares CBF.",
        UNITS_CBF,
        good=(-5.0, 5.0),
        fair=(-15.0, 15.0),
        basis=OURS,
    ),
    Metric(
        "disagreement_cbf_gm",
        FIT,
        "Disagreement with least squares, CBF",
        "Median over grey matter of the absolute difference from the least-squares CBF.",
        UNITS_CBF,
    ),
    Metric(
        "difference_att_gm",
        FIT,
        "Difference from least squares, ATT",
        "Median over grey matter of the main minus the least-squares ATT.",
        UNITS_ATT,
        good=(-0.15, 0.15),
        fair=(-0.4, 0.4),
        basis=OURS,
    ),
    Metric(
        "disagreement_att_gm",
        FIT,
        "Disagreement with least squares, ATT",
        "Median over grey matter of the absolute difference from the least-squares ATT.",
        UNITS_ATT,
    ),
    Metric(
        "disagreement_beyond_sd",
        FIT,
        "Disagreement beyond the error bars",
        "Share of grey matter where main and least-squares CBF differ by more than twice the "
        "root of the sum of their variances; below 0.05 if both error bars are right.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.15),
        basis=OURS,
    ),
    Metric(
        "outside_domain_fraction",
        FIT,
        "Outside the training domain",
        "Share of the brain's data outside the range on which the network was trained.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.25),
        basis=OURS,
    ),
)
