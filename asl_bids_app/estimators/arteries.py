"""Where the signal looks like that of an artery beside the tissue, for estimates without one.

Label on its way elsewhere is seen in the arteries of a voxel as long as the delay is short
(`asl_bids_app.kinetics.arterial_response`). It is linear in the volume, so tissue and artery
together are two unknowns in closed form at each pair of arrival times of a grid. A fit without
it takes the early signal for early tissue.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation
from asl_bids_app.protocol import PRIOR_BY_ARRIVAL, Arrival, Protocol

CRITERION: Final = 12.0
"""By how much an artery must lower chi square: two more unknowns, one of which is searched for;
about 1 in 1000 voxels without one reach it."""
_FEWEST: Final = 5
"""Measurements from which four unknowns leave something to judge by."""
_TISSUE: Final = (0.1, 3.5, 35)
"""First and last ATT of the grid, s, and its points."""
_ARTERY: Final = (0.1, 1.5, 15)
"""The same of the arrival in arteries."""


def early(protocol: Protocol) -> float | None:
    """Return the earliest delay at which label is likely still in arteries, in seconds.

    That is one by which the whole bolus would have reached the tissue only for an ATT well
    below its prior's mean; None if there is none. Velocity-selective labelling has no such
    delays: its label is made where it is used. Nor have measurements whose arteries were crushed.

    Parameters
    ----------
    protocol
        Of the series.
    """
    measurements = zip(
        protocol.arrival.tolist(),
        protocol.delay.amin(0).tolist(),
        protocol.label_duration.tolist(),
        (protocol.vessels > 0).tolist(),
        strict=True,
    )
    found = []
    for kind, delay, duration, seen in measurements:
        if not seen:
            continue
        prior = PRIOR_BY_ARRIVAL[Arrival(kind)]
        since = delay - duration if kind == Arrival.PULSED else delay
        if kind != Arrival.VELOCITY_SELECTIVE and since < prior.mean - prior.sd / 4 - 1e-6:
            found.append(delay)
    return min(found, default=None)


@torch.no_grad()
def find_arteries(observation: Observation) -> Tensor:
    """Find the voxels whose signal an artery explains far better than tissue alone does.

    Parameters
    ----------
    observation
        Slices; `noise_sd` decides what is far. Measurements whose arteries were crushed don't
        count.

    Returns
    -------
    Tensor of bool, shape (B, H, W)
        Nowhere with fewer than five measurements.
    """
    mask = observation.mask
    found = torch.zeros_like(mask)
    if observation.delta_m.shape[1] < _FEWEST:
        return found
    tissue_at = torch.linspace(*_TISSUE).to(observation.delta_m)
    artery_at = torch.linspace(*_ARTERY).to(observation.delta_m)
    tissue = observation.response(tissue_at[None])
    artery = observation.arterial_response(artery_at)
    before = (artery_at[None] < tissue_at[:, None]).flatten()
    seen = (observation.vessels > 0)[:, :, None, None]
    precision = precision_of(observation.noise_sd).expand_as(observation.delta_m) * seen
    tiny = torch.finfo(tissue.dtype).tiny
    for index in range(len(mask)):
        inside = mask[index]
        if not bool(inside.any()) or not bool(artery[index].any()):
            continue
        weight = precision[index][:, inside].T
        signal = weight * observation.delta_m[index][:, inside].T
        of_tissue, of_artery = tissue[index], artery[index]
        both = (of_tissue[:, :, None] * of_artery[:, None, :]).flatten(1)
        power = (weight @ of_tissue.square()).clamp(min=tiny)
        along = (signal @ of_tissue).clamp(min=0)
        alone = along.square() / power
        # What is left of the artery once the tissue is fitted; its volume can't be negative.
        shared = (weight @ both).unflatten(1, (len(tissue_at), len(artery_at)))
        left = (signal @ of_artery).unsqueeze(1) - (along / power).unsqueeze(2) * shared
        own = (weight @ of_artery.square()).unsqueeze(1)
        room = own - shared.square() / power.unsqueeze(2)
        gain = torch.where(room > 1e-4 * own, left.clamp(min=0).square() / room.clamp(min=tiny), 0)
        together = (alone.unsqueeze(2) + gain).flatten(1).masked_fill(~before, 0)
        found[index, inside] = together.amax(1) - alone.amax(1) > CRITERION
    return found
