"""Quality metrics of one series, as pure functions of arrays."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.coherence import mean_sd, read_coherence
from asl_bids_app.limits import CBF_LIMIT
from asl_bids_app.quality.definitions import (
    BASELINE_PREFIX,
    TISSUE_THRESHOLD,
    columns,
    dictionary,
)
from asl_bids_app.quality.evaluation_index import quality_evaluation_index
from asl_bids_app.quality.image_set import UnitImages
from asl_bids_app.quality.plausibility import plausibility
from asl_bids_app.quality.statistics import (
    FEWEST,
    mean,
    median,
    median_ratio,
    probability,
    ratio,
    residual_to_noise,
    right_half,
    share,
    variation,
)

__all__ = ["UnitImages", "compute", "dictionary", "plausibility"]

_FD_LIMIT: Final = 0.5


def _of_maps(
    data: UnitImages,
    cbf: np.ndarray,
    att: np.ndarray,
    cbf_sd: np.ndarray | None,
    att_sd: np.ndarray | None,
    flags: np.ndarray | None,
) -> dict[str, float]:
    """Metrics of one estimator's maps."""
    brain, gm, wm = data.brain, data.tissue(data.gm), data.tissue(data.wm)
    right = right_half(brain, data.affine)
    sides = {
        name: (mean(values, gm & right), mean(values, gm & ~right))
        for name, values in (("cbf", cbf), ("att", att))
    }
    grey, white = mean(cbf, gm), mean(cbf, wm)
    index = quality_evaluation_index(
        cbf, brain, data.gm, data.wm, data.csf, data.affine, TISSUE_THRESHOLD
    )

    def raised(bits: Flag) -> float:
        return math.nan if flags is None else share((flags.astype(int) & int(bits)) > 0, brain)

    return {
        "qei": index.value,
        "qei_similarity": index.similarity,
        "qei_dispersion": index.dispersion,
        "qei_negative": index.negative,
        "cbf_mean_gm": grey,
        "cbf_mean_wm": white,
        "cbf_mean_brain": mean(cbf, brain),
        "cbf_ratio_gm_wm": ratio(grey, white),
        "cbf_scov_gm": variation(cbf, gm),
        "cbf_asymmetry_gm": ratio(sides["cbf"][0] - sides["cbf"][1], sum(sides["cbf"]) / 2),
        "cbf_negative_fraction": share(cbf < 0, brain),
        "cbf_zero_fraction": share(cbf == 0, brain),
        "cbf_implausible_fraction": share(~np.isfinite(cbf) | (cbf > CBF_LIMIT), brain),
        "att_mean_gm": mean(att, gm),
        "att_mean_wm": mean(att, wm),
        "att_mean_brain": mean(att, brain),
        "att_asymmetry_gm": sides["att"][0] - sides["att"][1],
        "cbf_sd_gm": median(cbf_sd, gm),
        "att_sd_gm": median(att_sd, gm),
        "bound_fraction": raised(Flag.CBF_AT_BOUND | Flag.ATT_AT_BOUND),
        "failed_fraction": raised(Flag.FAILED),
        "att_unidentifiable_fraction": raised(Flag.ATT_UNIDENTIFIABLE),
    }


def _of_means(data: UnitImages) -> dict[str, float]:
    """Error bars of the means of tissues, and what arteries hold."""
    found = {}
    for name, sd in (("cbf", data.cbf_sd), ("att", data.att_sd)):
        coherence = read_coherence(data.coherence, name)
        for tissue, where in (("gm", data.tissue(data.gm)), ("wm", data.tissue(data.wm))):
            if coherence is not None and sd is not None:
                found[f"{name}_mean_{tissue}_sd"] = mean_sd(sd, where, coherence)
    if data.abv is not None and data.flags is not None:
        artery = data.brain & ((data.flags.astype(int) & int(Flag.ARTERY)) > 0)
        found["artery_fraction"] = share(artery, data.brain)
        found["abv_mean_arteries"] = mean(data.abv, artery)
    return found


