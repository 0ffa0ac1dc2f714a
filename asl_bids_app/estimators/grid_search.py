"""The search of least squares: a grid over ATT with closed-form CBF, then a bracketed refinement.

CBF is linear given ATT, so the two-parameter fit is a one-dimensional search whose every
step has a closed form; no starting value, no local minimum between grid points, no failed
convergence. CBF is bounded to what is physically possible, as curve fitting in the field is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.kinetics import tissue_response
from asl_bids_app.observation import Observation

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class LeastSquaresOptions:
    """Range and resolution of the fit.

    Attributes
    ----------
    cbf_max : float
        mL/100 g/min; CBF is searched from 0 to it.
    att_min, att_max : float
        Seconds.
    grid_step : float
        Seconds between the points of the first search.
    tolerance : float
        Seconds to which the refinement narrows ATT.
    att_prior, att_prior_sd : float or None
        Seconds; where the data don't determine ATT it is this, with this uncertainty. None:
        that of the labelling scheme (`asl_bids_app.schemes.SCHEMES`).
    chunk : int
        Voxels fitted at a time; bounds the memory (100 kB for 100 voxels).
    """

    cbf_max: float = 300.0
    att_min: float = 0.05
    att_max: float = 4.0
    grid_step: float = 0.025
    tolerance: float = 1e-4
    att_prior: float | None = None
    att_prior_sd: float | None = None
    chunk: int = 32768


@dataclass(frozen=True)
class Voxels:
    """Voxels in a row, each with the physics of its slice.

    Attributes
    ----------
    signal, weight : Tensor, shape (V, n)
        ΔM/M0 and the inverse variance of its noise.
    physics : tuple of Tensor
        Leading arguments of `tissue_response`, each of shape (V, n) or (V, 1).
    prior, prior_sd : Tensor, shape (V,)
        Of ATT, seconds.
    """

    signal: Tensor
    weight: Tensor
    physics: tuple[Tensor, ...]
    prior: Tensor
    prior_sd: Tensor

    def response(self, att: Tensor) -> Tensor:
        """Return ΔM/M0 per mL/100 g/min for one ATT (s) of each voxel, (V, n)."""
        arrival, delay, duration, efficiency, t1_blood, t1_tissue, partition = self.physics
        constants = (efficiency, t1_blood, t1_tissue, partition)
        return tissue_response(arrival, delay, duration, *constants, att.unsqueeze(1))

    def profile(self, att: Tensor, cbf_max: float) -> tuple[Tensor, Tensor]:
        """Best CBF for given ATT, and how much it lowers the weighted sum of squares."""
        predicted = self.response(att)
        weighted = self.weight * predicted
        return _best_cbf((weighted * self.signal).sum(1), (weighted * predicted).sum(1), cbf_max)


def _best_cbf(projection: Tensor, power: Tensor, cbf_max: float) -> tuple[Tensor, Tensor]:
    cbf = (projection / power.clamp(min=torch.finfo(power.dtype).tiny)).clamp(0, cbf_max)
    return cbf, cbf * (2 * projection - cbf * power)


@dataclass(frozen=True)
class Search:
    """What the grid says of each voxel, each field of shape (V,).

    Attributes
    ----------
    att : Tensor
        Grid point of the best fit, seconds.
    points : Tensor
        Grid points whose fit is not worse than the best one by more than 4 in chi square:
        the 95 % interval by the profile likelihood.
    att_sd, cbf_sd : Tensor
        A quarter of the range of ATT, and of its CBF, over these points. It sees past the
        joints of the curves, where the Jacobian knows one side only.
    """

    att: Tensor
    points: Tensor
    att_sd: Tensor
    cbf_sd: Tensor


def search_grid(
    voxels: Voxels, slice_of: Tensor, observation: Observation, options: LeastSquaresOptions
) -> Search:
    """Find the best point of the grid over ATT for every voxel, and its interval."""
    steps = round((options.att_max - options.att_min) / options.grid_step) + 1
    grid = torch.linspace(options.att_min, options.att_max, steps).to(voxels.signal)
    curves = observation.response(grid[None])
    found = torch.empty(4, len(voxels.signal)).to(voxels.signal)
    infinity = float("inf")
    for index in slice_of.unique().tolist():
        chosen = slice_of == index
        curve = curves[index]
        weight = voxels.weight[chosen]
        signal = voxels.signal[chosen]
        cbf, gain = _best_cbf((weight * signal) @ curve, weight @ curve**2, options.cbf_max)
        energy = (weight * signal**2).sum(1, keepdim=True)
        # Where a range of ATT fits equally well (every delay after arrival) take the one that is
        # nearest to the slice's prior; far too small to move a fit that the data decide.
        prior = voxels.prior[chosen][:1]
        tie = 1e-5 * ((grid - prior) / (options.att_max - options.att_min)) ** 2
        energy = energy + (energy == 0)  # Without signal the prior decides.
        best = (gain - tie * energy).argmax(1, keepdim=True)
        near = gain >= gain.gather(1, best) - 4

        def width(values: Tensor, near: Tensor = near) -> Tensor:
            top = values.masked_fill(~near, -infinity).amax(1)
            return top - values.masked_fill(~near, infinity).amin(1)

        found[0, chosen] = grid[best.squeeze(1)]
        found[1, chosen] = near.sum(1).to(found)
        found[2, chosen] = width(grid.expand_as(cbf)) / 4
        found[3, chosen] = width(cbf) / 4
    return Search(*found.unbind())


def refine(voxels: Voxels, att: Tensor, options: LeastSquaresOptions) -> Tensor:
    """Golden-section search between the neighbours of the best grid point."""
    low = (att - options.grid_step).clamp(min=options.att_min)
    high = (att + options.grid_step).clamp(max=options.att_max)
    left = high - _GOLDEN * (high - low)
    right = low + _GOLDEN * (high - low)
    _, gain_left = voxels.profile(left, options.cbf_max)
    _, gain_right = voxels.profile(right, options.cbf_max)
    rounds = math.ceil(math.log(options.tolerance / (2 * options.grid_step), _GOLDEN))
    for _ in range(rounds):
        keep_left = gain_left > gain_right
        low, high = torch.where(keep_left, low, left), torch.where(keep_left, right, high)
        probe = torch.where(keep_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        _, gain = voxels.profile(probe, options.cbf_max)
        left, right = torch.where(keep_left, probe, right), torch.where(keep_left, left, probe)
        gain_left, gain_right = (
            torch.where(keep_left, gain, gain_right),
            torch.where(keep_left, gain_left, gain),
        )
    refined = (low + high) / 2
    # Kept only where it is better: flat stretches and bounds stay where the grid put them.
    candidates = torch.stack([refined, att])
    gains = torch.stack([voxels.profile(c, options.cbf_max)[1] for c in candidates])
    better = gains[0] > gains[1] + 1e-6 * gains[1].abs()
    return torch.where(better, refined, att)
