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

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from asl_bids_app.kinetics import tissue_response
from asl_bids_app.observation import Observation
from asl_bids_app.protocol import Arrival

_DOUBLE_FROM = 2e4
"""Sum of squared signal-to-noise ratios from which the exponent needs double precision."""
_NOISE_FLOOR = 1e-7
"""ΔM/M0: noise below it is taken as it, so that its square never underflows."""
_NARROW = 0.7
"""Weight of one grid point from which the grid is too coarse for the posterior."""
_ZOOM_POINTS = 25
_ZOOM_REACH = 3.0
_ZOOM_ROUNDS = 6
_ZOOM_CHUNK = 8192


@dataclass(frozen=True)
class PosteriorGrid:
    """Priors of the two parameters and the grid over ATT.

    Attributes
    ----------
    cbf_mean, cbf_sd : float
        mL/100 g/min, Gaussian.
    att_mean, att_sd : float
        Seconds, Gaussian, cut to the grid.
    att_min, att_max : float
        Seconds, ends of the grid, whose points are evenly spaced in the square root of ATT.
    points : int
        A multiple of `bins`.
    bins : int
        Into how many probabilities of neighbouring grid points the posterior of ATT is summed.
    """

    cbf_mean: float = 45.0
    cbf_sd: float = 45.0
    att_mean: float = 1.3
    att_sd: float = 0.8
    att_min: float = 0.2
    att_max: float = 3.9
    points: int = 64
    bins: int = 16

    def __post_init__(self) -> None:
        if self.bins < 1 or self.points % self.bins:
            raise ValueError(f"points: {self.points}, expected a multiple of bins ({self.bins})")
        if not 0 < self.att_min < self.att_max:
            raise ValueError(f"att_min, att_max: {self.att_min}, {self.att_max} s, expected 0 < <")
        if self.cbf_sd <= 0 or self.att_sd <= 0:
            raise ValueError("cbf_sd, att_sd: expected > 0")

    @cached_property
    def att(self) -> Tensor:
        """The grid points, seconds, shape (points,), float64."""
        ends = self.att_min**0.5, self.att_max**0.5
        return torch.linspace(*ends, self.points, dtype=torch.float64) ** 2

    def log_prior(self, att: Tensor) -> Tensor:
        """Logarithm of the prior density of ATT, up to a constant."""
        return -0.5 * ((att - self.att_mean) / self.att_sd) ** 2

    def spacing(self, att: Tensor) -> Tensor:
        """Distance of neighbouring grid points at an ATT, seconds."""
        return 2 * att.sqrt() * (self.att_max**0.5 - self.att_min**0.5) / (self.points - 1)


@dataclass(frozen=True)
class VoxelPosterior:
    """Moments of the voxelwise posterior; zero outside the mask.

    Attributes
    ----------
    cbf, cbf_sd : Tensor, shape (B, H, W)
        Mean and standard deviation, mL/100 g/min.
    att, att_sd : Tensor, shape (B, H, W)
        Mean and standard deviation, seconds.
    correlation : Tensor, shape (B, H, W)
        Of CBF and ATT.
    att_bins : Tensor, shape (B, bins, H, W)
        Probability that ATT lies in each bin of the grid.
    residual : Tensor, shape (B, 3, H, W)
        Per way of arrival, residual of the posterior mean signal projected on it,
        Σ r ŷ/σ² / (Σ ŷ²/σ² + 1): by which fraction the scheme measured more than expected.
    """

    cbf: Tensor
    cbf_sd: Tensor
    att: Tensor
    att_sd: Tensor
    correlation: Tensor
    att_bins: Tensor
    residual: Tensor


