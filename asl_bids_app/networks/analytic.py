r"""The voxelwise posterior of CBF and ATT: the likelihood that physics supplies, no weights.

The signal is linear in CBF, so for each ATT of a grid the posterior of CBF is Gaussian. With
:math:`R_{ig}` the response of measurement *i* at grid point *g*, :math:`\sigma_i` its noise and
:math:`N(\mu, \tau^2)` the prior of CBF,

.. math::

    A_g = \sum_i R_{ig}^2/\sigma_i^2 + 1/\tau^2, \quad
    b_g = \sum_i R_{ig} y_i/\sigma_i^2 + \mu/\tau^2, \quad
    \mathrm{CBF} \mid \mathrm{ATT}_g \sim N(b_g/A_g, 1/A_g),

and the weight of *g* is proportional to
:math:`p(\mathrm{ATT}_g)\, h_g\, A_g^{-1/2} \exp(b_g^2 / 2A_g)`, :math:`h_g` its spacing. Any
number of measurements, any scheme or mix of schemes is in R.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.grid import PosteriorGrid, too_narrow, zoom
from asl_bids_app.networks.sums import Tables, sums_without, with_artery
from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.scheme_fields import Arrival

_DOUBLE_FROM = 2e4
"""Sum of squared signal-to-noise ratios from which the exponent needs double precision."""
_HARDLY: Final = 0.02
"""Probability of an artery below which it may be left out where the grid is refined."""
_NOISE_FLOOR = 1e-7
"""ΔM/M0: noise below it is taken as it, so that its square never underflows."""


def precision_of(noise_sd: Tensor) -> Tensor:
    """Return the inverse variances of measurements; 0 where the noise is infinite."""
    noise = noise_sd.clamp(min=_NOISE_FLOOR)
    return torch.where(torch.isfinite(noise), noise.reciprocal().square(), 0.0)


@torch.no_grad()
def voxel_posterior(
    observation: Observation,
    grid: PosteriorGrid | None = None,
    tell: OnProgress = no_progress,
    arterial: ArterialPrior | None = None,
) -> VoxelPosterior:
    """Compute the voxelwise posterior in the mask of a batch of slices.

    Parameters
    ----------
    observation
        Slices. A measurement with infinite noise is as if it weren't there.
    grid
        Priors and grid.
    tell
        Takes how many slices are done.
    arterial
        What is believed of arteries; None to look for none.

    Returns
    -------
    VoxelPosterior
        In the dtype of `observation.delta_m`. No gradient flows through it.
    """
    grid = grid or PosteriorGrid()
    shape = observation.mask.shape
    curves = observation.response(grid.att.to(observation.delta_m)[None])
    like = observation.delta_m
    vessels = None
    if arterial is not None:
        vessels = observation.arterial_response(like.new_tensor(arterial.arrivals))
    states = 1 if vessels is None else 2
    bins = states * grid.bins
    also = [bins, like.shape[1]] if vessels is not None else [0, 0]
    sizes = [6, bins, len(Arrival), 1, bins, bins, 3, *also]
    precision = precision_of(observation.noise_sd)
    precision = precision.expand_as(like) if precision.shape[-2:] == shape[-2:] else precision
    # Slice by slice the arrays stay in the processor's cache; a GPU wants one big piece, and
    # voxels outside the mask cost it nothing.
    if _slice_by_slice(like.device):
        flat = like.new_zeros(shape[0], shape[1] * shape[2], sum(sizes))
        for index in range(shape[0]):
            tell("slice", index, shape[0])
            inside = observation.mask[index].flatten().nonzero().squeeze(1)
            if not len(inside):
                continue
            place = torch.full_like(inside, index)
            signal = like[index].flatten(1)[:, inside].T[None]
            weight = precision[index].flatten(1)
            weight = (weight[:, inside] if weight.shape[1] > 1 else weight).T[None]
            own = None if vessels is None else vessels[index, None]
            tables = Tables(grid, curves[index, None], arterial, own)
            moments = _solve(signal, weight, tables, observation, place)
            flat[index, inside] = moments[0]
    else:
        place = torch.arange(shape[0], device=like.device)
        place = place.repeat_interleave(shape[1] * shape[2])
        signal = like.flatten(2).transpose(1, 2)
        weight = precision.flatten(2).transpose(1, 2)
        tables = Tables(grid, curves, arterial, vessels)
        flat = _solve(signal, weight, tables, observation, place)
        flat = torch.where(observation.mask.flatten(1).unsqueeze(2), flat, 0.0)
    maps = flat.unflatten(1, shape[1:]).permute(0, 3, 1, 2)
    moments, odds, residual, misfit, *shares, volume, bin_volume, shown = maps.split(sizes, 1)
    cbf, cbf_sd, att, att_sd, correlation, cbf_noise_sd = moments.unbind(1)
    bin_att, bin_cbf = shares
    artery, mean, mean_sd = volume.unbind(1)
    return VoxelPosterior(
        cbf=cbf,
        cbf_sd=cbf_sd,
        att=att,
        att_sd=att_sd,
        correlation=correlation,
        cbf_noise_sd=cbf_noise_sd,
        att_bins=odds,
        residual=residual,
        misfit=misfit[:, 0],
        bin_att=bin_att,
        bin_cbf=bin_cbf,
        artery=artery,
        volume=mean,
        volume_sd=mean_sd,
        bin_volume=bin_volume,
        vessels=shown,
    )


def _slice_by_slice(device: torch.device) -> bool:
    return device.type == "cpu"


def _solve(
    signal: Tensor,
    precision: Tensor,
    tables: Tables,
    observation: Observation,
    place: Tensor,
) -> Tensor:
    """Return what makes a `VoxelPosterior` of V voxels of each of S slices, (S, V, columns).

    `signal` (S, V, n), `precision` (S, V or 1, n); `place` (S * V,) is the slice of each voxel
    in the observation.
    """
    out_dtype = signal.dtype
    power = (signal.square() * precision).sum(2)
    if float(power.max()) > _DOUBLE_FROM:
        signal, precision = signal.double(), precision.double()
        tables = tables.to(signal)
    grid, curves = tables.grid, tables.curves
    att = grid.att.to(signal)
    weighted = signal * precision
    # In place where it can be: these arrays are what the time goes to.
    flat_prior = signal.new_tensor(grid.cbf_sd**-2)
    curvature = torch.baddbmm(flat_prior, precision, curves.square())
    mean = torch.baddbmm(flat_prior * grid.cbf_mean, weighted, curves).div_(curvature)
    # The exponent b²/2A - log(A)/2, written with the mean m = b/A.
    square = mean.square()
    prior = grid.log_prior(att) + grid.spacing(att).log()
    log_weight = torch.addcmul(prior, curvature, square, value=0.5)
    log_weight = log_weight.sub_(curvature.log(), alpha=0.5)
    arteries = None
    if tables.arterial is None or tables.vessels is None:
        weight = log_weight.softmax(2)
    else:
        weight, arteries = with_artery(tables, tables.arterial, weighted, precision, log_weight)
    by_noise = curvature.reciprocal_()
    found = sums_without(grid, att, curves, weight, mean, by_noise, square)
    narrow = too_narrow(weight)
    if arteries is not None:
        also = arteries.sums(grid)
        # Where an artery may be, its uncertainty outweighs the width of a cell of the grid.
        narrow &= also.artery < _HARDLY
        found = found.joined(also)
    moments, predicted = found.moments(), found.predicted

    narrow = narrow.flatten().nonzero().squeeze(1)
    if len(narrow):
        best = weight.flatten(0, 1)[narrow].argmax(1)
        fine, seen = zoom(narrow, best, signal, precision, observation, place, grid)
        moments.flatten(0, 1)[narrow] = fine.to(moments)
        predicted = predicted.clone()
        predicted.flatten(0, 1)[narrow] = seen.to(predicted)

    residual, misfit = _residuals(weighted, precision, predicted, power, observation, place)
    cbf, cbf_var, att_mean, att_var, covariance, noise = moments.unbind(2)
    cbf_sd, att_sd = cbf_var.clamp(min=1e-12).sqrt(), att_var.clamp(min=1e-12).sqrt()
    correlation = (covariance / (cbf_sd * att_sd)).clamp(-1, 1)
    single = torch.stack([cbf, cbf_sd, att_mean, att_sd, correlation, noise.sqrt()], 2)
    volume_sd = (found.volume_square - found.volume.square()).clamp(min=0).sqrt()
    volumes = torch.stack([found.artery, found.volume, volume_sd], 2)
    columns = [
        single,
        found.bins,
        residual,
        misfit,
        found.bin_att,
        found.bin_cbf,
        volumes,
        found.bin_volume,
        found.vessels,
    ]
    return torch.cat(columns, 2).to(out_dtype)


def _residuals(
    weighted: Tensor,
    precision: Tensor,
    predicted: Tensor,
    power: Tensor,
    observation: Observation,
    place: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the residual along the prediction per way of arrival, (S, V, 3), and misfit."""
    slices = place.unflatten(0, predicted.shape[:2])[:, 0]
    kinds = torch.arange(len(Arrival), device=place.device)
    choose = (observation.arrival[slices].unsqueeze(2) == kinds).to(predicted)
    along = (weighted * predicted) @ choose
    norm = (precision * predicted.square()) @ choose
    # Σ (y - ŷ)²/σ², from sums that are there anyhow.
    square = power - 2 * along.sum(2) + norm.sum(2)
    freedom = ((precision > 0).sum(2) - 2).clamp(min=1)
    misfit = (square.clamp(min=0) / freedom).sqrt()
    return (along - norm) / (norm + 1), misfit.unsqueeze(2)