def _of_fit(data: UnitImages) -> dict[str, float]:
    """Residuals, spread, and how main and least-squares estimates agree."""
    gm = data.tissue(data.gm)
    where = gm if gm.sum() >= FEWEST else data.brain
    found = {
        "residual_to_noise_gm": residual_to_noise(data.residual, data.noise, where),
        "ensemble_spread_cbf_gm": median(data.cbf_spread, gm),
        "ensemble_spread_att_gm": median(data.att_spread, gm),
        "outside_domain_fraction": math.nan
        if data.outside_domain is None
        else float(data.outside_domain),
    }
    if data.lsq_cbf is not None and data.lsq_att is not None:
        flow = data.cbf.astype(float) - data.lsq_cbf
        time = data.att.astype(float) - data.lsq_att
        found |= {
            "difference_cbf_gm": median(flow, gm),
            "disagreement_cbf_gm": median(np.abs(flow), gm),
            "difference_att_gm": median(time, gm),
            "disagreement_att_gm": median(np.abs(time), gm),
        }
        if data.lsq_cbf_sd is not None and gm.any():
            both = np.hypot(data.cbf_sd.astype(float), data.lsq_cbf_sd)
            found["disagreement_beyond_sd"] = share(np.abs(flow) > 2 * both, gm)
    return found


def _of_data(data: UnitImages) -> dict[str, float]:
    """Metrics of what was measured, before any estimate."""
    brain, gm = data.brain, data.tissue(data.gm)
    volume = abs(float(np.linalg.det(data.affine[:3, :3]))) / 1000
    measured = brain & np.isfinite(data.delta_m).all(axis=-1)
    found = {
        "tsnr_brain": median(data.tsnr, brain),
        "mask_volume": float(brain.sum()) * volume,
    }
    each = [
        median_ratio(data.delta_m[..., i], data.noise[..., i], gm)
        for i in range(data.delta_m.shape[-1])
    ]
    found["snr_delta_m_gm"] = max((v for v in each if math.isfinite(v)), default=math.nan)
    if data.m0 is not None:
        positive = np.isfinite(data.m0) & (data.m0 > 0)
        measured &= positive
        found |= {
            "m0_median": median(data.m0, brain),
            "m0_cov": variation(data.m0, brain),
            "m0_nonpositive_fraction": share(~positive, brain),
        }
    whole = brain if data.whole_brain is None else brain | data.whole_brain.astype(bool)
    found["mask_coverage"] = share(measured, whole)
    if data.gm is not None and data.wm is not None and data.csf is not None:
        tissues = [probability(p) for p in (data.gm, data.wm, data.csf)]
        known = np.sum(tissues, axis=0) > 0.5
        found["mask_tissue_agreement"] = share(known, brain)
    if data.framewise_displacement is not None:
        moved = np.asarray(data.framewise_displacement, dtype=float)
        moved = moved[np.isfinite(moved)]
        if moved.size:
            found |= {
                "fd_mean": float(moved.mean()),
                "fd_max": float(moved.max()),
                "fd_above_half_mm": float((moved > _FD_LIMIT).mean()),
            }
    return found


def compute(data: UnitImages) -> dict[str, float]:
    """Compute every metric of the table in `definitions`.

    Parameters
    ----------
    data
        Arrays of one series.

    Returns
    -------
    dict of str to float
        Every column of the table in its order; NaN for what can't be computed, such as
        tissue means without tissue probabilities. Least-squares columns stand only where
        least-squares maps are given; those of the registration come later, from
        `asl_bids_app.quality.registration_metrics`.
    """
    found = _of_maps(data, data.cbf, data.att, data.cbf_sd, data.att_sd, data.flags)
    found |= _of_means(data) | _of_fit(data) | _of_data(data)
    baseline = False
    if data.lsq_cbf is not None and data.lsq_att is not None:
        baseline = True
        of_maps = _of_maps(
            data, data.lsq_cbf, data.lsq_att, data.lsq_cbf_sd, data.lsq_att_sd, data.lsq_flags
        )
        found |= {BASELINE_PREFIX + key: value for key, value in of_maps.items()}
    return {
        column: found.get(column, math.nan)
        for column, metric, lsq in columns()
        if (baseline or not lsq) and not metric.anatomy
    }
