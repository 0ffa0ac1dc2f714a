"""Everything that keeps a scanner's ΔM/M0 from being the model's, component by component.

Each component is a pure function of tensors and a random generator, with a statistic that can
be written down (and is tested).

Conventions
-----------
A measurement is the mean of r control-label differences. Its *thermal sd* is the standard
deviation of that mean by the coils' noise alone, a fraction of M0. One image, control or
label, has complex noise of standard deviation ``thermal_sd * sqrt(r / 2)`` in each channel.

All measurements of a series have the same noise in one image, so a measurement with more
repeats has less noise. *SNR* is defined in `thermal_sd`.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Generator, Tensor

from asl_bids_app.training.config.noise_config import NoiseConfig
from asl_bids_app.training.random_draws import Random, chance, normal, search_pays, spread, uniform
from asl_bids_app.training.random_fields import smooth_field

REFERENCE_SIGNAL: Final = (
    2 * 0.85 * 60 / (6000 * 0.9) * 1.65 * math.exp(-1.8 / 1.65) * (1 - math.exp(-1.8 / 1.65))
)
"""ΔM/M0 of grey matter (CBF 60 mL/100 g/min, all label arrived) under the consensus
acquisition: PCASL, label duration 1.8 s, delay 1.8 s, efficiency 0.85, T1 of blood 1.65 s.
Alsop 2015, doi:10.1002/mrm.25197."""


def thermal_sd(snr: Tensor, repeats: Tensor, valid: Tensor) -> Tensor:
    """Compute the thermal sd of every measurement from the SNR.

    SNR is `REFERENCE_SIGNAL` (0.70 % of M0) divided by the thermal sd of an averaged
    measurement (the root mean square over a series whose repeats differ). So it states the
    noise of a scanner in units that don't depend on protocol, calibration or subject; the
    ratio of what a voxel shows to its noise is lower where little label arrives.

    Parameters
    ----------
    snr : Tensor, shape (B,)
    repeats : Tensor, shape (B, n)
    valid : Tensor of bool, shape (B, n)

    Returns
    -------
    Tensor, shape (B, n)
    """
    inverse = torch.where(valid, 1 / repeats, 0)
    share = torch.where(valid, inverse, 1) / (inverse.sum(1) / valid.sum(1))[:, None]
    return (REFERENCE_SIGNAL / snr)[:, None] * torch.where(valid, share, 1).sqrt()


def noise_map(config: NoiseConfig, n: int, size: int, generator: Random) -> Tensor:
    """Draw how noise varies over a slice with coils and parallel imaging, (n, 1, size, size).

    A smooth factor whose mean square is 1 over the slice.
    """
    sigma = uniform(generator, (n,), (0.15, 0.4)) * size
    strength = spread(uniform(generator, (n,), config.g_factor), 3)
    factor = torch.exp(strength * smooth_field(generator, 1, size, sigma, nodes=8))
    return factor / factor.square().mean((1, 2, 3), keepdim=True).sqrt()


def draw_correlation(config: NoiseConfig, n: int, generator: Random) -> Tensor:
    """Draw the sd in pixels of the Gaussian that correlates a sample's noise, shape (n,).

    Between the slices of a stack it is one in slices.
    """
    on = chance(generator, (n,), config.correlation_chance)
    return on * uniform(generator, (n,), config.correlation)


def physiological(sd: Tensor, size: int, generator: Random) -> Tensor:
    """Draw pulse and breathing: half in step over the slice, half varying smoothly.

    Parameters
    ----------
    sd : Tensor, shape (B, n)
        Standard deviation of what remains after averaging, a fraction of M0.

    Returns
    -------
    Tensor, shape (B, n, size, size)
    """
    width = uniform(generator, (len(sd),), (0.1, 0.3)) * size
    local = smooth_field(generator, sd.shape[1], size, width, nodes=12)
    common = spread(normal(generator, tuple(sd.shape)), 2)
    return (local + common) * spread(sd * math.sqrt(0.5), 2)


def drift(
    signal: Tensor, static: Tensor, repeats: Tensor, valid: Tensor, slope: Tensor, blocks: Tensor
) -> Tensor:
    """Let the scanner's gain change evenly over the series.

    ΔM is scaled by the gain at the time of its measurement (1 at the start, where M0 was
    taken), and control images come one image later than labels, which adds a little of the
    static signal.

    Parameters
    ----------
    signal : Tensor, shape (B, n, H, W)
        ΔM/M0.
    static : Tensor, shape (B, 1, H, W)
        Static tissue left by background suppression, a fraction of M0.
    repeats : Tensor, shape (B, n)
    valid : Tensor of bool, shape (B, n)
    slope : Tensor, shape (B,)
        Relative change of the gain from the first to the last image.
    blocks : Tensor of bool, shape (B,)
        Whether all repeats of a measurement come together; else the series goes through all
        measurements again and again, and each has the mean gain.
    """
    length = torch.where(valid, repeats, 0)
    total = length.sum(1, keepdim=True)
    middle = (length.cumsum(1) - length / 2) / total
    time = torch.where(blocks[:, None], middle, 0.5)
    gain = 1 + spread(slope[:, None] * time, 2)
    return signal * gain + static * spread(slope / (2 * total[:, 0]), 3) * spread(valid, 2)


def add_spikes(signal: Tensor, sd: Tensor, config: NoiseConfig, generator: Generator) -> Tensor:
    """Put stripes from spikes in k-space into some of the measurements.

    Parameters
    ----------
    signal : Tensor, shape (B, n, H, W)
    sd : Tensor, shape (B, n)
        Thermal sd; the stripes' amplitude is `spike_size` times it.
    config
        How often and how strong.
    """
    struck = chance(generator, tuple(sd.shape), config.spike_chance)
    if not search_pays(sd.device):
        return signal + spread(struck, 2) * _stripes(sd, signal, config, generator)
    where = torch.nonzero(struck).unbind(1)
    wave = _stripes(sd[where], signal, config, generator)
    return signal.index_put(where, wave, accumulate=True)


def _stripes(sd: Tensor, like: Tensor, config: NoiseConfig, generator: Generator) -> Tensor:
    """Draw one spike's stripes for each thermal sd (...), as large as maps, (..., H, W)."""
    shape = tuple(sd.shape)
    size = uniform(generator, shape, config.spike_size) * sd
    ky, kx = uniform(generator, (2, *shape), (-math.pi, math.pi))
    phase = uniform(generator, shape, (0.0, 2 * math.pi))
    y = torch.arange(like.shape[-2], device=sd.device, dtype=sd.dtype)[:, None]
    x = torch.arange(like.shape[-1], device=sd.device, dtype=sd.dtype)
    return spread(size, 2) * torch.cos(spread(ky, 2) * y + spread(kx, 2) * x + spread(phase, 2))


def displaced(image: Tensor, shift: Tensor) -> Tensor:
    """Move images by less than a pixel, to first order.

    Parameters
    ----------
    image : Tensor, shape (B, n or 1, H, W)
    shift : Tensor, shape (B, n, 2)
        Pixels down and right.
    """
    down, right = torch.gradient(image, dim=(-2, -1))
    return image - spread(shift[..., 0], 2) * down - spread(shift[..., 1], 2) * right
