"""The M0 image of a phantom: anatomy that an estimator may look at beside the signal.

An M0 shows where tissues end at a signal-to-noise ratio that no ΔM has. How much they differ
in it depends on repetition and echo time, coil and field, so contrast, shading, blur and noise
are drawn widely, down to no contrast at all: a network that learns from them takes edges for
hints and trusts the signal where both disagree. Lesions of perfusion often don't show.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from asl_bids_app.training.draws import (
    chance,
    correlated,
    log_uniform,
    normal,
    smooth_field,
    spread,
    uniform,
)
from asl_bids_app.training.noise import displaced
from asl_bids_app.training.tissues import (
    CORE,
    OEDEMA,
    TISSUES,
    TUMOUR_CORE,
    TUMOUR_RIM,
    WHITE_LESION,
)

_ABSENT: Final = 0.12
"""Chance that a run has one number for its M0, or none: no image."""
_FADED: Final = 0.06
"""Chance that the image shows no tissue: smoothed much, or from a reference region."""
_OUTSIDE: Final = 0.15
"""Signal of what is not brain, relative to grey matter, in pixels that hold both."""
_LESIONS: Final = {
    CORE: (0.10, 0.15),
    TUMOUR_CORE: (0.10, 0.20),
    TUMOUR_RIM: (0.0, 0.15),
    OEDEMA: (0.12, 0.10),
    WHITE_LESION: (0.08, 0.08),
}
"""Logarithm of a lesion's contrast where it shows: mean and standard deviation by tissue."""
_ELSE: Final = (0.0, 0.04)
"""The same of other lesions."""


def draw_structure(fractions: Tensor, tissue: Tensor, generator: Generator) -> Tensor:
    """Draw an M0 image of each slice.

    Proton density of white matter is about 0.85 of grey matter's; in images CSF is brighter at
    long repetition times and darker at short ones, and an image that stands in for a missing
    M0 may be background-suppressed: contrasts are drawn around all that.

    Parameters
    ----------
    fractions : Tensor, shape (n, 3, H, W)
        Grey matter, white matter, CSF.
    tissue : Tensor of uint8, shape (n, H, W)
        Codes of `TISSUES`, lesions included.
    generator
        Of everything random.

    Returns
    -------
    Tensor, shape (n, H, W)
        In arbitrary units, about 1 in grey matter; positive in the brain, 0 elsewhere and where
        a sample has no M0 image.
    """
    n, _, size, _ = fractions.shape

    def drawn(span: tuple[float, float]) -> Tensor:
        return spread(uniform(generator, (n,), span), 2)

    usual = spread(chance(generator, (n,), 0.85), 2)
    white = torch.where(usual, drawn((0.72, 1.0)), drawn((0.55, 1.6)))
    fluid = drawn((0.6, 1.7))
    faded = spread(chance(generator, (n,), _FADED), 2)
    white, fluid = torch.where(faded, 1.0, white), torch.where(faded, 1.0, fluid)
    # Deep grey matter is nearly as dark as white matter; myelin differs from place to place.
    pixels = uniform(generator, (n,), (5.0, 16.0))
    local = smooth_field(generator, 2, size, pixels)
    depth = drawn((0.0, 0.08))
    grey_map = torch.exp(depth * local[:, 0])
    white_map = white * torch.exp(0.5 * depth * local[:, 1])
    grey, white_share, fluid_share = fractions.unbind(1)
    outside = (1 - fractions.sum(1)).clamp(min=0)
    image = grey * grey_map + white_share * white_map + fluid_share * fluid + outside * _OUTSIDE

    image = image * _lesion_contrast(tissue, generator)
    grain = correlated(generator, 1, size, size, uniform(generator, (n,), (0.3, 1.0)))[:, 0]
    image = image * torch.exp(drawn((0.0, 0.04)) * grain)
    image = _blurred(image, log_uniform(generator, (n,), (0.05, 1.2)))
    # Head motion between M0 and label that registration has left.
    restless = uniform(generator, (n, 1, 1), (0.0, 0.4))
    image = displaced(image[:, None], restless * normal(generator, (n, 1, 2)))[:, 0]
    shading = smooth_field(generator, 1, size, uniform(generator, (n,), (16.0, 40.0)))[:, 0]
    image = image * torch.exp(drawn((0.0, 0.35)) * shading)
    noise = spread(log_uniform(generator, (n,), (0.003, 0.08)), 2)
    image = image + noise * normal(generator, tuple(image.shape))
    there = (tissue != 0) & ~spread(chance(generator, (n,), _ABSENT), 2)
    return image.clamp(min=0.02) * there


def _lesion_contrast(tissue: Tensor, generator: Generator) -> Tensor:
    """Return by how much lesions change the image, (n, H, W), a little blurred."""
    n = len(tissue)
    table = torch.tensor(
        [_LESIONS.get(code, _ELSE) if code >= CORE else (0.0, 0.0) for code in TISSUES],
        device=tissue.device,
    )
    mean, sd = table.unbind(1)
    shown = chance(generator, (n, len(TISSUES)), 0.5)
    change = torch.where(shown, mean + sd * normal(generator, (n, len(TISSUES))), 0.0)
    maps = torch.gather(change, 1, tissue.long().flatten(1)).reshape(tissue.shape)
    return functional.avg_pool2d(maps[:, None], 3, 1, 1, count_include_pad=False)[:, 0].exp()


def _blurred(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur each slice by a Gaussian of `sigma` pixels, (n,)."""
    pixel = torch.arange(image.shape[-1], device=image.device, dtype=image.dtype)
    square = (pixel[:, None] - pixel[None, :]) ** 2
    weight = torch.exp(-square / (2 * spread(sigma, 2) ** 2))
    weight = weight / weight.sum(-1, keepdim=True)
    return weight @ image @ weight.mT
