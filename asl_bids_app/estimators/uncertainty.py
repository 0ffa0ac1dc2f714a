"""Standard deviations of an ensemble: how they add up, and how they are calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

ERROR_BARS: Final = MappingProxyType({"total": 1.0, "noise": 0.0})
"""What standard deviations hold, and the doubt about the calibration that goes with it.

``total``: noise, and by how much T1 of blood, efficiency and M0 differ between scanners and
people from what is told. ``noise``: the calibration is taken as exact, as for comparisons
within one person and scanner.
"""


def total_variance(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Combine members that each state a mean and a variance.

    The law of total variance for an even mixture: mean of the variances (aleatoric) plus
    variance of the means (the members' disagreement).

    Parameters
    ----------
    means, variances : Tensor, shape (members, ...)

    Returns
    -------
    mean, variance : Tensor, shape (...)
    """
    return means.mean(0), variances.mean(0) + means.var(0, unbiased=False)


def calibration_factor(
    table: Mapping[str, Any], name: str, posterior_cbf_sd: Tensor, cbf: Tensor
) -> Tensor:
    """Look up by what the standard deviations of voxels are to be multiplied.

    The table was fitted on phantoms of their own so that intervals cover what they claim. Its
    axes tell noise and tissue: the sd of CBF by the voxelwise posterior, and the estimate of
    CBF.

    Parameters
    ----------
    table : mapping
        ``axes`` with the nodes of ``posterior_cbf_sd`` and ``cbf`` (mL/100 g/min, ascending),
        ``factor`` with a nested list for ``cbf`` and ``att``.
    name
        ``cbf`` or ``att``.
    posterior_cbf_sd, cbf : Tensor, shape (...)
        mL/100 g/min.

    Returns
    -------
    Tensor, shape (...)
        Bilinear in log(posterior_cbf_sd) and cbf, constant beyond the outer nodes.
    """
    factor = torch.as_tensor(table["factor"][name], dtype=cbf.dtype, device=cbf.device)
    rows, columns = (
        torch.as_tensor(table["axes"][axis], dtype=cbf.dtype, device=cbf.device)
        for axis in ("posterior_cbf_sd", "cbf")
    )
    rows = rows.log()
    row, down = _place(posterior_cbf_sd.clamp(min=1e-6).log(), rows)
    column, across = _place(cbf, columns)
    upper = torch.lerp(factor[row, column], factor[row, column + 1], across)
    lower = torch.lerp(factor[row + 1, column], factor[row + 1, column + 1], across)
    return torch.lerp(upper, lower, down)


def _place(values: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the node below each value and how far it is to the next one, from 0 to 1."""
    below = (torch.searchsorted(nodes, values.contiguous()) - 1).clamp(0, len(nodes) - 2)
    share = (values - nodes[below]) / (nodes[below + 1] - nodes[below])
    return below, share.clamp(0, 1)
