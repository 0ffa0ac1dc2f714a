"""Sums over the grid over ATT, in the state without an artery and in that with one."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from asl_bids_app.networks.arterial import (
    STRIDE,
    ArterialBranch,
    ArterialPrior,
    arterial_branch,
)
from asl_bids_app.networks.grid import PosteriorGrid

_MOST_LOST = 3.0
"""Logarithm of the most by which the coarser grid of the artery may err in its evidence."""


@dataclass(frozen=True)
class Tables:
    """What voxels are compared with.

    Attributes
    ----------
    grid : PosteriorGrid
    curves : Tensor, shape (S, n, points)
        Response of tissue at the grid's points.
    arterial : ArterialPrior or None
    vessels : Tensor or None, shape (S, n, K)
        Response of arteries.
    """

    grid: PosteriorGrid
    curves: Tensor
    arterial: ArterialPrior | None = None
    vessels: Tensor | None = None

    def to(self, like: Tensor) -> Tables:
        """Return the tables in the dtype of a tensor."""
        vessels = None if self.vessels is None else self.vessels.to(like)
        return replace(self, curves=self.curves.to(like), vessels=vessels)


@dataclass(frozen=True)
class Sums:
    """Sums over the grid in one state, weights included; they add up over states.

    `cbf`, `second` (of CBF squared), `att`, `att_second`, `product`, `noise`, `artery`, `volume`
    and `volume_square` are (S, V); the others have columns.
    """

    cbf: Tensor
    second: Tensor
    att: Tensor
    att_second: Tensor
    product: Tensor
    noise: Tensor
    predicted: Tensor
    bins: Tensor
    bin_att: Tensor
    bin_cbf: Tensor
    artery: Tensor
    volume: Tensor
    volume_square: Tensor
    bin_volume: Tensor
    vessels: Tensor

    def joined(self, other: Sums) -> Sums:
        """Add the sums of another state; its bins come behind."""
        behind = {"bins", "bin_att", "bin_cbf", "bin_volume"}
        mine = replace(
            self, bin_volume=torch.zeros_like(self.bins), vessels=torch.zeros_like(other.vessels)
        )

        def together(name: str) -> Tensor:
            one, two = getattr(mine, name), getattr(other, name)
            return torch.cat([one, two], 2) if name in behind else one + two

        return Sums(**{f.name: together(f.name) for f in fields(Sums)})

    def moments(self) -> Tensor:
        """Return mean and variance of CBF, of ATT, covariance and noise, (S, V, 6)."""
        return torch.stack(
            [
                self.cbf,
                self.second - self.cbf.square(),
                self.att,
                self.att_second - self.att.square(),
                self.product - self.cbf * self.att,
                self.noise,
            ],
            2,
        )


def sums_without(
    grid: PosteriorGrid,
    att: Tensor,
    curves: Tensor,
    weight: Tensor,
    mean: Tensor,
    by_noise: Tensor,
    square: Tensor,
) -> Sums:
    """Sum over the grid without an artery; `mean` and `square` are used up."""
    noise = torch.linalg.vecdot(weight, by_noise)
    second = square.add_(by_noise).mul_(weight).sum(2)
    weighted_mean = mean.mul_(weight)
    none = torch.zeros_like(noise)
    return Sums(
        second=second,
        noise=noise,
        artery=none,
        volume=none,
        volume_square=none,
        bin_volume=none.unsqueeze(2)[..., :0],
        vessels=none.unsqueeze(2)[..., :0],
        **_projections(grid, att, curves, weight, weighted_mean),
    )


def _bins_of(grid: PosteriorGrid, points: int, like: Tensor) -> Tensor:
    """Return 1 where a point of the grid lies in a bin, (points, bins)."""
    each = torch.eye(grid.bins, dtype=like.dtype, device=like.device)
    return each.repeat_interleave(points // grid.bins, 0)


def _projections(
    grid: PosteriorGrid, att: Tensor, curves: Tensor, weight: Tensor, weighted_mean: Tensor
) -> dict[str, Tensor]:
    """Sum weights, and CBF times weights, against ATT, bins and curves."""
    each = _bins_of(grid, len(att), weight)
    columns = [att[:, None], att.square()[:, None], each, att[:, None] * each]
    of_weight = weight @ torch.cat(columns, 1)
    by_cbf = torch.cat([torch.ones_like(att)[None], att[None], each.T])
    by_cbf = by_cbf.expand(len(curves), -1, -1)
    of_cbf = weighted_mean @ torch.cat([by_cbf, curves], 1).transpose(1, 2)
    cbf, product, bin_cbf, predicted = of_cbf.tensor_split([1, 2, 2 + grid.bins], 2)
    bins, bin_att = of_weight[..., 2:].split(grid.bins, 2)
    return {
        "cbf": cbf.squeeze(2),
        "product": product.squeeze(2),
        "bin_cbf": bin_cbf,
        "predicted": predicted,
        "att": of_weight[..., 0],
        "att_second": of_weight[..., 1],
        "bins": bins,
        "bin_att": bin_att,
    }


@dataclass(frozen=True)
class WithArtery:
    """The state with an artery, on a grid over ATT with fewer points.

    Attributes
    ----------
    weight : Tensor, shape (K, S, V, G)
        Weights by arterial arrival and ATT.
    branch : ArterialBranch
        What an artery explains.
    cbf, noise : Tensor, shape (S, V, G)
        Mean and variance of CBF without the artery; the variance may be (S, 1, G).
    att : Tensor, shape (G,)
        Seconds.
    curves, vessels : Tensor, shape (S, n, G) and (S, n, K)
        Responses of tissue and of arteries.
    """

    weight: Tensor
    branch: ArterialBranch
    cbf: Tensor
    noise: Tensor
    att: Tensor
    curves: Tensor
    vessels: Tensor

    def sums(self, grid: PosteriorGrid) -> Sums:
        """Sum over the grid."""
        weight, branch = self.weight, self.branch
        total = weight.sum(0)
        cbf = self.cbf - branch.shift
        second = (weight * (cbf.square() + branch.spread)).sum((0, 3))
        noise = (total * self.noise).sum(2)
        volume = weight * branch.volume
        by_arrival = volume.sum(3).movedim(0, 2)
        own = _projections(grid, self.att, self.curves, total, (weight * cbf).sum(0))
        in_vessels = by_arrival @ self.vessels.mT
        own["predicted"] = own["predicted"] + in_vessels
        each = _bins_of(grid, len(self.att), weight)
        return Sums(
            second=second + noise,
            noise=noise,
            artery=total.sum(2),
            volume=by_arrival.sum(2),
            volume_square=(weight * branch.volume_square).sum((0, 3)),
            bin_volume=volume.sum(0) @ each,
            vessels=in_vessels,
            **own,
        )


def with_artery(
    tables: Tables,
    prior: ArterialPrior,
    weighted: Tensor,
    precision: Tensor,
    log_weight: Tensor,
) -> tuple[Tensor, WithArtery]:
    """Share the weights of the grid out among no artery, (S, V, points), and one."""
    grid, vessels = tables.grid, tables.vessels
    assert vessels is not None
    # The middle of each group of points stands for it; a group never reaches over two bins.
    stride = math.gcd(STRIDE, grid.points // grid.bins)
    curves = tables.curves.unflatten(2, (-1, stride)).mean(3)
    att = grid.att.to(weighted).unflatten(0, (-1, stride)).mean(1)
    flat_prior = weighted.new_tensor(grid.cbf_sd**-2)
    curvature = torch.baddbmm(flat_prior, precision, curves.square())
    mean = torch.baddbmm(flat_prior * grid.cbf_mean, weighted, curves).div_(curvature)
    branch = arterial_branch(prior, weighted, precision, curves, vessels, mean, curvature, att)

    spacing = stride * grid.spacing(att)
    coarse = grid.log_prior(att) + spacing.log() - 0.5 * curvature.log()
    coarse = coarse + 0.5 * curvature * mean.square()
    # What the coarser grid makes of the evidence without an artery, it makes of that with one.
    lost = log_weight.logsumexp(2) - coarse.logsumexp(2)
    coarse = coarse + lost.clamp(-_MOST_LOST, _MOST_LOST)[..., None]
    there = branch.log_gain + coarse
    scale = torch.maximum(log_weight.amax(2), there.amax((0, 3)))[..., None]
    weight = (log_weight - scale).exp_()
    there = (there - scale).exp_()
    total = (weight.sum(2) + there.sum((0, 3)))[..., None]
    state = WithArtery(
        there.div_(total), branch, mean, curvature.reciprocal(), att, curves, vessels
    )
    return weight.div_(total), state
