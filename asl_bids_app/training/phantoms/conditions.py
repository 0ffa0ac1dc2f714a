"""What flows where: perfusion and transit time of tissues, territories and diseases."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.head_anatomy import Anatomy
from asl_bids_app.training.random_draws import Random, chance, log_uniform, normal, spread, uniform
from asl_bids_app.training.random_fields import correlated, mosaic_field, smooth_field

HEALTHY, ELDERLY, STROKE, TUMOUR, STENOSIS = range(5)

CONDITIONS: Final = ("healthy", "elderly", "stroke", "tumour", "stenosis")
"""Names of the conditions, by code."""


@dataclass(frozen=True)
class Baseline:
    """Usual physiology of a condition: (mean or median, spread) of a subject's values.

    Attributes
    ----------
    grey_cbf
        Median in mL/100 g/min and logarithmic standard deviation.
    grey_att
        Mean and standard deviation, s.
    atrophy
        Range of 0 (young) to 1.
    """

    grey_cbf: tuple[float, float]
    grey_att: tuple[float, float]
    atrophy: tuple[float, float]


BASELINES: Final = MappingProxyType(
    {
        HEALTHY: Baseline((58.0, 0.22), (1.05, 0.2), (0.0, 0.35)),
        ELDERLY: Baseline((45.0, 0.25), (1.40, 0.25), (0.3, 1.0)),
        STROKE: Baseline((46.0, 0.25), (1.30, 0.25), (0.1, 0.9)),
        TUMOUR: Baseline((50.0, 0.25), (1.15, 0.25), (0.0, 0.6)),
        STENOSIS: Baseline((45.0, 0.25), (1.35, 0.25), (0.1, 0.9)),
    }
)

# Centres of the arteries' territories in mm of the atlas, with x counted from the midline.
# Rough: territories differ widely between people, and every draw moves them.
_TERRITORIES: Final = (
    ((7.0, 45.0, 10.0), (7.0, 25.0, 50.0), (7.0, -25.0, 62.0)),  # anterior cerebral
    ((45.0, 20.0, 12.0), (48.0, -10.0, 20.0), (46.0, -38.0, 25.0), (45.0, -5.0, -15.0)),
    ((12.0, -78.0, 8.0), (25.0, -55.0, -8.0), (10.0, -35.0, 5.0)),  # posterior cerebral
    ((20.0, -62.0, -38.0), (4.0, -35.0, -38.0)),  # vertebrobasilar
)
ANTERIOR, MIDDLE, POSTERIOR, VERTEBROBASILAR = range(4)
_WILLIS: Final = (0.0, 0.0, -18.0)


@dataclass(frozen=True)
class Territories:
    """Which artery feeds each pixel.

    Attributes
    ----------
    share : Tensor, shape (n, 4, H, W)
        Share of the territories in `_TERRITORIES`, summing to 1.
    right : Tensor, shape (n, H, W)
        1 in the right hemisphere, 0 in the left.
    watershed : Tensor, shape (n, H, W)
        1 on the border between territories, falling to 0.
    distance : Tensor, shape (n, H, W)
        Millimetres from the circle of Willis.
    """

    share: Tensor
    right: Tensor
    watershed: Tensor
    distance: Tensor


def draw_territories(place: Tensor, voxel: Tensor, generator: Random) -> Territories:
    """Divide slices into vascular territories with borders that differ between samples."""
    n = len(place)
    wavy = log_uniform(generator, (n,), (7.0, 18.0))
    lumps = smooth_field(generator, len(_TERRITORIES), place.shape[-1], wavy[:, None] / voxel)
    folded = torch.stack([place[:, 0].abs(), place[:, 1], place[:, 2]], 1)
    distances = []
    for centres in _TERRITORIES:
        centre = torch.tensor(centres, device=place.device) + 6 * normal(
            generator, (n, len(centres), 3)
        )
        square = ((folded[:, None] - centre[..., None, None]) ** 2).sum(2)
        distances.append(square.amin(1).sqrt())
    distance = torch.stack(distances, 1) + 0.4 * spread(wavy, 3) * lumps
    width = spread(uniform(generator, (n,), (3.0, 9.0)), 2)
    share = torch.softmax(-distance / (0.5 * width[:, None]), 1)
    # 1 where two territories have equal shares, 0 where one has all.
    first = share.amax(1)
    watershed = (4 * first * (1 - first)).clamp(max=1)
    willis = torch.tensor(_WILLIS, device=place.device)
    far = (place - spread(willis, 2)).square().sum(1).sqrt()
    return Territories(share, torch.sigmoid(place[:, 0] / 1.5), watershed, far)


@dataclass(frozen=True)
class Physiology:
    """What flows in a batch before lesions.

    Attributes
    ----------
    cbf, att : Tensor, shape (n, H, W)
        mL/100 g/min and s.
    territories : Territories
    white_flow, white_delay : Tensor, shape (n, H, W)
        Share of white matter in the flow, and by how many seconds blood comes later to it.
    """

    cbf: Tensor
    att: Tensor
    territories: Territories
    white_flow: Tensor
    white_delay: Tensor


def _baselines(
    config: PhantomConfig, condition: Tensor, generator: Random
) -> tuple[Tensor, Tensor]:
    n = len(condition)
    table = torch.tensor(
        [[*b.grey_cbf, *b.grey_att] for b in BASELINES.values()], device=condition.device
    )
    median, log_sd, mean, sd = table[condition.long()].unbind(1)
    cbf = median * torch.exp(log_sd * normal(generator, (n,)))
    att = mean + sd * normal(generator, (n,))
    wide = chance(generator, (n,), config.wide_physiology)
    cbf = torch.where(wide, log_uniform(generator, (n,), (12.0, 130.0)), cbf)
    att = torch.where(wide, uniform(generator, (n,), (0.4, 2.6)), att)
    return cbf.clamp(10, 130), att.clamp(0.4, 3.0)


def draw_atrophy(condition: Tensor, generator: Random) -> Tensor:
    """Draw how far ventricles and sulci are widened, 0 to 1, shape (n,)."""
    low, high = torch.tensor([b.atrophy for b in BASELINES.values()], device=condition.device)[
        condition.long()
    ].unbind(1)
    return low + (high - low) * uniform(generator, (len(condition),), (0.0, 1.0))


def draw_physiology(
    config: PhantomConfig, anatomy: Anatomy, condition: Tensor, generator: Random
) -> Physiology:
    """Draw perfusion and transit time of slices, without lesions.

    Tissues have values of their own with smooth and fine texture; CBF mixes by volume in a
    pixel, ATT by flow. Territories, watersheds and distance add to ATT.
    """
    n, _, size, _ = anatomy.fractions.shape
    grey_cbf, grey_att = _baselines(config, condition, generator)
    millimetre = 1 / anatomy.voxel

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    smooth = smooth_field(
        generator, 4, size, log_uniform(generator, (n,), (10.0, 30.0))[:, None] * millimetre
    )
    fine_sigma = uniform(generator, (n,), (0.3, 1.2))
    fine = correlated(generator, 2, size, size, fine_sigma)
    regions = mosaic_field(generator, n, size, 16)
    edged = spread(chance(generator, (n,), config.mosaic), 2)
    regions_att = torch.where(edged, 0.25 * torch.tanh(regions), 0.0)
    regions_cbf = torch.where(edged, 0.25 * torch.tanh(regions.roll(7, 1)), 0.0)

    # Where blood comes late there is often less of it.
    link = drawn((-0.5, 0.2))
    relative = torch.exp(
        drawn(config.cbf_texture) * smooth[:, 0]
        + drawn(config.cbf_fine_texture) * fine[:, 0]
        + regions_cbf
    )
    ratio = drawn(config.white_flow)
    grey = spread(grey_cbf, 2) * relative
    white = spread(grey_cbf, 2) * ratio * relative**0.5 * torch.exp(0.1 * smooth[:, 1])
    fluid = drawn((0.0, 2.0)).expand_as(grey)

    territories = draw_territories(anatomy.place, anatomy.voxel, generator)
    both, other = (
        normal(generator, (n, 4)) * uniform(generator, (n, 1), config.territory_delay)
        for _ in range(2)
    )
    left = (territories.share * spread(1.4 * both, 2)).sum(1)
    right = (territories.share * spread(1.4 * both + other, 2)).sum(1)
    delay = left + (right - left) * territories.right
    elder = spread(torch.where(condition == HEALTHY, 0.5, 1.0), 2)
    delay = delay + elder * drawn(config.watershed_delay) * territories.watershed
    delay = delay + drawn(config.distal_delay) * (territories.distance - 50)
    texture = link * smooth[:, 0] + (1 - link**2).sqrt() * smooth[:, 2]
    delay = delay + drawn(config.att_texture) * texture + regions_att
    delay = delay + drawn(config.att_fine_texture) * fine[:, 1]
    grey_late = spread(grey_att, 2) + delay
    white_late = grey_late + drawn((0.1, 0.7)) + 0.05 * smooth[:, 3]

    low, high = config.att
    parts = anatomy.fractions * torch.stack([grey, white, fluid], 1).clamp(0, config.cbf_limit)
    cbf = parts.sum(1)
    late = torch.stack([grey_late, white_late, white_late], 1).clamp(low, high)
    # The small constant carries ATT into pixels without flow.
    weight = parts + 0.01 * anatomy.fractions + 1e-4
    att = (weight * late).sum(1) / weight.sum(1)
    share = parts[:, 1] / cbf.clamp(min=1e-3)
    return Physiology(cbf, att, territories, share, late[:, 1] - late[:, 0])
