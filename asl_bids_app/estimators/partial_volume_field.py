r"""Flows of two tissues as smooth fields: the posterior of both in every voxel, in closed form.

With the fractions *p* of a voxel, its signal is :math:`\sum_k p_k f_k R(t_k)`. A voxel can't
tell two flows, but its neighbours have other fractions. Flow and transit time of each tissue are
Gaussian fields, :math:`u_k = m_k + \tau_k S z_k` with :math:`z \sim N(0, 1)`, whose correlation
:math:`S S^T` is that of Matérn (ν = 3/2) along each axis; grey matter leans on grey matter only,
and white on white. A white field along the response, of standard deviation *s*, takes up what
fractions don't explain: texture finer than the fields, and fractions that are wrong. Given the
transit times all of it is linear and Gaussian; these are found by Gauss and Newton. Means, τ and
*s* come from the data (expectation maximisation).

The posterior's variance is that of a place with the information around it: with *N* the mean of
the voxels' information in a window, and λ the eigenvalues of the correlation over their mean,
:math:`\langle (\lambda^{-1} T^{-2} + N)^{-1} \rangle_\lambda`. Draws from the exact posterior
have the same within 5 %.

Spatial priors of both tissues' flow are Chappell's (2011, doi:10.1002/mrm.22641); he has Markov
random fields and variational Bayes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.estimators.partial_volume_matern import Matern, solve_fields
from asl_bids_app.estimators.partial_volume_means import Mixture, TwoFlows
from asl_bids_app.estimators.tissue_scores import around, window

WINDOW_MM: Final = 9.4
"""Full width at half maximum of the window around a voxel whose information it has."""
FLOW_SD: Final = (0.05, 0.2, 0.6)
"""τ of flows as a part of the mean flow: least, at first, most."""
ATT_SD: Final = (0.05, 0.15, 0.4)
"""The same of transit times, seconds."""
LEAST_FLOW: Final = (5.0, 3.0)
"""mL/100 g/min: mean flows of grey and white matter below which parts of them are of these."""
MEANS_SD: Final = (30.0, 20.0, 0.3, 0.3)
"""Of the fields' means about those of the whole brain: mL/100 g/min and s."""
LEAST_UNEXPLAINED: Final = 0.02
"""*s* at least, as a part of the flow of grey matter."""
STEPS: Final = 4
OUTLIER: Final = 4.0
"""What fractions don't explain, in standard deviations, at which a voxel counts half."""
ATT_STEP: Final = 0.05
"""s: half the distance of the points by which dR/dATT is found."""
ATT_RANGE: Final = (0.05, 4.0)


@dataclass(frozen=True)
class Fields:
    """Flows of the voxels of a row.

    Attributes
    ----------
    flows, sd : Tensor, shape (2, V)
        Of grey and white matter, mL/100 g/min.
    unexplained : float
        *s*, mL/100 g/min.
    spread : tuple of float
        τ of both flows, mL/100 g/min.
    """

    flows: Tensor
    sd: Tensor
    unexplained: float
    spread: tuple[float, ...]


@dataclass
class _State:
    """What the iteration holds: fields (4, V), their means and spreads, and *s*."""

    values: Tensor
    means: Tensor
    spread: Tensor
    unexplained: float
    trust: Tensor


