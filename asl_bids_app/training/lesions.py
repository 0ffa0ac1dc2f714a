"""What disease does to the maps: lesions of known kind, place, size and edge."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Generator, Tensor

from asl_bids_app.training.anatomy import Anatomy
from asl_bids_app.training.conditions import (
    ANTERIOR,
    MIDDLE,
    STENOSIS,
    STROKE,
    TUMOUR,
    Physiology,
    Territories,
)
from asl_bids_app.training.draws import (
    chance,
    choose,
    log_uniform,
    smooth_field,
    spread,
    uniform,
)
from asl_bids_app.training.phantom_config import PhantomConfig

BACKGROUND, GREY, WHITE, FLUID, CORE, PENUMBRA, DELAYED = range(7)
TUMOUR_CORE, TUMOUR_RIM, OEDEMA, BRIGHT_SPOT, DARK_SPOT, LATE_SPOT = range(7, 13)

TISSUES: Final = MappingProxyType(
    {
        BACKGROUND: "background",
        GREY: "grey matter",
        WHITE: "white matter",
        FLUID: "cerebrospinal fluid",
        CORE: "ischaemic core",
        PENUMBRA: "penumbra",
        DELAYED: "delayed territory",
        TUMOUR_CORE: "tumour core",
        TUMOUR_RIM: "tumour rim",
        OEDEMA: "oedema",
        BRIGHT_SPOT: "small hyperperfused lesion",
        DARK_SPOT: "small hypoperfused lesion",
        LATE_SPOT: "small late lesion",
    }
)
"""Names of the codes of a tissue map."""


@dataclass
class _Maps:
    """Maps of a batch while lesions are put in."""

    cbf: Tensor
    att: Tensor
    tissue: Tensor
    parenchyma: Tensor
    voxel: Tensor

    def part(self, index: Tensor) -> _Maps:
        return _Maps(
            self.cbf[index],
            self.att[index],
            self.tissue[index],
            self.parenchyma[index],
            self.voxel[index],
        )

    def put(self, index: Tensor, part: _Maps) -> None:
        self.cbf[index], self.att[index] = part.cbf, part.att
        self.tissue[index] = part.tissue

    def mark(self, weight: Tensor, code: int, active: Tensor | None = None) -> None:
        inside = (weight > 0.5) & (self.tissue != BACKGROUND) & (self.tissue != FLUID)
        if active is not None:
            inside &= spread(active, 2)
        self.tissue = torch.where(inside, code, self.tissue).to(torch.uint8)


def _centre(weight: Tensor, generator: Generator) -> Tensor:
    """Draw a pixel for each map of weights (n, H, W); row and column, (n, 2)."""
    flat = weight.flatten(1)
    # Where nothing is eligible any pixel may be hit; the lesion then lies outside the brain.
    flat = flat + (flat.sum(1, keepdim=True) <= 0)
    hit = torch.multinomial(flat, 1, generator=generator)[:, 0]
    return torch.stack([hit // weight.shape[-1], hit % weight.shape[-1]], 1)


@dataclass(frozen=True)
class _Blob:
    """Distance from a lesion's middle in units of its radius, with an irregular outline."""

    level: Tensor
    edge: Tensor

    def profile(self, radius: Tensor | float = 1.0) -> Tensor:
        """Weight 1 inside a fraction of the radius, 0 outside, (n, H, W)."""
        r = spread(torch.as_tensor(radius, device=self.level.device).expand(len(self.level)), 2)
        return torch.sigmoid((r - self.level) / self.edge)


def _blob(
    centre: Tensor,
    radius: Tensor,
    size: int,
    sharp_pixels: tuple[float, float],
    roughness: tuple[float, float],
    generator: Generator,
) -> _Blob:
    """Form irregular ellipses; radius (n, 2) and the width of the edge are in pixels."""
    n = len(centre)
    pixel = torch.arange(size, device=centre.device, dtype=torch.float32)
    y = pixel[None, :, None] - spread(centre[:, 0] + uniform(generator, (n,), (-0.5, 0.5)), 2)
    x = pixel[None, None, :] - spread(centre[:, 1] + uniform(generator, (n,), (-0.5, 0.5)), 2)
    angle = spread(uniform(generator, (n,), (0.0, torch.pi)), 2)
    stretch = spread(log_uniform(generator, (n,), (0.75, 1.35)), 2)
    along, across = y * angle.cos() + x * angle.sin(), x * angle.cos() - y * angle.sin()
    mean_radius = radius.mean(1)
    level = ((along * stretch) ** 2 + (across / stretch) ** 2).sqrt() / spread(mean_radius, 2)
    lumps = smooth_field(generator, 1, size, (0.45 * mean_radius).clamp(min=1.5), nodes=40)[:, 0]
    level = level + spread(uniform(generator, (n,), roughness), 2) * lumps
    edge = spread(log_uniform(generator, (n,), sharp_pixels) / mean_radius, 2)
    return _Blob(level, edge)


