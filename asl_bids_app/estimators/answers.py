"""What the networks answered, as maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from asl_bids_app.estimators.arteries import LIKELY
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.bayes import flag_bits, too_few
from asl_bids_app.estimators.members import ANSWERS
from asl_bids_app.estimators.voxel_fit import residual
from asl_bids_app.models.uncertainty import calibrated_sds
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.series import Series


@dataclass(frozen=True)
class Look:
    """One look of the networks at a series.

    Attributes
    ----------
    maps : ParameterMaps
    observation : Observation
        What the tissue's signal is, arteries taken off.
    posterior_cbf_sd : Tensor, shape (n_slices, H, W)
        Standard deviation of CBF by the voxelwise posterior, mL/100 g/min.
    """

    maps: ParameterMaps[Tensor]
    observation: Observation
    posterior_cbf_sd: Tensor


def read_answers(
    answers: Tensor,
    series: Series,
    observation: Observation,
    failed: Tensor,
    *,
    estimator: str,
    bounds: tuple[float, float],
    att_prior: TransitPrior,
    table: Mapping[str, Any] | None,
) -> Look:
    """Return the maps of a look.

    Parameters
    ----------
    answers : Tensor, shape (answers, n_slices, H, W)
        Of `asl_bids_app.estimators.members.estimate_slices`: those of `ANSWERS`, and behind them
        the arteries' part of each measurement, if they were looked for.
    series, observation
        What the networks saw.
    failed : Tensor of bool, shape (n_slices, H, W)
        Voxels of which the data tell nothing.
    estimator
        Its name.
    bounds
        Between which ATT may lie, s.
    att_prior
        That was used.
    table
        Calibration of the error bars, if the model has one.
    """
    found = dict(zip(ANSWERS, answers, strict=False))
    arterial = len(answers) > len(ANSWERS)
    vessels = answers[len(ANSWERS) :].transpose(0, 1) if arterial else None
    # What the arteries leave is the tissue's signal, and noise.
    observation = replace(observation, delta_m=series.without_arteries(vessels).delta_m)
    cbf, att, cbf_sd, att_sd = (found[name] for name in ("cbf", "att", "cbf_sd", "att_sd"))
    if table:
        cbf_sd, att_sd = calibrated_sds(table, found)
    cbf = cbf.masked_fill(failed, 0.0)
    first, last = bounds
    flags = {
        Flag.ATT_AT_BOUND: observation.mask & ((att <= first) | (att >= last)),
        Flag.FAILED: failed,
        Flag.ATT_UNIDENTIFIABLE: ((found["undetermined"] > 0) | too_few(observation)) & ~failed,
        Flag.ARTERY: (found["artery"] > LIKELY) & ~failed,
    }
    maps = ParameterMaps(
        cbf,
        att,
        cbf_sd,
        att_sd,
        residual(observation, cbf, att),
        flag_bits(flags),
        estimator,
        found["cbf_spread"],
        found["att_spread"],
        att_prior,
        100 * found["volume"].clamp(min=0) if arterial else None,
        100 * found["volume_sd"] if arterial else None,
        vessels,
    )
    return Look(maps, observation, found["posterior_cbf_sd"])
