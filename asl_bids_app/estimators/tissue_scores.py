"""What residuals say of a tissue around each voxel: sums over a window, and their solution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation

RIDGE: Final = 10.0
"""mL/100 g/min: prior standard deviation of a correction; it decides where a window holds
nothing of a tissue."""
MOST_STEPS: Final = 6
WHOLE_RIDGE: Final = 50.0
"""mL/100 g/min: the same of a correction of the whole brain."""
LEAST_MOVE: Final = 0.005
"""Smaller steps end the iteration (mean over the mask), as a part of the ridge."""
ATT_STEP: Final = 0.05
"""s: half the distance of the points by which dS/dATT is found."""
OUTLIER: Final = 4.0
"""Residual in standard deviations at which a voxel counts half."""
UNLIKE: Final = 0.25
"""Distance of the CBF around from what its tissue has in the window, as a fraction of the latter,
at which a voxel counts half, as in a lesion."""
UNLIKE_LEAST: Final = 4.0
"""mL/100 g/min: the same distance at least."""


def window(size: int, voxel_mm: float, fwhm_mm: float, like: Tensor) -> Tensor:
    """Return a Gaussian window along one axis as a matrix (size, size); its peak is 1."""
    place = torch.arange(size, device=like.device).to(like)
    sigma = fwhm_mm / math.sqrt(8 * math.log(2)) / voxel_mm
    return torch.exp(-0.5 * ((place[:, None] - place) / sigma).square())


def around(maps: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Sum maps (K, S, H, W) over the window around each voxel."""
    slices, rows, columns = windows
    summed = torch.einsum("st,kthw->kshw", slices, maps)
    return rows @ summed @ columns


def mean_around(maps: Tensor, inside: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Average maps (K, S, H, W) over the voxels inside that a window holds."""
    total = around(torch.cat([maps * inside, inside[None]]), windows)
    return total[:-1] / total[-1].clamp(min=1e-6) * inside


def solve_whole_brain(score: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Return what is added to a map if every tissue has one number for the whole brain."""
    flat = basis.flatten(1).double()
    normal = (flat * weight.flatten()) @ flat.T
    normal.diagonal().add_(WHOLE_RIDGE**-2)
    numbers = torch.linalg.solve(normal, flat @ score.flatten().double())
    return (numbers @ flat).to(weight).unflatten(0, weight.shape)


def cbf_scores(
    observation: Observation, cbf: Tensor, att: Tensor, windows: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return Σ R r/σ² and Σ R²/σ² of each voxel, outliers weighed down."""
    response = observation.response(att)
    precision = precision_of(observation.noise_sd) * observation.mask.unsqueeze(1)
    residual = observation.delta_m - response * cbf.unsqueeze(1)
    return _trusted(response, residual, precision, windows)


def att_scores(
    observation: Observation, cbf: Tensor, att: Tensor, windows: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the same for ATT: of the part of dS/dATT that no change of CBF could make."""
    response = observation.response(att)
    precision = precision_of(observation.noise_sd) * observation.mask.unsqueeze(1)
    ends = observation.response(att + ATT_STEP), observation.response(att - ATT_STEP)
    slope = cbf.clamp(min=0).unsqueeze(1) * (ends[0] - ends[1]) / (2 * ATT_STEP)
    along = (response * slope * precision).sum(1)
    norm = (response.square() * precision).sum(1).clamp(min=1e-30)
    slope = slope - response * (along / norm).unsqueeze(1)
    residual = observation.delta_m - response * cbf.unsqueeze(1)
    score, weight = _trusted(slope, residual, precision, windows)
    # An artery beside the tissue makes its signal early, and unlike any of the tissue's.
    left = (residual.square() * precision).sum(1)
    freedom = ((precision > 0).sum(1) - 2).clamp(min=1)
    unlike = (left / freedom - 1).clamp(min=0) * (freedom / 8).sqrt()
    trust = 1 / (1 + unlike.square())
    return score * trust, weight * trust


def _trusted(
    slope: Tensor, residual: Tensor, precision: Tensor, windows: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    score = (slope * residual * precision).sum(1)
    weight = (slope.square() * precision).sum(1)
    # In standard deviations, from what is usual around: a loss that all share is no outlier.
    off = score * weight.clamp(min=1e-30).rsqrt()
    usual = mean_around(off.clamp(-10, 10)[None], (weight > 0).to(off), windows)[0]
    trust = 1 / (1 + (off - usual).square() / OUTLIER**2)
    return score * trust, weight * trust


def like_their_tissue(
    cbf: Tensor,
    weight: Tensor,
    shares: Tensor,
    inside: Tensor,
    wide: Sequence[Tensor],
    fine: Sequence[Tensor],
) -> Tensor:
    """Return how far a voxel's surroundings have the flow of its tissues, 0 to 1.

    A lesion hasn't: its residuals are not its tissue's, and what its tissue lacks elsewhere is
    nothing to it.
    """
    there = mean_around(cbf[None], inside, fine)[0]
    alike = inside
    # Twice: what a lesion holds is at first part of what its tissue is expected to have.
    for _ in range(2):
        believed = weight * alike
        expected, _ = solve_windows(
            believed * cbf, believed, shares, wide, inside, ridge=1e3, most=1
        )
        usual = mean_around(expected[None], inside, fine)[0]
        far = (there - usual) / (UNLIKE * usual.abs()).clamp(min=UNLIKE_LEAST)
        alike = inside / (1 + far.square().square())
    return alike


def solve_windows(
    score: Tensor,
    weight: Tensor,
    basis: Tensor,
    windows: Sequence[Tensor],
    trust: Tensor,
    ridge: float = RIDGE,
    most: int = MOST_STEPS,
) -> tuple[Tensor, Tensor]:
    """Return what is added to a map, and its variance.

    `score` and `weight` (S, H, W), `basis` (K, S, H, W), `trust` (S, H, W).
    """
    count = len(basis)
    score, weight = score * trust, weight * trust
    # Equations are solved where there is a brain; sums run over the whole grid.
    inside = trust > 0
    rows, columns = torch.triu_indices(count, count)
    sums = around(weight * basis[rows] * basis[columns], windows)[:, inside].T.double()
    normal = sums.new_zeros(len(sums), count, count)
    normal[:, rows, columns] = sums
    normal[:, columns, rows] = sums
    # In double: the ridge is small beside the precision of good data.
    normal.diagonal(dim1=1, dim2=2).add_(ridge**-2)
    inverse = torch.linalg.inv(normal).to(weight)
    applied = (basis * trust)[:, inside].T
    added = torch.zeros_like(weight)
    for _ in range(most):
        wanted = around(score * basis, windows)[:, inside].T.unsqueeze(2)
        step = (applied * (inverse @ wanted).squeeze(2)).sum(1)
        move = torch.zeros_like(weight)
        move[inside] = step
        added, score = added + move, score - weight * move
        if not step.numel() or float(step.abs().mean()) < LEAST_MOVE * ridge:
            break
    # Of independent noise; a squared Gaussian window has 2^(-1/2) of the sum along each axis.
    axes = sum(size > 1 for size in weight.shape)
    spread = torch.zeros_like(weight)
    spread[inside] = ((applied.unsqueeze(1) @ inverse).squeeze(1) * applied).sum(1)
    return added, spread * 2 ** (-axes / 2)
