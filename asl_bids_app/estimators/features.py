"""What is known of a voxel besides its estimates: some of `models.uncertainty.FEATURES`."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

from asl_bids_app.models.uncertainty import COUNTS
from asl_bids_app.observation import Observation

_WORST: Final = 5.0
"""Misfit beyond which more says nothing more."""
_AROUND: Final = 5
"""Side in voxels of the neighbourhood of a voxel."""


def over_slices(misfit: Tensor | None, mask: Tensor) -> Tensor:
    """Give every voxel of the mask the mean of its slice; 1 if there is nothing.

    Parameters
    ----------
    misfit : Tensor or None, shape (B, H, W)
        `asl_bids_app.networks.voxel.VoxelPosterior.misfit`.
    mask : Tensor of bool, shape (B, H, W)
    """
    if misfit is None:
        return mask.float()
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    total = (misfit.to(mask.device).clamp(max=_WORST) * mask).sum((1, 2), keepdim=True)
    return mask * (total / count)


def roughness(values: Tensor, mask: Tensor) -> Tensor:
    """Return the standard deviation over the voxels of the mask in a square around each.

    Parameters
    ----------
    values : Tensor, shape (B, H, W)
        In any unit, which the result has too; zero outside the mask.
    mask : Tensor of bool, shape (B, H, W)
    """
    inside = mask.unsqueeze(1).to(values)

    def total(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, _AROUND, 1, _AROUND // 2, divisor_override=1)

    count = total(inside).clamp(min=1)
    # About the mean of the slice: squares of near numbers would lose what they differ by.
    middle = (values * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True).clamp(1)
    off = (values - middle).unsqueeze(1) * inside
    variance = total(off.square()) / count - (total(off) / count).square()
    return variance.clamp(min=0).sqrt().squeeze(1) * mask


def measurement_counts(observation: Observation) -> dict[str, Tensor]:
    """Give every voxel of the mask the number of measurements by way of arrival."""
    there = observation.noise_sd.isfinite().flatten(2).any(2)
    return {
        name: observation.mask * (there & (observation.arrival == arrival)).sum(1)[:, None, None]
        for arrival, name in COUNTS.items()
    }


def open_all_around(undetermined: Tensor, mask: Tensor) -> Tensor:
    """Keep only what is undetermined all around: elsewhere the neighbours tell.

    Parameters
    ----------
    undetermined, mask : Tensor of bool, shape (B, H, W)
    """
    around = functional.avg_pool2d(undetermined.unsqueeze(1).float(), _AROUND, 1, _AROUND // 2)
    inside = functional.avg_pool2d(mask.unsqueeze(1).float(), _AROUND, 1, _AROUND // 2)
    return mask & (around > 0.9 * inside).squeeze(1)
