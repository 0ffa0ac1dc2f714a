"""The noise of each averaged measurement, voxel by voxel.

A standard deviation from a handful of repeats is itself too noisy to weight with, so
variances are pooled: over the measurements of a scheme, and in space over a few voxels.
Where there are no repeats, the residuals of a first fit take their place; where there are
too few delays for that, differences between neighbouring voxels do.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.special import gammaincinv
from torch import Tensor
from torch.nn import functional

from asl_bids_app.estimators.voxel_fit import least_squares, residual
from asl_bids_app.observation import observe
from asl_bids_app.series import NoiseEstimate, Series

_ENOUGH = 4
"""Degrees of freedom of a scheme's repeats from which their spread is used."""
_SIGMA = 1.5
"""Voxels; standard deviation of the Gaussian that pools variances in the plane."""


def _pool(variance: Tensor, mask: Tensor, sigma: float = _SIGMA) -> Tensor:
    """Smooth (S, H, W) inside the mask; the weights of voxels outside are zero."""
    radius = int(3 * sigma + 0.5)
    axis = torch.arange(-radius, radius + 1).to(variance)
    kernel = torch.exp(-0.5 * (axis / sigma) ** 2)
    weight = mask.to(variance)
    stacked = torch.stack([variance * weight, weight]).flatten(0, 1).unsqueeze(1)
    stacked = functional.conv2d(stacked, kernel[None, None, :, None], padding=(radius, 0))
    stacked = functional.conv2d(stacked, kernel[None, None, None, :], padding=(0, radius))
    total, norm = stacked.squeeze(1).unflatten(0, (2, -1))
    return total / norm.clamp(min=torch.finfo(norm.dtype).tiny)


def _median(values: Tensor, mask: Tensor) -> Tensor:
    inside = values[mask]
    return inside.median() if inside.numel() else torch.zeros(()).to(values)


def _median_of_variance(freedom: float) -> float:
    """Median of a variance estimated with some degrees of freedom, of a true one of 1."""
    return float(2 * gammaincinv(freedom / 2, 0.5) / freedom)


def _from_repeats(series: Series, chosen: Tensor) -> Tensor | None:
    """Variance of the averaged measurements of one scheme from their repeats."""
    if series.standard_error is None:
        return None
    repeats = series.repeats[chosen].to(series.delta_m)
    usable = torch.isfinite(series.standard_error[:, chosen]).flatten(2).any(2).any(0)
    freedom = torch.where(usable, (repeats - 1).clamp(min=0), 0.0)
    if freedom.sum() < _ENOUGH:
        return None
    axes = (1, -1, 1, 1)
    of_pair = series.standard_error[:, chosen].nan_to_num(0) ** 2 * repeats.reshape(axes)
    pooled = (of_pair * freedom.reshape(axes)).sum(1) / freedom.sum()
    # A measurement may be noisier than another (less background suppression): one factor
    # each, from the whole brain. Medians, for artery and ghosts are few; those of a variance
    # lie the lower below its mean the fewer the repeats.
    share = torch.stack(
        [
            _median(of_pair[:, i], series.mask) / _median_of_variance(free)
            if free > 0
            else torch.tensor(float("nan"))
            for i, free in enumerate(freedom.tolist())
        ]
    )
    factor = (share / share.nanmean().clamp(min=torch.finfo(share.dtype).tiny)).nan_to_num(1.0)
    factor = factor.to(pooled).reshape(axes)
    factor = factor / ((factor * freedom.reshape(axes)).sum() / freedom.sum())
    smooth = _pool(pooled, series.mask).unsqueeze(1)
    return smooth * factor / repeats.reshape(axes)


def _from_residuals(series: Series, chosen: Tensor) -> Tensor | None:
    """Variance from the residuals of a fit of the scheme's own measurements."""
    index = chosen.nonzero().flatten().tolist()
    freedom = len(index) - 2
    if freedom < 1:
        return None
    repeats = series.repeats[chosen].to(series.delta_m).reshape(1, -1, 1, 1)
    part = Series(
        series.protocol.select(index),
        series.calibration,
        series.delta_m[:, chosen],
        series.mask,
        series.repeats[chosen],
    )
    scale = series.delta_m[:, chosen].abs().mean().clamp(min=1e-12)
    flat = (scale / repeats.sqrt()).expand(series.n_slices, -1, 1, 1)
    observation = observe(part, flat)
    cbf, att, *_ = least_squares(observation)
    squares = residual(observation, cbf, att) ** 2 * repeats
    pooled = squares.sum(1) / freedom
    # Few degrees of freedom a voxel: pool more widely than with repeats.
    smooth = _pool(pooled, series.mask, 2 * _SIGMA).unsqueeze(1)
    return smooth / repeats


def _from_neighbours(series: Series, chosen: Tensor) -> Tensor:
    """One variance a measurement, from second differences between voxels in the plane.

    The median absolute second difference across the plane (Immerkær 1996,
    doi:10.1006/cviu.1996.0060) is blind to slopes of the image; its factor 36 is the sum of
    the squares of the kernel.
    """
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
    kernel = kernel.to(series.delta_m)[None, None]
    inner = functional.conv2d(
        series.mask.to(series.delta_m).unsqueeze(1), torch.ones_like(kernel), padding=1
    ).squeeze(1)
    inside = inner > 8.5
    inside = inside if bool(inside.any()) else series.mask
    images = series.delta_m[:, chosen]
    edges = functional.conv2d(images.flatten(0, 1).unsqueeze(1), kernel, padding=1)
    edges = edges.squeeze(1).unflatten(0, images.shape[:2])
    variances = [
        (_median(edges[:, i].abs(), inside) / 0.6745) ** 2 / 36 for i in range(images.shape[1])
    ]
    return torch.stack(variances).reshape(1, -1, 1, 1).expand_as(images)


def estimate_noise(series: Series) -> NoiseEstimate:
    """Estimate the noise of every averaged measurement.

    Parameters
    ----------
    series
        Calibrated series; its standard errors are used where a scheme's repeats have at
        least four degrees of freedom together.

    Returns
    -------
    NoiseEstimate
    """
    noise = torch.ones_like(series.delta_m)
    method = {}
    for scheme in dict.fromkeys(series.protocol.schemes):
        chosen = torch.tensor([s is scheme for s in series.protocol.schemes]).to(
            series.mask.device
        )
        variance, how = _from_repeats(series, chosen), "repeats"
        if variance is None:
            variance, how = _from_residuals(series, chosen), "residuals"
        if variance is None:
            variance, how = _from_neighbours(series, chosen), "neighbours"
        # Noiseless (simulated) data must not divide by zero.
        size = _median(series.delta_m[:, chosen].abs().amax(1), series.mask)
        floor = (1e-4 * size).clamp(min=1e-9)
        sd = variance.clamp(min=0).sqrt().clamp(min=floor)
        noise[:, chosen] = torch.where(series.mask.unsqueeze(1), sd, noise[:, chosen])
        method[scheme.value] = how
    return NoiseEstimate(noise, method)


def with_noise(series: Series) -> Series:
    """Return the series with its noise, estimated if it carries none yet."""
    return series if series.noise else replace(series, noise=estimate_noise(series))


def noise_level(series: Series) -> Tensor:
    """Return the noise that a series carries, (n_slices, n, H, W); estimated if it has none."""
    noise = series.noise or estimate_noise(series)
    return noise.noise_sd
