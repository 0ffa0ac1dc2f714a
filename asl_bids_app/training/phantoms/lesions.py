"""What disease does to the maps: lesions of known kind, place, size and edge."""

from __future__ import annotations

import torch
from torch import Tensor

from asl_bids_app.training.config.phantom_config import PhantomConfig
from asl_bids_app.training.phantoms.conditions import (
    ANTERIOR,
    ELDERLY,
    MIDDLE,
    STENOSIS,
    STROKE,
    TUMOUR,
    Physiology,
    Territories,
)
from asl_bids_app.training.phantoms.head_anatomy import Anatomy
from asl_bids_app.training.phantoms.shapes import draw_blobs, random_centre
from asl_bids_app.training.phantoms.small_lesions import _spots, _white_lesions
from asl_bids_app.training.phantoms.tissue_codes import (
    BACKGROUND,
    CORE,
    DELAYED,
    OEDEMA,
    PENUMBRA,
    TUMOUR_CORE,
    TUMOUR_RIM,
    Maps,
    tissue_codes,
)
from asl_bids_app.training.random_draws import (
    Random,
    as_stacks,
    chance,
    choose,
    log_uniform,
    pick,
    spread,
    uniform,
)
from asl_bids_app.training.random_fields import smooth_field

_STROKES = (0.17, 0.58, 0.17, 0.08)
"""Share of anterior, middle, posterior cerebral and vertebrobasilar strokes."""


def _stroke(maps: Maps, area: Territories, generator: Random) -> None:
    """Put an infarct, its penumbra and the delay of its territory into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    # Arteries that feed something in this stack, by how often strokes hit them.
    sides = torch.stack([1 - area.right, area.right], 1)
    fed = maps.parenchyma[:, None, None] * area.share[:, :, None] * sides[:, None]
    often = torch.tensor(_STROKES, device=fed.device)[:, None] * (fed.sum((3, 4)) + 1e-3)
    hit = pick(generator, often.flatten(1))
    sample = torch.arange(n, device=hit.device)
    side = sides[sample, hit % 2]
    centre = random_centre(fed.flatten(1, 2)[sample, hit], generator)
    fed = area.share[sample, hit // 2] * side
    reach = log_uniform(generator, (n,), (12.0, 55.0))
    reach = torch.maximum(reach, 2.2 * maps.voxel.mean(1))
    blob = draw_blobs(
        centre, reach[:, None] / maps.voxel, size, (0.3, 3.0), (0.05, 0.3), generator
    )
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

    luxury = spread(kind == 3, 2)
    core_factor = torch.where(
        luxury, maps.drawn(generator, (1.2, 2.2)), maps.drawn(generator, (0.02, 0.3))
    )
    factor = 1 + wide * (maps.drawn(generator, (0.75, 1.0)) - 1)
    factor = factor * (1 + penumbra * (maps.drawn(generator, (0.3, 0.7)) - 1))
    maps.cbf = torch.lerp(maps.cbf * factor, maps.cbf * core_factor, core)
    late = wide * maps.drawn(generator, (0.1, 0.9)) + penumbra * maps.drawn(generator, (0.2, 1.2))
    early = torch.where(
        luxury, maps.drawn(generator, (-0.4, 0.2)), maps.drawn(generator, (0.3, 1.6))
    )
    maps.att = maps.att + torch.lerp(late, early, core)
    maps.mark(wide, DELAYED)
    maps.mark(penumbra, PENUMBRA)
    maps.mark(core, CORE)


def _tumour(maps: Maps, config: PhantomConfig, generator: Random) -> None:
    """Put a tumour with core, rim and oedema into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    centre = random_centre(maps.parenchyma, generator)
    reach = log_uniform(generator, (n,), (7.0, 32.0))
    blob = draw_blobs(
        centre, reach[:, None] / maps.voxel, size, (0.3, 2.5), (0.03, 0.2), generator
    )

    inside = maps.parenchyma.clamp(max=1)
    oedema = blob.profile(uniform(generator, (n,), (1.1, 1.9))) * inside
    maps.cbf = maps.cbf * (1 + oedema * (maps.drawn(generator, (0.45, 0.95)) - 1))
    maps.att = maps.att + oedema * maps.drawn(generator, (0.0, 0.4))
    hyper = spread(chance(generator, (n,), 0.65), 2)
    rim_cbf = torch.where(
        hyper,
        maps.drawn(generator, (60.0, config.tumour_cbf_limit)),
        maps.drawn(generator, (8.0, 45.0)),
    )
    necrotic = spread(chance(generator, (n,), 0.6), 2)
    core_cbf = torch.where(
        necrotic, maps.drawn(generator, (1.0, 20.0)), rim_cbf * maps.drawn(generator, (0.6, 1.4))
    )
    grain = smooth_field(generator, 1, size, (0.3 * reach / maps.voxel.mean(1)).clamp(min=2), 32)
    texture = torch.exp(maps.drawn(generator, (0.05, 0.25)) * grain[:, 0])
    rim = blob.profile()
    core = blob.profile(uniform(generator, (n,), (0.35, 0.75)))
    own_cbf = torch.lerp(rim_cbf, core_cbf, core) * texture
    maps.cbf = torch.lerp(maps.cbf, own_cbf.clamp(max=config.tumour_cbf_limit), rim)
    shift = torch.lerp(
        torch.where(hyper, maps.drawn(generator, (-0.5, 0.2)), maps.drawn(generator, (0.0, 0.7))),
        maps.drawn(generator, (0.0, 1.0)),
        core,
    )
    maps.att = maps.att + rim * shift
    maps.mark(oedema, OEDEMA)
    # A tumour fills the sulci and ventricles that it grows into.
    maps.mark(rim, TUMOUR_RIM, fluid=True)
    maps.mark(torch.minimum(core, rim), TUMOUR_CORE, fluid=True)