def _stroke(maps: _Maps, area: Territories, generator: Generator) -> None:
    """Put an infarct, its penumbra and the delay of its territory into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    artery = choose(generator, n, [0.17, 0.58, 0.17, 0.08])
    share = area.share[torch.arange(n, device=artery.device), artery]
    right = spread(chance(generator, (n,), 0.5), 2)
    side = torch.where(right, area.right, 1 - area.right)
    fed = share * side
    centre = _centre(maps.parenchyma * fed.clamp(min=0.05) * side, generator)
    reach = log_uniform(generator, (n,), (12.0, 55.0))
    blob = _blob(centre, reach[:, None] / maps.voxel, size, (0.3, 3.0), (0.05, 0.3), generator)
    fed = torch.sigmoid((fed - 0.5) * 10)
    # Lacunes know no territory.
    fed = torch.where(spread(reach < 18, 2), side, fed)

    kind = choose(generator, n, [0.6, 0.15, 0.15, 0.1])
    core_size = uniform(generator, (n,), (0.3, 0.8))
    core_size = torch.where(kind == 1, 1.0, core_size)  # completed infarct
    core_size = torch.where(kind == 2, -1.0, core_size)  # no core: transient attack
    core = blob.profile(core_size) * fed
    penumbra = blob.profile() * fed
    wide = blob.profile(uniform(generator, (n,), (1.2, 2.2))) * fed

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    luxury = spread(kind == 3, 2)
    core_factor = torch.where(luxury, drawn((1.2, 2.2)), drawn((0.02, 0.3)))
    factor = 1 + wide * (drawn((0.75, 1.0)) - 1)
    factor = factor * (1 + penumbra * (drawn((0.3, 0.7)) - 1))
    core_now = torch.lerp(maps.cbf * factor, maps.cbf * core_factor, core)
    maps.cbf = core_now
    late = wide * drawn((0.1, 0.9)) + penumbra * drawn((0.2, 1.2))
    early = torch.where(luxury, drawn((-0.4, 0.2)), drawn((0.3, 1.6)))
    maps.att = maps.att + torch.lerp(late, early, core)
    maps.mark(wide, DELAYED)
    maps.mark(penumbra, PENUMBRA)
    maps.mark(core, CORE)


def _tumour(maps: _Maps, config: PhantomConfig, generator: Generator) -> None:
    """Put a tumour with core, rim and oedema into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    centre = _centre(maps.parenchyma, generator)
    reach = log_uniform(generator, (n,), (7.0, 32.0))
    blob = _blob(centre, reach[:, None] / maps.voxel, size, (0.3, 2.5), (0.03, 0.2), generator)

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    inside = maps.parenchyma.clamp(max=1)
    oedema = blob.profile(uniform(generator, (n,), (1.1, 1.9))) * inside
    maps.cbf = maps.cbf * (1 + oedema * (drawn((0.45, 0.95)) - 1))
    maps.att = maps.att + oedema * drawn((0.0, 0.4))
    hyper = spread(chance(generator, (n,), 0.65), 2)
    rim_cbf = torch.where(hyper, drawn((60.0, config.tumour_cbf_limit)), drawn((8.0, 45.0)))
    necrotic = spread(chance(generator, (n,), 0.6), 2)
    core_cbf = torch.where(necrotic, drawn((1.0, 20.0)), rim_cbf * drawn((0.6, 1.4)))
    grain = smooth_field(generator, 1, size, (0.3 * reach / maps.voxel.mean(1)).clamp(min=2), 32)
    texture = torch.exp(drawn((0.05, 0.25)) * grain[:, 0])
    rim = blob.profile()
    core = blob.profile(uniform(generator, (n,), (0.35, 0.75)))
    own_cbf = torch.lerp(rim_cbf, core_cbf, core) * texture
    maps.cbf = torch.lerp(maps.cbf, own_cbf.clamp(max=config.tumour_cbf_limit), rim)
    shift = torch.lerp(
        torch.where(hyper, drawn((-0.5, 0.2)), drawn((0.0, 0.7))), drawn((0.0, 1.0)), core
    )
    maps.att = maps.att + rim * shift
    maps.mark(oedema, OEDEMA)
    maps.mark(rim, TUMOUR_RIM)
    maps.mark(core, TUMOUR_CORE)


