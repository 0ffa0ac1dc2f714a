"""What a network's corrections make of the voxelwise posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.voxel import VoxelPosterior


@dataclass(frozen=True)
class Estimate:
    """What a network says of a batch of slices; zero outside the mask.

    Attributes
    ----------
    cbf, att : Tensor, shape (B, H, W)
        mL/100 g/min, and seconds.
    cbf_log_sd, att_log_sd : Tensor, shape (B, H, W)
        Natural logarithms of their standard deviations in the same units.
    volume, volume_log_sd, artery : Tensor or None, shape (B, H, W)
        Arterial blood volume (mL/mL), the logarithm of its standard deviation, and the
        probability of an artery; None of a network that looks for none.
    """

    cbf: Tensor
    att: Tensor
    cbf_log_sd: Tensor
    att_log_sd: Tensor
    volume: Tensor | None = None
    volume_log_sd: Tensor | None = None
    artery: Tensor | None = None


ATT_UNCERTAINTY: Final = 0.05
"""Standard deviation of ATT by the calibration, s."""
CBF_TEXTURE: Final = 3.0
"""Sd of CBF between a voxel and what its neighbours let expect, mL/100 g/min."""
LEAST_VOLUME_SD: Final = 1e-5
"""mL/mL: a standard deviation of the arterial volume below it is taken as it."""
ATT_TEXTURE: Final = 0.08
"""The same of ATT, s."""


def correction_scale(sd: Tensor, shared: Tensor | float, texture: float) -> Tensor:
    """Return by how much neighbours may move a voxel, in its own unit.

    With own standard deviation s and that by the calibration, c, e² = s² + c². The
    neighbours foretell the voxel with the standard deviation `texture`, t, so the best linear
    correction is (μ - y) e²/(e² + t²), of the size e²/√(e² + t²): what is known well is left
    alone.
    """
    square = sd.square() + shared * shared
    return square * (square + texture**2).rsqrt()


_MOST: Final = 6.0
"""Natural logarithm of the most by which neighbours may change the odds of two ATTs."""


@dataclass(frozen=True)
class Moved:
    """What neighbours' knowledge of the odds makes of a posterior.

    Attributes
    ----------
    cbf, att, volume : Tensor, shape (B, H, W)
        By how much they move: mL/100 g/min, s, mL/mL; zero where the log odds are.
    artery : Tensor, shape (B, H, W)
        Probability of an artery after it.
    """

    cbf: Tensor
    att: Tensor
    volume: Tensor
    artery: Tensor


def reweighted(posterior: VoxelPosterior, log_odds: Tensor) -> Moved:
    """Return by how much CBF and ATT move if neighbours know better which ATTs are likely.

    The posterior of a noisy voxel may have two peaks, an early one with little flow and a late
    one with much. Its mean lies between them, where nothing is likely; a prior from neighbours
    decides. By Bayes' rule it multiplies p(ATT), and CBF goes along.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    log_odds : Tensor, shape (B, bins, H, W)
        Logarithm of the neighbours' prior over the prior of the posterior, up to a constant, of
        all bins of the posterior: those with an artery too, if one was looked for.

    Returns
    -------
    Moved
    """
    factor = (_MOST * torch.tanh(log_odds / _MOST)).exp()
    # Rounded alike with and without the factor, so that no factor moves nothing.
    before = posterior.att_bins.sum(1).clamp(min=1e-6)
    after = (posterior.att_bins * factor).sum(1).clamp(min=1e-6)

    def moved(share: Tensor) -> Tensor:
        return (share * factor).sum(1) / after - share.sum(1) / before

    none = torch.zeros_like(posterior.volume)
    if not posterior.bin_volume.shape[1]:
        return Moved(moved(posterior.bin_cbf), moved(posterior.bin_att), none, none)
    half = posterior.att_bins.shape[1] // 2
    artery = (posterior.att_bins[:, half:] * factor[:, half:]).sum(1) / after
    return Moved(
        moved(posterior.bin_cbf), moved(posterior.bin_att), moved(posterior.bin_volume), artery
    )


def correct_posterior(
    posterior: VoxelPosterior,
    corrections: Tensor,
    mask: Tensor,
    cbf_uncertainty: Tensor,
    att_uncertainty: Tensor,
    *,
    bins: int,
    arterial: bool,
    noise_apart: bool,
) -> Estimate:
    """Apply the corrections of a network to the posterior.

    First p(ATT) is reweighted, then what is left is added, in units of `correction_scale` and of
    log sd.

    Parameters
    ----------
    posterior
        Of every voxel for itself.
    corrections : Tensor, shape (B, 4 + bins, H, W), or 3 more with arteries
        Of `PosteriorASLNet.corrections`.
    mask : Tensor of bool, shape (B, H, W)
    cbf_uncertainty, att_uncertainty : Tensor, shape (B,)
        Standard deviations by the calibration: of CBF as a fraction, of ATT in s.
    bins
        ATTs of the network's grid.
    arterial
        Whether the network was trained to look for arteries.
    noise_apart
        Whether the scale of CBF follows its noise alone.
    """
    corrections = corrections.to(posterior.cbf)
    cbf, att, cbf_log_sd, att_log_sd = corrections[:, :4].unbind(1)
    log_odds, arteries = corrections[:, 4:].split_with_sizes(
        [bins, corrections.shape[1] - 4 - bins], 1
    )
    if arterial:
        log_odds = torch.cat([log_odds, log_odds + arteries[:, :1]], 1)
    elif posterior.bin_volume.shape[1]:
        # Trained without arteries: the odds of ATT hold beside one as well.
        log_odds = torch.cat([log_odds, log_odds], 1)
    moved = reweighted(posterior, log_odds)
    inside = mask.to(posterior.cbf)
    cbf_sd, att_sd = posterior.cbf_sd.clamp(min=1e-6), posterior.att_sd.clamp(min=1e-6)
    own_sd = posterior.cbf_noise_sd if noise_apart else cbf_sd
    cbf_shared, att_shared = (sd[:, None, None] for sd in (cbf_uncertainty, att_uncertainty))
    cbf_scale = correction_scale(own_sd, cbf_shared * posterior.cbf, CBF_TEXTURE)
    att_scale = correction_scale(att_sd, att_shared, ATT_TEXTURE)
    found = Estimate(
        (posterior.cbf + moved.cbf + cbf_scale * cbf) * inside,
        (posterior.att + moved.att + att_scale * att) * inside,
        (cbf_sd.log() + cbf_log_sd) * inside,
        (att_sd.log() + att_log_sd) * inside,
    )
    if not posterior.bin_volume.shape[1]:
        return found
    volume_sd = posterior.volume_sd.clamp(min=LEAST_VOLUME_SD)
    own, width = arteries[:, 1:].unbind(1) if arterial else (0.0, 0.0)
    return replace(
        found,
        volume=(posterior.volume + moved.volume + volume_sd * own) * inside,
        volume_log_sd=(volume_sd.log() + width) * inside,
        artery=moved.artery * inside,
    )