@torch.no_grad()
def voxel_posterior(observation: Observation, grid: PosteriorGrid | None = None) -> VoxelPosterior:
    """Compute the voxelwise posterior in the mask of a batch of slices.

    Parameters
    ----------
    observation
        Slices. A measurement with infinite noise is as if it weren't there.
    grid
        Priors and grid.

    Returns
    -------
    VoxelPosterior
        In the dtype of `observation.delta_m`. No gradient flows through it.
    """
    grid = grid or PosteriorGrid()
    shape = observation.mask.shape
    curves = observation.response(grid.att.to(observation.delta_m)[None])
    like = observation.delta_m
    flat = torch.zeros(shape[0], shape[1] * shape[2], 5 + grid.bins + len(Arrival)).to(like)
    noise = observation.noise_sd.clamp(min=_NOISE_FLOOR)
    precision = torch.where(torch.isfinite(noise), noise.reciprocal().square(), 0.0)
    precision = precision.expand_as(like) if precision.shape[-2:] == shape[-2:] else precision
    # Slice by slice the arrays stay in the processor's cache; a GPU wants one big piece, and
    # voxels outside the mask cost it nothing.
    if like.device.type == "cpu":
        for index in range(shape[0]):
            inside = observation.mask[index].flatten().nonzero().squeeze(1)
            if not len(inside):
                continue
            place = torch.full_like(inside, index)
            signal = like[index].flatten(1)[:, inside].T[None]
            weight = precision[index].flatten(1)
            weight = (weight[:, inside] if weight.shape[1] > 1 else weight).T[None]
            moments = _solve(signal, weight, curves[index, None], observation, place, grid)
            flat[index, inside] = moments[0]
    else:
        place = torch.arange(shape[0], device=like.device).repeat_interleave(flat.shape[1])
        signal = like.flatten(2).transpose(1, 2)
        weight = precision.flatten(2).transpose(1, 2)
        flat = _solve(signal, weight, curves, observation, place, grid)
        flat = torch.where(observation.mask.flatten(1).unsqueeze(2), flat, 0.0)
    maps = flat.unflatten(1, shape[1:]).permute(0, 3, 1, 2)
    return VoxelPosterior(*maps[:, :5].unbind(1), maps[:, 5 : 5 + grid.bins], maps[:, -3:])


