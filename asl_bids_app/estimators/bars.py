"""What the error bars of a map must hold at least, and which values flow can't have.

Standard deviations are stated by fits, by the voxelwise posterior or by networks. Three
things can refute them, whatever made them: a value that flow can't have, one delay that can't
see late arrival, and a mean of the map that is not the mean of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.limits import CBF_LIMIT
from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import Arrival

CBF_RANGE: Final = (0.0, CBF_LIMIT)
"""mL/100 g/min that flow can be. Healthy grey matter has at most about 100 (children, Biagi
2007, doi:10.1002/jmri.20839); twice that leaves room for luxury perfusion and hypercapnia."""
CBF_MEANINGLESS: Final = -50.0
"""mL/100 g/min: an estimate below zero by as much as grey matter's whole flow says nothing of
flow, however wide its error bar."""
WITHIN: Final = 1.959964
"""Standard deviations on either side that hold 95 % of normal errors."""
SHARED_NOISE: Final = 3.0
"""Factor on the standard error of a brain's mean: neighbours share noise (blur of the readout,
motion, physiology), about ten voxels to one that is independent."""
OFFSET: Final = (0.05, 1.0)
"""A mean is off from which part of itself, and from which mL/100 g/min."""

NO_FLOW: Final = 5.0
"""mL/100 g/min: a brain's mean by its signal below which it isn't called flow; half of what the
plausibility of grey matter begins with."""


def without_nonsense(maps: ParameterMaps, mask: Tensor) -> ParameterMaps:
    """Flag what flow can't be, and widen its error bars until they reach what it can.

    A value is flagged (`Flag.CBF_IMPLAUSIBLE`) if its 95 % error bar doesn't reach `CBF_RANGE`,
    or if the value is above the range or below `CBF_MEANINGLESS` itself. The truth lies in the
    range, so the error is at least the distance d to it, and for a normal error of that size
    the likeliest standard deviation is d: the bar becomes no narrower than that. Slightly
    negative values that noise explains keep their bars, and without them means would be biased.

    Parameters
    ----------
    maps
        Of any estimator.
    mask : Tensor of bool, shape (n_slices, H, W)

    Returns
    -------
    ParameterMaps
        The same estimates.
    """
    low, high = CBF_RANGE
    cbf, sd = maps.cbf, maps.cbf_sd
    beyond = torch.maximum(low - cbf, cbf - high).clamp(min=0)
    failed = (maps.flags & int(Flag.FAILED)) > 0
    flagged = (beyond > WITHIN * sd) | (cbf > high) | (cbf < CBF_MEANINGLESS)
    flagged = flagged & mask & ~failed
    return replace(
        maps,
        cbf_sd=torch.where(flagged, torch.maximum(sd, beyond), sd),
        flags=maps.flags | flagged.to(torch.uint8) * int(Flag.CBF_IMPLAUSIBLE),
    )


def with_late_arrival(
    observation: Observation, maps: ParameterMaps, posterior_sd: Tensor
) -> ParameterMaps:
    """Let the error bars of a single delay hold blood that comes later than the prior says.

    Networks learn how transit times are spread in their training, so that they trust one delay
    more than it can tell: a patient in whom all blood is late looks like one with little flow.
    Added is what CBF would gain for the same signal if ATT were one standard deviation of the
    prior above its mean.

    Parameters
    ----------
    observation
        What the maps were made from.
    maps
        With their `ParameterMaps.att_prior`.
    posterior_sd : Tensor, shape (n_slices, H, W)
        Standard deviation of CBF by the voxelwise posterior, mL/100 g/min. It knows how much
        flow there can be, so no more than this is added: where nothing arrives one standard
        deviation later, the gain would be endless.

    Returns
    -------
    ParameterMaps
        The same maps if there is more than one measurement, or for VSASL, whose label needs no
        time to arrive.
    """
    prior = maps.att_prior
    selective = (observation.arrival == int(Arrival.VELOCITY_SELECTIVE)).any()
    if prior is None or observation.delta_m.shape[1] != 1 or bool(selective):
        return maps
    at = torch.tensor([prior.mean, prior.mean + prior.sd]).to(observation.delta_m)
    usual, late = observation.response(at[None])[:, 0].unbind(1)
    more = (usual / late.clamp(min=1e-12) - 1).clamp(min=0)[:, None, None] * maps.cbf.clamp(min=0)
    more = torch.minimum(more, posterior_sd)
    failed = (maps.flags & int(Flag.FAILED)) > 0
    sd = torch.where(failed, maps.cbf_sd, torch.hypot(maps.cbf_sd, more))
    att_sd = torch.where(observation.mask & ~failed, maps.att_sd.clamp(min=prior.sd), maps.att_sd)
    return replace(maps, cbf_sd=sd, att_sd=att_sd)


@dataclass(frozen=True)
class Balance:
    """The mean CBF of a brain by its maps and by its data.

    Attributes
    ----------
    of_maps : float
        Mean of the map, each voxel weighted by what its signal tells of CBF, mL/100 g/min.
    offset : float
        By how much the residuals say that it should be higher, mL/100 g/min.
    error : float
        Standard error of the offset by noise, with `SHARED_NOISE`.
    """

    of_maps: float
    offset: float
    error: float

    @property
    def of_data(self) -> float:
        """Mean CBF by the data at the maps' ATT, mL/100 g/min."""
        return self.of_maps + self.offset

    @property
    def contradicts(self) -> bool:
        """Whether the mean of the maps isn't that of the data."""
        part, least = OFFSET
        return abs(self.offset) > max(2 * self.error, part * abs(self.of_maps), least)


