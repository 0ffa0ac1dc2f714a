"""The voxelwise posterior: mean and standard deviation of CBF and ATT under broad priors.

It serves any protocol, one of a single delay too: there ATT stays near its prior and its
standard deviation says so.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from asl_bids_app.estimators.arteries import FEWEST_FOR_POSTERIOR, LIKELY, shows_arteries
from asl_bids_app.estimators.bars import without_nonsense
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.noise import noise_level
from asl_bids_app.estimators.voxel_fit import residual
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation, observe
from asl_bids_app.options import defaults
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.series import Series

_OPEN = 0.75
"""Part of the prior's sd that is left of ATT's from which the data don't determine it.

One delay leaves 0.76 and more at any noise: it tells at most that blood has arrived.
"""


def observe_usable(
    series: Series, calibration_uncertainty: float = 1.0
) -> tuple[Observation, Tensor]:
    """Observe a series, and find the voxels of which it tells nothing.

    Parameters
    ----------
    series
        Calibrated series.
    calibration_uncertainty
        Of the observation.

    Returns
    -------
    observation : Observation
    failed : Tensor of bool, shape (n_slices, H, W)
        Voxels of the mask whose noise is no number in every measurement. A signal of 0 is a
        measurement like any other; what the scanner blanked isn't in the mask.
    """
    observation = observe(series, noise_level(series), calibration_uncertainty)
    noise = observation.noise_sd.nan_to_num(torch.inf, torch.inf)
    failed = torch.isinf(noise).all(1) & observation.mask
    return replace(observation, noise_sd=noise), failed


def prior_att_sd(grid: PosteriorGrid) -> float:
    """Return the standard deviation of the prior of ATT, cut to the grid, in seconds."""
    att = grid.att
    weight = (grid.log_prior(att) + grid.spacing(att).log()).softmax(0)
    mean = (weight * att).sum()
    return float((weight * (att - mean).square()).sum().sqrt())


def open_att(posterior: VoxelPosterior, mask: Tensor, grid: PosteriorGrid) -> Tensor:
    """Find the voxels whose own data hardly narrow the prior of ATT; bool, (B, H, W)."""
    return mask & (posterior.att_sd > _OPEN * prior_att_sd(grid))


def too_few(observation: Observation) -> Tensor:
    """Find the voxels with one measurement: two unknowns, so that ATT is the prior's."""
    there = observation.noise_sd.isfinite().expand_as(observation.delta_m)
    return observation.mask & (there.sum(1) < 2)


class Bayes:
    """The voxelwise posterior as an estimator.

    Parameters
    ----------
    grid
        Priors and the grid over ATT; by default the prior of the series' labelling scheme.
    tell
        Takes how many slices are done.
    arterial
        Look for arteries beside the tissue, if a delay is early enough to show them.
    """

    name = "bayes"

    def __init__(
        self,
        grid: PosteriorGrid | None = None,
        tell: OnProgress = no_progress,
        arterial: bool = defaults.ARTERIAL,
    ) -> None:
        self.grid = grid
        self.tell = tell
        self.arterial = arterial

    @torch.no_grad()
    def fit(self, series: Series) -> ParameterMaps:
        """Estimate CBF and ATT inside the mask of a series."""
        observation, failed = observe_usable(series)
        schemes = series.protocol.schemes
        grid = self.grid or PosteriorGrid().for_schemes(schemes)
        shown = self.arterial and shows_arteries(series.protocol, FEWEST_FOR_POSTERIOR)
        arterial = ArterialPrior() if shown else None
        posterior = voxel_posterior(observation, grid, self.tell, arterial)
        if shown:
            # What is left is tissue's, and noise.
            left = series.without_arteries(posterior.vessels)
            observation = replace(observation, delta_m=left.delta_m)
        cbf = posterior.cbf.masked_fill(failed, 0.0)
        reach = grid.spacing(grid.att[[0, -1]]).to(cbf)
        at_bound = (posterior.att < grid.att_min + reach[0]) | (
            posterior.att > grid.att_max - reach[1]
        )
        flags = flag_bits(
            {
                Flag.ATT_AT_BOUND: at_bound & observation.mask & ~failed,
                Flag.FAILED: failed,
                Flag.ATT_UNIDENTIFIABLE: (
                    open_att(posterior, observation.mask, grid) | too_few(observation)
                )
                & ~failed,
                Flag.ARTERY: (posterior.artery > LIKELY) & ~failed,
            }
        )
        left_over = residual(observation, cbf, posterior.att)
        maps = ParameterMaps(
            cbf,
            posterior.att,
            posterior.cbf_sd,
            posterior.att_sd,
            left_over,
            flags,
            self.name,
            att_prior=grid.prior(schemes),
            abv=100 * posterior.volume if shown else None,
            abv_sd=100 * posterior.volume_sd if shown else None,
            vessels=posterior.vessels if shown else None,
        )
        return without_nonsense(maps, series.mask)


def flag_bits(flags: dict[Flag, Tensor]) -> Tensor:
    """Pack masks into the bits of `Flag`, uint8."""
    packed = torch.zeros_like(next(iter(flags.values())), dtype=torch.uint8)
    for bit, where in flags.items():
        packed |= where.to(torch.uint8) * int(bit)
    return packed
