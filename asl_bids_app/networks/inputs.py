"""What `PosteriorASLNet` sees: maps of the voxelwise posteriors, in fixed scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import Arrival

OF_NEIGHBOURS: Final = ((0, 1, 2, 3, 5, 6, 10), (0, 1, 2, 3, 7))
"""Maps of `own_maps` (with the noise apart) and of `pooled_maps` that the next slices see."""
POOLED_MAPS: Final = 9 + len(Arrival)
"""Number of the maps of the neighbourhood's posterior."""
SHOWN_MAPS: Final = sum(map(len, OF_NEIGHBOURS))
"""Number of the maps that a slice shows to those beside it."""
ARTERIAL_MAPS: Final = 5
"""Number of the maps of arteries."""
ANATOMY_MAPS: Final = 5
"""Number of the maps of M0 and tissue."""

_VARIED: Final = 3.5e-4
"""ΔM/M0 by which neighbours differ though nothing is noisy: a twentieth of grey matter's."""


def pooled(observation: Observation, window: int) -> Observation:
    """Average the signals over a square window within the mask, weighted by 1/variance.

    Neighbours are not alike, so the noise assumed has a floor.

    Parameters
    ----------
    observation
        Slices.
    window
        Side of the square, odd.
    """
    inside = observation.mask.unsqueeze(1).to(observation.delta_m)
    weight = precision_of(observation.noise_sd) * inside

    def total(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, 1, window // 2, divisor_override=1)

    variance = total(weight).reciprocal()
    signal = total(weight * observation.delta_m) * variance.clamp(max=1e12)
    return replace(
        observation,
        delta_m=signal * inside,
        noise_sd=(variance + _VARIED**2).sqrt(),
    )


def own_maps(
    posterior: VoxelPosterior, inside: Tensor, uncertainty: Tensor, noise_apart: bool = False
) -> list[Tensor]:
    """Turn a voxelwise posterior into input maps.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    inside : Tensor, shape (B, H, W)
        1 in the mask.
    uncertainty : Tensor, shape (B,)
        `Observation.calibration_uncertainty`.
    noise_apart
        Whether the noise of CBF is a map of its own.

    Returns
    -------
    list of Tensor
        Each (B, H, W, some channels). Outside the mask they hold anything.
    """
    # The sds are zero outside the mask.
    cbf_sd = posterior.cbf_sd.clamp(min=1e-3)
    att_sd = posterior.att_sd.clamp(min=1e-4)
    certainty = posterior.cbf / cbf_sd / 5
    columns = [
        posterior.cbf / 50,
        (cbf_sd / 10).log(),
        posterior.att - 1.3,
        (att_sd / 0.3).log(),
        posterior.correlation,
        inside,
        certainty * (1 + certainty.square()).rsqrt(),
        posterior.cbf_sd / 20,
        uncertainty.to(inside)[:, None, None].expand_as(inside),
        posterior.misfit.clamp(max=4) - 1,
    ]
    if noise_apart:
        columns.append((posterior.cbf_noise_sd.clamp(min=1e-3) / 10).log())
    residual = posterior.residual.permute(0, 2, 3, 1).clamp(-2, 2)
    bins = posterior.att_bins
    if posterior.bin_volume.shape[1]:
        without, within = bins.chunk(2, 1)
        bins = without + within
    return [torch.stack(columns, 3), bins.permute(0, 2, 3, 1), residual]


def pooled_maps(around: VoxelPosterior, posterior: VoxelPosterior) -> Tensor:
    """Turn the posterior of the neighbourhood into input maps (B, H, W, 12).

    Its residuals tell what averaging doesn't remove: noise that neighbours share, motion,
    drift, and a calibration that is off.
    """
    columns = [
        around.cbf / 50,
        (around.cbf_sd.clamp(min=1e-3) / 10).log(),
        around.att - 1.3,
        (around.att_sd.clamp(min=1e-4) / 0.3).log(),
        around.correlation,
        ((around.cbf - posterior.cbf) / posterior.cbf_sd.clamp(min=1e-3)).clamp(-4, 4),
        ((around.att - posterior.att) / posterior.att_sd.clamp(min=1e-4)).clamp(-4, 4),
        (around.cbf / around.cbf_sd.clamp(min=1e-3) / 15).tanh(),
        around.misfit.clamp(max=4) - 1,
    ]
    residual = around.residual.permute(0, 2, 3, 1).clamp(-2, 2)
    return torch.cat([torch.stack(columns, 3), residual], 3)


def neighbour_maps(maps: Tensor, follows: Tensor) -> Tensor:
    """Give every slice the maps of the slices below and above it, zero where there is none.

    Parameters
    ----------
    maps : Tensor, shape (B, C, H, W)
        Of slices in the order of their volume.
    follows : Tensor of bool, shape (B - 1,)
        `Observation.follows`.

    Returns
    -------
    Tensor, shape (B, 2 C, H, W)
    """
    follows = follows[:, None, None, None]
    none = torch.zeros_like(maps[:1])
    below = torch.cat([none, maps[:-1] * follows])
    above = torch.cat([maps[1:] * follows, none])
    return torch.cat([below, above], 1)


_LOCAL: Final = 15
"""Side in voxels of the square whose mean the M0 is compared with."""


def arterial_maps(posterior: VoxelPosterior) -> Tensor:
    """Turn what a posterior says of arteries into input maps (B, H, W, 5).

    The odds of an artery, its volume and its standard deviation, and by how much CBF and ATT would
    differ if there were one.
    """
    half = posterior.att_bins.shape[1] // 2
    artery = posterior.artery.clamp(1e-4, 1 - 1e-4)

    def between(shares: Tensor) -> Tensor:
        without, within = shares[:, :half].sum(1), shares[:, half:].sum(1)
        return within / artery - without / (1 - artery)

    columns = [
        torch.logit(artery) / 5,
        (posterior.volume / 0.01).tanh(),
        (posterior.volume_sd / 0.01).tanh(),
        (between(posterior.bin_cbf) / 20).tanh(),
        between(posterior.bin_att).clamp(-2, 2),
    ]
    return torch.stack(columns, 3)


def anatomy_maps(observation: Observation) -> Tensor:
    """Turn M0 and tissue fractions into input maps (B, H, W, 5).

    The M0 relative to its mean around and to that of the slice (what is left of coils and
    contrast), whether it is known, and the fractions of grey and white matter.
    """
    m0, grey, white = observation.anatomy.unbind(1)
    inside = (observation.mask & (m0 > 0)).to(m0)
    level = torch.where(inside > 0, m0.clamp(min=1e-12).log(), 0.0)
    count = inside.sum((1, 2), keepdim=True).clamp(min=1)
    level = (level - level.sum((1, 2), keepdim=True) / count) * inside

    def around(values: Tensor) -> Tensor:
        total = functional.avg_pool2d(
            values.unsqueeze(1), _LOCAL, 1, _LOCAL // 2, divisor_override=1
        )
        return total.squeeze(1)

    local = (level - around(level) / around(inside).clamp(min=1)) * inside
    columns = [(local / 0.15).clamp(-4, 4), (level / 0.3).clamp(-4, 4), inside, grey, white]
    return torch.stack(columns, 3)
