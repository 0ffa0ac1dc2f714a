r"""What error bars hold of assumed constants: T1 of tissue, and the partition coefficient.

The consensus takes T1 of tissue as that of blood and one partition coefficient for all tissue, so
that studies can be compared. Neither is true of a person, and no repeat shows it: error bars that
claim to hold everything must hold it too.

With a response :math:`R_0` under the constants used and :math:`R_1` under others, the signal
:math:`f R_0(a)` would be fitted by :math:`f' R_1(a + \delta)`. A few
Gauss-Newton steps, each a linear problem of two unknowns in closed form, find

.. math:: \min_{f', \delta}\; k \sum_i \frac{(f R_{0i}(a) - f' R_{1i}(a + \delta))^2}
          {\sigma_i^2} + \frac{\delta^2}{s^2},

and :math:`|f' - f|`, :math:`|\delta|` are what CBF and ATT would change by. *s* is the standard
deviation of ATT's prior, *k* the number of voxels that an estimate leans on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.calibration import Calibration
from asl_bids_app.constants import Source
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation

T1_TISSUE: Final = (2 / 3, 1.0)
"""T1 of perfused tissue as a part of that of blood, as likely anywhere between: 1.1 to 1.65 s at
3 T, where white matter has 0.8-1.1 s and grey matter 1.2-1.6 s (Stanisz 2005,
doi:10.1002/mrm.20605; Wright 2008, doi:10.1007/s10334-008-0104-8); exchange with blood makes the
apparent T1 longer. Both grow alike with the field."""
T1_TISSUE_STATED: Final = 0.1
"""Seconds: standard deviation of a T1 of tissue that somebody states."""
PARTITION: Final = 0.08
"""Relative standard deviation of the partition coefficient times M0 between tissues: 0.98 of grey
and 0.82 of white matter around 0.9 (Herscovitch 1985, doi:10.1038/jcbfm.1985.9)."""
PARTITION_STATED: Final = 0.02
"""The same of a coefficient that somebody states."""
POOLED: Final = 20.0
"""Voxels that an estimate of a network leans on."""
_ATT_STEP: Final = 0.05
_STEPS: Final = 3


def other_t1_tissue(calibration: Calibration) -> float:
    """Return a T1 of tissue that is one standard deviation away from the one used, in seconds.

    The distance of a default is the root of the mean square over `T1_TISSUE`.

    Parameters
    ----------
    calibration
        Of the series.
    """
    used = calibration.t1_tissue.value
    if calibration.t1_tissue.source is not Source.DEFAULT:
        return used - T1_TISSUE_STATED
    low, high = (part * calibration.t1_blood.value for part in T1_TISSUE)
    middle = (low + high) / 2
    distance = math.hypot(used - middle, (high - low) / math.sqrt(12))
    return used - distance if used >= middle else used + distance


def partition_uncertainty(calibration: Calibration) -> float:
    """Return the relative standard deviation of CBF by the partition coefficient of a tissue."""
    default = calibration.partition_coefficient.source is Source.DEFAULT
    return PARTITION if default else PARTITION_STATED


def change_by_t1_tissue(
    observation: Observation, cbf: Tensor, att: Tensor, t1_tissue: float, att_sd: float
) -> tuple[Tensor, Tensor]:
    """Return by how much CBF and ATT would change if T1 of tissue were another.

    Parameters
    ----------
    observation
        What was fitted, under the T1 of tissue that was used.
    cbf, att : Tensor, shape (B, H, W)
        mL/100 g/min, and s.
    t1_tissue
        The other T1, s.
    att_sd
        Standard deviation of the prior of ATT, s.

    Returns
    -------
    cbf, att : Tensor, shape (B, H, W)
        Changes: mL/100 g/min, and s.
    """
    other = replace(observation, t1_tissue=torch.full_like(observation.t1_tissue, t1_tissue))
    precision = POOLED * precision_of(observation.noise_sd) * observation.mask.unsqueeze(1)
    signal = cbf.unsqueeze(1) * observation.response(att)
    flow, time = cbf, att

    def total(values: Tensor) -> Tensor:
        return (precision * values).sum(1).double()

    for _ in range(_STEPS):
        level = other.response(time)
        later, earlier = (other.response(time + step) for step in (_ATT_STEP, -_ATT_STEP))
        slope = flow.unsqueeze(1) * (later - earlier) / (2 * _ATT_STEP)
        gap = signal - flow.unsqueeze(1) * level
        # Where nothing has arrived nothing is known: no change, instead of a division by zero.
        by_flow = total(level.square()) + 1e-6
        by_time = total(slope.square()) + att_sd**-2
        both = total(level * slope)
        more = total(gap * level)
        late = total(gap * slope) - (time - att).double() * att_sd**-2
        determinant = by_flow * by_time - both.square()
        flow = flow + ((by_time * more - both * late) / determinant).to(cbf)
        time = time + ((by_flow * late - both * more) / determinant).to(att).clamp(-att_sd, att_sd)
        time = torch.minimum(torch.maximum(time, att - att_sd), att + att_sd)
    return flow - cbf, time - att


def with_assumed_constants(
    observation: Observation, maps: ParameterMaps, calibration: Calibration
) -> ParameterMaps:
    """Let error bars hold what T1 of tissue and the partition coefficient may be off by.

    Parameters
    ----------
    observation
        What the maps were made from, arteries taken off.
    maps
        Of an estimator whose bars hold the noise and the scanner's constants.
    calibration
        Says what was used, and whether anybody stated it.
    """
    prior = 0.6 if maps.att_prior is None else maps.att_prior.sd
    cbf, att = change_by_t1_tissue(
        observation, maps.cbf, maps.att, other_t1_tissue(calibration), prior
    )
    partition = partition_uncertainty(calibration) * maps.cbf
    failed = (maps.flags & int(Flag.FAILED)) > 0
    usable = observation.mask & ~failed
    sd = (maps.cbf_sd.square() + cbf.square() + partition.square()).sqrt()
    return replace(
        maps,
        cbf_sd=torch.where(usable, sd, maps.cbf_sd),
        att_sd=torch.where(usable, torch.hypot(maps.att_sd, att), maps.att_sd),
    )
