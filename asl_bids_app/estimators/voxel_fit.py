"""Least squares of every voxel: CBF and ATT, their errors, and where the data leave ATT open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asl_bids_app.estimators.base import Flag
from asl_bids_app.estimators.grid_search import (
    LeastSquaresOptions,
    Voxels,
    refine,
    search_grid,
)
from asl_bids_app.observation import Observation
from asl_bids_app.progress_callback import OnProgress, no_progress
from asl_bids_app.schemes import PRIOR_BY_ARRIVAL

_WIDE = 6
"""Grid points in the 95 % interval from which its width is taken from the grid."""
_OPEN = 0.7
"""ATT counts as not identifiable if its 95 % interval is more than this part of its range."""


@dataclass(frozen=True)
class _Fit:
    """Result for voxels in a row, each field of shape (V,)."""

    cbf: Tensor
    att: Tensor
    cbf_sd: Tensor
    att_sd: Tensor
    flags: Tensor


def _uncertainty(
    voxels: Voxels, cbf: Tensor, att: Tensor, options: LeastSquaresOptions
) -> tuple[Tensor, Tensor]:
    """Compute the standard errors of CBF and ATT from the Jacobian, each of shape (V,).

    The range of ATT enters as the information of a uniform distribution, so that the error
    of an ATT that the data leave open is that of the range and not infinite. The curves have
    joints: the slope is taken on both sides of ATT and the side that knows more counts; what
    lies on the other side is the grid's to say.
    """
    # Double precision: where CBF and ATT are one product, their informations cancel.
    fine = Voxels(
        voxels.signal.double(),
        voxels.weight.double(),
        tuple(p if p.dtype == torch.int64 else p.double() for p in voxels.physics),
        voxels.prior,
        voxels.prior_sd,
    )
    tiny = torch.finfo(torch.float64).tiny
    floor = 12 / (options.att_max - options.att_min) ** 2
    cbf, att = cbf.double(), att.double()
    predicted = fine.response(att)
    information_cbf = (fine.weight * predicted**2).sum(1).clamp(min=tiny)
    sides = []
    for step in (-1e-4, 1e-4):
        by_att = cbf[:, None] * (fine.response(att + step) - predicted) / step
        information_att = (fine.weight * by_att**2).sum(1)
        shared = (fine.weight * predicted * by_att).sum(1)
        alone = information_att - shared**2 / information_cbf
        alone = torch.where(alone > 1e-9 * information_att, alone, torch.zeros_like(alone))
        variance = (information_att + floor) / (information_cbf * (alone + floor))
        sides.append(torch.stack([variance.sqrt(), (alone + floor).rsqrt()]))
    before, after = sides
    cbf_sd, att_sd = torch.where(before[1] < after[1], before, after).to(voxels.signal)
    return cbf_sd, att_sd


def _widest(options: LeastSquaresOptions) -> float:
    """Return the standard deviation of a CBF of which only its range is known."""
    return options.cbf_max / math.sqrt(12)


def _by_prior(voxels: Voxels, options: LeastSquaresOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Return CBF at the prior's ATT, its standard error, and where no label has arrived by then.

    The error holds what CBF would be had the blood come one standard deviation of the prior
    later: half the label may then be missing, and one delay can't tell that from little flow.
    """
    cbf, _ = voxels.profile(voxels.prior, options.cbf_max)
    predicted = voxels.response(voxels.prior)
    power = (voxels.weight * predicted**2).sum(1)
    early, late = (
        voxels.profile(
            (voxels.prior + sign * voxels.prior_sd).clamp(options.att_min, options.att_max),
            options.cbf_max,
        )[0]
        for sign in (-1.0, 1.0)
    )
    spread = torch.maximum((late - early).abs() / 2, (late - cbf).abs())
    variance = 1 / power.clamp(min=torch.finfo(power.dtype).tiny) + spread**2
    # Noise may be wider than the range: only the uncertainty of ATT is cut to it.
    noise = power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt()
    sd = torch.minimum(variance.sqrt(), noise.clamp(min=_widest(options)))
    return cbf, sd, predicted.amax(1) <= 0