def _stenosis(maps: _Maps, area: Territories, generator: Generator) -> None:
    """Delay the carotid's territories of one side, now and then of both."""
    n = len(maps.cbf)

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    right = spread(chance(generator, (n,), 0.5), 2)
    side = torch.where(right, area.right, 1 - area.right)
    other = spread(chance(generator, (n,), 0.2), 2) * drawn((0.3, 1.0))
    side = torch.lerp(other.expand_as(side), torch.ones_like(side), side)
    # Collaterals often spare the anterior territory.
    spared = torch.where(spread(chance(generator, (n,), 0.4), 2), drawn((0.0, 1.0)), 1.0)
    fed = side * (area.share[:, MIDDLE] + spared * area.share[:, ANTERIOR])
    delay = drawn((0.3, 1.7))
    maps.att = maps.att + fed * delay * (1 + drawn((0.0, 0.5)) * area.watershed)
    maps.cbf = maps.cbf * (1 - fed * drawn((0.0, 0.4)) * (1 + 0.3 * area.watershed))
    maps.mark(fed, DELAYED)


def _spots(maps: _Maps, generator: Generator) -> None:
    """Put one small lesion, 3 to 9 pixels across, into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    centre = _centre(maps.parenchyma, generator)
    radius = log_uniform(generator, (n,), (1.5, 4.5))
    spot = _blob(centre, radius[:, None].expand(n, 2), size, (0.15, 0.6), (0.0, 0.1), generator)
    weight = spot.profile() * maps.parenchyma.clamp(max=1)

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    kind = choose(generator, n, [0.4, 0.3, 0.3])
    bright, dark, late = (spread(kind == k, 2) for k in range(3))
    target = torch.where(
        bright, torch.maximum(maps.cbf * drawn((1.3, 2.5)), drawn((40.0, 130.0))), maps.cbf
    )
    target = torch.where(dark, maps.cbf * drawn((0.0, 0.7)), target)
    maps.cbf = torch.lerp(maps.cbf, target, weight)
    shift = torch.where(late, drawn((0.3, 1.8)), drawn((-0.3, 0.3)))
    maps.att = maps.att + weight * shift
    for k, code in enumerate((BRIGHT_SPOT, DARK_SPOT, LATE_SPOT)):
        maps.mark(weight, code, kind == k)


def tissue_codes(fractions: Tensor) -> Tensor:
    """Name the tissue that fills most of each pixel; background where brain is under half."""
    code = fractions.argmax(1) + GREY
    return torch.where(fractions.sum(1) > 0.5, code, BACKGROUND).to(torch.uint8)


def add_lesions(
    config: PhantomConfig,
    anatomy: Anatomy,
    physiology: Physiology,
    condition: Tensor,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the lesions of each sample's condition into its maps.

    Returns
    -------
    cbf, att : Tensor, shape (n, H, W)
        mL/100 g/min and s, within the limits of the settings, zero in the background.
    tissue : Tensor of uint8, shape (n, H, W)
        Codes of `TISSUES`.
    """
    area = physiology.territories
    maps = _Maps(
        physiology.cbf.clamp(max=config.cbf_limit),
        physiology.att,
        tissue_codes(anatomy.fractions),
        anatomy.fractions[:, :2].sum(1),
        anatomy.voxel,
    )

    def some(index: Tensor) -> Territories:
        return Territories(
            area.share[index], area.right[index], area.watershed[index], area.distance[index]
        )

    for code in (STENOSIS, STROKE, TUMOUR):
        index = torch.nonzero(condition == code)[:, 0]
        if len(index) == 0:
            continue
        part = maps.part(index)
        if code == STROKE:
            _stroke(part, some(index), generator)
        elif code == STENOSIS:
            _stenosis(part, some(index), generator)
        else:
            _tumour(part, config, generator)
        if code != TUMOUR:
            part.cbf = part.cbf.clamp(max=config.cbf_limit)
        maps.put(index, part)

    spotted = chance(generator, (len(condition),), config.small_lesions)
    for again in (1.0, 0.5, 0.5, 0.5):
        spotted = spotted & chance(generator, (len(condition),), again)
        index = torch.nonzero(spotted)[:, 0]
        if len(index) == 0:
            break
        part = maps.part(index)
        _spots(part, generator)
        maps.put(index, part)

    low, high = config.att
    limit = torch.where(condition == TUMOUR, config.tumour_cbf_limit, config.cbf_limit)
    brain = maps.tissue != BACKGROUND
    cbf = torch.minimum(maps.cbf.clamp(min=0), spread(limit, 2)) * brain
    return cbf, maps.att.clamp(low, high) * brain, maps.tissue
