"""Flips, turns and crops of phantoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from asl_bids_app.training.phantoms.drawing import Phantoms


def _map_maps(phantoms: Phantoms, change: Callable[[Tensor], Tensor]) -> Phantoms:
    """Change the maps, leave what is one number a slice."""
    return Phantoms(
        **{
            f.name: change(value) if (value := getattr(phantoms, f.name)).ndim >= 3 else value
            for f in fields(phantoms)
        }
    )


def turned(phantoms: Phantoms, generator: torch.Generator) -> Phantoms:
    """Flip and turn phantoms of square slices at random; every one its own way."""
    depth = phantoms.slices
    switches = torch.randint(2, (4, phantoms.count), generator=generator).bool()
    vertical, horizontal, swap, over = switches.repeat_interleave(depth, 1)

    def change(image: Tensor) -> Tensor:
        def pick(switch: Tensor) -> Tensor:
            return switch.reshape(-1, *(1,) * (image.ndim - 1))

        if depth > 1:
            upside_down = image.reshape(-1, depth, *image.shape[1:]).flip(1).reshape(image.shape)
            image = torch.where(pick(over), upside_down, image)

        image = torch.where(pick(vertical), image.flip(-2), image)
        image = torch.where(pick(horizontal), image.flip(-1), image)
        return torch.where(pick(swap), image.mT, image)

    return _map_maps(phantoms, change)


def cropped(phantoms: Phantoms, size: int, generator: torch.Generator) -> Phantoms:
    """Cut a square of each phantom at random, but so that it isn't mostly air.

    The middle of the square falls on a random pixel of the brain (of the inner slices, if there
    are any), as far as it fits; it is the same in all slices of a phantom.
    """
    n, height, width = phantoms.tissue.shape
    if size >= height and size >= width:
        return phantoms
    depth = phantoms.slices
    brain = (phantoms.mask & phantoms.inner[:, None, None]).flatten(1).float()
    brain = brain.reshape(-1, depth, height * width).sum(1)
    pixel = torch.multinomial(brain + 1e-6, 1, generator=generator)[:, 0]
    pixel = pixel.repeat_interleave(depth)
    corners = []
    for middle, whole in ((pixel // width, height), (pixel % width, width)):
        corners.append((middle - size // 2).clamp(0, max(whole - size, 0)))
    rows = corners[0][:, None] + torch.arange(min(size, height))
    columns = corners[1][:, None] + torch.arange(min(size, width))
    sample = torch.arange(n)[:, None, None]

    def change(image: Tensor) -> Tensor:
        layered = image.movedim(1, -1) if image.ndim == 4 else image
        cut = layered[sample, rows[:, :, None], columns[:, None, :]]
        return cut.movedim(-1, 1) if image.ndim == 4 else cut

    return _map_maps(phantoms, change)