def _fit_voxels(
    voxels: Voxels, slice_of: Tensor, observation: Observation, options: LeastSquaresOptions
) -> _Fit:
    search = search_grid(voxels, slice_of, observation, options)
    att = refine(voxels, search.att, options)
    cbf, _ = voxels.profile(att, options.cbf_max)
    cbf_sd, att_sd = _uncertainty(voxels, cbf, att, options)
    # A wide interval is the grid's to tell, a narrow one is finer than its steps; but more
    # points than the Jacobian explains are a flat stretch, whose sd is that of a uniform one.
    wide = search.points > _WIDE
    flat = search.points > 3 + 6 * att_sd / options.grid_step
    given_att = 1 / (voxels.weight * voxels.response(att) ** 2).sum(1).clamp(min=1e-30)
    cbf_sd = torch.where(wide | flat, (given_att + search.cbf_sd**2).sqrt(), cbf_sd)
    att_sd = torch.where(wide, search.att_sd, att_sd)
    att_sd = torch.where(flat, search.att_sd * 4 / math.sqrt(12), att_sd)

    # Fewer informative measurements than parameters: ATT is the prior's everywhere.
    few = (voxels.weight > 0).sum(1) < 2
    prior, prior_sd = voxels.prior, voxels.prior_sd
    prior_cbf, prior_cbf_sd, unseen = _by_prior(voxels, options)

    cbf = torch.where(few, prior_cbf, cbf)
    att = torch.where(few, prior, att)
    cbf_sd = torch.where(few, prior_cbf_sd, cbf_sd)
    att_sd = torch.where(few, prior_sd, att_sd)

    steps = (options.att_max - options.att_min) / options.grid_step
    open_att = few | (search.points > _OPEN * steps)
    at_cbf_bound = (cbf <= 0) | (cbf >= options.cbf_max)
    edge = 2 * options.tolerance
    at_att_bound = ~few & ((att <= options.att_min + edge) | (att >= options.att_max - edge))
    flags = (
        open_att.to(torch.uint8) * int(Flag.ATT_UNIDENTIFIABLE)
        + at_cbf_bound.to(torch.uint8) * int(Flag.CBF_AT_BOUND)
        + at_att_bound.to(torch.uint8) * int(Flag.ATT_AT_BOUND)
    )
    # A signal of 0 is a measurement; only where no weight is left there is none.
    failed = (voxels.weight.sum(1) == 0) | ~torch.isfinite(cbf + cbf_sd)
    failed |= few & unseen
    zero = torch.zeros_like(cbf)
    return _Fit(
        torch.where(failed, zero, cbf),
        torch.where(failed, prior, att),
        torch.where(failed, torch.full_like(cbf, _widest(options)), cbf_sd),
        torch.where(failed, prior_sd, att_sd),
        torch.where(failed, int(Flag.FAILED), flags).to(torch.uint8),
    )


def _priors(observation: Observation, options: LeastSquaresOptions) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the prior of ATT of each slice, (B,) each."""
    there = observation.noise_sd.isfinite().flatten(2).any(2)
    kinds = PRIOR_BY_ARRIVAL
    # Of several schemes that share one ATT the broadest prior counts, the first of equals.
    order = sorted(kinds, key=lambda arrival: -kinds[arrival].sd)
    like = observation.delta_m
    mean, sd = (torch.zeros(len(like)).to(like) for _ in range(2))
    for arrival in reversed(order):
        found = (there & (observation.arrival == int(arrival))).any(1)
        mean = torch.where(found, kinds[arrival].mean, mean)
        sd = torch.where(found, kinds[arrival].sd, sd)
    if options.att_prior is not None:
        mean = torch.full_like(mean, options.att_prior)
    if options.att_prior_sd is not None:
        sd = torch.full_like(sd, options.att_prior_sd)
    return mean, sd


def least_squares(
    observation: Observation,
    options: LeastSquaresOptions | None = None,
    tell: OnProgress = no_progress,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fit CBF and ATT in the mask of a batch of slices.

    Parameters
    ----------
    observation
        Slices; `noise_sd` weights the measurements and scales the standard errors.
    options
        Range and resolution.
    tell
        Takes how many voxels are done.

    Returns
    -------
    cbf, att, cbf_sd, att_sd, flags : Tensor, shape (B, H, W)
        mL/100 g/min, s, and their standard errors; `Flag` bits as uint8. Zero outside the
        mask.
    """
    options = options or LeastSquaresOptions()
    mask = observation.mask
    maps = [torch.zeros(mask.shape).to(observation.delta_m) for _ in range(4)]
    flags = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device)
    places = mask.nonzero()
    weights = 1 / observation.noise_sd**2
    prior = _priors(observation, options)
    per_slice = (observation.t1_blood, observation.t1_tissue, observation.partition_coefficient)
    per_measurement = (
        observation.arrival,
        observation.delay,
        observation.label_duration,
        observation.efficiency,
    )
    for index, part in enumerate(places.split(options.chunk)):
        tell("voxel", index * options.chunk, len(places))
        where = part.unbind(1)
        slice_of = where[0]

        def at_voxels(image: Tensor, where: tuple[Tensor, ...] = where) -> Tensor:
            return image.expand_as(observation.delta_m)[where[0], :, where[1], where[2]]

        voxels = Voxels(
            at_voxels(observation.delta_m),
            at_voxels(weights),
            (
                *(values[slice_of] for values in per_measurement),
                *(values[slice_of, None] for values in per_slice),
            ),
            *(values[slice_of] for values in prior),
        )
        fit = _fit_voxels(voxels, slice_of, observation, options)
        for target, values in zip(maps, (fit.cbf, fit.att, fit.cbf_sd, fit.att_sd), strict=True):
            target[where] = values
        flags[where] = fit.flags
    cbf, att, cbf_sd, att_sd = maps
    return cbf, att, cbf_sd, att_sd, flags


def residual(observation: Observation, cbf: Tensor, att: Tensor) -> Tensor:
    """Return measured minus predicted ΔM/M0 inside the mask, (B, n, H, W)."""
    predicted = cbf.unsqueeze(1) * observation.response(att)
    return (observation.delta_m - predicted) * observation.mask.unsqueeze(1)