def fit_fields(mixture: Mixture, start: TwoFlows, voxel_mm: Sequence[float]) -> Fields:
    """Compute the posterior of the flows of both tissues in every voxel of a row.

    Parameters
    ----------
    mixture
    start
        Of the whole brain.
    voxel_mm
        Distance of slices, rows and columns.
    """
    like = mixture.signal
    # One measurement says nothing of transit times.
    count = 4 if like.shape[1] > 1 else 2
    scale = [max(flow, least) for flow, least in zip(start.flows, LEAST_FLOW, strict=True)]
    limits = like.new_tensor([[b * s for b in FLOW_SD] for s in scale] + [list(ATT_SD)] * 2)
    limits = limits[:count]
    means = like.new_tensor([*start.flows, start.gm_att, start.wm_att])
    state = _State(
        means[:, None].repeat(1, len(like)),
        means[:count, None],
        limits[:, 1:2].clone(),
        0.1 * scale[0],
        torch.ones_like(like[:, 0]),
    )
    matern = Matern(mixture.where.shape, voxel_mm, like)
    windows = [
        window(n, mm, WINDOW_MM, like) for n, mm in zip(mixture.where.shape, voxel_mm, strict=True)
    ]
    windows = [w / w.sum(1).amax() for w in windows]
    left = matern.shrinkage()
    shares = mixture.shares.T.repeat(count // 2, 1)
    wide = like.new_tensor(MEANS_SD[:count])[:, None]
    z = like.new_zeros(count, *mixture.where.shape)
    for step in range(STEPS):
        information, score, along = _normal_equations(mixture, state)
        z, common = solve_fields(
            mixture.where, matern, state.spread, wide, (information, score), z
        )
        move = matern.apply(z)[:, mixture.where] * state.spread
        state.values[:count] = state.means + common + move
        state.values[2:].clamp_(*ATT_RANGE)
        variance = _variance(mixture, information, state.spread, windows, left)
        _judge(mixture, state, along, LEAST_UNEXPLAINED * scale[0])
        if step < STEPS - 1:
            weight = shares.square()
            found = (weight * (move.square() + variance)).sum(1, keepdim=True)
            found = found / weight.sum(1, keepdim=True).clamp(min=1e-6)
            spread = found.sqrt().clamp(min=limits[:, :1]).minimum(limits[:, 2:])
            z = z * (state.spread / spread)[:, :, None, None]
            state.spread = spread
    return Fields(
        state.values[:2],
        variance[:2].sqrt(),
        state.unexplained,
        tuple(state.spread[:2, 0].tolist()),
    )


def _normal_equations(
    mixture: Mixture, state: _State
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return information (K, K, V) and score (K, V) about the means, and the response to CBF."""
    flows, count = state.values[:2], len(state.spread)
    columns, bent = [], []
    for k in range(2):
        att, share = state.values[2 + k], mixture.shares[:, k, None]
        columns.append(share * mixture.response(att))
        if count > 2:
            ends = mixture.response(att + ATT_STEP), mixture.response(att - ATT_STEP)
            bent.append(share * flows[k, :, None] * (ends[0] - ends[1]) / (2 * ATT_STEP))
    fitted = columns[0] * flows[0, :, None] + columns[1] * flows[1, :, None]
    design = torch.stack([*columns, *bent], 1)
    target = mixture.signal - fitted
    off = (state.values[:count] - state.means).T
    target = target + (design * off.unsqueeze(2)).sum(1)
    # The response to CBF as tissues of usual flow mix it.
    usual = state.means[:2, 0].clamp(min=1.0)
    mixed = columns[0] * usual[0] + columns[1] * usual[1]
    whole = (mixture.shares @ usual).unsqueeze(1)
    bare = mixture.response(state.values[2])
    response = torch.where(whole > 0.02 * usual.max(), mixed / whole.clamp(min=1e-3), bare)
    weighted = design * mixture.precision.unsqueeze(1)
    information = torch.einsum("vki,vli->klv", weighted, design)
    score = torch.einsum("vki,vi->kv", weighted, target)
    power = (response.square() * mixture.precision).sum(1)
    shared = torch.einsum("vki,vi->kv", weighted, response)
    own = (response * mixture.precision * target).sum(1)
    gain = 1 / (state.unexplained**-2 + power)
    information = information - gain * shared * shared.unsqueeze(1)
    score = score - gain * own * shared
    return information * state.trust, score * state.trust, (response, power)


def _variance(
    mixture: Mixture,
    information: Tensor,
    spread: Tensor,
    windows: Sequence[Tensor],
    left: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the posterior's variances, (K, V)."""
    count = len(spread)
    rows, columns = torch.triu_indices(count, count)
    near = around(mixture.volume(information[rows, columns]), windows)[:, mixture.where]
    mean = information.new_zeros(information.shape[2], count, count)
    mean[:, rows, columns] = near.T
    mean[:, columns, rows] = near.T
    values, vectors = torch.linalg.eigh(mean * spread * spread.T)
    kept = left(values).unsqueeze(1)
    return (vectors.square() * kept).sum(2).T * spread.square()


def _judge(mixture: Mixture, state: _State, along: tuple[Tensor, Tensor], least: float) -> None:
    """Find *s*, and how far voxels are believed, from what the fields leave."""
    response, power = along
    left = mixture.signal.clone()
    for k in range(2):
        share = mixture.shares[:, k, None]
        left -= share * state.values[k, :, None] * mixture.response(state.values[2 + k])
    off = (response * mixture.precision * left).sum(1) / power.clamp(min=1e-12)
    noise = 1 / power.clamp(min=1e-12)
    used = power > 0.1 * power.median()
    if not bool(used.any()):
        return
    total = state.unexplained**2 + noise
    state.trust = 1 / (1 + off.square() / (OUTLIER**2 * total))
    weight = state.trust[used] / total[used].square()
    excess = (weight * (off.square() - noise)[used]).sum() / weight.sum()
    state.unexplained = max(float(excess), least**2) ** 0.5
