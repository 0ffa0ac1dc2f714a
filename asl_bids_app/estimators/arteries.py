"""An artery beside the tissue in a least-squares fit: where it pays, and what it explains.

Label on its way elsewhere is seen in the arteries of a voxel as long as the delay is short
(`asl_bids_app.kinetics.arterial_response`). It is linear in the volume, so tissue and artery
together are two unknowns in closed form at each pair of arrival times of a grid, neither of them
negative. A fit without it takes the early signal for early tissue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation
from asl_bids_app.protocol import Protocol
from asl_bids_app.scheme_fields import Arrival
from asl_bids_app.schemes import PRIOR_BY_ARRIVAL

CRITERION: Final = 12.0
"""By how much an artery must lower chi square: two more unknowns, one of which is searched for;
about 1 in 1000 voxels without one reach it."""
LARGEST: Final = 0.3
"""mL/mL: the largest volume. Near the edges of the label an artery has next to no signal, and
noise would be a volume without end. A voxel of 3 mm beside the brain's largest arteries has less.
"""
LIKELY: Final = 0.5
"""Probability by a posterior from which a voxel is flagged as one with an artery."""
FEWEST: Final = 5
"""Measurements from which four unknowns leave something to judge by."""
FEWEST_FOR_POSTERIOR: Final = 2
"""The same for a posterior, whose priors stand in for what is missing."""
_GRIDS: Final = (((0.1, 3.5, 35), (0.1, 1.5, 15)), ((0.1, 3.5, 69), (0.1, 1.5, 29)))
"""First and last ATT and arrival in arteries, s, and their points: a coarse grid for all voxels,
and a fine one where the coarse one finds that an artery may pay."""
_MAYBE: Final = 0.5
"""Share of `CRITERION` from which the fine grid looks again."""
_INTERVAL: Final = 4.0
"""Chi square by which the pairs of a 95 % interval may be worse than the best one."""
_CHUNK: Final = 2048
"""Voxels at a time; a hundred take 3 MB."""


def find_early_delay(protocol: Protocol) -> float | None:
    """Return the earliest delay at which label is likely still in arteries, in seconds.

    That is one by which the whole bolus would have reached the tissue only for an ATT well
    below its prior's mean; None if there is none. Velocity-selective labelling has no such
    delays: its label is made where it is used. Nor has a measurement whose arteries were crushed.

    Parameters
    ----------
    protocol
        Of the series.
    """
    delays = protocol.delay.amin(0).tolist()
    durations = protocol.label_duration.tolist()
    kinds, seen = protocol.arrival.tolist(), protocol.vessels.tolist()
    found = []
    for kind, delay, duration, shown in zip(kinds, delays, durations, seen, strict=True):
        prior = PRIOR_BY_ARRIVAL[Arrival(kind)]
        since = delay - duration if kind == Arrival.PULSED else delay
        if kind == Arrival.VELOCITY_SELECTIVE or not shown:
            continue
        if since < prior.mean - prior.sd / 4 - 1e-6:
            found.append(delay)
    return min(found, default=None)


def shows_arteries(protocol: Protocol, fewest: int = FEWEST) -> bool:
    """Tell whether arteries can be found: an early delay, and enough to judge by beside it.

    Parameters
    ----------
    protocol
        Of the series.
    fewest
        Measurements that it takes; a posterior, which has priors, needs two.
    """
    return protocol.n_measurements >= fewest and find_early_delay(protocol) is not None


@dataclass(frozen=True)
class ArterialFit:
    """Tissue and artery by least squares; fields (B, H, W) but for one; 0 outside the mask.

    Attributes
    ----------
    found : Tensor of bool
        Where the artery pays: it lowers chi square by more than `CRITERION`.
    volume, volume_sd : Tensor
        mL/mL, and its standard error; the volume is 0 where no artery was found.
    arrival : Tensor
        Seconds: when the artery fills.
    cbf_sd, att_sd : Tensor
        Where an artery was found: a quarter of the range that CBF and ATT have over the pairs of
        arrival times in the 95 % interval by the profile likelihood, mL/100 g/min and s.
    vessels : Tensor, shape (B, n, H, W)
        The artery's ΔM/M0 in every measurement.
    """

    found: Tensor
    volume: Tensor
    volume_sd: Tensor
    arrival: Tensor
    cbf_sd: Tensor
    att_sd: Tensor
    vessels: Tensor

    def restrict_to(self, kept: Tensor) -> ArterialFit:
        """Return the fit with the arteries of a mask (B, H, W) alone."""
        found = self.found & kept
        values = {
            name: getattr(self, name) * found for name in ("volume", "arrival", "cbf_sd", "att_sd")
        }
        vessels = self.vessels * found.unsqueeze(1)
        return replace(self, found=found, vessels=vessels, **values)


def find_arteries(observation: Observation) -> Tensor:
    """Find the voxels whose signal an artery explains far better than tissue alone does.

    Parameters
    ----------
    observation
        Slices; `noise_sd` decides what is far.

    Returns
    -------
    Tensor of bool, shape (B, H, W)
        Nowhere with fewer than five measurements.
    """
    return fit_arteries(observation).found


@torch.no_grad()
def fit_arteries(observation: Observation) -> ArterialFit:
    """Fit tissue and an artery to every voxel, and keep the artery where it pays.

    Parameters
    ----------
    observation
        Slices, with their noise.

    Returns
    -------
    ArterialFit
        No artery anywhere with fewer than five measurements, or where vessels were crushed.

    References
    ----------
    Chappell 2010, doi:10.1002/mrm.22320.
    """
    mask, like = observation.mask, observation.delta_m
    maps = torch.zeros(6, *mask.shape).to(like)
    precision = precision_of(observation.noise_sd).expand_as(like)
    look = mask if like.shape[1] >= FEWEST else torch.zeros_like(mask)
    for ends, criterion in zip(_GRIDS, (_MAYBE * CRITERION, CRITERION), strict=True):
        tissue_at, artery_at = (torch.linspace(*end).to(like) for end in ends)
        tissue = observation.response(tissue_at[None])
        artery = observation.arterial_response(artery_at)
        for index in look.flatten(1).any(1).nonzero().flatten().tolist():
            if not bool(artery[index].any()):
                continue
            for part in look[index].nonzero().split(_CHUNK):
                where = (index, *part.unbind(1))
                weight = precision[index][:, where[1], where[2]].T
                signal = weight * like[index][:, where[1], where[2]].T
                maps[(slice(None), *where)] = _fit(
                    signal, weight, tissue[index], artery[index], tissue_at, artery_at, criterion
                )
        look = maps[0] > 0
    vessels = maps[1].unsqueeze(1) * observation.arterial_response(maps[3])
    _, volume, volume_sd, arrival, cbf_sd, att_sd = maps
    return ArterialFit(maps[0] > 0, volume, volume_sd, arrival, cbf_sd, att_sd, vessels)


def _fit(
    signal: Tensor,
    weight: Tensor,
    of_tissue: Tensor,
    of_artery: Tensor,
    tissue_at: Tensor,
    artery_at: Tensor,
    criterion: float,
) -> Tensor:
    """Return the fields of `ArterialFit` of voxels in a row, (6, V).

    `signal` (V, n) is the data times their `weight` (V, n); curves (n, G) and (n, K).
    """
    tiny = torch.finfo(of_tissue.dtype).tiny
    pairs = (len(tissue_at), len(artery_at))
    power = (weight @ of_tissue.square()).clamp(min=tiny)
    own = (weight @ of_artery.square()).clamp(min=tiny).unsqueeze(1)
    along, onto = signal @ of_tissue, (signal @ of_artery).unsqueeze(1)
    shared = (weight @ (of_tissue[:, :, None] * of_artery[:, None, :]).flatten(1)).unflatten(
        1, pairs
    )
    alone = along.clamp(min=0).square() / power
    # What is left of the artery once the tissue is fitted; where it looks like tissue, nothing is.
    rest = own - shared.square() / power.unsqueeze(2)
    apart = rest > 1e-4 * own
    volume = (onto - (along / power).unsqueeze(2) * shared) / rest.clamp(min=tiny)
    volume = volume.clamp(0, LARGEST).masked_fill(~apart, 0)
    along, spread = along.unsqueeze(2), power.unsqueeze(2)
    flow = (along - shared * volume) / spread
    # No flow at all beside the artery: the other edge of what both may be.
    volume = torch.where(flow < 0, (onto / own).clamp(0, LARGEST), volume)
    flow = flow.clamp(min=0)
    # By how much the two lower chi square, at an edge of what they may be too.
    gain = flow * (2 * (along - volume * shared) - flow * spread)
    gain = gain + volume * (2 * onto - volume * own)
    before = artery_at[None] < tissue_at[:, None]
    gain = gain.masked_fill(~before, 0).flatten(1)
    best = gain.argmax(1, keepdim=True)
    found = gain.gather(1, best) - alone.amax(1, keepdim=True) > criterion

    def at_best(values: Tensor) -> Tensor:
        return values.expand_as(rest).flatten(1).gather(1, best)

    inside = (gain >= gain.gather(1, best) - _INTERVAL).unflatten(1, pairs)

    def quarter_of_range(values: Tensor) -> Tensor:
        values = values.expand_as(rest)
        top = values.masked_fill(~inside, -torch.inf).flatten(1).amax(1, keepdim=True)
        return (top - values.masked_fill(~inside, torch.inf).flatten(1).amin(1, keepdim=True)) / 4

    return torch.cat(
        [
            found.to(rest),
            at_best(volume) * found,
            at_best(rest).clamp(min=1e-4 * at_best(own)).rsqrt(),
            artery_at[best % len(artery_at)] * found,
            quarter_of_range(flow) * found,
            quarter_of_range(tissue_at[:, None]) * found,
        ],
        1,
    ).T
