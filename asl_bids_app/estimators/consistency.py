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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from asl_bids_app.estimators.tissue_scores import (
    WHOLE_RIDGE,
    att_scores,
    cbf_scores,
    like_their_tissue,
    mean_around,
    solve_whole_brain,
    solve_windows,
    window,
)
from asl_bids_app.observation import Observation

WINDOW_MM: Final = 25.0
"""Full width at half maximum of the window in which a tissue's correction is one number."""
PASSES: Final = 4
"""At most. The ridge holds a pass back where a window knows little of a tissue; others make up."""
LEAST_CHANGE: Final = 0.004
"""Mean change of CBF by a pass after which none follows, as a part of the mean CBF."""
DETAIL_MM: Final = 8.0
"""The same of the average from which a voxel's fractions stand out."""
ATT_RIDGE: Final = 0.05
"""s: the same of ATT."""
LEAST_ATT: Final = 0.1
"""s: no correction makes ATT earlier."""
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
    att_trust: Tensor | None = None,
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
    att_trust : Tensor, shape (S, H, W), optional
        How far each voxel tells of the tissue's ATT, 0 to 1; None: all alike.

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
    inside = observation.mask.to(cbf)
    shares, fit, tissue_weight = None, None, 0.0
    if fractions is not None:
        shares = torch.nan_to_num(fractions.to(cbf)).clamp(0, 1) * inside
        shares = shares / shares.sum(0).clamp(min=1)
        shares = torch.cat([shares, inside[None] - shares.sum(0)[None]])
        fit = explained(cbf, shares[:2], observation.mask)
        tissue_weight = min(max((fit - FIT[0]) / (FIT[1] - FIT[0]), 0.0), 1.0)
    trust = torch.ones_like(cbf) if att_trust is None else att_trust.to(cbf)
    added, later = torch.zeros_like(cbf), torch.zeros_like(cbf)
    variance, att_variance = torch.zeros_like(cbf), torch.zeros_like(cbf)
    for number in range(PASSES):
        found = _one_pass(
            observation, cbf + added, att + later, shares, tissue_weight, trust, voxel_mm
        )
        added, later = added + found[0], later + found[2]
        if number == 0:
            variance, att_variance = found[1], found[3]
        if float(found[0].abs().sum()) < LEAST_CHANGE * float((cbf * inside).abs().sum()):
            break
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


def _one_pass(
    observation: Observation,
    cbf: Tensor,
    att: Tensor,
    shares: Tensor | None,
    tissue_weight: float,
    trust: Tensor,
    voxel_mm: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what is added to CBF, its variance, what is added to ATT, its variance."""
    inside = observation.mask.to(cbf)
    wide = [window(n, v, WINDOW_MM, cbf) for n, v in zip(cbf.shape, voxel_mm, strict=True)]
    zero = torch.zeros_like(cbf)
    added, variance, later, att_variance = zero, zero, zero, zero
    if tissue_weight < 1:
        # Of a noisy voxel ATT is what makes most of its noise; the mean of ATT around is not.
        usual = mean_around(att[None], inside, wide)[0]
        score, weight = cbf_scores(observation, cbf, usual, wide)
        # Of the whole brain first: of a poor scan a window says little.
        overall = score.sum() / (weight.sum() + WHOLE_RIDGE**-2)
        moved, spread = solve_windows(score - weight * overall, weight, inside[None], wide, inside)
        moved = moved + overall * inside
        level = mean_around((cbf + moved)[None], inside, wide)[0].abs()
        limit = LOST[0] * level + LOST[1]
        part = (1 - tissue_weight) * moved.square() / (moved.square() + limit.square())
        added, variance = part * moved, part.square() * spread
    if shares is not None and tissue_weight > 0:
        fine = [window(n, v, DETAIL_MM, cbf) for n, v in zip(cbf.shape, voxel_mm, strict=True)]
        found = _by_tissue(observation, cbf, att, shares, trust, wide, fine)
        added = added + tissue_weight * found[0]
        variance = variance + tissue_weight**2 * found[1]
        later, att_variance = tissue_weight * found[2], tissue_weight**2 * found[3]
    return added, variance, later, att_variance


def _by_tissue(
    observation: Observation,
    cbf: Tensor,
    att: Tensor,
    shares: Tensor,
    trust: Tensor,
    wide: Sequence[Tensor],
    fine: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what is added to CBF, its variance, what is added to ATT, its variance."""
    inside = observation.mask.to(cbf)
    detail = shares[:2] - mean_around(shares[:2], inside, fine)
    basis = torch.cat([shares, detail])
    score, weight = cbf_scores(observation, cbf, att, wide)
    alike = like_their_tissue(cbf, weight, shares, inside, wide, fine)
    later, att_spread = torch.zeros_like(cbf), torch.zeros_like(cbf)
    # A single measurement says nothing of ATT.
    if observation.delta_m.shape[1] > 1:
        first, _ = solve_windows(score, weight, basis, wide, alike, most=2)
        slope, information = (trust * x for x in att_scores(observation, cbf + first, att, wide))
        later, att_spread = solve_windows(
            slope, information, shares, wide, alike, ridge=ATT_RIDGE, most=1
        )
        later = torch.maximum(later, LEAST_ATT - att) * inside
        score, weight = cbf_scores(observation, cbf, att + later, wide)
    # Of the whole brain first: of a poor scan a window says little.
    whole = solve_whole_brain(score * alike, weight * alike, shares) * alike
    moved, spread = solve_windows(score - weight * whole, weight, basis, wide, alike)
    return whole + moved, spread, later, att_spread


def _mean(values: Tensor, weight: Tensor) -> float:
    return round(float((values * weight).sum() / weight.sum().clamp(min=1e-6)), 3)
