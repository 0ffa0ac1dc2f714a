"""Noise of magnitude images: the Rician distribution, and differences of averaged magnitudes.

References
----------
Gudbjartsson 1995, doi:10.1002/mrm.1910340618.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from asl_bids_app.training.random_draws import search_pays, spread


def rician_mean(amplitude: Tensor, sd: Tensor) -> Tensor:
    """Compute the mean magnitude of a complex signal with Gaussian noise.

    Parameters
    ----------
    amplitude : Tensor
        Magnitude without noise.
    sd : Tensor
        Standard deviation of the noise in each of the two channels.
    """
    # Scaled Bessel functions keep the exponential of large arguments out.
    half = (amplitude / sd) ** 2 / 4
    bessel = (1 + 2 * half) * torch.special.i0e(half) + 2 * half * torch.special.i1e(half)
    return sd * math.sqrt(math.pi / 2) * bessel


def rician_sd(amplitude: Tensor, sd: Tensor) -> Tensor:
    """Compute the standard deviation of a Rician magnitude; arguments as `rician_mean`."""
    # In float32 the difference of squares would lose its digits at high signal.
    wide, level = sd.double(), amplitude.double()
    variance = level**2 + 2 * wide**2 - rician_mean(level, wide) ** 2
    return variance.clamp(min=0).sqrt().to(amplitude.dtype)


_PER_SD, _REACH = 64, 32


@cache
def _excess_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Rician mean minus amplitude, in sds, at amplitudes 0 to `_REACH` sd; and its slopes."""
    amplitude = torch.arange(_REACH * _PER_SD + 2, dtype=torch.float64) / _PER_SD
    excess = rician_mean(amplitude, torch.ones_like(amplitude)) - amplitude
    return excess[:-1].float().to(device), excess.diff().float().to(device)


def rician_excess(amplitude: Tensor, sd: Tensor) -> Tensor:
    """Compute by how much the mean magnitude exceeds the amplitude; arguments as `rician_mean`.

    By a table, which is many times faster than Bessel functions and right to 1e-4 sd.

    Parameters
    ----------
    amplitude : Tensor, shape (B, n, H, W)
    sd : Tensor, shape (B, 1, H, W)
    """
    level = amplitude / sd
    # Beyond the table the excess is the sd over twice the ratio, to 1e-5 sd; most slices
    # lie there as a whole.
    excess = 0.5 / level.clamp(min=_REACH)
    if not search_pays(amplitude.device):
        return sd * _from_table(level, excess)
    low = torch.nonzero(level.amin((1, 2, 3)) < _REACH)[:, 0]
    if len(low):
        excess[low] = _from_table(level[low], excess[low])
    return sd * excess


def _from_table(level: Tensor, beyond: Tensor) -> Tensor:
    """Return the excess in sds at amplitudes in sds; `beyond` the table as it is given."""
    place = level * _PER_SD
    index = place.clamp(max=_REACH * _PER_SD).int()
    base, slope = (
        torch.index_select(t, 0, index.flatten()).view_as(place)
        for t in _excess_table(level.device)
    )
    part = torch.addcmul(base, slope, place - index)
    return torch.where(place < _REACH * _PER_SD, part, beyond)


def averaged_magnitude(
    amplitude: Tensor, sd: Tensor, repeats: Tensor, white: Sequence[Tensor]
) -> Tensor:
    """Draw the mean of r Rician magnitudes with the mean and variance that it has.

    One draw, shrunk toward the Rician mean by sqrt(r): averaging lowers the noise but not
    the bias. Exact in distribution for r = 1.

    Parameters
    ----------
    amplitude, sd
        As `rician_mean`.
    repeats : Tensor
        r, broadcasting.
    white : two Tensors
        Standard normal noise of the two channels.
    """
    one = torch.hypot(amplitude + sd * white[0], sd * white[1])
    mean = amplitude + rician_excess(amplitude, sd)
    return torch.lerp(mean, one, repeats.rsqrt())


def magnitude_difference(
    delta_m: Tensor, static: Tensor, sd: Tensor, repeats: Tensor, white: Sequence[Tensor]
) -> Tensor:
    """Measure ΔM as the mean difference of magnitude images of control and label.

    Parameters
    ----------
    delta_m : Tensor, shape (B, n, H, W)
        ΔM/M0 without thermal noise.
    static : Tensor, shape (B, 1, H, W)
        Static signal, a fraction of M0: control images show it, labels what ΔM leaves of it.
    sd : Tensor, shape (B, 1, H, W)
        Standard deviation of the noise in each channel of one image.
    repeats : Tensor, shape (B, n)
        Pairs averaged.
    white : four Tensors, shape (B, n, H, W)
        Standard normal noise of the channels of control and label.

    Returns
    -------
    Tensor, shape (B, n, H, W)
    """
    pairs = spread(repeats, 2)
    control = averaged_magnitude(static, sd, pairs, white[:2])
    return control - averaged_magnitude((static - delta_m).abs(), sd, pairs, white[2:])
