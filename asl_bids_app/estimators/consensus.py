"""The consensus estimate of CBF of a single delay: one formula, no prior, no neighbours.

It takes the whole bolus as arrived, lets the label decay as in blood, and keeps its sign: a
region's mean stays unbiased by noise. It stands beside the main estimate, for comparison with
the literature and with other programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.kinetics import ML_PER_100G_MIN
from asl_bids_app.scheme_fields import Arrival
from asl_bids_app.schemes import SCHEMES
from asl_bids_app.series import Series

FORMULAS = {
    Arrival.CONTINUOUS: "6000 λ ΔM e^(w/T1b) / (2 α T1b M0 (1 - e^(-τ/T1b))), Alsop 2015, "
    "doi:10.1002/mrm.25197, equation 1",
    Arrival.PULSED: "6000 λ ΔM e^(w/T1b) / (2 α τ M0), Alsop 2015, doi:10.1002/mrm.25197, "
    "equation 2",
    Arrival.VELOCITY_SELECTIVE: "6000 λ ΔM e^(w/T1b) / (2 α τ M0), Qin 2022, "
    "doi:10.1002/mrm.29371",
}
"""Formulas by the way of arrival: w the delay at the slice, τ the label or bolus duration."""


@dataclass(frozen=True)
class Consensus:
    """The consensus estimate of a series, zero outside its mask.

    Attributes
    ----------
    cbf, cbf_sd : Tensor, shape (n_slices, H, W)
        mL/100 g/min, of either sign, and its standard error by noise.
    formula : str
        For the sidecar.
    """

    cbf: Tensor
    cbf_sd: Tensor
    formula: str


def consensus(series: Series) -> Consensus | None:
    """Estimate CBF of a single delay by the consensus formula.

    Parameters
    ----------
    series
        Calibrated series; the error is by its noise.

    Returns
    -------
    Consensus or None
        None with more than one measurement: the formula is for one delay.

    References
    ----------
    Alsop 2015, doi:10.1002/mrm.25197 (PCASL, CASL, PASL with QUIPSS II or Q2TIPS). Qin 2022,
    doi:10.1002/mrm.29371 (VSASL; the bolus is as long as the delay where nothing cuts it).
    """
    protocol, calibration = series.protocol, series.calibration
    if protocol.n_measurements != 1:
        return None
    scheme = protocol.schemes[0]
    arrival = SCHEMES[scheme].arrival
    t1 = calibration.t1_blood.value
    delay = protocol.delay[:, 0].to(series.delta_m)
    duration = protocol.label_duration[0].to(series.delta_m)
    if arrival is Arrival.CONTINUOUS:
        bolus = t1 * (1 - torch.exp(-duration / t1)).expand_as(delay)
    elif arrival is Arrival.PULSED:
        bolus = duration.expand_as(delay)
    else:
        bolus = torch.minimum(duration, delay)
    efficiency = calibration.effective_efficiency(scheme)
    partition = calibration.partition_coefficient.value
    factor = ML_PER_100G_MIN * partition * torch.exp(delay / t1)
    # Delays of 0 let no VSASL bolus in: a zero, not an infinity.
    factor = torch.where(bolus > 0, factor / (2 * efficiency * bolus.clamp(min=1e-6)), 0.0)
    factor = factor[:, None, None] * series.mask
    return Consensus(
        factor * series.delta_m[:, 0],
        factor * noise_level(series)[:, 0].to(series.delta_m).nan_to_num(posinf=0.0),
        FORMULAS[arrival],
    )
