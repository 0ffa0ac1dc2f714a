r"""The artery beside the tissue, in closed form: what it adds to the voxelwise posterior.

A voxel either has no artery or one, of volume *v* (mL of blood in a mL) that fills at a time
:math:`t_k` before the tissue's ATT. The signal is linear in CBF *f* and in *v*:

.. math:: y = f R_g + v A_k + \mathrm{noise}, \qquad f \sim N(\mu, \tau^2),
          \quad v \sim |N(0, s^2)|

With :math:`m_g, 1/a_g` the mean and variance of CBF if there were no artery
(`asl_bids_app.networks.analytic`), :math:`\rho = \sum R A/\sigma^2 / a_g`,

.. math::

    D = \sum A^2/\sigma^2 + 1/s^2 - \rho^2 a_g, \quad
    z = \frac{\sum A y/\sigma^2 - \rho\, a_g m_g}{\sqrt{D}}, \quad
    \frac{p(y \mid g, k)}{p(y \mid g)} = \frac{2}{s \sqrt D}\, e^{z^2/2}\, \Phi(z)

*v* given (g, k) is a normal distribution of mean :math:`z/\sqrt D` and variance 1/D cut at 0, and
:math:`f = m_g - \rho v`. No volume is negative, so noise seldom passes for an artery.

References
----------
Chappell 2010, doi:10.1002/mrm.22320 (arterial component).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

STRIDE: Final = 4
"""Points of the grid over ATT that an artery's share is computed for together."""
_ROOT_HALF: Final = math.sqrt(0.5)
_LOWEST: Final = -12.0
"""z below which a volume is as good as 0; the tail has no digits beyond."""
_LOG_ROOT_2PI: Final = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class ArterialPrior:
    """What is believed of arteries before the data.

    Attributes
    ----------
    chance : float
        Of an artery in a voxel.
    volume_sd : float
        mL of blood in a mL of the voxel: s of the half-normal prior.
    arrivals : tuple of float
        Seconds: times at which an artery may fill. Closer than the delays are: at the edges of
        the label a signal changes fast.
    """

    chance: float = 0.1
    volume_sd: float = 0.02
    arrivals: tuple[float, ...] = (
        *(0.25, 0.31, 0.37, 0.43, 0.5, 0.57, 0.65),
        *(0.73, 0.82, 0.91, 1.01, 1.12, 1.24, 1.4),
    )

    def __post_init__(self) -> None:
        if not 0 < self.chance < 1:
            raise ValueError(f"chance: found {self.chance}, expected between 0 and 1")
        if self.volume_sd <= 0:
            raise ValueError(f"volume_sd: found {self.volume_sd}, expected > 0 mL/mL")
        if not self.arrivals or min(self.arrivals) <= 0:
            raise ValueError(f"arrivals: found {self.arrivals}, expected times > 0 s")


@dataclass(frozen=True)
class ArterialBranch:
    """The posterior if there is an artery; G points of ATT, K of arrival in it.

    Attributes
    ----------
    log_gain : Tensor, shape (K, S, V, G)
        Logarithm of the evidence for an artery over that for none, prior odds and the number of
        arrival times included; ``-inf`` where it would fill after the tissue.
    shift : Tensor, shape (K, S, V, G)
        mL/100 g/min: by how much the artery lowers the mean of CBF.
    spread : Tensor, shape (K, S, V, G)
        Variance of CBF by the uncertainty of the volume, (mL/100 g/min)².
    volume, volume_square : Tensor, shape (K, S, V, G)
        Mean of the volume and of its square, mL/mL.
    """

    log_gain: Tensor
    shift: Tensor
    spread: Tensor
    volume: Tensor
    volume_square: Tensor


def arterial_branch(
    prior: ArterialPrior,
    weighted: Tensor,
    precision: Tensor,
    curves: Tensor,
    vessels: Tensor,
    mean: Tensor,
    curvature: Tensor,
    att: Tensor,
) -> ArterialBranch:
    """Compute what an artery would explain, for every ATT and arterial arrival.

    Parameters
    ----------
    prior
        Of the artery.
    weighted, precision : Tensor, shape (S, V, n) and (S, V or 1, n)
        Signal over variance, and 1/variance.
    curves : Tensor, shape (S, n, G)
        Response of tissue at points of ATT.
    vessels : Tensor, shape (S, n, K)
        Response of arteries at `prior.arrivals`.
    mean, curvature : Tensor, shape (S, V, G)
        Of CBF without an artery, mL/100 g/min, and the inverse of its variance; that of
        (S, 1, G) where the precision is one.
    att : Tensor, shape (G,)
        Seconds.

    Returns
    -------
    ArterialBranch
    """
    arrivals = torch.tensor(prior.arrivals, device=att.device).to(att)
    allowed = arrivals[:, None] < att
    count = allowed.sum(0).clamp(min=1)
    odds = math.log(prior.chance / (1 - prior.chance))
    start = odds + math.log(2 / prior.volume_sd) - count.log()
    onto = weighted @ vessels
    power = precision @ vessels.square() + prior.volume_sd**-2
    projection = curvature * mean
    gains, shifts, spreads, volumes, squares = [], [], [], [], []
    for k in range(len(arrivals)):
        shared = precision @ (curves * vessels[..., k : k + 1])
        slope = shared / curvature
        rest = power[..., k : k + 1] - slope * shared
        # Rounding must not make a precision negative where tissue explains all of the artery.
        rest = rest.clamp(min=0.5 * prior.volume_sd**-2)
        width = rest.rsqrt()
        z = (onto[..., k : k + 1] - slope * projection).mul_(width).clamp_(min=_LOWEST)
        # erfc keeps its digits far out, and is many times faster than log_ndtr.
        log_phi = torch.erfc(z * -_ROOT_HALF).mul_(0.5).log_()
        half = 0.5 * z.square()
        gain = width.log() + half + log_phi + start
        gains.append(gain.masked_fill(~allowed[k], -torch.inf))
        # Mean and variance of a normal distribution cut at 0 (the inverse Mills ratio).
        mills = torch.exp(-half - log_phi - _LOG_ROOT_2PI)
        volume = (z + mills) * width
        variance = (1 - mills * (z + mills)).clamp(min=1e-4) * width.square()
        volumes.append(volume)
        squares.append(variance + volume.square())
        shifts.append(slope * volume)
        spreads.append(slope.square() * variance)
    return ArterialBranch(*(torch.stack(x) for x in (gains, shifts, spreads, volumes, squares)))
