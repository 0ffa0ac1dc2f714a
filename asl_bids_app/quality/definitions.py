"""The one table of quality metrics: what each is, its unit, its source and its traffic light.

The computation, the JSON dictionary beside the table, the reports and the documentation all
read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asl_bids_app.bids.outputs import UNITS_ATT, UNITS_CBF
from asl_bids_app.limits import CBF_LIMIT
from asl_bids_app.quality.metric import Metric

BASELINE_PREFIX: Final = "lsq_"
"""Put before the key of a metric that is computed for least squares too."""

PLAUSIBLE_GM_CBF: Final = (10.0, 150.0)
"""mL/100 g/min; a mean grey-matter CBF outside is never taken without a loud word."""

TISSUE_THRESHOLD: Final = 0.7
"""Probability above which a voxel counts as of a tissue (as ASLPrep does)."""


_INF: Final = math.inf
_OURS: Final = "choice of this program"
_DOLUI: Final = "Dolui 2017 (ISMRM) and 2024, doi:10.1002/jmri.29308"
_FLOW: Final = "Cerebral blood flow"
_TIME: Final = "Arterial transit time"
_FIT: Final = "Fit and uncertainty"
_DATA: Final = "Data"
_INDEX: Final = "Quality evaluation index"
GROUPS: Final = (_INDEX, _FLOW, _TIME, _FIT, _DATA)

_ROWS: Final = (
    Metric(
        "qei",
        _INDEX,
        "Quality evaluation index (QEI)",
        "Cube root of (1 - exp(-3.0126 s^2.4419)) exp(-0.054 d^0.9272 - 2.8478 n^0.5196) with s, "
        "d and n the three components below; 0 is the worst and 1 the best. The constants are "
        "those of the original implementation; the paper gives them rounded.",
        "ratio",
        _DOLUI,
        good=(0.53, 1.0),
        fair=(0.5, 1.0),
        basis="Dolui 2024: 0.53 separated acceptable from unacceptable maps, 0.5 is its rule of "
        "thumb; derived on single-delay maps",
        baseline=True,
    ),
    Metric(
        "qei_similarity",
        _INDEX,
        "QEI: structural similarity",
        "Pearson correlation of the CBF smoothed by 5 mm with 2.5 times the grey-matter plus the "
        "white-matter probability, inside the brain mask where the tissue maps sum to more than "
        "0.5; 0 if negative.",
        "ratio",
        _DOLUI,
        baseline=True,
    ),
    Metric(
        "qei_dispersion",
        _INDEX,
        "QEI: index of dispersion",
        "Variance of the smoothed CBF within tissues (grey matter, white matter and fluid, "
        "pooled; probability above 0.7) divided by the mean in grey matter.",
        UNITS_CBF,
        _DOLUI,
        baseline=True,
    ),
    Metric(
        "qei_negative",
        _INDEX,
        "QEI: negative grey matter",
        "Share of grey-matter voxels with a negative smoothed CBF.",
        "fraction",
        _DOLUI,
        baseline=True,
    ),
    Metric(
        "cbf_mean_gm",
        _FLOW,
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
        "cbf_mean_wm",
        _FLOW,
        "Mean CBF of white matter",
        "Mean over voxels of the mask with a white-matter probability above 0.7.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "cbf_mean_brain",
        _FLOW,
        "Mean CBF of the brain",
        "Mean over the brain mask.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "cbf_ratio_gm_wm",
        _FLOW,
        "Grey-to-white ratio of CBF",
        "Mean CBF of grey matter divided by that of white matter.",
        "ratio",
        good=(1.5, 5.0),
        fair=(1.1, 8.0),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_scov_gm",
        _FLOW,
        "Spatial coefficient of variation",
        "Standard deviation of CBF over grey-matter voxels divided by the mean. High where "
        "label is still in arteries, or by noise.",
        "ratio",
        "Mutsaerts 2017, doi:10.1177/0271678X16683690",
        good=(0.0, 0.6),
        fair=(0.0, 1.0),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_asymmetry_gm",
        _FLOW,
        "Right-left asymmetry of CBF",
        "Right minus left mean of grey-matter CBF over their average; the halves meet at the "
        "brain mask's centre. Disease may cause it as well as a fault of the labelling.",
        "fraction",
        good=(-0.1, 0.1),
        fair=(-0.25, 0.25),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_negative_fraction",
        _FLOW,
        "Negative CBF",
        "Share of brain voxels with CBF below 0.",
        "fraction",
        good=(0.0, 0.02),
        fair=(0.0, 0.1),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_zero_fraction",
        _FLOW,
        "CBF of zero",
        "Share of brain voxels with a CBF of exactly 0.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.2),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_implausible_fraction",
        _FLOW,
        "Implausible CBF",
        f"Share of brain voxels with a CBF above {CBF_LIMIT:g} mL/100 g/min or no finite number.",
        "fraction",
        good=(0.0, 0.01),
        fair=(0.0, 0.05),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "att_mean_gm",
        _TIME,
        "Mean ATT of grey matter",
        "Mean over grey-matter voxels (probability above 0.7).",
        UNITS_ATT,
        good=(0.6, 1.8),
        fair=(0.3, 2.5),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "att_mean_wm",
        _TIME,
        "Mean ATT of white matter",
        "Mean over white-matter voxels (probability above 0.7).",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "att_mean_brain",
        _TIME,
        "Mean ATT of the brain",
        "Mean over the brain mask.",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "att_asymmetry_gm",
        _TIME,
        "Right-left difference of ATT",
        "Right minus left mean of grey-matter ATT. A stenosis delays its side.",
        UNITS_ATT,
        good=(-0.15, 0.15),
        fair=(-0.4, 0.4),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "cbf_sd_gm",
        _FIT,
        "Uncertainty of CBF in grey matter",
        "Median over grey matter of the CBF's own standard deviation.",
        UNITS_CBF,
        baseline=True,
    ),
    Metric(
        "att_sd_gm",
        _FIT,
        "Uncertainty of ATT in grey matter",
        "Median over grey matter of the ATT's own standard deviation.",
        UNITS_ATT,
        baseline=True,
    ),
    Metric(
        "residual_to_noise_gm",
        _FIT,
        "Residual against noise",
        "Square root of the median over grey matter of Σ(residual/noise)², over what pure noise "
        "gives (the median of chi square with n - 2 degrees of freedom). 1: the model explains "
        "the data to within the noise; more: signal that the model lacks, such as arterial "
        "blood or motion.",
        "ratio",
        good=(0.7, 1.5),
        fair=(0.4, 2.5),
        basis=_OURS,
    ),
    Metric(
        "bound_fraction",
        _FIT,
        "At a bound",
        "Share of brain voxels whose CBF or ATT ended at a bound of its range.",
        "fraction",
        good=(0.0, 0.1),
        fair=(0.0, 0.3),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "failed_fraction",
        _FIT,
        "No fit",
        "Share of brain voxels without an estimate.",
        "fraction",
        good=(0.0, 0.01),
        fair=(0.0, 0.05),
        basis=_OURS,
        baseline=True,
    ),
    Metric(
        "att_unidentifiable_fraction",
        _FIT,
        "ATT not identifiable",
        "Share of brain voxels whose data don't determine ATT; it is that of the prior there.",
        "fraction",
        baseline=True,
    ),
    Metric(
        "ensemble_spread_cbf_gm",
        _FIT,
        "Ensemble spread of CBF",
        "Median over grey matter of the standard deviation of CBF between ensemble members.",
        UNITS_CBF,
        "Lakshminarayanan 2017, doi:10.48550/arXiv.1612.01474",
    ),
    Metric(
        "ensemble_spread_att_gm",
        _FIT,
        "Ensemble spread of ATT",
        "Median over grey matter of the standard deviation of ATT between ensemble members.",
        UNITS_ATT,
        "Lakshminarayanan 2017, doi:10.48550/arXiv.1612.01474",
    ),
    Metric(
        "difference_cbf_gm",
        _FIT,
        "Difference from least squares, CBF",
        "Median over grey matter of the main minus the least-squares CBF.",
        UNITS_CBF,
        good=(-5.0, 5.0),
        fair=(-15.0, 15.0),
        basis=_OURS,
    ),
    Metric(
        "disagreement_cbf_gm",
        _FIT,
        "Disagreement with least squares, CBF",
        "Median over grey matter of the absolute difference from the least-squares CBF.",
        UNITS_CBF,
    ),
    Metric(
        "difference_att_gm",
        _FIT,
        "Difference from least squares, ATT",
        "Median over grey matter of the main minus the least-squares ATT.",
        UNITS_ATT,
        good=(-0.15, 0.15),
        fair=(-0.4, 0.4),
        basis=_OURS,
    ),
    Metric(
        "disagreement_att_gm",
        _FIT,
        "Disagreement with least squares, ATT",
        "Median over grey matter of the absolute difference from the least-squares ATT.",
        UNITS_ATT,
    ),
    Metric(
        "disagreement_beyond_sd",
        _FIT,
        "Disagreement beyond the error bars",
        "Share of grey matter where main and least-squares CBF differ by more than twice the "
        "root of the sum of their variances; below 0.05 if both error bars are right.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.15),
        basis=_OURS,
    ),
    Metric(
        "outside_domain_fraction",
        _FIT,
        "Outside the training domain",
        "Share of the brain's data outside the range on which the network was trained.",
        "fraction",
        good=(0.0, 0.05),
        fair=(0.0, 0.25),
        basis=_OURS,
    ),
    Metric(
        "tsnr_brain",
        _DATA,
        "Temporal signal-to-noise ratio",
        "Median over the brain of mean over standard deviation in time of the control (or ΔM) "
        "volumes.",
        "ratio",
    ),
    Metric(
        "snr_delta_m_gm",
        _DATA,
        "Signal-to-noise ratio of ΔM",
        "Median over grey matter of ΔM over its noise in the strongest averaged measurement.",
        "ratio",
        good=(3.0, _INF),
        fair=(1.5, _INF),
        basis=_OURS,
    ),
    Metric(
        "fd_mean",
        _DATA,
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
        _DATA,
        "Largest framewise displacement",
        "Maximum over volumes.",
        "mm",
        "Power 2012, doi:10.1016/j.neuroimage.2011.10.018",
    ),
    Metric(
        "fd_above_half_mm",
        _DATA,
        "Volumes with motion",
        "Share of volumes with a framewise displacement above 0.5 mm.",
        "fraction",
        "Power 2012, doi:10.1016/j.neuroimage.2011.10.018",
        good=(0.0, 0.1),
        fair=(0.0, 0.3),
        basis=_OURS,
    ),
    Metric(
        "mask_volume",
        _DATA,
        "Volume of the brain mask",
        "Number of voxels of the mask times their volume.",
        "mL",
        good=(900.0, 2000.0),
        fair=(500.0, 2300.0),
        basis=f"{_OURS}, for adults and whole brains",
    ),
    Metric(
        "mask_coverage",
        _DATA,
        "Mask with data",
        "Share of the brain with a finite ΔM in every measurement and an M0 above 0. What the "
        "scanner blanked, and what lies outside the field of view of a run, has no data.",
        "fraction",
        good=(0.98, 1.0),
        fair=(0.9, 1.0),
        basis=_OURS,
    ),
    Metric(
        "mask_tissue_agreement",
        _DATA,
        "Mask within the tissue maps",
        "Share of the brain mask where the probabilities of grey matter, white matter and fluid "
        "sum to more than 0.5. Low where the mask holds more than brain, or the tissue maps were "
        "registered badly.",
        "fraction",
        good=(0.88, 1.0),
        fair=(0.75, 1.0),
        basis=_OURS,
    ),
    Metric(
        "m0_median",
        _DATA,
        "Median M0",
        "Median of the M0 image over the brain mask.",
        "units of the image",
    ),
    Metric(
        "m0_cov",
        _DATA,
        "Variation of M0",
        "Standard deviation of M0 over the brain mask divided by the mean; coil shading and a "
        "wrong mask raise it.",
        "ratio",
        good=(0.0, 0.4),
        fair=(0.0, 0.7),
        basis=_OURS,
    ),
    Metric(
        "m0_nonpositive_fraction",
        _DATA,
        "M0 not positive",
        "Share of the brain mask where M0 is 0, negative or not finite.",
        "fraction",
        good=(0.0, 0.001),
        fair=(0.0, 0.02),
        basis=_OURS,
    ),
)

METRICS: Final[Mapping[str, Metric]] = {row.key: row for row in _ROWS}


def columns() -> Iterator[tuple[str, Metric, bool]]:
    """Yield (column, metric, whether it is that of least squares) in the table's order."""
    for metric in METRICS.values():
        yield metric.key, metric, False
    for metric in METRICS.values():
        if metric.baseline:
            yield BASELINE_PREFIX + metric.key, metric, True


