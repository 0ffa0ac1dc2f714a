r"""Tissue signal of arterial spin labelling: ΔM/M0 as a function of CBF and transit time.

The general kinetic model (Buxton 1998) with plug flow. The signal is linear in CBF,
``delta_m / m0 = cbf * response(att)``, and one expression serves every labelling scheme:

.. math::

    R = \frac{2 \alpha}{6000\,\lambda} \; e^{-x} \; \varphi(k, d), \qquad
    \varphi(k, d) = \frac{1 - e^{-k d}}{k} \quad (= d \text{ for } k = 0)

with *d* the length of the bolus that has arrived and *x*, *k* the decay it has suffered:

=============  ==============================  ==================  ==========================
arrival        d                               k                   x
=============  ==============================  ==================  ==========================
continuous     clip(w + τ - ATT, 0, τ)         1/T1t               ATT/T1b + max(w-ATT, 0)/T1t
pulsed         clip(w - ATT, 0, τ)             1/T1b - 1/T1t       w/T1t + k ATT
velocity       min(w, ATT, τ)                  1/T1b - 1/T1t       w/T1t
=============  ==============================  ==================  ==========================

w is the delay at the slice, τ the label (bolus) duration. The consensus simplification
T1t = T1b needs no case of its own: φ is smooth through k = 0.

References
----------
Buxton 1998, doi:10.1002/mrm.1910400308 (general kinetic model). Alsop 2015,
doi:10.1002/mrm.25197 (PCASL, PASL). Wong 2006, doi:10.1002/mrm.20906 (VSASL).
Woods 2024, doi:10.1002/mrm.30091 (multi-delay).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from asl_bids_app.protocol import Protocol
from asl_bids_app.scheme_fields import Arrival

if TYPE_CHECKING:
    from asl_bids_app.calibration import Calibration

ML_PER_100G_MIN: Final = 6000.0
"""CBF in mL/100 g/min divided by this is flow in mL/g/s."""


def arrived(rate: Tensor, duration: Tensor) -> Tensor:
    """Integrate exp(-rate * t) over t from 0 to duration, safely through rate = 0.

    Parameters
    ----------
    rate : Tensor
        1/s, of either sign.
    duration : Tensor
        Seconds.
    """
    x = rate * duration
    # Under this size expm1 and the division lose digits in float32; the series doesn't.
    small = x.abs() < 1e-3
    divisor = torch.where(small, torch.ones_like(x), x)
    series = 1 - x / 2 + x * x / 6
    return duration * torch.where(small, series, -torch.expm1(-divisor) / divisor)


def tissue_response(
    arrival: Tensor,
    delay: Tensor,
    label_duration: Tensor,
    efficiency: Tensor,
    t1_blood: Tensor | float,
    t1_tissue: Tensor | float,
    partition_coefficient: Tensor | float,
    att: Tensor,
) -> Tensor:
    """Compute ΔM/M0 per unit of CBF; every argument broadcasts against the others.

    Parameters
    ----------
    arrival : Tensor of int
        Codes of `Arrival`.
    delay : Tensor
        Delay at the slice, seconds.
    label_duration : Tensor
        Label or bolus duration, seconds; ``inf`` where no module cuts a VSASL bolus.
    efficiency : Tensor
        Effective labelling efficiency, background suppression included (fraction).
    t1_blood, t1_tissue : Tensor or float
        Longitudinal relaxation times, seconds.
    partition_coefficient : Tensor or float
        Blood-brain partition coefficient of water, mL/g.
    att : Tensor
        Arterial transit time, seconds.

    Returns
    -------
    Tensor
        ΔM/M0 (a fraction) per mL/100 g/min.
    """
    t1_blood = torch.as_tensor(t1_blood, dtype=att.dtype, device=att.device)
    t1_tissue = torch.as_tensor(t1_tissue, dtype=att.dtype, device=att.device)
    continuous = arrival == Arrival.CONTINUOUS
    selective = arrival == Arrival.VELOCITY_SELECTIVE
    since_arrival = delay - att

    # An uncut VSASL bolus is as long as the delay; with it, inf never enters the arithmetic.
    bolus = torch.where(continuous, label_duration, torch.minimum(label_duration, delay))
    pulsed_bolus = torch.minimum(since_arrival.clamp(min=0), bolus)
    selective_bolus = torch.minimum(att.clamp(min=0), bolus)
    continuous_bolus = torch.minimum((since_arrival + bolus).clamp(min=0), bolus)
    length = torch.where(
        continuous, continuous_bolus, torch.where(selective, selective_bolus, pulsed_bolus)
    )

    difference = 1 / t1_blood - 1 / t1_tissue
    rate = torch.where(continuous, 1 / t1_tissue, difference)
    # Where nothing has arrived yet the exponent is that of the moment of arrival.
    pulsed_decay = delay / t1_tissue + difference * torch.minimum(att, delay)
    decay = torch.where(
        continuous,
        att / t1_blood + since_arrival.clamp(min=0) / t1_tissue,
        torch.where(selective, delay / t1_tissue + 0 * att, pulsed_decay),
    )
    scale = 2 * efficiency / (ML_PER_100G_MIN * partition_coefficient)
    return scale * torch.exp(-decay) * arrived(rate, length)


ARTERIAL_EDGE: Final = 0.08
"""Seconds: half width of the rise and the fall of label in an artery, by dispersion."""


def arterial_response(
    arrival: Tensor,
    delay: Tensor,
    label_duration: Tensor,
    efficiency: Tensor,
    t1_blood: Tensor | float,
    partition_coefficient: Tensor | float,
    arterial_arrival: Tensor,
    edge: Tensor | float = ARTERIAL_EDGE,
) -> Tensor:
    """Compute ΔM/M0 of label inside arteries per unit of arterial blood volume.

    Label on its way elsewhere fills an artery from its arrival to the end of the bolus:

    - continuous: 2 α/λ exp(-t/T1b) while w < t < w + τ, with t the arterial arrival time;
    - pulsed: 2 α/λ exp(-w/T1b) while t < w < t + τ;
    - velocity-selective: none, for the readout's module crushes what moves fast.

    The edges are softened by a hyperbolic tangent, as dispersion does. Every argument
    broadcasts against the others.

    Parameters
    ----------
    arrival : Tensor of int
        Codes of `Arrival`.
    delay, label_duration : Tensor
        Seconds; the delay at the slice.
    efficiency : Tensor
        Effective labelling efficiency (fraction); 0 where vessels are crushed.
    t1_blood, partition_coefficient : Tensor or float
        Seconds; mL/g.
    arterial_arrival : Tensor
        Seconds from labelling to the artery.
    edge : Tensor or float
        Seconds: half width of the edges.

    Returns
    -------
    Tensor
        ΔM/M0 (a fraction) per mL of arterial blood in a mL of the voxel.

    References
    ----------
    Chappell 2010, doi:10.1002/mrm.22320. Woods 2024, doi:10.1002/mrm.30091.
    """
    t1_blood = torch.as_tensor(
        t1_blood, dtype=arterial_arrival.dtype, device=arterial_arrival.device
    )
    continuous = arrival == Arrival.CONTINUOUS
    since_first = delay - arterial_arrival
    # The label's end passes at w = t, its beginning at w + τ = t; of a pulse the reverse.
    first = torch.where(continuous, since_first + label_duration, since_first)
    last = torch.where(continuous, -since_first, label_duration - since_first)
    filled = 0.25 * (1 + torch.tanh(first / edge)) * (1 + torch.tanh(last / edge))
    age = torch.where(continuous, arterial_arrival, delay)
    seen = torch.where(arrival == Arrival.VELOCITY_SELECTIVE, 0.0, 2 * efficiency)
    return seen / partition_coefficient * torch.exp(-age / t1_blood) * filled


def response(protocol: Protocol, calibration: Calibration, att: Tensor | float) -> Tensor:
    """Compute the response of every measurement of a protocol.

    Parameters
    ----------
    protocol
        Measurements, n of them, of n_slices slices (1 for a 3D readout).
    calibration
        Constants; the efficiency of each scheme of the protocol must be in it.
    att : Tensor or float
        Arterial transit time, seconds: a scalar, or shape (n_slices or 1, ...).

    Returns
    -------
    Tensor, shape (n_slices, n, ...)
        ΔM/M0 (a fraction) per mL/100 g/min; (n_slices, n) for a scalar. Differentiable in
        `att`.
    """
    device = protocol.slice_time.device
    att = torch.as_tensor(att, device=device)
    if not att.is_floating_point():
        att = att.to(torch.get_default_dtype())
    rest = max(att.ndim - 1, 0)
    att = att.reshape(1, 1) if att.ndim == 0 else att.unsqueeze(1)

    def spread(values: Tensor) -> Tensor:
        return values.reshape(*values.shape, *(1,) * rest)

    efficiency = torch.tensor(
        [calibration.effective_efficiency(scheme) for scheme in protocol.schemes],
        dtype=att.dtype,
        device=device,
    )
    return tissue_response(
        spread(protocol.arrival[None]),
        spread(protocol.delay.to(att.dtype)),
        spread(protocol.label_duration[None].to(att.dtype)),
        spread(efficiency[None]),
        calibration.t1_blood.value,
        calibration.t1_tissue.value,
        calibration.partition_coefficient.value,
        att,
    )