def _stenosis(maps: Maps, area: Territories, generator: Random) -> None:
    """Delay the carotid's territories of one side, now and then of both."""
    n = len(maps.cbf)

    anterior = area.share[:, MIDDLE] + area.share[:, ANTERIOR]
    sides = torch.stack([1 - area.right, area.right], 1)
    seen = (maps.parenchyma * anterior)[:, None] * sides
    hit = pick(generator, seen.sum((2, 3)) + 1e-3)
    side = sides[torch.arange(n, device=hit.device), hit]
    other = spread(chance(generator, (n,), 0.2), 2) * maps.drawn(generator, (0.3, 1.0))
    side = torch.lerp(other.expand_as(side), torch.ones_like(side), side)
    # Collaterals often spare the anterior territory.
    spared = torch.where(
        spread(chance(generator, (n,), 0.4), 2), maps.drawn(generator, (0.0, 1.0)), 1.0
    )
    fed = side * (area.share[:, MIDDLE] + spared * area.share[:, ANTERIOR])
    delay = maps.drawn(generator, (0.3, 1.7))
    maps.att = maps.att + fed * delay * (1 + maps.drawn(generator, (0.0, 0.5)) * area.watershed)
    maps.cbf = maps.cbf * (
        1 - fed * maps.drawn(generator, (0.0, 0.4)) * (1 + 0.3 * area.watershed)
    )
    maps.mark(fed, DELAYED)


def add_lesions(
    config: PhantomConfig,
    anatomy: Anatomy,
    physiology: Physiology,
    condition: Tensor,
    generator: Random,
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the lesions of each sample's condition into its maps.

    Returns
    -------
    cbf, att : Tensor, shape (n, H, W)
        mL/100 g/min and s, within the limits of the settings, zero in the background.
    tissue : Tensor of uint8, shape (n, H, W)
        Codes of `TISSUES`.
    """
    area, stacks = physiology.territories, as_stacks(generator)
    maps = Maps(
        physiology.cbf.clamp(max=config.cbf_limit),
        physiology.att,
        tissue_codes(anatomy.fractions),
        anatomy.fractions,
        anatomy.place,
        anatomy.voxel,
    )

    def select_territories(index: Tensor) -> Territories:
        return Territories(
            area.share[index], area.right[index], area.watershed[index], area.distance[index]
        )

    aged = (condition == ELDERLY) | (condition == STROKE) | (condition == STENOSIS)
    index = torch.nonzero(aged & chance(generator, (len(condition),), config.white_lesions))[:, 0]
    if len(index):
        part = maps.part(index)
        _white_lesions(part, stacks.part(index))
        maps.put(index, part)

    for code in (STENOSIS, STROKE, TUMOUR):
        index = torch.nonzero(condition == code)[:, 0]
        if len(index) == 0:
            continue
        part = maps.part(index)
        own = stacks.part(index)
        if code == STROKE:
            _stroke(part, select_territories(index), own)
        elif code == STENOSIS:
            _stenosis(part, select_territories(index), own)
        else:
            _tumour(part, config, own)
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
        _spots(part, stacks.part(index))
        maps.put(index, part)

    low, high = config.att
    limit = torch.where(condition == TUMOUR, config.tumour_cbf_limit, config.cbf_limit)
    brain = maps.tissue != BACKGROUND
    cbf = torch.minimum(maps.cbf.clamp(min=0), spread(limit, 2)) * brain
    return cbf, maps.att.clamp(low, high) * brain, maps.tissue