def lookup(column: str) -> tuple[Metric, bool] | None:
    """Return (metric, whether it is that of least squares) of a column, None for others."""
    if column in METRICS:
        return METRICS[column], False
    metric = METRICS.get(column.removeprefix(BASELINE_PREFIX))
    return (metric, True) if metric is not None and metric.baseline else None


def dictionary(
    values: Mapping[str, float] | None = None, without_tissue: str = ""
) -> dict[str, Any]:
    """Return what the JSON file beside the table of metrics says of each column.

    Parameters
    ----------
    values
        Of one series, by column.
    without_tissue
        Why there are no tissue maps; it stands at the columns that are n/a for it.
    """
    found = {column: _entry(metric, lsq) for column, metric, lsq in columns()}
    if values is not None and without_tissue:
        for column, metric, _ in columns():
            if metric.by_tissue and math.isnan(values.get(column, math.nan)):
                found[column]["NotAvailable"] = without_tissue
    return found


def _entry(metric: Metric, least_squares: bool) -> dict[str, Any]:
    of = "Of the least-squares maps. " if least_squares else ""
    entry: dict[str, Any] = {
        "LongName": f"{metric.name}{', least squares' if least_squares else ''}",
        "Description": of + metric.description,
        "Units": metric.unit,
    }
    if metric.source:
        entry["Source"] = metric.source
    if metric.good is not None:
        entry["Thresholds"] = {
            "Good": _ends(metric.good),
            "Fair": _ends(metric.fair or metric.good),
            "Basis": metric.basis,
        }
    return entry


def _ends(limits: tuple[float, float]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in limits]
