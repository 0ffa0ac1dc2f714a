"""What the members of a model make together of a batch of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Final

import torch
from torch import Tensor

from asl_bids_app.estimators.arteries import FEWEST_FOR_POSTERIOR, shows_arteries
from asl_bids_app.estimators.bayes import open_att
from asl_bids_app.estimators.boxes import with_neighbours
from asl_bids_app.estimators.features import (
    measurement_counts,
    open_all_around,
    over_slices,
    roughness,
)
from asl_bids_app.models.uncertainty import FEATURES, total_variance
from asl_bids_app.networks.analytic import voxel_posterior
from asl_bids_app.networks.arterial import ArterialPrior
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.networks.network import Network
from asl_bids_app.networks.voxel import VoxelPosterior
from asl_bids_app.observation import Observation
from asl_bids_app.series import Series

ANSWERS: Final = (*FEATURES, "undetermined", "artery", "volume", "volume_sd")
"""Maps that `Ensemble.estimate` returns, before the arteries' part of each measurement."""
_MOST: Final = 10.0
"""Times by which neighbours may make an artery's signal larger than its own voxel says."""
_FLIPS: Final = ((), (-2, -1), (-1,), (-2,))
"""Axes along which a slice is flipped."""


def orientations(members: int, tta: bool) -> list[tuple[tuple[int, ...], ...]]:
    """Return the axes along which each member sees a slice flipped, once or several times.

    All members together see all four flips: one by itself four, of two or three each two, of more
    each one. Four by every one of five members gave the same errors in four times the time.
    """
    if not tta:
        return [_FLIPS[:1]] * members
    each = -(-len(_FLIPS) // members)
    turns = [_FLIPS[start : start + each] for start in range(0, len(_FLIPS), each)]
    return list(islice(cycle(turns), members))


def grid_for(member: Network, grid: PosteriorGrid, series: Series) -> PosteriorGrid:
    """Return a model's grid, with the scheme's own prior of ATT for a single delay.

    Networks were trained with one prior for all schemes. Of several delays they keep it: in
    grey matter of PASL the scheme's own made their maps worse, and the data outweigh it
    anyhow. Of one delay ATT is the prior's.
    """
    schemes = series.protocol.schemes
    trained = PosteriorGrid()
    same = (grid.att_mean, grid.att_sd) == (trained.att_mean, trained.att_sd)
    if len(schemes) > 1 or not same or not hasattr(member, "grid"):
        return grid
    return grid.for_schemes(schemes)


def arteries_for(member: Network, series: Series) -> ArterialPrior | None:
    """Return what is believed of arteries, if there is a delay that could show them."""
    if not hasattr(member, "arterial"):
        return None
    own: ArterialPrior | None = member.arterial
    shown = shows_arteries(series.protocol, FEWEST_FOR_POSTERIOR)
    return (own or ArterialPrior()) if shown or own else None


def estimate_slices(
    observation: Observation,
    chosen: Tensor,
    members: Sequence[Network],
    device: torch.device,
    other: Mapping[str, Any],
    *,
    grid: PosteriorGrid,
    tta: bool,
) -> Tensor:
    """Return the answers of all members together for some slices.

    Parameters
    ----------
    observation
        Slices and their neighbours.
    chosen : Tensor of int, shape (B,)
        Places of the slices to estimate.
    members
        On the device.
    device
        Where the networks run; what comes before them may run elsewhere.
    other
        Arguments of the members' `prepare`.
    grid
        Of the model.
    tta
        Let the members see each slice in several `orientations`.

    Returns
    -------
    Tensor, shape (answers, B, H, W)
        See `Ensemble.estimate`.
    """
    # Apple's GPUs have no double precision, which the analytic layer may need.
    first = torch.device("cpu") if device.type == "mps" else device
    # `beside` counts channels: how far a network looks is one slice, or none.
    reach = int(getattr(members[0], "beside", 0) > 0)
    around, rows = with_neighbours(chosen, reach, len(observation))
    seen = observation[around].to(first)
    context, maps = members[0].prepare(seen, **other)
    observation, maps = seen[rows], maps[rows].to(device)
    if isinstance(context, VoxelPosterior):
        posterior = context[rows]
        context = posterior.to(device)
    else:
        posterior = voxel_posterior(observation, grid)
    mask = observation.mask.to(device)
    uncertainty = observation.calibration_uncertainty.to(device)
    each = [
        _ask_member(member, seen, context, maps, mask, uncertainty)
        for member, seen in zip(members, orientations(len(members), tta), strict=True)
    ]
    found = torch.stack(each)
    cbf, cbf_variance = total_variance(found[:, 0], found[:, 2])
    att, att_variance = total_variance(found[:, 1], found[:, 3])
    alone = open_att(posterior, observation.mask, other.get("grid", grid))
    volume, volume_variance = total_variance(found[:, 4], found[:, 5])
    cbf_spread, att_spread = found[:, :2].std(0, correction=0)
    answers = {
        "cbf": cbf,
        "att": att,
        "cbf_sd": cbf_variance.sqrt(),
        "att_sd": att_variance.sqrt(),
        "posterior_cbf_sd": posterior.cbf_sd,
        "posterior_att_sd": posterior.att_sd,
        "posterior_cbf_noise_sd": posterior.cbf_noise_sd,
        "cbf_spread": cbf_spread,
        "att_spread": att_spread,
        "cbf_roughness": roughness(cbf, mask),
        "att_roughness": roughness(att, mask),
        "misfit": over_slices(posterior.misfit, mask),
        "shared_misfit": over_slices(members[0].shared_misfit(maps), mask),
        "undetermined": open_all_around(alone, observation.mask),
        **measurement_counts(observation),
        "artery": found[:, 6].mean(0),
        "volume": volume,
        "volume_sd": volume_variance.sqrt(),
    }
    stacked = torch.stack([answers[name].to(cbf) for name in ANSWERS])
    if not posterior.bin_volume.shape[1]:
        return stacked
    # Neighbours change the odds of an artery; its signal goes along with its volume.
    change = (volume.clamp(min=0).to(posterior.cbf) / posterior.volume.clamp(min=1e-7)).clamp(
        max=_MOST
    )
    shown = posterior.vessels * change.unsqueeze(1)
    return torch.cat([stacked, shown.transpose(0, 1).to(stacked)])


def _ask_member(
    member: Network,
    flips: Sequence[tuple[int, ...]],
    context: VoxelPosterior | None,
    maps: Tensor,
    mask: Tensor,
    uncertainty: Tensor,
) -> Tensor:
    """Return what one member says, flips averaged, (7, B, H, W).

    CBF, ATT and their variances; arterial volume, its variance, probability of an artery.
    """
    estimates = []
    for axes in flips:
        answer = member.corrections(maps.flip(axes)).flip(axes)
        estimate = member.correct(context, answer, mask, uncertainty)
        variances = [
            torch.exp(2 * log_sd) * mask for log_sd in (estimate.cbf_log_sd, estimate.att_log_sd)
        ]
        arteries = [torch.zeros_like(estimate.cbf)] * 3
        volume, log_sd, artery = estimate.volume, estimate.volume_log_sd, estimate.artery
        if volume is not None and log_sd is not None and artery is not None:
            arteries = [volume, torch.exp(2 * log_sd) * mask, artery]
        estimates.append(torch.stack([estimate.cbf, estimate.att, *variances, *arteries]))
    return torch.stack(estimates).mean(0)
