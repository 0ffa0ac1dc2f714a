r"""Arteries separated from tissue by what the tissue around them does.

A voxel by itself can hardly tell an artery beside late tissue from tissue that blood reaches
early. The tissue around can: its ATT changes little from voxel to voxel. So each voxel has a
prior of its own,

.. math::

    \mathrm{ATT} \sim (1 - \epsilon)\, N(\mu_v, s^2) + \epsilon\, N(\mu_v, w^2), \qquad
    \mathrm{CBF} \sim N(f_v, \tau^2), \qquad p(\mathrm{artery}) = c_v,

:math:`f_v` a first map, :math:`\mu_v` the mean ATT of the voxel's tissues in a Gaussian window,
voxels that likely hold an artery left out, and :math:`c_v` the mean probability of an artery
there. Given these, the posterior of every voxel has a closed form
(`asl_bids_app.networks.arterial`); given the posteriors, :math:`\mu_v` and :math:`c_v` follow. The
two take turns (expectation maximisation). What arteries explain is taken off the data, and what
nobody knows of it is added to the noise; any estimator may then look at the tissue alone.

References
----------
Chappell 2010, doi:10.1002/mrm.22320 (arterial component); Dempster 1977,
doi:10.1111/j.2517-6161.1977.tb01600.x (expectation maximisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.estimators.arterial_evidence import ArterialEvidence
from asl_bids_app.estimators.arteries import LIKELY
from asl_bids_app.estimators.base import Flag, ParameterMaps
from asl_bids_app.estimators.tissue_scores import around, window
from asl_bids_app.networks.grid import PosteriorGrid
from asl_bids_app.series import Series

WINDOW_MM: Final = 12.0
"""Full width at half maximum of the window around a voxel."""
ATT_SD: Final = 0.1
"""s: how far a voxel's ATT usually is from the mean of its tissue around."""
ATT_TAIL: Final = (0.01, 0.5)
"""Share of voxels, as at the rim of a lesion, that are further off, and how far (s)."""
CHANCE: Final = (0.1, 0.02, 0.3)
"""Of an artery: before the data, and the least and the most that a window may say. With no limit a
model that fits a real scan badly finds arteries everywhere."""
STEPS: Final = 40
"""Most turns of the two."""
LEAST_MOVE: Final = 0.0005
"""s: smaller moves of the mean ATT around end them."""
DISTRUST: Final = 0.1
"""Probability of an artery at which a voxel counts half when means of ATT are corrected: what is
left of an artery makes tissue look early. Less would count mostly voxels that noise makes late."""
_TABLE_STEP: Final = 0.005
"""s, of the means of ATT that priors are tabled for."""
_EVERYONE: Final = 0.3
"""Voxels' worth of all tissue around that counts beside a tissue's own."""


@dataclass(frozen=True)
class Separated:
    """Arteries in the voxels of a series; (S, H, W) but for two; zero outside the mask.

    Attributes
    ----------
    artery : Tensor
        Probability of an artery.
    volume, volume_sd : Tensor
        mL of blood in a mL of the voxel, and one standard deviation.
    vessels, vessels_sd : Tensor, shape (S, n, H, W)
        Their part of ΔM/M0, and one standard deviation.
    """

    artery: Tensor
    volume: Tensor
    volume_sd: Tensor
    vessels: Tensor
    vessels_sd: Tensor

    @property
    def att_trust(self) -> Tensor:
        """How far residuals of a voxel tell of the tissue's ATT, 0 to 1, (S, H, W)."""
        return 1 / (1 + (self.artery / DISTRUST).square())

    def added_to(self, maps: ParameterMaps[Tensor]) -> ParameterMaps[Tensor]:
        """Return the maps of the tissue with those of the arteries, and their flag."""
        artery = (self.artery > LIKELY).to(maps.flags) * int(Flag.ARTERY)
        return replace(
            maps,
            flags=maps.flags | artery,
            abv=100 * self.volume,
            abv_sd=100 * self.volume_sd,
            vessels=self.vessels,
        )

    def tissue_of(self, series: Series) -> Series:
        """Return the series without the arteries, and with what is not known of them as noise.

        Parameters
        ----------
        series
            With its noise.
        """
        assert series.noise is not None
        noise = torch.hypot(series.noise.noise_sd, self.vessels_sd.to(series.noise.noise_sd))
        left = series.without_arteries(self.vessels)
        return replace(left, noise=replace(series.noise, noise_sd=noise))


