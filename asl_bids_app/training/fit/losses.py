"""What a training minimises: errors of CBF and ATT, of their standard deviations, of arteries."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional

from asl_bids_app.training.data.pool import Prepared
from asl_bids_app.training.phantoms.tissue_codes import CORE
from asl_bids_app.training.simulate.simulation import Batch
from asl_bids_app.training.validate.calibration_fit import pinball

if TYPE_CHECKING:
    from asl_bids_app.networks.corrections import Estimate
    from asl_bids_app.training.config.sections import TrainingConfig


def misfit(error: Tensor, kind: str) -> Tensor:
    """Turn errors in units of their scale into a loss."""
    if kind == "l1":
        return error.abs()
    if kind == "l2":
        return error.square()
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none")


def laplace_nll(error: Tensor, log_sd: Tensor) -> Tensor:
    """Negative log-likelihood of errors under a Laplace density of a standard deviation.

    The errors are detached: only the standard deviation learns from it. Constants are left
    out.
    """
    return log_sd + math.sqrt(2) * error.detach().abs() * torch.exp(-log_sd)


def quantile_loss(error: Tensor, log_sd: Tensor) -> Tensor:
    """Loss of standard deviations that hold 68 % of the errors in one and 95 % in 1.96.

    The errors are detached.
    """
    return pinball(error.detach().abs().clamp(min=1e-7).log() - log_sd)


_FLOOR: Final = 0.01
"""Mean misfit of a slice below which it counts ever less."""
_ALIKE: Final = 0.2
"""Share of the logarithms: at a misfit of so much they pull as hard as the misfit itself."""


def _relative(misfits: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over the slices of the logarithm of each one's misfit, scaled.

    A per cent of its error counts as much in a slice of good data as in one of which no network
    can tell much (few measurements, noise, a calibration that is off), whose gradients would
    drown the others'. Slices count by the weight of all their voxels: else those with large
    lesions, which weigh most, would count as little as healthy ones. Both arguments are (B, H, W).
    """
    total = weight.sum((1, 2))
    mean = (weight * misfits).sum((1, 2)) / total.clamp(min=1)
    return _ALIKE * (total * (mean + _FLOOR).log()).sum() / total.sum().clamp(min=1)


_WIDTH_LOSSES: Final = MappingProxyType({"laplace": laplace_nll, "quantile": quantile_loss})


def voxel_weight(batch: Batch | Prepared, config: TrainingConfig) -> Tensor:
    """Return how much each voxel counts, (B, H, W), 0 outside the brain."""
    weight = batch.mask.float()
    if config.lesion_weight != 1:
        # One measurement doesn't tell a late voxel from a dark one: there the weight would only
        # teach that healthy voxels are late, too.
        heavy = (batch.tissue >= CORE) & batch.several[:, None, None]
        weight = weight * torch.where(heavy, config.lesion_weight, 1.0)
    return weight