def _solve(
    signal: Tensor,
    precision: Tensor,
    curves: Tensor,
    observation: Observation,
    place: Tensor,
    grid: PosteriorGrid,
) -> Tensor:
    """Return the moments (S, V, 5 + bins + 3) of V voxels of each of S slices.

    `signal` (S, V, n), `precision` (S, V or 1, n), `curves` (S, n, points); `place` (S * V,)
    is the slice of each voxel in the observation.
    """
    out_dtype = signal.dtype
    power = (signal.square() * precision).sum(2)
    if float(power.max()) > _DOUBLE_FROM:
        signal, precision, curves = signal.double(), precision.double(), curves.double()
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
    weight = log_weight.sub_(curvature.log(), alpha=0.5).softmax(2)
    second = square.add_(curvature.reciprocal_()).mul_(weight).sum(2)
    weighted_mean = mean.mul_(weight)

    bins = torch.eye(grid.bins).repeat_interleave(grid.points // grid.bins, 0).to(signal)
    of_weight = weight @ torch.cat([att[:, None], att.square()[:, None], bins], 1)
    by_cbf = torch.stack([torch.ones_like(att), att]).expand(len(curves), -1, -1)
    of_cbf = weighted_mean @ torch.cat([by_cbf, curves], 1).transpose(1, 2)
    cbf, product, predicted = of_cbf[..., 0], of_cbf[..., 1], of_cbf[..., 2:]
    att_mean = of_weight[..., 0]
    moments = torch.stack(
        [
            cbf,
            second - cbf.square(),
            att_mean,
            of_weight[..., 1] - att_mean.square(),
            product - cbf * att_mean,
        ],
        2,
    )

    narrow = (weight.amax(2) > _NARROW).flatten().nonzero().squeeze(1)
    if len(narrow):
        voxels = _Voxels.gather(narrow, signal, precision, observation, place)
        fine, seen = _zoom(voxels, att[weight.flatten(0, 1)[narrow].argmax(1)], grid)
        moments.flatten(0, 1)[narrow] = fine.to(moments)
        predicted = predicted.clone()
        predicted.flatten(0, 1)[narrow] = seen.to(predicted)

    residual = _projected_residual(weighted, precision, predicted, observation, place)
    cbf, cbf_var, att_mean, att_var, covariance = moments.unbind(2)
    cbf_sd, att_sd = cbf_var.clamp(min=1e-12).sqrt(), att_var.clamp(min=1e-12).sqrt()
    correlation = (covariance / (cbf_sd * att_sd)).clamp(-1, 1)
    single = torch.stack([cbf, cbf_sd, att_mean, att_sd, correlation], 2)
    return torch.cat([single, of_weight[..., 2:], residual], 2).to(out_dtype)


def _projected_residual(
    weighted: Tensor,
    precision: Tensor,
    predicted: Tensor,
    observation: Observation,
    place: Tensor,
) -> Tensor:
    """Return the residual along the prediction per way of arrival, (S, V, 3)."""
    slices = place.unflatten(0, predicted.shape[:2])[:, 0]
    kinds = torch.arange(len(Arrival), device=place.device)
    choose = (observation.arrival[slices].unsqueeze(2) == kinds).to(predicted)
    along = (weighted * predicted) @ choose
    norm = (precision * predicted.square()) @ choose
    return (along - norm) / (norm + 1)


@dataclass(frozen=True)
class _Voxels:
    """Voxels in a row, each with the physics of its slice; `signal`, `precision` (V, n)."""

    signal: Tensor
    precision: Tensor
    physics: tuple[Tensor, ...]

    @staticmethod
    def gather(
        chosen: Tensor,
        signal: Tensor,
        precision: Tensor,
        observation: Observation,
        place: Tensor,
    ) -> _Voxels:
        slices = place[chosen]
        spread = (
            observation.arrival,
            observation.delay,
            observation.label_duration,
            observation.efficiency,
            observation.t1_blood.unsqueeze(1),
            observation.t1_tissue.unsqueeze(1),
            observation.partition_coefficient.unsqueeze(1),
        )
        dtype = torch.float64
        return _Voxels(
            signal.flatten(0, 1)[chosen].to(dtype),
            precision.expand_as(signal).flatten(0, 1)[chosen].to(dtype),
            tuple(
                (p if p.dtype == torch.int64 else p.to(dtype))[slices].unsqueeze(2) for p in spread
            ),
        )

    def split(self, size: int) -> list[_Voxels]:
        parts = zip(
            self.signal.split(size),
            self.precision.split(size),
            zip(*(p.split(size) for p in self.physics), strict=True),
            strict=True,
        )
        return [_Voxels(*part) for part in parts]

    def __getitem__(self, index: Tensor) -> _Voxels:
        return _Voxels(
            self.signal[index], self.precision[index], tuple(p[index] for p in self.physics)
        )


def _zoom(voxels: _Voxels, att: Tensor, grid: PosteriorGrid) -> tuple[Tensor, Tensor]:
    """Integrate on a finer grid of each voxel's own around its best point.

    Returns the moments (V, 5): mean and variance of CBF, of ATT, their covariance; and the
    mean predicted signal (V, n).
    """
    moments = att.new_zeros(len(att), 5, dtype=torch.float64)
    predicted = torch.zeros_like(voxels.signal)
    att = att.double()
    begin = 0
    for part in voxels.split(_ZOOM_CHUNK):
        index = torch.arange(len(part.signal), device=att.device)
        centre = att[begin : begin + len(index)]
        step = grid.spacing(centre)
        for round_ in range(_ZOOM_ROUNDS):
            points, weight, fine = _local(part, centre, step, grid)
            top, best = weight.max(1)
            done = (top <= _NARROW) | (round_ == _ZOOM_ROUNDS - 1)
            where = begin + index[done]
            moments[where], predicted[where] = (value[done] for value in fine)
            centre = points.gather(1, best.unsqueeze(1)).squeeze(1)[~done]
            step = step[~done] * (2 * _ZOOM_REACH / (_ZOOM_POINTS - 1))
            index, part = index[~done], part[~done]  # noqa: PLW2901  what is left to do
            if not len(index):
                break
        begin += _ZOOM_CHUNK
    return moments, predicted


def _local(
    voxels: _Voxels, centre: Tensor, step: Tensor, grid: PosteriorGrid
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Evaluate the posterior at points within some steps of a centre."""
    offset = torch.linspace(-_ZOOM_REACH, _ZOOM_REACH, _ZOOM_POINTS).to(centre)
    att = centre[:, None] + step[:, None] * offset
    outside = (att < grid.att_min - 1e-9) | (att > grid.att_max + 1e-9)
    curves = tissue_response(*voxels.physics, att.unsqueeze(1))
    weighted = (voxels.signal * voxels.precision).unsqueeze(1)
    curvature = (voxels.precision.unsqueeze(1) @ curves.square()).squeeze(1) + grid.cbf_sd**-2
    mean = (weighted @ curves).squeeze(1) + grid.cbf_mean / grid.cbf_sd**2
    mean = mean / curvature
    log_weight = grid.log_prior(att) - 0.5 * curvature.log() + 0.5 * curvature * mean.square()
    weight = log_weight.masked_fill(outside, -torch.inf).softmax(1)
    cbf, att_mean = (weight * mean).sum(1), (weight * att).sum(1)
    cbf_off, att_off = mean - cbf[:, None], att - att_mean[:, None]
    moments = torch.stack(
        [
            cbf,
            (weight * (cbf_off.square() + 1 / curvature)).sum(1),
            att_mean,
            (weight * att_off.square()).sum(1),
            (weight * cbf_off * att_off).sum(1),
        ],
        1,
    )
    predicted = (curves @ (weight * mean).unsqueeze(2)).squeeze(2)
    return att, weight, (moments, predicted)
