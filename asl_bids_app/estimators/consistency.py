r"""Data consistency by tissue: means of regions come back to what the data say.

A spatial estimate leans on neighbours, and neighbours are often another tissue: grey matter
comes out too low and white matter too high, the more so the noisier a scan. A voxel's residual
is lost in noise, but the residuals of all the grey matter around are not. With the fractions of
a voxel in *p*, its response *R* at the estimated ATT and its residual *r*, weighted least
squares in a Gaussian window finds one number per tissue,

.. math::

    \min_\delta \sum_v k_v \sum_i \big(r_{vi} - R_{vi}\, p_v^T \delta\big)^2 / \sigma_{vi}^2,

and :math:`p^T \delta` is added to CBF, again and again until nothing moves. It is linear and in
closed form, and it never asks what the estimate was made by. Beside grey matter, white matter
and fluid, *p* holds by how much the two tissues' fractions stand out from those around: this is
what a smooth estimate loses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation

WINDOW_MM: Final = 25.0
"""Full width at half maximum of the window in which a tissue's correction is one number."""
DETAIL_MM: Final = 8.0
"""The same of the average from which a voxel's fractions stand out."""
RIDGE: Final = 10.0
"""mL/100 g/min: prior standard deviation of a correction; it decides where a window holds
nothing of a tissue."""
MOST_STEPS: Final = 6
WHOLE_RIDGE: Final = 50.0
"""mL/100 g/min: the same of a correction of the whole brain."""
LEAST_MOVE: Final = 0.005
"""Smaller steps end the iteration (mean over the mask), as a part of the ridge."""
ATT_RIDGE: Final = 0.05
"""s: the same of ATT."""
ATT_STEP: Final = 0.05
"""s: half the distance of the points by which dS/dATT is found."""
LEAST_ATT: Final = 0.1
"""s: no correction makes ATT earlier."""
OUTLIER: Final = 4.0
"""Residual in standard deviations at which a voxel counts half."""
UNLIKE: Final = 0.25
"""Distance of the CBF around from what its tissue has in the window, as a fraction of the latter,
at which a voxel counts half, as in a lesion."""
UNLIKE_LEAST: Final = 4.0
"""mL/100 g/min: the same distance at least."""
FIT: Final = (0.08, 0.2)
"""Share of the variance of CBF that fractions explain: below the first they are not used, above
the second wholly."""
LOST: Final = (0.1, 0.5)
"""Without fractions a correction counts half where it is this share of CBF, plus this many
mL/100 g/min."""


@dataclass(frozen=True)
class Consistent:
    """Maps after the correction.

    Attributes
    ----------
    cbf, cbf_sd : Tensor, shape (n_slices, H, W)
        mL/100 g/min, zero outside the mask.
    att, att_sd : Tensor, shape (n_slices, H, W)
        s, zero outside the mask.
    facts : dict
        For sidecars: the share of the correction that tissues have (``TissueWeight``, 0 to 1), the
        share of the variance of CBF that fractions explain (``ExplainedVariance``, None without
        fractions), the window (mm), and the mean of what was added to CBF, in grey and in white
        matter too (mL/100 g/min), and to ATT (s).
    """

    cbf: Tensor
    cbf_sd: Tensor
    att: Tensor
    att_sd: Tensor
    facts: dict[str, Any]


def window(size: int, voxel_mm: float, fwhm_mm: float, like: Tensor) -> Tensor:
    """Return a Gaussian window along one axis as a matrix (size, size); its peak is 1."""
    place = torch.arange(size).to(like)
    sigma = fwhm_mm / math.sqrt(8 * math.log(2)) / voxel_mm
    return torch.exp(-0.5 * ((place[:, None] - place) / sigma).square())