def losses(
    estimate: Estimate,
    batch: Batch | Prepared,
    config: TrainingConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of an estimate and its parts.

    Parameters
    ----------
    estimate
        CBF in mL/100 g/min, ATT in s, logarithms of their standard deviations.
    batch
        With the truth.
    config
        Weights, as they hold in a cycle: see `asl_bids_app.training.fit.learning_rate.in_cycle`.

    Returns
    -------
    loss : Tensor
        A scalar.
    parts : dict of Tensor
        Scalars to log, detached: errors in mL/100 g/min and ms.
    """
    weight = voxel_weight(batch, config).to(estimate.cbf.dtype)
    total = weight.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (weight * values).sum() / total

    cbf_error = estimate.cbf - batch.cbf
    att_error = estimate.att - batch.att
    of_cbf = misfit(cbf_error / config.cbf_unit, config.loss_type)
    of_att = misfit(att_error / config.att_unit, config.loss_type)
    fit = mean(of_cbf) + mean(of_att)
    width = _WIDTH_LOSSES[config.uncertainty_loss]
    nll = mean(width(cbf_error, estimate.cbf_log_sd) + width(att_error, estimate.att_log_sd))
    relative = config.slices_count == "relative"
    learnt = _relative(of_cbf, weight) + _relative(of_att, weight) if relative else fit
    loss = learnt + config.uncertainty_weight * nll
    if config.means_weight:
        of_means = _means(cbf_error / config.cbf_unit, batch, weight)
        of_means = of_means + 0.5 * _means(att_error / config.att_unit, batch, weight)
        loss = loss + config.means_weight * of_means
    if config.volume_weight and estimate.volume is not None:
        loss = loss + config.volume_weight * _arteries(estimate, batch, mean, config)
    if config.dc_weight:
        loss = loss + config.dc_weight * mean(_inconsistency(estimate, batch))
    with torch.no_grad():
        parts = {
            "fit": fit.detach(),
            "nll": nll.detach(),
            "cbf_mae": mean(cbf_error.abs()),
            "att_mae_ms": 1000 * mean(att_error.abs()),
        }
    return loss, parts


def _inconsistency(estimate: Estimate, batch: Batch | Prepared) -> Tensor:
    """Mean square of measured minus predicted signal in units of the noise, (B, H, W)."""
    observation = batch.observation
    assert observation is not None, "the configuration lets slices with dc_weight serve once"
    predicted = estimate.cbf.unsqueeze(1) * observation.response(estimate.att)
    information = observation.noise_sd**-2
    square = (information * (observation.delta_m - predicted).square()).sum(1)
    return square / (information > 0).sum(1).clamp(min=1)


_WINDOWS: Final = (3, 7)
"""Sides in voxels of the squares whose mean errors count."""


def _means(error: Tensor, batch: Batch | Prepared, weight: Tensor) -> Tensor:
    """Mean size of errors averaged over squares and over each tissue of a slice; a scalar.

    Noise averages out, bias doesn't. `error` is (B, H, W) in units of its scale.
    """
    total = error.new_zeros(())
    for side in _WINDOWS:

        def pooled(values: Tensor, side: int = side) -> Tensor:
            shown = functional.avg_pool2d(values.unsqueeze(1), side, 1, side // 2)
            return shown.squeeze(1)

        average = pooled(weight * error) / pooled(weight).clamp(min=1e-6)
        total = total + (weight * average.abs()).sum() / weight.sum().clamp(min=1)
    # Squares: a voxel speaks for the tissue that it is made of.
    tissue = batch.fractions.square() * batch.mask[:, None]
    amount = tissue.sum((2, 3))
    average = (tissue * error[:, None]).sum((2, 3)) / amount.clamp(min=1)
    share = amount / amount.sum(1, keepdim=True).clamp(min=1)
    return total + (share * average.abs()).sum(1).mean()


def _arteries(
    estimate: Estimate,
    batch: Batch | Prepared,
    mean: Callable[[Tensor], Tensor],
    config: TrainingConfig,
) -> Tensor:
    """Loss of the arterial volume, its standard deviation and the odds of an artery."""
    assert estimate.volume is not None
    assert estimate.volume_log_sd is not None
    assert estimate.artery is not None
    error = estimate.volume - batch.volume
    there = (batch.volume > _ARTERY).to(error)
    odds = functional.binary_cross_entropy(
        estimate.artery.clamp(1e-4, 1 - 1e-4), there, reduction="none"
    )
    width = _WIDTH_LOSSES[config.uncertainty_loss](error, estimate.volume_log_sd)
    fit = misfit(error / _VOLUME_UNIT, config.loss_type)
    return mean(fit + config.uncertainty_weight * width + 0.1 * odds)


_ARTERY: Final = 0.001
"""mL/mL from which a voxel counts as one with an artery."""
_VOLUME_UNIT: Final = 0.004
"""mL/mL: unit of errors of the arterial volume in the loss."""
