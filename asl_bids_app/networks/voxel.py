"""What the voxelwise posterior holds of each voxel."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class VoxelPosterior:
    """Moments of the voxelwise posterior; zero outside the mask.

    Attributes
    ----------
    cbf, cbf_sd : Tensor, shape (B, H, W)
        Mean and standard deviation, mL/100 g/min.
    att, att_sd : Tensor, shape (B, H, W)
        Mean and standard deviation, seconds.
    correlation : Tensor, shape (B, H, W)
        Of CBF and ATT.
    cbf_noise_sd : Tensor, shape (B, H, W)
        Standard deviation that CBF would have if ATT were known: the root of the mean of 1/A.
    att_bins : Tensor, shape (B, bins, H, W)
        Probability that ATT lies in each bin of the grid.
    residual : Tensor, shape (B, 3, H, W)
        Per way of arrival, residual of the posterior mean signal projected on it,
        Σ r ŷ/σ² / (Σ ŷ²/σ² + 1): by which fraction the scheme measured more than expected.
    misfit : Tensor, shape (B, H, W)
        Root of the sum of squared residuals in units of the noise over the degrees of freedom
        (the number of measurements less 2, at least 1): about 1 where the model and the noise
        that are assumed are right, 0 for one or two measurements, which can't contradict.
    bin_att, bin_cbf : Tensor, shape (B, bins, H, W)
        Shares of the bins in the means of ATT and CBF before any refinement of the grid:
        their sums over the bins are the means.
    artery : Tensor, shape (B, H, W)
        Probability that the voxel holds an artery; 0 if none was looked for.
    volume, volume_sd : Tensor, shape (B, H, W)
        Mean and standard deviation of the arterial blood volume, mL/mL.
    bin_volume : Tensor, shape (B, bins, H, W)
        Shares of the bins in the mean of the volume.
    vessels : Tensor, shape (B, n, H, W)
        Mean of the arteries' ΔM/M0 in every measurement.

    Where an artery was looked for, the maps of bins are twice as many: first those without an
    artery, then those with one; the probabilities of all sum to 1.
    """

    cbf: Tensor
    cbf_sd: Tensor
    att: Tensor
    att_sd: Tensor
    correlation: Tensor
    cbf_noise_sd: Tensor
    att_bins: Tensor
    residual: Tensor
    misfit: Tensor
    bin_att: Tensor
    bin_cbf: Tensor
    artery: Tensor
    volume: Tensor
    volume_sd: Tensor
    bin_volume: Tensor
    vessels: Tensor

    def __getitem__(self, index: slice | Tensor) -> VoxelPosterior:
        """Return some of the slices."""
        return VoxelPosterior(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> VoxelPosterior:
        """Return the posterior on a device."""
        return VoxelPosterior(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})
