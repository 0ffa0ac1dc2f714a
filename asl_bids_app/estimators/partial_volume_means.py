r"""The flows of two tissues that share voxels, one number each: the fit of a brain or a region.

The signal of voxel *v* in measurement *i* is :math:`\sum_k p_{vk} f_k R_{vi}(t_k)`, with *p* the
fractions of grey and white matter, *f* their flows and *t* their transit times. It is linear in
both flows: they have a closed form at each pair of transit times of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.networks.analytic import precision_of
from asl_bids_app.observation import Observation
from asl_bids_app.scheme_fields import TransitPrior

GRID: Final = (0.05, 4.0, 0.05)
"""First, last and step of the transit times tried, seconds."""
LATER: Final = (0.2, 0.3)
"""Seconds by which blood reaches white matter after grey: mean and standard deviation, both by
choice; the latter is broad."""
LEAST_SHARE: Final = 0.1
"""Fraction of a voxel below which a tissue gets no flow in it."""
USUAL: Final = ((50.0, 100.0), (20.0, 100.0))
"""Mean and standard deviation of the prior of both flows, mL/100 g/min: hardly any."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """The voxels of a mask in a row.

    Attributes
    ----------
    observation : Observation
        Slices; `where` (S, H, W) says which of their voxels stand in the row.
    where : Tensor of bool, shape (S, H, W)
    signal, precision : Tensor, shape (V, n)
        ΔM/M0 and its inverse variance, 0 where nothing was measured.
    shares : Tensor, shape (V, 2)
        Fractions of grey and white matter; they sum to 1 at most.
    slice_of : Tensor of int, shape (V,)
    """

    observation: Observation
    where: Tensor
    signal: Tensor
    precision: Tensor
    shares: Tensor
    slice_of: Tensor

    def response(self, att: Tensor) -> Tensor:
        """Return ΔM/M0 per mL/100 g/min at transit times (V,), as (V, n)."""
        volume = self.signal.new_ones(self.where.shape)
        volume[self.where] = att
        return self.observation.response(volume).permute(0, 2, 3, 1)[self.where]

    def volume(self, values: Tensor) -> Tensor:
        """Return values (..., V) as (..., S, H, W), 0 elsewhere."""
        found = values.new_zeros(*values.shape[:-1], *self.where.shape)
        found[..., self.where] = values
        return found

    def only(self, chosen: Tensor) -> Mixture:
        """Return some of the voxels, by a mask (V,)."""
        where = self.where.clone()
        where[self.where] = chosen
        parts = ("signal", "precision", "shares", "slice_of")
        return replace(self, where=where, **{key: getattr(self, key)[chosen] for key in parts})


def mix(observation: Observation, fractions: Tensor) -> Mixture:
    """Put the voxels of an observation's mask in a row.

    Parameters
    ----------
    observation
        Slices, with their noise; of a voxel that tells nothing it is infinite.
    fractions : Tensor, shape (2, S, H, W)
        Of grey and white matter. Voxels in which they aren't finite tell nothing.
    """
    where = observation.mask
    like = observation.delta_m
    shares = torch.nan_to_num(fractions.to(like), 0.0, 0.0, 0.0).clamp(0, 1)[:, where].T
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1)
    known = torch.isfinite(fractions).all(0).unsqueeze(1)
    precision = precision_of(observation.noise_sd).expand_as(like) * known
    place = torch.arange(len(like), device=like.device)[:, None, None].expand(where.shape)
    rows = like.permute(0, 2, 3, 1)[where], precision.permute(0, 2, 3, 1)[where]
    return Mixture(observation, where, *rows, shares, place[where])


@dataclass(frozen=True)
class TwoFlows:
    """One flow for each tissue, mL/100 g/min and s.

    Attributes
    ----------
    gm, wm : float
    gm_sd, wm_sd : float
        Standard errors by noise and by what is open of the transit times.
    gm_att, wm_att : float
    misfit : float
        Chi square over the number of data; 0 without data.
    """

    gm: float
    wm: float
    gm_sd: float
    wm_sd: float
    gm_att: float
    wm_att: float
    misfit: float

    @property
    def flows(self) -> tuple[float, float]:
        """Of grey and white matter."""
        return self.gm, self.wm


def two_flows(
    mixture: Mixture,
    prior: TransitPrior,
    flows: tuple[tuple[float, float], tuple[float, float]] = USUAL,
    shared: float = 1.0,
) -> TwoFlows:
    """Fit one flow and one transit time for each of two tissues to all voxels of a row.

    Parameters
    ----------
    mixture
    prior
        Of the transit time of grey matter; that of white matter is later by `LATER`.
    flows
        Mean and standard deviation of the priors of both flows, mL/100 g/min.
    shared
        By what the variance of a mean exceeds that of independent voxels.
    """
    first, last, step = GRID
    att = torch.arange(first, last + step / 2, step, dtype=torch.float64)
    observation = mixture.observation
    curves = observation.response(att.to(mixture.signal)[None]).double()
    curves = curves.expand(len(observation), *curves.shape[1:])
    weight, y = mixture.precision.double() / shared, mixture.signal.double()
    gm, wm = mixture.shares.double().split(1, 1)

    def by_slice(values: Tensor) -> Tensor:
        total = values.new_zeros(len(observation), values.shape[1])
        return total.index_add_(0, mixture.slice_of, values)

    (gm_usual, gm_wide), (wm_usual, wm_wide) = flows
    square = curves.square()
    gg = torch.einsum("si,sia->a", by_slice(weight * gm * gm), square)[:, None] + gm_wide**-2
    ww = torch.einsum("si,sia->a", by_slice(weight * wm * wm), square)[None] + wm_wide**-2
    gw = torch.einsum("si,sia,sib->ab", by_slice(weight * gm * wm), curves, curves)
    gy = torch.einsum("si,sia->a", by_slice(weight * gm * y), curves)[:, None]
    wy = torch.einsum("si,sia->a", by_slice(weight * wm * y), curves)[None]
    gy, wy = gy + gm_usual * gm_wide**-2, wy + wm_usual * wm_wide**-2
    det = gg * ww - gw.square()
    found = torch.stack([(ww * gy - gw * wy) / det, (gg * wy - gw * gy) / det])
    by_noise = torch.stack([ww / det, gg / det])
    log = 0.5 * (found[0] * gy + found[1] * wy)
    log = log - 0.5 * ((att[:, None] - prior.mean) / prior.sd).square()
    log = log - 0.5 * ((att[None] - att[:, None] - LATER[0]) / LATER[1]).square()
    odds = (log - log.max()).exp()
    odds = odds / odds.sum()
    best = int(log.argmax())
    likeliest = found.flatten(1)[:, best]
    spread = ((found - likeliest[:, None, None]).square() * odds).flatten(1).sum(1)
    sd = ((by_noise * odds).flatten(1).sum(1) + spread).sqrt().tolist()
    a, b = divmod(best, len(att))
    seen = curves[mixture.slice_of]
    fitted = likeliest[0] * gm * seen[:, :, a] + likeliest[1] * wm * seen[:, :, b]
    count = int((mixture.precision > 0).sum())
    misfit = float(((y - fitted).square() * mixture.precision).sum()) / max(count, 1)
    times = float(att[a]), float(att[b])
    return TwoFlows(*(*likeliest.tolist(), *sd, *times, misfit))
