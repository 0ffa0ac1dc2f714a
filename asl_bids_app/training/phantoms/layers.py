"""What phantoms hold beside CBF and ATT: tissue fractions, mixtures and arteries, in bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

STEPS: Final = MappingProxyType(
    {
        "grey": 1 / 255,
        "white": 1 / 255,
        "white_flow": 1 / 255,
        "white_delay": 0.005,
        "volume": 0.0003,
        "arrival": 0.01,
    }
)
"""What one step of a byte stands for, by layer, in the layers' order."""


@dataclass(frozen=True)
class Layers:
    """Maps of a batch of slices, each (n, H, W).

    Attributes
    ----------
    grey, white : Tensor
        Fractions of grey and white matter; what they and CSF leave is not brain.
    white_flow : Tensor
        Share of a voxel's flow that feeds its white matter.
    white_delay : Tensor
        Seconds by which blood comes later to its white matter than to its grey matter.
    volume : Tensor
        Arterial blood volume, mL/mL.
    arrival : Tensor
        Seconds: arrival in the artery, where there is one.
    """

    grey: Tensor
    white: Tensor
    white_flow: Tensor
    white_delay: Tensor
    volume: Tensor
    arrival: Tensor

    def packed(self) -> Tensor:
        """Return bytes, uint8, shape (n, 6, H, W), rounded to `STEPS`."""
        maps = [(getattr(self, name) / step).round().clamp(0, 255) for name, step in STEPS.items()]
        return torch.stack(maps, 1).to(torch.uint8)


def unpacked(packed: Tensor) -> Layers:
    """Undo `Layers.packed`."""
    maps = zip(packed.unbind(1), STEPS.values(), strict=True)
    return Layers(*(layer.float() * step for layer, step in maps))


assert tuple(STEPS) == tuple(f.name for f in fields(Layers))
