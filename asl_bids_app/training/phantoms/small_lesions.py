"""Small lesions: spots, and those of white matter."""

from __future__ import annotations

import torch

from asl_bids_app.training.phantoms.shapes import draw_blobs, random_centre
from asl_bids_app.training.phantoms.tissue_codes import (
    BACKGROUND,
    BRIGHT_SPOT,
    DARK_SPOT,
    LATE_SPOT,
    WHITE_LESION,
    Maps,
)
from asl_bids_app.training.random_draws import (
    Random,
    choose,
    log_uniform,
    spread,
    widest,
)
from asl_bids_app.training.random_fields import smooth_field


def _spots(maps: Maps, generator: Random) -> None:
    """Put one small lesion, 3 to 9 pixels across, into every map."""
    n, size = len(maps.cbf), maps.cbf.shape[-1]
    centre = random_centre(maps.parenchyma, generator)
    # In a coarse grid a large spot would be half a brain.
    area = widest(generator, (maps.tissue != BACKGROUND).flatten(1).sum(1))
    radius = log_uniform(generator, (n,), (1.5, 4.5))
    radius = torch.minimum(radius, (0.12 * area.sqrt()).clamp(min=1.5))
    spot = draw_blobs(
        centre, radius[:, None].expand(n, 2), size, (0.15, 0.6), (0.0, 0.1), generator
    )
    weight = spot.profile() * maps.parenchyma.clamp(max=1)

    kind = choose(generator, n, [0.4, 0.3, 0.3])
    bright, dark, late = (spread(kind == k, 2) for k in range(3))
    target = torch.where(
        bright,
        torch.maximum(
            maps.cbf * maps.drawn(generator, (1.3, 2.5)), maps.drawn(generator, (40.0, 130.0))
        ),
        maps.cbf,
    )
    target = torch.where(dark, maps.cbf * maps.drawn(generator, (0.0, 0.7)), target)
    maps.cbf = torch.lerp(maps.cbf, target, weight)
    shift = torch.where(
        late, maps.drawn(generator, (0.3, 1.8)), maps.drawn(generator, (-0.3, 0.3))
    )
    maps.att = maps.att + weight * shift
    for k, code in enumerate((BRIGHT_SPOT, DARK_SPOT, LATE_SPOT)):
        maps.mark(weight, code, kind == k)


def _white_lesions(maps: Maps, generator: Random) -> None:
    """Put the caps and bands of small-vessel disease around the ventricles of every map."""
    size = maps.cbf.shape[-1]
    x, y, z = maps.place.unbind(1)
    beside = ((x.abs() - 14) / 14) ** 2 + ((y + 12) / 42) ** 2 + ((z - 20) / 20) ** 2
    lumps = smooth_field(generator, 1, size, 6.0 / maps.voxel)[:, 0]
    level = maps.drawn(generator, (0.5, 1.6)) + 0.5 * lumps - beside
    weight = torch.sigmoid(level / 0.15) * maps.fractions[:, 1]
    maps.cbf = maps.cbf * (1 + weight * (maps.drawn(generator, (0.3, 0.8)) - 1))
    maps.att = maps.att + weight * maps.drawn(generator, (0.0, 0.5))
    maps.mark(weight, WHITE_LESION)
