"""What the data of each voxel say for and against an artery, whatever its prior of ATT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.networks.arterial import ArterialPrior, arterial_branch
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.observation import Observation

CBF_SD: Final = 12.0
"""mL/100 g/min: how far the first map of CBF may be off."""
VOLUME_SD: Final = 0.01
"""mL/mL, of the half-normal prior of the volume: most vessels fill a small part of a voxel."""
_STRIDE: Final = 2
"""Points of the posterior's grid that are taken together."""


@dataclass(frozen=True)
class ArterialEvidence:
    """What the data of each voxel say, whatever its prior of ATT; V voxels, G points of ATT.

    Attributes
    ----------
    mask : Tensor of bool, shape (S, H, W)
        The V voxels.
    att : Tensor, shape (G,)
        Seconds.
    without, within : Tensor, shape (V, G)
        Logarithm of the evidence without and with an artery.
    volume, volume_square : Tensor, shape (V, G)
        Mean of the volume and of its square if there is an artery, mL/mL.
    shown, shown_square : Tensor, shape (V, G, n)
        The same of its part of each measurement, ΔM/M0.
    """

    mask: Tensor
    att: Tensor
    without: Tensor
    within: Tensor
    volume: Tensor
    volume_square: Tensor
    shown: Tensor
    shown_square: Tensor


@torch.no_grad()
def arterial_evidence(observation: Observation, cbf: Tensor) -> ArterialEvidence:
    """Compute what speaks for an artery in each voxel, for every ATT of the tissue.

    Parameters
    ----------
    observation
        The slices of a series, with their noise.
    cbf : Tensor, shape (S, H, W)
        A first map, mL/100 g/min.
    """
    like = observation.delta_m
    grid = PosteriorGrid()
    att = grid.att.to(like).unflatten(0, (-1, _STRIDE)).mean(1)
    prior = ArterialPrior(chance=0.5, volume_sd=VOLUME_SD)
    curves = observation.response(att[None])
    vessels = observation.arterial_response(like.new_tensor(prior.arrivals))
    precision = precision_of(observation.noise_sd).expand_as(like)
    # Filled slice by slice: parts that are joined at the end would be there twice.
    voxels, measured = int(observation.mask.sum()), like.shape[1]
    per_att = [like.new_empty(voxels, len(att)) for _ in range(4)]
    per_measurement = [like.new_empty(voxels, len(att), measured) for _ in range(2)]
    first_row = 0
    for index, inside in enumerate(observation.mask):
        weight = precision[index][:, inside].T
        weighted = like[index][:, inside].T * weight
        tissue, artery = curves[index], vessels[index]
        curvature = weight @ tissue.square() + CBF_SD**-2
        start = cbf[index][inside].to(like)[:, None] * CBF_SD**-2
        mean = (weighted @ tissue + start) / curvature
        without = grid.spacing(att).log() - 0.5 * curvature.log() + 0.5 * curvature * mean.square()
        values = (weighted, weight, tissue, artery, mean, curvature)
        branch = arterial_branch(prior, *(*(x[None] for x in values), att))
        gain = branch.log_gain[:, 0]
        best = gain.logsumexp(0)
        # No arrival comes before the earliest ATT: there is no artery there.
        share = (gain - best.clamp(min=-1e4)).exp()
        volume, square = share * branch.volume[:, 0], share * branch.volume_square[:, 0]
        rows = slice(first_row, first_row + len(weight))
        first_row += len(weight)
        found = (without, without + best, volume.sum(0), square.sum(0))
        for target, part in zip(per_att, found, strict=True):
            target[rows] = part
        per_measurement[0][rows] = torch.einsum("kvg,nk->vgn", volume, artery)
        per_measurement[1][rows] = torch.einsum("kvg,nk->vgn", square, artery.square())
    return ArterialEvidence(observation.mask, att, *per_att, *per_measurement)
