"""Partial volume correction by regression in a kernel (Asllani 2008, doi:10.1002/mrm.21670)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from asl_bids_app.estimators.partial_volume_means import LEAST_SHARE, Mixture
from asl_bids_app.estimators.voxel_fit import least_squares

KERNEL: Final = 5
"""Rows and columns of the kernel, in one slice, as Asllani 2008 has it."""


def regress_in_kernel(mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Return flows of grey and white matter and their standard errors, (2, V) each.

    Every measurement is regressed on the fractions in the kernel, and the kinetic model is fitted
    by least squares to the signals of each tissue; mL/100 g/min.
    """
    observation, where = mixture.observation, mixture.where
    known = (mixture.precision > 0).to(mixture.signal)
    shares = mixture.shares.T.unsqueeze(2)
    normal = torch.einsum("kvi,lvi->kliv", shares * known, shares.expand(-1, -1, known.shape[1]))
    wanted = (shares * known * mixture.signal).transpose(1, 2)
    variance = torch.where(known > 0, 1 / mixture.precision.clamp(min=1e-30), 0.0)
    doubt = torch.einsum("kvi,lvi->kliv", shares * variance, shares.expand_as(wanted.mT))
    normal, wanted, doubt = (_sum_in_kernel(mixture, v) for v in (normal, wanted, doubt))
    inverse = torch.linalg.pinv(normal.permute(2, 3, 0, 1), rtol=1e-3, hermitian=True)
    found = (inverse @ wanted.permute(1, 2, 0).unsqueeze(3)).squeeze(3)
    spread = inverse @ doubt.permute(2, 3, 0, 1) @ inverse
    sd = spread.diagonal(dim1=2, dim2=3).clamp(min=1e-24).sqrt()
    # A measurement without data in the kernel is none.
    empty = normal.diagonal(dim1=0, dim2=1).sum(-1) <= 0
    sd = sd.masked_fill(empty.unsqueeze(2), torch.inf)
    flows, errors = [], []
    for k in range(2):
        signal, noise = (
            mixture.volume(values[..., k]).transpose(0, 1).contiguous() for values in (found, sd)
        )
        seen = mixture.volume(mixture.shares[:, k] >= LEAST_SHARE)
        tissue = replace(observation, delta_m=signal, noise_sd=noise, mask=where & seen)
        cbf, _, cbf_sd, *_ = least_squares(tissue)
        flows.append(cbf[where])
        errors.append(cbf_sd[where])
    return torch.stack(flows), torch.stack(errors)


def _sum_in_kernel(mixture: Mixture, values: Tensor) -> Tensor:
    """Sum values (..., V) over the kernel around each voxel."""
    volume = mixture.volume(values)
    planes = volume.reshape(-1, 1, *volume.shape[-2:])
    box = values.new_ones(1, 1, KERNEL, KERNEL)
    summed = functional.conv2d(planes, box, padding=KERNEL // 2).reshape(volume.shape)
    return summed[..., mixture.where]