def balance(observation: Observation, maps: ParameterMaps) -> Balance | None:
    """Compare the mean of a CBF map with that of the data it was made from.

    The signal is linear in CBF, so the least-squares offset of a whole brain is
    Σ R r/σ² / Σ R²/σ², with R the response at the maps' ATT, r the residual and σ its noise:
    noise that hides a voxel's flow averages out over a brain.

    Parameters
    ----------
    observation
        What the maps were made from.
    maps
        Of any estimator.

    Returns
    -------
    Balance or None
        None where no voxel has signal.
    """
    usable = observation.mask & ((maps.flags & int(Flag.FAILED)) == 0)
    found = _mean_flow(observation, maps.att, maps.residual, usable)
    if found is None:
        return None
    offset, error, information = found
    of_maps = float((information * maps.cbf).sum() / information.sum())
    return Balance(of_maps, offset, error)


def mean_flow(observation: Observation, att: float) -> tuple[float, float] | None:
    """Return the mean CBF of a brain by its data at one ATT, and its standard error.

    A map's own ATT follows the noise: where nothing flows it is such that the noise looks like
    flow.

    Parameters
    ----------
    observation
        Slices of one brain.
    att
        Seconds.

    Returns
    -------
    (float, float) or None
        mL/100 g/min; None where no label has arrived by that ATT.
    """
    times = torch.full_like(observation.delta_m[:, 0], att)
    found = _mean_flow(observation, times, observation.delta_m, observation.mask)
    return None if found is None else found[:2]


def nothing_flows(flow: tuple[float, float]) -> bool:
    """Tell whether a mean flow is hardly different from zero by its standard error, or below."""
    return flow[0] < max(NO_FLOW, 2 * flow[1])


def _mean_flow(
    observation: Observation, att: Tensor, signal: Tensor, usable: Tensor
) -> tuple[float, float, Tensor] | None:
    """Return the CBF that one signal of all voxels has, its error, and each voxel's say in it."""
    weight = precision_of(observation.noise_sd).expand_as(observation.delta_m).double()
    predicted = observation.response(att).double() * usable.unsqueeze(1)
    information = (weight * predicted.square()).sum(1)
    total = float(information.sum())
    if not total > 0:
        return None
    along = float((weight * predicted * signal.double()).sum())
    return along / total, SHARED_NOISE / total**0.5, information


def with_offset(observation: Observation, maps: ParameterMaps) -> ParameterMaps:
    """Let error bars hold by how much the mean of the map contradicts that of the data.

    Networks draw noisy voxels towards what brains usually have, all in one direction, and
    their error bars know nothing of it.

    Parameters
    ----------
    observation
        What the maps were made from.
    maps
        Of an ensemble.
    """
    found = balance(observation, maps)
    if found is None:
        return maps
    off = found.offset if found.contradicts else 0.0
    flow = mean_flow(observation, maps.att_prior.mean) if maps.att_prior else None
    if flow is not None and nothing_flows(flow):
        # At the ATT that the map found for noise, noise is flow: its residuals see nothing.
        off = max(abs(off), abs(found.of_maps - flow[0]))
    offset = torch.full_like(maps.cbf_sd, off) * observation.mask
    return replace(maps, cbf_sd=torch.hypot(maps.cbf_sd, offset))