def around(maps: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Sum maps (K, S, H, W) over the window around each voxel."""
    slices, rows, columns = windows
    summed = torch.einsum("st,kthw->kshw", slices, maps)
    return rows @ summed @ columns


def _mean_around(maps: Tensor, inside: Tensor, windows: Sequence[Tensor]) -> Tensor:
    total = around(torch.cat([maps * inside, inside[None]]), windows)
    return total[:-1] / total[-1].clamp(min=1e-6) * inside


def explained(cbf: Tensor, fractions: Tensor, mask: Tensor) -> float:
    """Return the share of the variance of CBF inside a mask that tissue fractions explain.

    Parameters
    ----------
    cbf : Tensor, shape (S, H, W)
    fractions : Tensor, shape (K, S, H, W)
    mask : Tensor of bool, shape (S, H, W)
    """
    y = cbf[mask].double()
    x = torch.cat([fractions[:, mask], torch.ones_like(cbf[mask])[None]]).T.double()
    off = y - y.mean() if y.numel() else y
    if y.numel() <= x.shape[1] or not bool(off.square().sum() > 0):
        return 0.0
    normal = x.T @ x + 1e-9 * len(x) * torch.eye(x.shape[1]).to(x)
    left = y - x @ torch.linalg.solve(normal, x.T @ y)
    return float(1 - left.square().sum() / off.square().sum())


def be_consistent(
    observation: Observation,
    cbf: Tensor,
    att: Tensor,
    cbf_sd: Tensor,
    att_sd: Tensor,
    voxel_mm: Sequence[float],
    fractions: Tensor | None = None,
) -> Consistent:
    """Correct maps so that each tissue's residuals around a voxel vanish in the mean.

    Parameters
    ----------
    observation
        The slices of one series in order, with their noise.
    cbf, att, cbf_sd, att_sd : Tensor, shape (S, H, W)
        Finished maps, mL/100 g/min and s, and their standard deviations.
    voxel_mm
        Distance of slices, rows and columns.
    fractions : Tensor, shape (2, S, H, W), optional
        Of grey and white matter in each voxel, 0 to 1. Where they don't explain CBF, or there are
        none, all voxels around count as one tissue, and only a mean that is far off is corrected.

    Returns
    -------
    Consistent

    Raises
    ------
    ValueError
        If a voxel size isn't positive, or shapes differ.
    """
    if len(voxel_mm) != 3 or not all(size > 0 for size in voxel_mm):
        raise ValueError(f"voxel_mm: {voxel_mm}, expected three sizes > 0")
    if fractions is not None and fractions.shape != (2, *cbf.shape):
        raise ValueError(f"fractions: {tuple(fractions.shape)}, expected {(2, *cbf.shape)}")
    wide = [window(n, v, WINDOW_MM, cbf) for n, v in zip(cbf.shape, voxel_mm, strict=True)]
    inside = observation.mask.to(cbf)
    shares, fit, tissue_weight = None, None, 0.0
    if fractions is not None:
        shares = torch.nan_to_num(fractions.to(cbf)).clamp(0, 1) * inside
        shares = shares / shares.sum(0).clamp(min=1)
        shares = torch.cat([shares, inside[None] - shares.sum(0)[None]])
        fit = explained(cbf, shares[:2], observation.mask)
        tissue_weight = min(max((fit - FIT[0]) / (FIT[1] - FIT[0]), 0.0), 1.0)
    zero = torch.zeros_like(cbf)
    added, variance, later, att_variance = zero, zero, zero, zero
    if tissue_weight < 1:
        # Of a noisy voxel ATT is what makes most of its noise; the mean of ATT around is not.
        usual = _mean_around(att[None], inside, wide)[0]
        score, weight = _scores(observation, cbf, usual, wide)
        # Of the whole brain first: of a poor scan a window says little.
        overall = score.sum() / (weight.sum() + WHOLE_RIDGE**-2)
        moved, spread = _solve(score - weight * overall, weight, inside[None], wide, inside)
        moved = moved + overall * inside
        level = _mean_around((cbf + moved)[None], inside, wide)[0].abs()
        doubt = LOST[0] * level + LOST[1]
        part = (1 - tissue_weight) * moved.square() / (moved.square() + doubt.square())
        added, variance = part * moved, part.square() * spread
    if shares is not None and tissue_weight > 0:
        fine = [window(n, v, DETAIL_MM, cbf) for n, v in zip(cbf.shape, voxel_mm, strict=True)]
        found = _by_tissue(observation, cbf, att, shares, wide, fine)
        added = added + tissue_weight * found[0]
        variance = variance + tissue_weight**2 * found[1]
        later, att_variance = tissue_weight * found[2], tissue_weight**2 * found[3]
    facts: dict[str, Any] = {
        "WindowFWHM": WINDOW_MM,
        "TissueWeight": round(tissue_weight, 3),
        "ExplainedVariance": None if fit is None else round(fit, 3),
        "MeanChange": _mean(added, inside),
        "MeanChangeATT": _mean(later, inside),
    }
    if shares is not None:
        facts["MeanChangeGM"] = _mean(added, shares[0])
        facts["MeanChangeWM"] = _mean(added, shares[1])
    return Consistent(
        (cbf + added) * inside,
        (cbf_sd.square() + variance).sqrt() * inside,
        (att + later) * inside,
        (att_sd.square() + att_variance).sqrt() * inside,
        facts,
    )


def _by_tissue(
    observation: Observation,
    cbf: Tensor,
    att: Tensor,
    shares: Tensor,
    wide: Sequence[Tensor],
    fine: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what is added to CBF, its variance, what is added to ATT, its variance."""
    inside = observation.mask.to(cbf)
    detail = shares[:2] - _mean_around(shares[:2], inside, fine)
    basis = torch.cat([shares, detail])
    score, weight = _scores(observation, cbf, att, wide)
    alike = _alike(cbf, weight, shares, inside, wide, fine)
    later, att_spread = torch.zeros_like(cbf), torch.zeros_like(cbf)
    # A single measurement says nothing of ATT.
    if observation.delta_m.shape[1] > 1:
        first, _ = _solve(score, weight, basis, wide, alike, most=2)
        slopes = _att_scores(observation, cbf + first, att, wide)
        later, att_spread = _solve(*slopes, shares, wide, alike, ridge=ATT_RIDGE, most=1)
        later = torch.maximum(later, LEAST_ATT - att) * inside
        score, weight = _scores(observation, cbf, att + later, wide)
    # Of the whole brain first: of a poor scan a window says little.
    whole = _whole(score * alike, weight * alike, shares) * alike
    moved, spread = _solve(score - weight * whole, weight, basis, wide, alike)
    return whole + moved, spread, later, att_spread


def _whole(score: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    """Return what is added to a map if every tissue has one number for the whole brain."""
    flat = basis.flatten(1).double()
    normal = (flat * weight.flatten()) @ flat.T
    normal.diagonal().add_(WHOLE_RIDGE**-2)
    numbers = torch.linalg.solve(normal, flat @ score.flatten().double())
    return (numbers @ flat).to(weight).unflatten(0, weight.shape)


def _mean(values: Tensor, weight: Tensor) -> float:
    return round(float((values * weight).sum() / weight.sum().clamp(min=1e-6)), 3)


def _scores(
    observation: Observation, cbf: Tensor, att: Tensor, windows: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return Σ R r/σ² and Σ R²/σ² of each voxel, outliers weighed down."""
    response = observation.response(att)
    precision = precision_of(observation.noise_sd) * observation.mask.unsqueeze(1)
    residual = observation.delta_m - response * cbf.unsqueeze(1)
    return _trusted(response, residual, precision, windows)


def _att_scores(
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
    usual = _mean_around(off.clamp(-10, 10)[None], (weight > 0).to(off), windows)[0]
    trust = 1 / (1 + (off - usual).square() / OUTLIER**2)
    return score * trust, weight * trust


def _alike(
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
    there = _mean_around(cbf[None], inside, fine)[0]
    alike = inside
    # Twice: what a lesion holds is at first part of what its tissue is expected to have.
    for _ in range(2):
        believed = weight * alike
        expected, _ = _solve(believed * cbf, believed, shares, wide, inside, ridge=1e3, most=1)
        usual = _mean_around(expected[None], inside, fine)[0]
        far = (there - usual) / (UNLIKE * usual.abs()).clamp(min=UNLIKE_LEAST)
        alike = inside / (1 + far.square().square())
    return alike


def _solve(
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