@torch.no_grad()
def separate_arteries(
    evidence: ArterialEvidence,
    att: Tensor,
    voxel_mm: Sequence[float],
    fractions: Tensor | None = None,
) -> Separated:
    """Find arteries by what the tissue around each voxel does.

    Parameters
    ----------
    evidence
        Of the data.
    att : Tensor, shape (S, H, W)
        A first map, s.
    voxel_mm
        Distances of slices, rows and columns.
    fractions : Tensor, shape (2, S, H, W), optional
        Of grey and white matter; without them all voxels are one tissue.
    """
    mask, points = evidence.mask, evidence.att
    inside = mask.to(att)
    sizes = zip(mask.shape, voxel_mm, strict=True)
    windows = [window(n, size, WINDOW_MM, att) for n, size in sizes]
    tissues = torch.stack([inside, torch.zeros_like(inside)])
    if fractions is not None:
        tissues = torch.nan_to_num(fractions.to(att)).clamp(0, 1) * inside
    together = tissues.sum(0).clamp(min=1e-3) * inside

    def as_map(values: Tensor) -> Tensor:
        return torch.zeros_like(att).masked_scatter(mask, values.to(att))

    # Evidence without its logarithm, the larger one 1: the tail of the prior keeps sums above 0.
    scale = torch.maximum(evidence.without.amax(1), evidence.within.amax(1))[:, None]
    alone, beside = (evidence.without - scale).exp(), (evidence.within - scale).exp()
    table, first = _priors(points)
    artery = torch.zeros_like(att)
    chance = torch.full_like(att, CHANCE[0])
    within, before = beside, points.new_zeros(len(beside))
    for _ in range(STEPS):
        usual = _usual_att(att, (1 - artery).square() * inside, tissues, together, windows)[mask]
        if float((usual - before).abs().mean()) < LEAST_MOVE:
            break
        before = usual
        expected = table[((usual - first) / _TABLE_STEP).round().long()]
        odds = chance[mask][:, None]
        without = (1 - odds) * expected * alone
        within = odds * expected * beside
        total = without.sum(1) + within.sum(1)
        artery = as_map(within.sum(1) / total)
        att = as_map((without + within) @ points / total)
        within = within / total[:, None]
        found, there = around(torch.stack([artery * together, together]), windows)
        start, least, most = CHANCE
        chance = ((found + 2 * start) / (there + 2)).clamp(least, most)

    def mean(values: Tensor) -> Tensor:
        return as_map((within * values).sum(1))

    volume = mean(evidence.volume)
    every = range(evidence.shown.shape[2])
    vessels = torch.stack([mean(evidence.shown[..., i]) for i in every], 1)
    square = torch.stack([mean(evidence.shown_square[..., i]) for i in every], 1)
    return Separated(
        artery,
        volume,
        (mean(evidence.volume_square) - volume.square()).clamp(min=0).sqrt(),
        vessels,
        (square - vessels.square()).clamp(min=0).sqrt(),
    )


def _priors(points: Tensor) -> tuple[Tensor, float]:
    """Return the prior of ATT at points (G,) for every mean in steps, and the first mean, s."""
    grid = PosteriorGrid()
    steps = round((grid.att_max - grid.att_min) / _TABLE_STEP) + 1
    means = grid.att_min + _TABLE_STEP * torch.arange(steps, device=points.device).to(points)
    off = points - means[:, None]
    share, wide = ATT_TAIL
    near = (1 - share) / ATT_SD * torch.exp(-0.5 * (off / ATT_SD).square())
    return near + share / wide * torch.exp(-0.5 * (off / wide).square()) + 1e-9, grid.att_min


def _usual_att(
    att: Tensor, trust: Tensor, tissues: Tensor, together: Tensor, windows: Sequence[Tensor]
) -> Tensor:
    """Return the mean ATT of each voxel's tissues around it, s, (S, H, W)."""
    # Squared: a voxel of mixed tissue says little of either.
    weights = trust * torch.cat([tissues, together[None]]).square()
    total, there = around(torch.cat([att * weights, weights]), windows).chunk(2)
    everyone = total[2] / there[2].clamp(min=1e-9)
    own = (total[:2] + _EVERYONE * everyone) / (there[:2] + _EVERYONE)
    mixed = (tissues * own).sum(0) / together.clamp(min=1e-3)
    grid = PosteriorGrid()
    return torch.where(together > 0.05, mixed, everyone).clamp(grid.att_min, grid.att_max)
