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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.estimators.partial_volume_means import Mixture, TwoFlows
from asl_bids_app.estimators.tissue_scores import around, window

LENGTH_MM: Final = 8.0
"""ℓ of Matérn's correlation (1 + d/ℓ) exp(-d/ℓ), which is a half at 13 mm. By choice: half
of what a kernel of five voxels of 3.4 mm spans."""
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
MOST_TURNS: Final = 60
TOLERANCE: Final = 1e-5
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


class _Matern:
    """The root *S* of a correlation that is the product of those along the axes."""

    def __init__(self, shape: Sequence[int], voxel_mm: Sequence[float], like: Tensor) -> None:
        self.roots, spectra = [], []
        for size, mm in zip(shape, voxel_mm, strict=True):
            place = torch.arange(size, dtype=torch.float64) * mm / LENGTH_MM
            apart = (place[:, None] - place).abs()
            values, vectors = torch.linalg.eigh((1 + apart) * (-apart).exp())
            values = values.clamp(min=1e-9)
            self.roots.append((vectors * values.sqrt()).to(like))
            spectra.append(values)
        self.spectrum = torch.einsum("i,j,k->ijk", *spectra).to(like)

    def apply(self, z: Tensor) -> Tensor:
        """Return S z, (K, S, H, W)."""
        slices, rows, columns = self.roots
        return rows @ torch.einsum("st,kthw->kshw", slices, z) @ columns.T

    def adjoint(self, u: Tensor) -> Tensor:
        """Return Sᵀ u."""
        slices, rows, columns = self.roots
        return rows.T @ torch.einsum("ts,kthw->kshw", slices, u) @ columns

    def shrinkage(self) -> Callable[[Tensor], Tensor]:
        """Return what is left of a variance of 1, by the information there is."""
        eigenvalues = self.spectrum.flatten().double()
        eigenvalues = eigenvalues / eigenvalues.mean()
        ends = torch.logspace(-5, 6, 111, dtype=torch.float64)
        kept = torch.stack([(eigenvalues / (1 + n * eigenvalues)).mean() for n in ends])

        def look_up(information: Tensor) -> Tensor:
            place = (information.double().clamp(1e-5, 1e6).log10() + 5) * 10
            low = place.floor().clamp(max=109).long()
            part = place - low
            return (kept[low] * (1 - part) + kept[low + 1] * part).to(information)

        return look_up


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
    matern = _Matern(mixture.where.shape, voxel_mm, like)
    windows = [
        window(n, mm, WINDOW_MM, like) for n, mm in zip(mixture.where.shape, voxel_mm, strict=True)
    ]
    windows = [w / w.sum(1).amax() for w in windows]
    left = matern.shrinkage()
    shares = mixture.shares.T.repeat(count // 2, 1)
    z = like.new_zeros(count, *mixture.where.shape)
    for step in range(STEPS):
        information, score, along = _normal_equations(mixture, state)
        z, common = _solve(mixture, matern, state, information, score, z)
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


def _solve(
    mixture: Mixture,
    matern: _Matern,
    state: _State,
    information: Tensor,
    score: Tensor,
    z: Tensor,
) -> tuple[Tensor, Tensor]:
    """Solve for the fields (from `z`) and their means by preconditioned conjugate gradients."""
    spread, where = state.spread, mixture.where
    wide = score.new_tensor(MEANS_SD[: len(spread)])[:, None]

    def to_fields(z: Tensor, c: Tensor) -> Tensor:
        return matern.apply(z)[:, where] * spread + wide * c

    def from_fields(u: Tensor) -> tuple[Tensor, Tensor]:
        return matern.adjoint(mixture.volume(u * spread)), wide * u.sum(1, keepdim=True)

    def times(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        back = from_fields((information * to_fields(z, c)).sum(1))
        return z + back[0], c + back[1]

    own = information.diagonal(dim1=0, dim2=1).T.sum(1, keepdim=True)
    even = 1 / (1 + (own / where.numel() * spread.square())[:, :, None, None] * matern.spectrum)
    even_c = 1 / (1 + wide.square() * own)

    def dot(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
        return float((a[0] * b[0]).sum(dtype=torch.float64) + (a[1] * b[1]).sum())

    c = torch.zeros_like(wide)
    right = from_fields(score)
    there = times(z, c)
    residual = right[0] - there[0], right[1] - there[1]
    whole = dot((right[0] * even, right[1] * even_c), right)
    ahead = residual[0] * even, residual[1] * even_c
    way, size = ahead, dot(ahead, residual)
    for _ in range(MOST_TURNS):
        if not size > TOLERANCE * whole:
            break
        there = times(*way)
        length = size / dot(way, there)
        z, c = z + length * way[0], c + length * way[1]
        residual = residual[0] - length * there[0], residual[1] - length * there[1]
        ahead = residual[0] * even, residual[1] * even_c
        size, before = dot(ahead, residual), size
        way = ahead[0] + size / before * way[0], ahead[1] + size / before * way[1]
    return z, wide * c


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
