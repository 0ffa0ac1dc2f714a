"""The grid over ATT of the voxelwise posterior, and its refinement where it is too coarse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import TransitPrior
from asl_bids_app.schemes import SCHEMES, Scheme, transit_prior

_FEWEST_POINTS: Final = 2.5
"""Effective number of grid points (1 / Σ w²) below which the grid is too coarse."""
_ZOOM: Final = (8, 64)
"""Into how many parts the grid's steps are divided where it is too coarse."""
_ZOOM_REACH: Final = 24
"""Points on either side of the best one: three steps of the next coarser grid."""
_ZOOM_CHUNKS: Final = {"cpu": 1024, "mps": 1024, "cuda": 16384}
"""Voxels at a time: as many as the processor's cache holds; a GPU wants few large operators (a
thousand voxels of twelve measurements take some 20 MB)."""


@dataclass(frozen=True)
class PosteriorGrid:
    """Priors of the two parameters and the grid over ATT.

    Attributes
    ----------
    cbf_mean, cbf_sd : float
        mL/100 g/min, Gaussian.
    att_mean, att_sd : float
        Seconds, Gaussian, cut to the grid. By default those of PCASL; `for_schemes` gives
        those of other schemes.
    att_min, att_max : float
        Seconds, ends of the grid, whose points are evenly spaced in the square root of ATT.
    points : int
        A multiple of `bins`.
    bins : int
        Into how many probabilities of neighbouring grid points the posterior of ATT is summed.
    """

    cbf_mean: float = 45.0
    cbf_sd: float = 45.0
    att_mean: float = SCHEMES[Scheme.PCASL].transit.mean
    att_sd: float = SCHEMES[Scheme.PCASL].transit.sd
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

    def for_schemes(self, schemes: Iterable[Scheme]) -> PosteriorGrid:
        """Return the grid with the prior of ATT of some labelling schemes."""
        prior = transit_prior(schemes)
        return replace(self, att_mean=prior.mean, att_sd=prior.sd)

    def prior(self, schemes: Iterable[Scheme]) -> TransitPrior:
        """Return the grid's prior of ATT, with the source of that of the schemes if it is it."""
        usual = transit_prior(schemes)
        if (usual.mean, usual.sd) == (self.att_mean, self.att_sd):
            return usual
        return TransitPrior(self.att_mean, self.att_sd, "prior of the model")

    @cached_property
    def att(self) -> Tensor:
        """The grid points, seconds, shape (points,), float64."""
        return self.finer(1)

    def finer(self, divisions: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the grid with its steps divided, s, ((points - 1) * divisions + 1,), float64."""
        ends = self.att_min**0.5, self.att_max**0.5
        points = (self.points - 1) * divisions + 1
        return torch.linspace(*ends, points, dtype=torch.float64, device=device) ** 2

    def log_prior(self, att: Tensor) -> Tensor:
        """Logarithm of the prior density of ATT, up to a constant."""
        return -0.5 * ((att - self.att_mean) / self.att_sd) ** 2

    def spacing(self, att: Tensor) -> Tensor:
        """Distance of neighbouring grid points at an ATT, seconds."""
        return 2 * att.sqrt() * (self.att_max**0.5 - self.att_min**0.5) / (self.points - 1)


def zoom(
    chosen: Tensor,
    best: Tensor,
    signal: Tensor,
    precision: Tensor,
    observation: Observation,
    place: Tensor,
    grid: PosteriorGrid,
) -> tuple[Tensor, Tensor]:
    """Integrate again around the best grid point where the posterior is narrower than the grid.

    The curves are looked up in tables that divide the grid's steps into 8, and into 64 where
    that is still too coarse.

    Parameters
    ----------
    chosen : Tensor of int, shape (Z,)
        Voxels in the flattened (S * V) row.
    best : Tensor of int, shape (Z,)
        Their best grid points.
    signal, precision, observation, place, grid
        As in `_solve`.

    Returns
    -------
    moments : Tensor, shape (Z, 6)
        Mean and variance of CBF, of ATT, the covariance, and the variance of CBF at a given ATT.
    predicted : Tensor, shape (Z, n)
        Posterior mean of the signal.
    """
    data = signal.flatten(0, 1)[chosen].double()
    trust = precision.expand_as(signal).flatten(0, 1)[chosen].double()
    slices, row = torch.unique(place[chosen], return_inverse=True)
    physics = observation[slices]
    moments = data.new_zeros(len(chosen), 6)
    predicted = torch.zeros_like(data)
    todo, place_in_grid = torch.arange(len(chosen), device=chosen.device), best
    for level, divisions in enumerate(_ZOOM):
        att = grid.finer(divisions, data.device).to(data)
        # One row a grid point, so that looking up a point reads neighbours in memory.
        table = physics.response(att[None].to(signal)).double().mT.flatten(0, 1)
        prior = grid.log_prior(att) + grid.spacing(att).log()
        place_in_grid = place_in_grid * (divisions // _ZOOM[level - 1] if level else divisions)
        narrow = []
        for part in torch.arange(len(todo), device=todo.device).split(_zoom_chunk(todo.device)):
            where = todo[part]
            peak, coarse, *found = _integrate_around(
                place_in_grid[part],
                row[where] * len(att),
                data[where],
                trust[where],
                table,
                att,
                prior,
                grid,
            )
            moments[where], predicted[where] = found
            place_in_grid[part] = peak
            narrow.append(coarse)
        left = torch.cat(narrow).nonzero().squeeze(1)
        if not len(left):
            break
        todo, place_in_grid = todo[left], place_in_grid[left]
    return moments, predicted


def _zoom_chunk(device: torch.device) -> int:
    return _ZOOM_CHUNKS.get(device.type, _ZOOM_CHUNKS["cpu"])


def _integrate_around(
    centre: Tensor,
    offset: Tensor,
    data: Tensor,
    trust: Tensor,
    table: Tensor,
    att: Tensor,
    prior: Tensor,
    grid: PosteriorGrid,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Integrate over grid points around a centre: peak, whether too narrow, moments, signal."""
    reach = torch.arange(-_ZOOM_REACH, _ZOOM_REACH + 1, device=centre.device)
    index = centre[:, None] + reach
    outside = (index < 0) | (index >= len(att))
    index = index.clamp(0, len(att) - 1)
    curves = table.index_select(0, (index + offset[:, None]).flatten()).unflatten(0, index.shape)
    points = att[index]
    curvature = (curves.square() @ trust.unsqueeze(2)).squeeze(2) + grid.cbf_sd**-2
    mean = (curves @ (data * trust).unsqueeze(2)).squeeze(2) + grid.cbf_mean / grid.cbf_sd**2
    mean = mean / curvature
    log_weight = prior[index] - 0.5 * curvature.log() + 0.5 * curvature * mean.square()
    weight = log_weight.masked_fill(outside, -torch.inf).softmax(1)
    cbf, att_mean = (weight * mean).sum(1), (weight * points).sum(1)
    cbf_off, att_off = mean - cbf[:, None], points - att_mean[:, None]
    narrow = too_narrow(weight)
    step = grid.spacing(att_mean) * (grid.points - 1) / (len(att) - 1)
    moments = torch.stack(
        [
            cbf,
            (weight * (cbf_off.square() + 1 / curvature)).sum(1),
            att_mean,
            # Where hardly another point counts, the width of the point's own cell does.
            (weight * att_off.square()).sum(1) + narrow * step.square() / 12,
            (weight * cbf_off * att_off).sum(1),
            (weight / curvature).sum(1),
        ],
        1,
    )
    signal = (curves.mT @ (weight * mean).unsqueeze(2)).squeeze(2)
    peak = index.gather(1, weight.argmax(1, keepdim=True)).squeeze(1)
    return peak, narrow, moments, signal


def too_narrow(weight: Tensor) -> Tensor:
    """Tell where so few grid points carry the weight that they can't stand for the curve."""
    return weight.square().sum(-1) > 1 / _FEWEST_POINTS
